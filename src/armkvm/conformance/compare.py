"""Compare a log with the ground truth, section by section.

A section is what follows a line ``== heading``. Everything must be equal, with three exceptions,
and all of them are named here:

- `LOOPS`: an interrupt that ends KVM_RUN while the guest spins may hit any instruction of the loop,
  so that line's PC is free within the loop. This holds where nothing but the host's own tick or the
  timer's interrupt ends the run; where the guest's write traps, the PC is exact.
- `TWO_THREADS`: two threads write, each in its own order.
- `DEPARTURES`: armkvm leaves a bug of 6.12 out on purpose, or has no AArch32 to offer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from armkvm.conformance.cases.lines import FROM_OTHER_THREAD

HOSTS = ("nvhe-gicv2", "vhe-gicv3")


@dataclass(frozen=True)
class Loop:
    """Run `run` of section `section` ends at a PC between `first` and `last`, on these hosts."""

    section: str
    run: int
    first: int
    last: int
    hosts: tuple[str, ...] = HOSTS


LOOPS = (
    # IMASK is set, then ENABLE cleared, without a trap: the next tick of the host shows it.
    Loop("T2", 4, 0x68, 0x78),
    Loop("T2", 8, 0xB0, 0xC0),
    # The timer expires around the guest's own look at ISTATUS: in the loop, or behind it up to the
    # store that leaves the guest.
    Loop("T3", 3, 0x5C, 0x68),
    Loop("T13", 3, 0x5C, 0x68),
    # The guest spins until its interrupt handler has run: anywhere in the loop.
    Loop("T9", 1, 0x54, 0x58),
    # As T2, but only where the physical timer is the hardware's.
    Loop("T12", 4, 0x68, 0x78, hosts=("vhe-gicv3",)),
    Loop("T12", 8, 0xB0, 0xC0, hosts=("vhe-gicv3",)),
)

TWO_THREADS = ("L2",)


@dataclass(frozen=True)
class Departure:
    """In `section` the lines `theirs` are a bug, or a feature; a KVM without prints `ours`."""

    section: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    why: str


def _vtimer(wfi: int, lost: bool) -> tuple[str, ...]:
    """What a guest reports that waits for its timer's interrupt with a WFI at `wfi`."""
    asleep = [f"ret=-1 errno=EINTR   exit=INTR         irq_level=0 t= SIGALRM pc=+{wfi + 4:#x}"]
    reports = ((0x0, 0x2), (0x8, 0x5), (0x28, 0x3FF if lost else 27), (0xFF0, 0xEE))
    runs = [
        "ret=0  errno=0       exit=MMIO         irq_level=0 t="
        f" MMIO W +{offset:#x} len=4 data={data:#x} pc=+{wfi + 8 + 8 * number:#x}"
        for number, (offset, data) in enumerate(reports)
    ]
    lines = asleep * lost + runs
    return tuple(f"   #{number:<2} {line}" for number, line in enumerate(lines, 1))


def _el1_32bit(value: int) -> tuple[str, ...]:
    return (f" KVM_CHECK_EXTENSION KVM_CAP_ARM_EL1_32BIT(93) = {value}",)


DEPARTURES = (
    *(
        Departure("P3", _vtimer(wfi, True), _vtimer(wfi, False), "6.12 loses the timer's interrupt")
        for wfi in (0x78, 0x7C)  # vgic v2, vgic v3
    ),
    Departure("caps", _el1_32bit(1), _el1_32bit(0), "no AArch32"),
)

_RUN = re.compile(r"   #(\d+) .* exit=INTR .* pc=\+0x([0-9a-f]+)")
_BEGIN, _END = "== caps", "ORACLE-DONE"


@dataclass
class Section:
    """A heading (empty for what comes before the first) and the lines under it."""

    heading: str
    lines: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The heading's first word."""
        return self.heading.partition(" ")[0]


@dataclass
class Difference:
    """One section of the comparison. `diff` is empty where the two agree."""

    heading: str
    lines: int
    diff: list[str]
    excused: int  # lines that differ, and may
    departures: tuple[str, ...] = ()  # why some of them may

    @property
    def same(self) -> bool:
        """The section agrees."""
        return not self.diff


def normalise(console: str) -> list[str]:
    """The log's lines out of a console's: without what is around it, without times and counts."""
    lines: list[str] = []
    inside = False
    for line in console.replace("\r", "").splitlines():
        inside = inside or line == _BEGIN
        if inside:
            line = re.sub(r"t= *[0-9.]+ms", "t=", line, count=1)
            line = re.sub(r"CNT=[0-9a-f]+", "CNT=X", line, count=1)
            lines.append(re.sub(r"CNT now=[0-9]+", "CNT now=X", line, count=1))
        if line == _END:
            break
    return lines


def sections(lines: list[str]) -> list[Section]:
    """Cut a log into its sections. Its last line, which says that all is done, is one too."""
    found: list[Section] = []
    for line in lines:
        if line.startswith("== ") or line == _END:
            found.append(Section(line.removeprefix("== ")))
        elif found:
            found[-1].lines.append(line)
        elif line:
            found.append(Section("", [line]))
    return found


def compare(log: list[str], truth: list[str], host: str) -> list[Difference]:
    """All sections of both, in the truth's order. `host` (one of HOSTS) says what may differ."""
    got = {section.heading: section for section in sections(log)}
    want = {section.heading: section for section in sections(truth)}
    result = []
    for heading in [*want, *(heading for heading in got if heading not in want)]:
        if heading not in got:
            result.append(Difference(heading, len(want[heading].lines), ["- the section"], 0))
        elif heading not in want:
            result.append(Difference(heading, len(got[heading].lines), ["+ the section"], 0))
        else:
            result.append(_section(got[heading], want[heading], host))
    return result


def _section(got: Section, want: Section, host: str) -> Difference:
    ours, theirs = _canonical(got, host), _canonical(want, host)
    diff = [
        line
        for line in difflib.unified_diff(theirs, ours, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    excused = 0
    if not diff:
        pairs = zip(_without_bugs(got), _without_bugs(want), strict=True)
        excused = sum(a != b for a, b in pairs)
    departures = {bug.why for bug in _bugs(got) if _count(bug, got) != _count(bug, want)}
    return Difference(want.heading, len(want.lines), diff, excused, tuple(sorted(departures)))


def _canonical(section: Section, host: str) -> list[str]:
    lines = [_free_pc(line, section.name, host) for line in _without_bugs(section)]
    if section.name in TWO_THREADS:
        lines.sort(key=lambda line: FROM_OTHER_THREAD in line)
    return lines


def _bugs(section: Section) -> list[Departure]:
    return [bug for bug in DEPARTURES if bug.section == section.name]


def _count(bug: Departure, section: Section) -> int:
    """How often a section shows a bug."""
    return "\n".join(section.lines).count("\n".join(bug.theirs))


def _without_bugs(section: Section) -> list[str]:
    text = "\n".join(section.lines)
    for bug in _bugs(section):
        text = text.replace("\n".join(bug.theirs), "\n".join(bug.ours))
    return text.split("\n")


def _free_pc(line: str, name: str, host: str) -> str:
    match = _RUN.fullmatch(line)
    if match is None:
        return line
    run, pc = int(match[1]), int(match[2], 16)
    for loop in _loops(name, host):
        if loop.run == run and loop.first <= pc <= loop.last:
            return f"{line[: match.start(2)]}{loop.first:x}..{loop.last:x}"
    return line


def _loops(name: str, host: str) -> Iterator[Loop]:
    return (loop for loop in LOOPS if loop.section == name and host in loop.hosts)
