"""Measure armkvm against qemu-system-aarch64 (TCG) in the same run, on the same guests.

boot: from the command to BOOT-OK of the default guest. mips: six small programs, start-up time
subtracted. start: from the command to the first guest instruction. exits: nanoseconds of one exit
of each kind, in this process; QEMU has none. Every figure is the median of --repeat runs, armkvm
and QEMU taking turns; a ratio above 1 means that armkvm is ahead.

check is another matter: armkvm's checker beside SPIN, once, on the same protocol and mutants.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from armkvm.bench import BenchError, mips, rival
from armkvm.bench.rival import Boot
from armkvm.cli.choice import DEFAULT_PARAMS
from armkvm.cli.main import complain
from armkvm.cli.progress import shown
from armkvm.cli.sizes import positive, seconds
from armkvm.vmm.guest import debian
from armkvm.vmm.guest.debian import Progress
from armkvm.vmm.guest.initramfs import default_initramfs

LIMIT = 600.0  # seconds that one run may take
EXITS = 10_000  # of a kind, in one run


@dataclass(frozen=True)
class Row:
    """One figure; None where there is no QEMU, or where it cannot be told from the noise."""

    name: str
    ours: float | None
    qemu: float | None
    unit: str
    ratio: float | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm bench``."""
    parser.add_argument("what", choices=("boot", "mips", "start", "exits", "check"))
    parser.add_argument("--repeat", type=positive, default=3, metavar="N", help="runs (default 3)")
    parser.add_argument("--seconds", type=seconds, default=25.0, metavar="S",
                        help="check: for each search that cannot end (default 25)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.what == "check":
        return _check(args)
    measure = {"boot": boot, "mips": mips_rows, "start": start, "exits": exit_rows}[args.what]
    with_qemu = args.what != "exits" and rival.have_qemu()
    if not with_qemu and args.what != "exits":
        complain(f"{rival.QEMU} is not installed: armkvm's own figures only")
    with tempfile.TemporaryDirectory(prefix="armkvm-bench-") as folder, shown() as progress:
        rows = list(measure(Path(folder), args.repeat, with_qemu, progress))
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        _table(rows, with_qemu)
    return 0


def _check(args: argparse.Namespace) -> int:
    # Imported here: the other figures need no checker.
    from armkvm.bench import spin
    from armkvm.bench.spin import compare, show

    missing = spin.missing()
    if missing:
        complain(f"{missing} not installed: armkvm's own figures only")
    with tempfile.TemporaryDirectory(prefix="armkvm-bench-") as folder, shown() as progress:
        rows = list(compare.rows(Path(folder), args.seconds, not missing, progress))
        hunts = list(compare.hunts(Path(folder), not missing, progress))
    if args.json:
        print(json.dumps(show.as_json(rows, hunts)))
    else:
        show.tables(rows, hunts)
    return 0


def boot(folder: Path, repeat: int, with_qemu: bool, progress: Progress) -> Iterator[Row]:
    """Command to BOOT-OK, caches warm: one run that is not counted comes first."""
    found = debian.fetch(progress=progress)
    initrd = folder / "initramfs.cpio"
    initrd.write_bytes(default_initramfs(found.busybox.read_bytes()))
    what = Boot(found.kernel, initrd, f"{DEFAULT_PARAMS} armkvm.mode=batch")
    yield _time_to(what, b"BOOT-OK", "boot", repeat, with_qemu, progress)


def start(folder: Path, repeat: int, with_qemu: bool, progress: Progress) -> Iterator[Row]:
    """Command to first guest instruction: the guest's first act is to print a character."""
    kernel = folder / "start.bin"
    kernel.write_bytes(mips.program(mips.NOTHING, 1))
    yield _time_to(Boot(kernel), b"+", "start", repeat, with_qemu, progress)


def mips_rows(folder: Path, repeat: int, with_qemu: bool, progress: Progress) -> Iterator[Row]:
    """Million guest instructions a second: of a long run less a short one, start-up falls out.

    Both machines' results must be equal. QEMU does not count, so its rate is of our count. On a
    busy host the start-up of the two runs differs by more than the work takes: no figure then.
    """
    for number, kernel in enumerate(mips.KERNELS):
        progress(kernel.name, number, len(mips.KERNELS))
        boots = []
        for count in (1, kernel.count):
            path = folder / f"{kernel.name}-{count}.bin"
            path.write_bytes(mips.program(kernel, count))
            boots.append(Boot(path))
        short, long = boots
        ours: list[float | None] = []
        theirs: list[float | None] = []
        for _ in range(repeat):
            first, second = rival.whole(short.armkvm(), LIMIT), rival.whole(long.armkvm(), LIMIT)
            count = _instructions(second) - _instructions(first)
            ours.append(_rate(count, first, second))
            if with_qemu:
                before, after = rival.whole(short.qemu(), LIMIT), rival.whole(long.qemu(), LIMIT)
                theirs.append(_rate(count, before, after))
                if after.output.strip() != second.output.strip():
                    raise BenchError(
                        f"{kernel.name}: armkvm says {second.output!r}, QEMU {after.output!r}"
                    )
        yield _row(kernel.name, ours, theirs, "MIPS", lambda mine, other: mine / other)


def exit_rows(folder: Path, repeat: int, with_qemu: bool, progress: Progress) -> Iterator[Row]:
    """What leaving the guest costs; and how much cheaper a tick is with KVM's own vgic."""
    # Imported here: the other figures are of processes, and need no engine in this one.
    from armkvm.bench import exits

    runs = []
    for number in range(repeat):
        progress("exits", number, repeat)
        runs.append(dict(exits.figures(EXITS)))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    for name, ns in median.items():
        yield Row(name, round(ns), None, "ns", None)
    for kernel in ("tick-kernel-gicv2", "tick-kernel-gicv3"):
        times = median["tick-gicv2"] / median[kernel]
        yield Row(f"tick-gicv2 / {kernel}", round(times, 2), None, "x", None)


def _time_to(
    what: Boot, text: bytes, name: str, repeat: int, with_qemu: bool, progress: Progress
) -> Row:
    progress(f"{name}: warming up", 0, 0)
    rival.until(what.armkvm(), text, LIMIT)
    ours: list[float | None] = []
    theirs: list[float | None] = []
    for number in range(repeat):
        progress(name, number, repeat)
        ours.append(rival.until(what.armkvm(), text, LIMIT))
        if with_qemu:
            theirs.append(rival.until(what.qemu(), text, LIMIT))
    return _row(name, ours, theirs, "s", lambda mine, other: other / mine)


def _row(
    name: str,
    ours: list[float | None],
    theirs: list[float | None],
    unit: str,
    ahead: Callable[[float, float], float],
) -> Row:
    mine = _median(ours)
    other = _median(theirs)
    for who, runs, median in (("armkvm", ours, mine), (rival.QEMU, theirs, other)):
        if runs and median is None:
            complain(f"{name}: {who}'s times are too noisy: take an idle machine or more --repeat")
    ratio = round(ahead(mine, other), 3) if mine and other else None
    return Row(name, mine, other, unit, ratio)


def _median(runs: list[float | None]) -> float | None:
    """Of the runs that gave a figure, if most of them did."""
    figures = [run for run in runs if run is not None]
    return round(statistics.median(figures), 3) if 2 * len(figures) > len(runs) else None


def _rate(count: int, short: rival.Run, long: rival.Run) -> float | None:
    """Million a second; None if what the work took is little beside the start-up."""
    took = long.seconds - short.seconds
    return count / 1e6 / took if took > short.seconds / 4 else None


def _instructions(run: rival.Run) -> int:
    return int(json.loads(run.errors.splitlines()[-1])["instructions"])


def _table(rows: list[Row], with_qemu: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="ratio above 1: armkvm is ahead" if with_qemu else None)
    table.add_column("")
    headings = ("armkvm", "QEMU", "unit", "ratio") if with_qemu else ("armkvm", "unit")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = {"armkvm": _cell(row.ours), "QEMU": _cell(row.qemu), "unit": row.unit}
        cells["ratio"] = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, *(cells[heading] for heading in headings))
    Console().print(table)


def _cell(figure: float | None) -> str:
    return "too noisy" if figure is None else f"{figure:g}"
