"""What a trace says in numbers: events, exits by reason, and how the timers' lines moved.

For each timer the question of KVM_CAP_ARM_USER_IRQ: how often did its output change, was each
change reported to user space, how long did the longest take to be, and was the guest ever entered
with a level that user space did not know (`unknown_entries`, which must be 0 there)? In virtual
time the hypervisor takes no time but for the accesses that it emulates, and a vCPU that others keep
from running is told when it is its turn again. Nothing is kept but counts and maxima, so traces of
any length can be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from armkvm.trace.lines import IRQ, LEVEL, MASKED, REPORTED
from armkvm.trace.reader import Read


@dataclass
class Wire:
    """One line: how often it moved, and for how long it was high at most. Times in ns."""

    value: int = 0
    edges: int = 0
    longest_high: int = 0
    since: int = 0

    def move(self, ns: int, value: int) -> None:
        """It is at another level from now on."""
        if self.value:
            self.longest_high = max(self.longest_high, ns - self.since)
        self.value, self.since = value, ns
        self.edges += 1


@dataclass
class Timer:
    """One timer of one vCPU."""

    level: Wire = field(default_factory=Wire)
    reported: Wire = field(default_factory=Wire)
    masked: Wire = field(default_factory=Wire)
    slowest_report: int = 0  # ns from a change of the level to the same change of what is reported
    unknown_entries: int = 0  # entries to the guest while the two differ

    def report(self, ns: int) -> None:
        """`reported` has moved; if it agrees with the level now, that took since its change."""
        if self.reported.value == self.level.value:
            self.slowest_report = max(self.slowest_report, ns - self.level.since)


@dataclass
class Summary:
    """The numbers of one trace."""

    events: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)  # from guest code, by reason
    returns: Counter[str] = field(default_factory=Counter)  # of KVM_RUN, by reason
    timers: dict[str, Timer] = field(default_factory=dict)  # by "vcpu0 vtimer"
    lines: dict[str, Wire] = field(default_factory=dict)  # by "vcpu0 irq line"
    guest_ns: dict[str, int] = field(default_factory=dict)  # in guest code, by track
    first_ns: int | None = None
    last_ns: int = 0


def summarise(events: Iterable[Read]) -> Summary:
    """Count."""
    summary = Summary()
    entered: dict[str, int] = {}
    for event in events:
        ns = event.ns
        if summary.first_ns is None:
            summary.first_ns = ns
        summary.last_ns = ns
        if event.value is not None:
            _counter(summary, event.name, ns, event.value)
            continue
        summary.events[event.name] += 1
        if event.name == "kvm_entry":
            entered[event.track] = ns
            _entry(summary, event.track)
        elif event.name == "kvm_exit":
            summary.exits[event.detail] += 1
            ran = ns - entered.pop(event.track, ns)
            summary.guest_ns[event.track] = summary.guest_ns.get(event.track, 0) + ran
        elif event.name == "kvm_userspace_exit":
            summary.returns[event.detail] += 1
    return summary


def _entry(summary: Summary, track: str) -> None:
    # A track is vcpu-<number>-<pid>, a timer vcpu<number> <name>.
    vcpu = "".join(track.split("-")[:2])
    for name in ("vtimer", "ptimer"):
        timer = summary.timers.get(f"{vcpu} {name}")
        if timer is not None and timer.level.value != timer.reported.value:
            timer.unknown_entries += 1


def _counter(summary: Summary, name: str, ns: int, value: int) -> None:
    for what in (LEVEL, REPORTED, MASKED):
        if name.endswith(f" {what}"):
            timer = summary.timers.setdefault(name.removesuffix(f" {what}"), Timer())
            wire = {LEVEL: timer.level, REPORTED: timer.reported, MASKED: timer.masked}[what]
            wire.move(ns, value)
            if what == REPORTED:
                timer.report(ns)
            return
    if name.endswith(f" {IRQ}"):
        summary.lines.setdefault(name, Wire()).move(ns, value)
