"""A bank of GIC interrupts: their state, and the choice of the one with the highest priority.

Mirrors the GICv2 architecture specification (ARM IHI 0048B), section 3.2.4 (the state of an
interrupt), section 4.3.7 (pending status: latch and level) and section 3.3 (prioritization). A
bank is either the 32 SGIs and PPIs of one CPU or all SPIs. One Python integer holds one property
of all of a bank's interrupts, bit i for interrupt i, so that a question about all of them is a
few operations on integers. Left out: registers, groups' enables, targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

SGIS = 16
SGI_MASK = 0xFFFF

# Worse than every priority, no interrupt.
NONE = (256, 0)


@dataclass(slots=True)
class BankState:
    """What a snapshot holds of a bank. ``line`` is the level at the interrupt inputs."""

    enabled: int = 0
    latch: int = 0  # pending by an edge, by GICD_ISPENDR or by an SGI
    line: int = 0
    active: int = 0
    edge: int = 0  # 1: edge-triggered, 0: level-sensitive
    group: int = 0  # 1: Group 1
    priority: list[int] = field(default_factory=list)
    # By SGI number: which CPUs sent it and wait for it to be taken. Empty for SPIs.
    sources: list[int] = field(default_factory=list)

    def copy(self) -> "BankState":
        return replace(self, priority=list(self.priority), sources=list(self.sources))


class Bank:
    """``count`` interrupts; of a private bank the first 16 are SGIs."""

    def __init__(self, count: int, *, private: bool) -> None:
        self.count = count
        self.private = private
        self.mask = (1 << count) - 1
        self.state = BankState(priority=[0] * count)
        if private:
            # SGIs are always enabled (section 3.1.2 leaves it open; GIC-400 and KVM agree) and
            # edge-triggered.
            self.state.enabled = self.state.edge = SGI_MASK
            self.state.sources = [0] * SGIS
        self._by_priority: dict[int, int] = {}
        self._index_priorities()

    def pending(self) -> int:
        """Section 4.3.7: the latch, or the input of a level-sensitive interrupt."""
        s = self.state
        return s.latch | s.line & ~s.edge

    def ready(self, groups: int) -> int:
        """Interrupts that may be forwarded: pending, enabled, in a group that is enabled.

        ``groups`` has bit 0 set for Group 0, bit 1 for Group 1. An interrupt that is active and
        pending is not forwarded again before it is deactivated (section 3.2.4).
        """
        s = self.state
        ready = (s.latch | s.line & ~s.edge) & s.enabled & ~s.active
        if ready and groups != 3:
            ready &= (0, ~s.group, s.group)[groups]
        return ready

    def best(self, ready: int) -> tuple[int, int]:
        """(priority, number) of the highest priority in ``ready``; NONE when that is empty.

        Among equals the lowest number wins; section 3.3 leaves that to the implementation.
        """
        if ready:
            for priority, members in self._levels:
                among = ready & members
                if among:
                    return priority, (among & -among).bit_length() - 1
        return NONE

    def set_line(self, number: int, level: bool) -> bool:
        """Move an input; tell whether it moved."""
        s, bit = self.state, 1 << number
        if level:
            if s.line & bit:
                return False
            s.line |= bit
            s.latch |= bit & s.edge
        else:
            if not s.line & bit:
                return False
            s.line ^= bit
        return True

    def acknowledge(self, number: int) -> int:
        """Pending to active, or active and pending. Returns the CPU that sent an SGI, else 0."""
        s, bit = self.state, 1 << number
        s.active |= bit
        source = 0
        if self.private and number < SGIS:
            source = self.source(number)
            s.sources[number] &= ~(1 << source)
            if s.sources[number]:
                return source  # another CPU's SGI of this number still waits
        # Section 4.3.7: becoming active clears the latch of a level-sensitive interrupt too.
        s.latch &= ~bit
        return source

    def source(self, sgi: int) -> int:
        """The CPU whose SGI is taken next: the lowest."""
        sources = self.state.sources[sgi]
        return max((sources & -sources).bit_length() - 1, 0)

    def send(self, sgi: int, sources: int) -> None:
        """SGIs arrive from a set of CPUs."""
        s = self.state
        s.sources[sgi] |= sources
        if sources:
            s.latch |= 1 << sgi

    def unsend(self, sgi: int, sources: int) -> None:
        """SGIs from a set of CPUs are no longer pending (GICD_CPENDSGIR)."""
        s = self.state
        s.sources[sgi] &= ~sources
        if not s.sources[sgi]:
            s.latch &= ~(1 << sgi)

    def set_priority(self, number: int, priority: int) -> None:
        before = self.state.priority[number]
        if priority == before:
            return
        bit = 1 << number
        self.state.priority[number] = priority
        self._by_priority[before] ^= bit
        self._by_priority[priority] = self._by_priority.get(priority, 0) | bit
        self._sort_levels()

    def restore(self, state: BankState) -> None:
        """Take over a snapshot. ValueError when it is not one of such a bank."""
        size = SGIS if self.private else 0
        if len(state.priority) != self.count or len(state.sources) != size:
            raise ValueError("gicv2 snapshot: a bank has another number of interrupts")
        if not _all_in(state.priority, 0xFF) or not _all_in(state.sources, 0xFF):
            raise ValueError("gicv2 snapshot: a priority or a source is not 8 bits")
        words = [getattr(state, f.name) for f in fields(state) if f.type in (int, "int")]
        if not _all_in(words, self.mask):
            raise ValueError("gicv2 snapshot: state of interrupts that do not exist")
        self.state = state.copy()
        if self.private:
            s = self.state
            s.enabled |= SGI_MASK
            s.edge |= SGI_MASK
            # The latch of an SGI is a summary of its sources.
            s.latch &= ~SGI_MASK
            s.latch |= sum(1 << sgi for sgi, sources in enumerate(s.sources) if sources)
        self._index_priorities()

    def _index_priorities(self) -> None:
        self._by_priority = {}
        for number, priority in enumerate(self.state.priority):
            self._by_priority[priority] = self._by_priority.get(priority, 0) | 1 << number
        self._sort_levels()

    def _sort_levels(self) -> None:
        # A guest uses one or two levels; a hostile one at most 256.
        self._by_priority = {p: members for p, members in self._by_priority.items() if members}
        self._levels = sorted(self._by_priority.items())


def _all_in(values: Sequence[int], mask: int) -> bool:
    return all(value & mask == value for value in values)
