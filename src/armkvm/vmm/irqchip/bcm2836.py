"""The BCM2836 ARM-local peripherals: the interrupt controller of a Raspberry Pi 2 that is no GIC.

Mirrors "ARM Quad A7 core", QA7 rev 3.4 (Broadcom, 18-08-2014), chapters 3 and 4: per core four
timer inputs, four mailboxes, the GPU's interrupt, the performance monitor's; routing to IRQ or FIQ;
the local timer. There is no acknowledge, no priority and no active state: a source register shows
the levels that are enabled, and the line is their OR.

Departures: the core timer is KVM's, so CONTROL and the prescaler scale only what the core timer
access registers show. Left out: the AXI counters (read as idle), the peripheral interrupts 1-15,
which the chip leaves unconnected.

Threat model: registers are masked integers in arrays of fixed size; only words at a register's
address have a meaning, everything else is RAZ/WI and reported; the lines are moved on changes only.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from armkvm.arch.word import M64
from armkvm.vmm.devices.device import Arm, OddAccess, Report, unarmed, unreported

CORES = 4
MAILBOXES = 4

# Core timer inputs, bits of a core's interrupt source (section 4.10).
CNTPS, CNTPNS, CNTHP, CNTV = range(4)
SOURCE_MAILBOX0 = 4
SOURCE_GPU = 8
SOURCE_PMU = 9
SOURCE_LOCAL_TIMER = 11


class R:
    """Offsets of registers; those of which every core has one are four words each."""

    CONTROL, PRESCALER, GPU_ROUTING = 0x00, 0x08, 0x0C
    PM_ROUTING_SET, PM_ROUTING_CLEAR = 0x10, 0x14
    CORE_TIMER_LS, CORE_TIMER_MS = 0x1C, 0x20
    LOCAL_ROUTING, AXI_COUNTERS, AXI_IRQ = 0x24, 0x2C, 0x30
    LOCAL_TIMER, LOCAL_TIMER_FLAGS = 0x34, 0x38
    TIMER_CONTROL, MAILBOX_CONTROL = 0x40, 0x50
    IRQ_SOURCE, FIQ_SOURCE = 0x60, 0x70
    MAILBOX_SET, MAILBOX_CLEAR = 0x80, 0xC0  # four a core
    END = 0x100


# Bits that can be written (sections 4.1 to 4.8); the rest of a word reads as zero.
CONTROL_BITS = 0x300
CONTROL_APB_CLOCK, CONTROL_INCREMENT_2 = 0x100, 0x200
WORD = 0xFFFF_FFFF

CRYSTAL_HZ = 19_200_000
LOCAL_TIMER_HZ = 2 * CRYSTAL_HZ  # section 3.1.4: it counts both edges
LT_RELOAD = (1 << 28) - 1
LT_ENABLE, LT_IRQ_ENABLE, LT_FLAG = 1 << 28, 1 << 29, 1 << 31
LT_CLEAR, LT_RELOAD_NOW = 1 << 31, 1 << 30  # in the flags register

CpuLine = Callable[[int, bool], None]


@dataclass(slots=True)
class LocalState:
    """Everything that a snapshot holds."""

    control: int = 0
    prescaler: int = 0
    gpu_routing: int = 0
    pm_routing: int = 0
    local_routing: int = 0
    axi_irq: int = 0
    local_timer: int = 0  # reload value and enable bits
    local_flag: bool = False
    local_zero_ns: int = 0  # when the local timer reaches zero next
    counter_offset: int = 0  # of the core timer access registers
    counter_ms: int = 0  # latched by a read of the low half
    timer_control: list[int] = field(default_factory=lambda: [0] * CORES)
    mailbox_control: list[int] = field(default_factory=lambda: [0] * CORES)
    mailboxes: list[int] = field(default_factory=lambda: [0] * (CORES * MAILBOXES))
    # Inputs
    timers: list[int] = field(default_factory=lambda: [0] * CORES)
    pmu: int = 0  # a bit a core
    gpu_irq: bool = False
    gpu_fiq: bool = False


class Bcm2836:
    """``set_irq(core, level)`` and ``set_fiq(core, level)`` are called on changes of level only.

    ``now`` is the machine's clock in ns. ``arm`` is told ``deadline``
    whenever it moves: `tick` shall be called then.
    """

    name = "bcm2836-l1-intc"
    size = 0x100

    def __init__(
        self,
        cores: int,
        set_irq: CpuLine,
        set_fiq: CpuLine,
        now: Callable[[], int],
        arm: Arm = unarmed,
        *,
        report: Report = unreported,
    ) -> None:
        if not 1 <= cores <= CORES:
            raise ValueError(f"a BCM2836 has 1 to {CORES} cores, not {cores}")
        self.cores = cores
        self._set = (set_irq, set_fiq)
        self._now = now
        self._arm = arm
        self._told: int | None = None  # the deadline
        self._report = report
        self._state = LocalState()
        self._lines = [[False] * cores, [False] * cores]  # IRQs, FIQs

    # Inputs

    def set_timer(self, core: int, timer: int, level: bool) -> None:
        """The output of a core's timer: CNTPS, CNTPNS, CNTHP or CNTV."""
        bit = 1 << timer
        timers = self._state.timers
        timers[core] = timers[core] | bit if level else timers[core] & ~bit
        self._refresh()

    def set_pmu(self, core: int, level: bool) -> None:
        """The interrupt of a core's performance monitor."""
        s = self._state
        s.pmu = s.pmu | 1 << core if level else s.pmu & ~(1 << core)
        self._refresh()

    def set_gpu_irq(self, level: bool) -> None:
        """The IRQ of the second controller, for the core that GPU_ROUTING says."""
        self._state.gpu_irq = level
        self._refresh()

    def set_gpu_fiq(self, level: bool) -> None:
        """Its FIQ."""
        self._state.gpu_fiq = level
        self._refresh()

    # Outputs

    def source(self, core: int, fiq: bool) -> int:
        """A core's interrupt source register (section 4.10): what is up, enabled, routed there.

        Where a source is enabled for both, it is an FIQ (sections 4.6, 4.7).
        """
        s = self._state
        mail = s.mailboxes[core * MAILBOXES : (core + 1) * MAILBOXES]
        full = sum(1 << n for n, value in enumerate(mail) if value)
        timers = _routed(s.timers[core], s.timer_control[core], fiq)
        source = timers | _routed(full, s.mailbox_control[core], fiq) << SOURCE_MAILBOX0
        gpu, route = (s.gpu_fiq, s.gpu_routing >> 2) if fiq else (s.gpu_irq, s.gpu_routing)
        if gpu and route & 3 == core:
            source |= 1 << SOURCE_GPU
        if s.pmu >> core & 1 and _routed(1, s.pm_routing >> core & 0x11, fiq):
            source |= 1 << SOURCE_PMU
        if s.local_flag and s.local_timer & LT_IRQ_ENABLE and s.local_routing == core + 4 * fiq:
            source |= 1 << SOURCE_LOCAL_TIMER
        return source

    def _refresh(self) -> None:
        for fiq, lines in enumerate(self._lines):
            for core in range(self.cores):
                level = self.source(core, bool(fiq)) != 0
                if level != lines[core]:
                    lines[core] = level
                    self._set[fiq](core, level)
        if self.deadline != self._told:
            self._told = self.deadline
            self._arm(self._told)

    # The local timer

    @property
    def deadline(self) -> int | None:
        """When the local timer's zero will be an interrupt, in ns; None: by itself, never."""
        s = self._state
        both = LT_ENABLE | LT_IRQ_ENABLE
        return s.local_zero_ns if s.local_timer & both == both and not s.local_flag else None

    def tick(self) -> None:
        """Time has passed: at zero the flag is set, and the count begins again (section 4.11)."""
        s = self._state
        now = self._now()
        if s.local_timer & LT_ENABLE and now >= s.local_zero_ns:
            period = self._period()
            s.local_zero_ns += (now - s.local_zero_ns) // period * period + period
            s.local_flag = True
            self._refresh()

    def _period(self) -> int:
        # A reload value of zero would be a timer without end; it counts as one.
        return max((self._state.local_timer & LT_RELOAD) * 10**9 // LOCAL_TIMER_HZ, 1)

    # Registers

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        if size != 4 or offset & 3:
            return self._odd(offset, size, cpu, None, "width or alignment")
        self.tick()
        s = self._state
        core = offset >> 2 & 3
        match offset:
            case R.CONTROL:
                return s.control
            case R.PRESCALER:
                return s.prescaler
            case R.GPU_ROUTING:
                return s.gpu_routing
            case R.PM_ROUTING_SET:
                return s.pm_routing
            case R.CORE_TIMER_LS:
                counter = self._counter()
                s.counter_ms = counter >> 32
                return counter & WORD
            case R.CORE_TIMER_MS:
                return s.counter_ms
            case R.LOCAL_ROUTING:
                return s.local_routing
            case R.AXI_COUNTERS:
                return 0
            case R.AXI_IRQ:
                return s.axi_irq
            case R.LOCAL_TIMER:
                return s.local_timer | (LT_FLAG if s.local_flag else 0)
        if R.TIMER_CONTROL <= offset < R.MAILBOX_CONTROL:
            return s.timer_control[core]
        if R.MAILBOX_CONTROL <= offset < R.IRQ_SOURCE:
            return s.mailbox_control[core]
        if R.IRQ_SOURCE <= offset < R.MAILBOX_SET:
            return self.source(core, offset >= R.FIQ_SOURCE)
        if R.MAILBOX_CLEAR <= offset < R.END:
            return s.mailboxes[offset - R.MAILBOX_CLEAR >> 2]
        return self._odd(offset, size, cpu, None, "no such register to read")

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        if size != 4 or offset & 3:
            self._odd(offset, size, cpu, value, "width or alignment")
            return
        value &= WORD
        self.tick()
        s = self._state
        core = offset >> 2 & 3
        if R.TIMER_CONTROL <= offset < R.MAILBOX_CONTROL:
            s.timer_control[core] = value & 0xFF
        elif R.MAILBOX_CONTROL <= offset < R.IRQ_SOURCE:
            s.mailbox_control[core] = value & 0xFF
        elif R.MAILBOX_SET <= offset < R.MAILBOX_CLEAR:
            s.mailboxes[offset - R.MAILBOX_SET >> 2] |= value
        elif R.MAILBOX_CLEAR <= offset < R.END:
            s.mailboxes[offset - R.MAILBOX_CLEAR >> 2] &= ~value
        elif not self._write_global(offset, value):
            self._odd(offset, size, cpu, value, "no such register to write")
            return
        self._refresh()

    def _write_global(self, offset: int, value: int) -> bool:
        """A register that is not one a core; False if there is none."""
        s = self._state
        match offset:
            case R.CONTROL:
                s.control = value & CONTROL_BITS
            case R.PRESCALER:
                s.prescaler = value
            case R.GPU_ROUTING:
                s.gpu_routing = value & 0xF
            case R.PM_ROUTING_SET:
                s.pm_routing |= value & 0xFF
            case R.PM_ROUTING_CLEAR:
                s.pm_routing &= ~value
            case R.CORE_TIMER_LS:
                # The halves are written together: low first, then high (section 4.3).
                s.counter_offset += value - (self._counter() & WORD)
            case R.CORE_TIMER_MS:
                s.counter_offset += (value - (self._counter() >> 32)) << 32
            case R.LOCAL_ROUTING:
                s.local_routing = value & 7
            case R.AXI_IRQ:
                s.axi_irq = value & 0x1F_FFFF
            case R.LOCAL_TIMER:
                starts = value & LT_ENABLE and not s.local_timer & LT_ENABLE
                s.local_timer = value & (LT_RELOAD | LT_ENABLE | LT_IRQ_ENABLE)
                if starts:
                    s.local_zero_ns = self._now() + self._period()
            case R.LOCAL_TIMER_FLAGS:
                if value & LT_CLEAR:
                    s.local_flag = False
                if value & LT_RELOAD_NOW:
                    s.local_zero_ns = self._now() + self._period()
            case _:
                return False
        return True

    def _counter(self) -> int:
        """What these registers show: crystal * prescaler / 2**31 (section 3.1.1)."""
        s = self._state
        ticks = self._now() * CRYSTAL_HZ // 10**9 * s.prescaler >> 31
        if s.control & CONTROL_INCREMENT_2:
            ticks *= 2
        return ticks + s.counter_offset & M64

    def _odd(self, offset: int, size: int, cpu: int, value: int | None, why: str) -> int:
        self._report(OddAccess(self.name, offset, size, cpu, value, why))
        return 0

    # Snapshot

    def state(self) -> LocalState:
        return deepcopy(self._state)

    def restore(self, state: LocalState) -> None:
        """Take over a snapshot; the outputs are moved to where they belong."""
        self._state = deepcopy(state)
        self._told = None
        self._refresh()


def _routed(levels: int, control: int, fiq: bool) -> int:
    """Of four sources, those that a control register's nibbles send to FIQ, or else to IRQ."""
    return levels & (control >> 4 if fiq else control & ~(control >> 4)) & 0xF
