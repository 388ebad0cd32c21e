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
    """One figure; ``qemu`` and ``ratio`` are None where there is no QEMU."""

    name: str
    ours: float
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
        _table(rows)
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

    Both machines' results must be equal. QEMU does not count, so its rate is of our count.
    """
    for number, kernel in enumerate(mips.KERNELS):
        progress(kernel.name, number, len(mips.KERNELS))
        boots = []
        for count in (1, kernel.count):
            path = folder / f"{kernel.name}-{count}.bin"
            path.write_bytes(mips.program(kernel, count))
            boots.append(Boot(path))
        short, long = boots
        ours, theirs = [], []
        for _ in range(repeat):
            first, second = rival.whole(short.armkvm(), LIMIT), rival.whole(long.armkvm(), LIMIT)
            count = _instructions(second) - _instructions(first)
            ours.append(count / 1e6 / (second.seconds - first.seconds))
            if with_qemu:
                before, after = rival.whole(short.qemu(), LIMIT), rival.whole(long.qemu(), LIMIT)
                theirs.append(count / 1e6 / (after.seconds - before.seconds))
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
    ours, theirs = [], []
    for number in range(repeat):
        progress(name, number, repeat)
        ours.append(rival.until(what.armkvm(), text, LIMIT))
        if with_qemu:
            theirs.append(rival.until(what.qemu(), text, LIMIT))
    return _row(name, ours, theirs, "s", lambda mine, other: other / mine)


def _row(
    name: str,
    ours: list[float],
    theirs: list[float],
    unit: str,
    ahead: Callable[[float, float], float],
) -> Row:
    mine = statistics.median(ours)
    if not theirs:
        return Row(name, round(mine, 3), None, unit, None)
    other = statistics.median(theirs)
    return Row(name, round(mine, 3), round(other, 3), unit, round(ahead(mine, other), 3))


def _instructions(run: rival.Run) -> int:
    return int(json.loads(run.errors.splitlines()[-1])["instructions"])


def _table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="ratio above 1: armkvm is ahead")
    table.add_column("")
    for heading in ("armkvm", "QEMU", "unit", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        qemu = "" if row.qemu is None else f"{row.qemu:g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, f"{row.ours:g}", qemu, row.unit, ratio)
    Console().print(table)
