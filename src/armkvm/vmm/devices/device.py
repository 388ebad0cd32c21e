"""What a device of the VMM is: a register window on the bus, a line to the interrupt controller.

Register tables follow the Technical Reference Manuals: offset, name, access class, section. An
access that the manual does not define (reserved offset, wrong width, wrong direction, a value
without meaning) reads as zero or is ignored (RAZ/WI) and is *reported*: the guest must not be able
to raise an exception, to fill a log or to make memory grow. Left out: DMA, clocks, power states.

Devices take no lock. Whoever uses them from several threads holds one around every call.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

# A one-method interrupt trigger: called with the line's new level, on changes only.
Line = Callable[[bool], None]
# Sets a timer of the machine to a guest time in ns, when `tick` is due, or stops it (None).
Arm = Callable[[int | None], None]


class Region(Protocol):
    """A window of addresses that the bus can map.

    Offsets count from the window's base; ``size`` is 1, 2, 4 or 8 bytes; ``cpu`` is the number of
    the CPU that makes the access (banked registers need it).
    """

    name: str
    size: int

    def read(self, offset: int, size: int, cpu: int = 0) -> int: ...

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None: ...


class OddAccess(NamedTuple):
    """A guest access without defined meaning. ``value`` is None for a read."""

    device: str
    offset: int  # from the device's base; an absolute address when the bus reports
    size: int
    cpu: int
    value: int | None
    why: str


Report = Callable[[OddAccess], None]


class OddAccesses:
    """The usual receiver of reports: counts by device and reason, and keeps the last few.

    Reasons are constants of the devices' code, so a guest cannot make this grow. ``watch`` is
    called with each access, for a tracer.
    """

    def __init__(self, watch: Report | None = None) -> None:
        self.count = 0
        self.by_reason: Counter[tuple[str, str]] = Counter()
        self.last: deque[OddAccess] = deque(maxlen=16)
        self.watch = watch

    def __call__(self, odd: OddAccess) -> None:
        self.count += 1
        self.by_reason[odd.device, odd.why] += 1
        self.last.append(odd)
        if self.watch is not None:
            self.watch(odd)


def unreported(_odd: OddAccess) -> None:
    """The receiver of reports for who does not want them."""


def disconnected(_level: bool) -> None:
    """An interrupt line that leads nowhere."""


def on_change(line: Line) -> Line:
    """For a device that tells its line's level after every step: changes alone go on, from low."""
    before = False

    def tell(level: bool) -> None:
        nonlocal before
        if level != before:
            before = level
            line(level)

    return tell


def unarmed(_when: int | None) -> None:
    """The timer of a device whose user calls `tick` by itself."""


@dataclass(frozen=True, slots=True)
class Register:
    """One line of a device's register table."""

    offset: int
    name: str
    access: str  # "RO", "WO" or "RW"
    ref: str  # section of the manual
    bits: int = 32  # writable bits of a register that is plain storage


def primecell_ids(ref: str) -> tuple[Register, ...]:
    """The eight identification registers of a PrimeCell, PeriphID0-3 and PCellID0-3."""
    names = [f"PeriphID{i}" for i in range(4)] + [f"PCellID{i}" for i in range(4)]
    return tuple(Register(0xFE0 + 4 * i, name, "RO", ref) for i, name in enumerate(names))


PCELL_ID = (0x0D, 0xF0, 0x05, 0xB1)


class RegisterBlock:
    """A PrimeCell's 4 KiB of word registers, driven by its table.

    A register is served by the methods ``_read_<name>()`` and ``_write_<name>(value)``; one
    without such a method is plain storage in the field of the same name of ``_state``. An APB
    peripheral sees the low bytes of a narrower access, so 1, 2 and 4 bytes at a register's
    address are all good; other accesses are odd.
    """

    name: str
    size: int = 0x1000
    REGISTERS: ClassVar[tuple[Register, ...]]
    PERIPHERAL_ID: ClassVar[tuple[int, int, int, int]]

    def __init__(self, report: Report) -> None:
        self._report = report
        self._state: Any
        # The access being served: offset, size, cpu, value.
        self._at: tuple[int, int, int, int | None] = (0, 0, 0, None)
        self._readers: dict[int, Callable[[], int]] = {}
        self._writers: dict[int, Callable[[int], None]] = {}
        for register in self.REGISTERS:
            self._install(register)

    def _install(self, register: Register) -> None:
        offset, field = register.offset, register.name.lower()
        mask = (1 << register.bits) - 1

        def load() -> int:
            return int(getattr(self._state, field))

        def store(value: int) -> None:
            setattr(self._state, field, value & mask)

        if offset >= 0xFE0:
            identity = (*self.PERIPHERAL_ID, *PCELL_ID)[(offset - 0xFE0) >> 2]
            self._readers[offset] = lambda: identity
            return
        if "R" in register.access:
            self._readers[offset] = getattr(self, f"_read_{field}", load)
        if register.access != "RO":
            self._writers[offset] = getattr(self, f"_write_{field}", store)

    def tick(self) -> None:
        """Guest time may have passed: nothing to most."""

    def poll(self) -> None:
        """There may be something from outside: nothing to most."""

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        self._at = (offset, size, cpu, None)
        reader = self._readers.get(offset)
        if reader is None or size > 4:
            self._odd(self._why_not(offset, size))
            return 0
        return reader() & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        self._at = (offset, size, cpu, value)
        writer = self._writers.get(offset)
        if writer is None or size > 4:
            self._odd(self._why_not(offset, size))
            return
        writer(value)

    def _odd(self, why: str) -> None:
        offset, size, cpu, value = self._at
        self._report(OddAccess(self.name, offset, size, cpu, value, why))

    def _why_not(self, offset: int, size: int) -> str:
        if size > 4:
            return "wider than a register"
        if offset in self._readers:
            return "write to a read-only register"
        if offset in self._writers:
            return "read of a write-only register"
        return "not at a register's address" if offset & 3 else "reserved register"
