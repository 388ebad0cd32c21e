"""One of the guest's timers: struct arch_timer_context of asm/arm_arch_timer.h, and what
arch/arm64/kvm/arch_timer.c does with one at a time.

Its registers are here, those of a *direct* one (arch_timer.py) only while its vCPU is not loaded:
then they are in the hardware of that CPU. The guest's counter is the host's less an offset, which
on hardware without CNTPOFF the comparison value has to make good.

A departure from 6.12: the soft timer of an emulated timer is set up after a level change too
(b450dcce93bc, 6.14). Left out: see arch_timer.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armkvm.arch.gic import PPI_PHYSICAL_TIMER, PPI_VIRTUAL_TIMER
from armkvm.arch.timer import (
    CTL_ENABLE,
    CTL_IMASK,
    CTL_ISTATUS,
    NEVER,
    NS_PER_TICK_SHIFT,
    armed,
)
from armkvm.arch.word import M64
from armkvm.host.cpu import word
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm.vgic.dist import inject_irq

if TYPE_CHECKING:
    from armkvm.host.pcpu import PhysicalCpu
    from armkvm.kvm.vcpu import Vcpu

DEFAULT_PPIS = (PPI_VIRTUAL_TIMER, PPI_PHYSICAL_TIMER)

# timer registers, as KVM names them
TIMER_REG_CNT, TIMER_REG_CVAL, TIMER_REG_TVAL, TIMER_REG_CTL = range(4)


class Offset:
    """A counter offset in ticks, shared by the vCPUs of a VM."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class TimerContext:
    """struct arch_timer_context: one timer of one vCPU."""

    __slots__ = (
        "_ctl",
        "_cval",
        "_hw_offset",
        "_loaded_offset",
        "_offset_in_hw",
        "ctl",
        "cval",
        "direct",
        "host_irq",
        "hrtimer",
        "index",
        "level",
        "loaded_on",
        "name",
        "offset",
        "vcpu",
    )  # fmt: skip

    def __init__(
        self, vcpu: Vcpu, name: str, prefix: str, offset: Offset, index: int, direct: bool
    ) -> None:
        state = vcpu.state
        host_irq = DEFAULT_PPIS[index]  # at the same place as the guest's usually is
        self.vcpu = vcpu
        self.name = name
        self.offset = offset
        self.index = index  # in the VM's list of PPIs
        self.host_irq = host_irq
        self.direct = direct
        # Saved registers; the hardware's are the truth while loaded.
        self.ctl = 0
        self.cval = 0
        self.loaded_on: PhysicalCpu | None = None
        self.level = False  # output as last passed on
        self.hrtimer = Hrtimer(self._expire)
        self._ctl = word(state, f"{prefix}_ctl")
        self._cval = word(state, f"{prefix}_cval")
        self._hw_offset = word(state, f"{prefix}off")
        self._offset_in_hw = prefix == "cntv"
        self._loaded_offset = 0  # what the hardware subtracts from the counter while loaded

    # predicates

    @property
    def irq(self) -> int:
        """The guest's PPI."""
        return self.vcpu.vm.timer_ppi[self.index]

    def can_fire(self) -> bool:
        """Enabled and not masked: kvm_timer_irq_can_fire(). Saved state only."""
        return armed(self.ctl)

    def should_fire(self) -> bool:
        """The output: kvm_timer_should_fire()."""
        pcpu = self.loaded_on
        if pcpu is None:
            return armed(self.ctl) and self.cval <= self.counter()
        if not armed(self._ctl.value):
            return False
        return self._cval.value <= (pcpu.ns >> NS_PER_TICK_SHIFT) - self._loaded_offset & M64

    def known_high(self) -> bool:
        """Whom the output goes to knows that it is high: user space, or the vgic.

        `level` does not tell: of a timer that is mapped, nobody sees how the guest lowers it.
        """
        if self.vcpu.vgic_cpu is None:
            return bool(self.vcpu.irq_level.value & 1 << self.index)
        irq = self.vcpu.vgic_cpu.private_irqs[self.irq]
        return irq.active or irq.is_pending()

    def counter(self) -> int:
        """The guest's view of the counter this timer compares with, in ticks."""
        return (self.vcpu.now() >> NS_PER_TICK_SHIFT) - self.offset.value & M64

    def expiry_ns(self) -> int:
        """Host time at which CVAL is reached; kvm_timer_compute_delta() as an absolute time."""
        now = self.vcpu.now()
        left = self.cval - ((now >> NS_PER_TICK_SHIFT) - self.offset.value & M64)
        if left <= 0:
            return now
        tick = 1 << NS_PER_TICK_SHIFT
        return min((now & -tick) + (left << NS_PER_TICK_SHIFT), NEVER)

    # actions

    def update_irq(self, level: bool) -> None:
        """Pass the output on: kvm_timer_update_irq(). To the vgic; or user space learns it from
        kvm_run."""
        self.level = level
        if self.vcpu.vgic_cpu is not None:
            inject_irq(self.vcpu.vm, self.vcpu, self.irq, level, self)
        trace = self.vcpu.trace
        if trace.kvm_timer_update_irq is not None:
            trace.kvm_timer_update_irq(self.vcpu.vcpu_id, self.host_irq, level)

    def restore_state(self, pcpu: PhysicalCpu) -> None:
        """timer_restore_state(): give the hardware the registers. CTL last, it starts the timer."""
        if self.loaded_on is not None:
            return
        if self._offset_in_hw:
            self._hw_offset.value = self._loaded_offset = self.offset.value
            self._cval.value = self.cval
        else:
            # There is no CNTPOFF: the offset goes into the comparison value.
            self._cval.value = self.cval + self.offset.value & M64
        self._ctl.value = self.ctl
        self.loaded_on = pcpu
        trace = self.vcpu.trace
        if trace.kvm_timer_restore_state is not None:
            trace.kvm_timer_restore_state(self.vcpu.vcpu_id, self.name, self.ctl, self.cval)

    def save_state(self) -> None:
        """timer_save_state(): take the registers back and switch the hardware off."""
        if self.loaded_on is None:
            return
        self.ctl = self._ctl.value
        self.cval = self._cval.value
        if not self._offset_in_hw:
            self.cval = self.cval - self.offset.value & M64
        self._ctl.value = 0
        self.loaded_on = None
        trace = self.vcpu.trace
        if trace.kvm_timer_save_state is not None:
            trace.kvm_timer_save_state(self.vcpu.vcpu_id, self.name, self.ctl, self.cval)

    def emulate(self, pcpu: PhysicalCpu) -> None:
        """timer_emulate(): output and soft timer of a timer that is not the hardware's."""
        should_fire = self.should_fire()
        trace = self.vcpu.trace
        if trace.kvm_timer_emulate is not None:
            trace.kvm_timer_emulate(self.vcpu.vcpu_id, self.name, should_fire)
        if should_fire != self.level:
            self.update_irq(should_fire)
        if should_fire or not self.can_fire():
            # It fires already, or cannot: nothing will change by itself.
            return
        self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    def _expire(self, now: int) -> int | None:
        """kvm_hrtimer_expire(), in interrupt context."""
        trace = self.vcpu.trace
        if trace.kvm_timer_hrtimer_expire is not None:
            trace.kvm_timer_hrtimer_expire(self.vcpu.vcpu_id, self.name)
        expiry = self.expiry_ns()
        if expiry > now:
            return expiry
        self.update_irq(True)
        return None

    # register accesses; a loaded timer is saved around them by the caller

    def read(self, register: int) -> int:
        """kvm_arm_timer_read()."""
        if register == TIMER_REG_TVAL:
            return self.cval - self.counter() & 0xFFFF_FFFF
        if register == TIMER_REG_CTL:
            # ISTATUS is UNKNOWN while ENABLE is 0; KVM shows the condition regardless.
            return self.ctl | CTL_ISTATUS if self.cval <= self.counter() else self.ctl
        if register == TIMER_REG_CVAL:
            return self.cval
        return self.counter()

    def write(self, register: int, value: int) -> None:
        """kvm_arm_timer_write(). TVAL is a signed 32-bit distance."""
        if register == TIMER_REG_TVAL:
            distance = (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
            self.cval = self.counter() + distance & M64
        elif register == TIMER_REG_CTL:
            self.ctl = value & (CTL_ENABLE | CTL_IMASK)
        elif register == TIMER_REG_CVAL:
            self.cval = value
