"""A physical CPU of the host: its two guest timers, their per-CPU interrupts, its hrtimers.

What KVM leaves behind on a CPU is what the next VM there finds, so this state is explicit: whether
a timer's interrupt is enabled at the interrupt controller, and whether it is *active* (taken, not
deactivated yet; an active interrupt does not signal again). The timer registers themselves are in
the state of the guest CPU that is installed: the engine runs them natively.

Models the per-CPU view of irq-gic.c with EOImode 1 and of kernel/irq/manage.c (enable_percpu_irq),
and the scheduler's tick, which on a real host ends every long stay in the guest. Left out:
the distributor, SPIs, priorities.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from armkvm.arch.gic import PPI_PHYSICAL_TIMER, PPI_VIRTUAL_TIMER
from armkvm.arch.timer import NEVER, NS_PER_TICK_SHIFT, armed
from armkvm.arch.word import M64
from armkvm.host.cpu import GuestCpu, GuestState
from armkvm.host.hrtimer import HrtimerBase

if TYPE_CHECKING:
    from armkvm.host.clock import Clock

TICK_PERIOD_NS = 4_000_000  # a host of 250 Hz
RESCHED_TICKS = 10  # a vCPU that runs all the time is scheduled out as often as that
LEAST_SLICE_NS = 20_000  # of a vCPU that has been given a slice


class HostPmu(Protocol):
    """A use of this CPU's PMU, whose deadline is a number of instructions from the entry on."""

    def set_deadline(self, pcpu: PhysicalCpu, /) -> None: ...


class PerCpuIrq:
    """One per-CPU interrupt as this CPU's interface of the host's interrupt controller has it."""

    __slots__ = (
        "_mask_field",
        "_timer",
        "active",
        "enabled",
        "forwarded",
        "handler",
        "hwirq",
        "pcpu",
    )

    def __init__(self, pcpu: PhysicalCpu, hwirq: int, timer: str) -> None:
        self.pcpu = pcpu
        self._timer = timer  # prefix of the timer's fields in the CPU state
        self._mask_field = f"{timer}_masked"
        self.hwirq = hwirq
        self.enabled = True
        self.active = False
        # Forwarded to a vCPU (irq_set_vcpu_affinity): the handler does not deactivate it.
        self.forwarded = False
        self.handler: PerCpuHandler | None = None

    @property
    def masked(self) -> bool:
        """The timer's output does not interrupt this CPU."""
        return self.active or not self.enabled

    def set_active(self, active: bool) -> None:
        """irq_set_irqchip_state(IRQCHIP_STATE_ACTIVE)."""
        if self.active != active:
            self.active = active
            self.apply()

    def enable(self) -> None:
        """enable_percpu_irq()."""
        if not self.enabled:
            self.enabled = True
            self.apply()

    def disable(self) -> None:
        """disable_percpu_irq()."""
        if self.enabled:
            self.enabled = False
            self.apply()

    def apply(self) -> None:
        """Tell the installed guest CPU whether this output ends its run."""
        state = self.pcpu.state
        if state is not None:
            setattr(state, self._mask_field, 1 if self.masked else 0)

    def output(self) -> bool:
        """The timer's output: ENABLE, not IMASK, and the condition met (Arm ARM D11.2.4)."""
        state = self.pcpu.state
        if state is None or not armed(getattr(state, f"{self._timer}_ctl")):
            return False
        offset: int = state.cntvoff if self._timer == "cntv" else state.cntpoff
        now = (self.pcpu.ns >> NS_PER_TICK_SHIFT) - offset & M64
        return bool(getattr(state, f"{self._timer}_cval") <= now)


PerCpuHandler = Callable[[PerCpuIrq], None]


class PhysicalCpu:
    """One CPU. A thread that runs a vCPU on it holds `lock`."""

    def __init__(
        self,
        number: int,
        clock: Clock,
        tick_period: int = TICK_PERIOD_NS,
        hrtimers: HrtimerBase | None = None,
    ) -> None:
        self.number = number
        self.clock = clock
        self.lock = threading.Lock()
        self.hrtimers = hrtimers or HrtimerBase()
        self.state: GuestState | None = None  # of the guest CPU that is installed
        self.vcpu: object = None  # kvm_running_vcpu: for kvm to know what it is
        self.vtimer_irq = PerCpuIrq(self, PPI_VIRTUAL_TIMER, "cntv")
        self.ptimer_irq = PerCpuIrq(self, PPI_PHYSICAL_TIMER, "cntp")
        # Time at the last stop, and the line through (count, base) that the engine was told.
        self.ns = 0
        self.base = 0
        self.count = 0
        self.mult = 0
        self.stale = True  # the engine must be told again
        self.tick_period = tick_period
        self.tick_ns = tick_period
        self.ticks = 0
        self.slice_ns = NEVER  # when the vCPU has to let others run
        self.resched_at = 0  # in ticks: when the host has something else to do, others or not
        self._deadline = -1  # what the installed state's hyp_deadline_ns holds

    def install(self, cpu: GuestCpu) -> None:
        """Put a guest CPU on this CPU: its timers are now this CPU's."""
        state = cpu.state
        if state is not self.state:
            self.state = state
            self.stale = True
            self._deadline = -1
            # Another one ran here, or this one elsewhere: the local monitor knows nothing of it.
            state.excl_addr = M64
            self.vtimer_irq.apply()
            self.ptimer_irq.apply()
        self.clock.load(self)

    def remove(self) -> None:
        """The guest CPU is going away."""
        self.state = None
        self.stale = True

    def rebase(self, mult: int) -> None:
        """Tell the engine: it is `ns` now, and an instruction takes mult / 65536 ns."""
        state = self.state
        assert state is not None
        self.base = state.ns_base = self.ns
        self.count = state.ns_count = state.count
        if mult != self.mult or state.ns_mult != mult:
            self.mult = state.ns_mult = mult
        self.stale = False

    def enter(self, pmu: HostPmu | None = None) -> None:
        """Before the guest: set its clock, and the deadline for the host's own timer."""
        self.clock.enter(self)
        if pmu is not None:
            pmu.set_deadline(self)
        if self.slice_ns <= self.ns:
            # The clock has overtaken the slice since somebody looked. Without some progress in
            # each slice, vCPUs could hand the turn to each other for ever.
            self.slice_ns = self.ns + LEAST_SLICE_NS
        if self.ns >= self.tick_ns:
            # Ticks that fell into idle time did not happen (NO_HZ_IDLE).
            self.tick_ns = (self.ns // self.tick_period + 1) * self.tick_period
        deadline = self.hrtimers.next_ns
        if self.tick_ns < deadline:
            deadline = self.tick_ns
        if self.slice_ns < deadline:
            deadline = self.slice_ns
        if deadline != self._deadline:
            assert self.state is not None
            self._deadline = self.state.hyp_deadline_ns = min(deadline, NEVER)

    def event_due(self) -> bool:
        """The host's own timer has fired."""
        return self.ns >= self._deadline

    def local_irq_enable(self) -> None:
        """Take the host interrupts that are pending: guest timers, then the host's own timer."""
        for irq in (self.vtimer_irq, self.ptimer_irq):
            if not irq.masked and irq.output():
                irq.set_active(True)
                if irq.handler is not None:
                    irq.handler(irq)
                if not irq.forwarded:
                    irq.set_active(False)
        if self.hrtimers.next_ns <= self.ns:
            self.hrtimers.run(self.ns)
        if self.ns >= self.tick_ns:
            self.ticks += 1
