"""PL031, the PrimeCell real time clock: seconds, and an alarm.

Mirrors the PL031 Technical Reference Manual (ARM DDI 0224), chapter 3. Left out: the integration
test registers; the resynchronisation of a load to the next edge of the 1 Hz clock (a load takes
effect at once).

The device reads no clock of its own. It is given a callable that tells the seconds of the
machine's clock, and one that it tells ``deadline``, the second at which ``tick`` shall be called.

Threat model: a guest chooses the counter, the alarm and the mask freely. The counter is an offset
against the given clock modulo 2^32, so nothing overflows; an alarm is one number, so a guest can
cause at most one event per write to the device plus one each 2^32 seconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import floor

from armkvm.vmm.board import LABEL_APB_CLOCK, Describe, Place, interrupt_fdt
from armkvm.vmm.devices.device import (
    Line,
    Register,
    RegisterBlock,
    Report,
    disconnected,
    on_change,
    primecell_ids,
    unarmed,
    unreported,
)
from armkvm.vmm.devices.platform import Fitted, Platform
from armkvm.vmm.fdt import Fdt

# Behind a BCM2836, one of the GPIO block's interrupts.
PLACE = Place(0x0901_0000, 0x1000, spi=2, gpu_irq=52)

WRAP = 1 << 32


@dataclass(slots=True)
class Pl031State:
    """Everything that a snapshot of the RTC holds. Reset values of TRM table 3-1."""

    offset: int = 0  # RTCDR minus the clock's seconds, modulo 2^32, while enabled
    held: int = 0  # RTCDR while not enabled
    due: int | None = None  # second of the clock at which the counter next equals RTCMR
    mr: int = 0
    lr: int = 0
    cr: int = 0
    imsc: int = 0
    ris: int = 0


def fit(platform: Platform) -> Iterator[Fitted]:
    """The machine's clock."""
    clock, timer = platform.clock, platform.timer()

    def alarm(second: int | None) -> None:
        timer(None if second is None else second * 10**9 - clock.epoch_ns)

    rtc = Pl031(
        lambda: clock.wall_ns() // 10**9, platform.line(PLACE), alarm, report=platform.report
    )
    yield Fitted("pl031", PLACE, rtc)


class Pl031(RegisterBlock):
    """``now`` tells seconds (int or float, of any epoch, normally Unix time); ``alarm`` is told
    ``deadline`` whenever it moves.

    ``handover``: the state in which boot firmware leaves the clock: running, telling ``now``.
    Without it the device is as after reset: stopped at 0.
    """

    REGISTERS = (
        Register(0x000, "DR", "RO", "3.3.1"),
        Register(0x004, "MR", "RW", "3.3.2"),
        Register(0x008, "LR", "RW", "3.3.3"),
        Register(0x00C, "CR", "RW", "3.3.4"),
        Register(0x010, "IMSC", "RW", "3.3.5"),
        Register(0x014, "RIS", "RO", "3.3.6"),
        Register(0x018, "MIS", "RO", "3.3.7"),
        Register(0x01C, "ICR", "WO", "3.3.8"),
        *primecell_ids("3.3.9"),
    )
    PERIPHERAL_ID = (0x31, 0x10, 0x14, 0x00)

    name = "pl031"
    _state: Pl031State

    def __init__(
        self,
        now: Callable[[], float],
        irq: Line = disconnected,
        alarm: Callable[[int | None], None] = unarmed,
        *,
        report: Report = unreported,
        handover: bool = True,
    ) -> None:
        super().__init__(report)
        self._now = now
        self._irq = on_change(irq)
        self._alarm = alarm
        self._told: int | None = None  # the deadline
        self._state = Pl031State()
        if handover:
            # RTCMR is still 0 and the counter passed it long ago.
            self._state.cr = 1
            self._state.due = floor(now()) + ((-self._counter()) % WRAP or WRAP)

    @property
    def deadline(self) -> int | None:
        """The second of the clock at which ``tick`` would raise the line; None when never."""
        s = self._state
        return s.due if s.imsc and not s.ris else None

    def tick(self) -> None:
        """Look at the clock: raise the interrupt when the alarm's second has come."""
        s = self._state
        if s.due is not None:
            seconds = floor(self._now())
            if seconds >= s.due:
                s.ris = 1
                s.due += (seconds - s.due) // WRAP * WRAP + WRAP
        self._update()

    def state(self) -> Pl031State:
        """A snapshot. Its times are relative to ``now``: restored later, the RTC has moved on."""
        return replace(self._state)

    def restore(self, state: Pl031State) -> None:
        """Take over a snapshot; the line is moved to where it belongs."""
        self._state = replace(state)
        self._told = None  # where the clock is by now, the same second is another time
        self.tick()

    def fdt(self, fdt: Fdt, place: Place, interrupt: Describe = interrupt_fdt) -> None:
        with fdt.node(f"pl031@{place.base:x}"):
            fdt.prop("compatible", "arm,pl031", "arm,primecell")
            fdt.reg(place.base, place.size)
            interrupt(fdt, place)
            fdt.prop("clocks", fdt.phandle(LABEL_APB_CLOCK))
            fdt.prop("clock-names", "apb_pclk")

    def _counter(self) -> int:
        s = self._state
        return (floor(self._now()) + s.offset) % WRAP if s.cr else s.held

    def _arm(self) -> None:
        """Find when the counter next equals RTCMR (section 2.2.2); that may be at once."""
        s = self._state
        s.due = floor(self._now()) + (s.mr - self._counter()) % WRAP if s.cr else None
        self.tick()

    def _update(self) -> None:
        self._irq(bool(self._state.ris & self._state.imsc))
        if self.deadline != self._told:
            self._told = self.deadline
            self._alarm(self._told)

    def _read_dr(self) -> int:
        return self._counter()

    def _write_mr(self, value: int) -> None:
        # A second that passed unseen belongs to the old alarm.
        self.tick()
        self._state.mr = value & (WRAP - 1)
        self._arm()

    def _write_lr(self, value: int) -> None:
        self.tick()
        s = self._state
        s.lr = s.held = value & (WRAP - 1)
        s.offset = (s.lr - floor(self._now())) % WRAP
        self._arm()

    def _write_cr(self, value: int) -> None:
        # Section 3.3.4: once it is enabled, only a reset stops the counter.
        s = self._state
        if value & 1 and not s.cr:
            s.cr = 1
            s.offset = (s.held - floor(self._now())) % WRAP
            self._arm()

    def _write_imsc(self, value: int) -> None:
        self._state.imsc = value & 1
        self.tick()

    def _read_ris(self) -> int:
        self.tick()
        return self._state.ris

    def _read_mis(self) -> int:
        self.tick()
        return self._state.ris & self._state.imsc

    def _write_icr(self, value: int) -> None:
        self.tick()
        if value & 1:
            self._state.ris = 0
        self._update()
