"""The guest's architected timers, after arch/arm64/kvm/arch_timer.c.

A vCPU has two timers; what is of one alone is in arch_timer_context.py. On an nVHE host the virtual
timer is *direct* (its registers are the hardware's while the vCPU is loaded) and the physical timer
is *emulated* (the guest's accesses trap, a soft timer watches its deadline). On a VHE host both are
direct.

With an interrupt controller in user space, a timer's output goes to user space as a bit of
kvm_run.s.regs.device_irq_level. The rule is that no guest instruction runs while that bit differs
from the output. The host interrupt of a timer whose output is high is kept from firing, otherwise
the guest would never get to the handler that lowers it.

A departure from 6.12: a blocking vCPU waits for the next *change* of an output. 6.12 waits for an
expiry that may have passed, wakes, finds nothing to do and waits again; in virtual time no time
passes meanwhile. Left out: nested timers, WFxT, CNTPOFF and ECV, erratum workarounds.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi.kvm import KVM_ARM_DEV_EL1_PTIMER, KVM_ARM_DEV_EL1_VTIMER
from armkvm.arch.timer import (
    CNTHCTL_EL1PCEN,
    CNTHCTL_EL1PCTEN,
    CTL_ENABLE,
    NEVER,
    NS_PER_TICK_SHIFT,
)
from armkvm.host import sched
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm.arch_timer_context import TimerContext
from armkvm.kvm.file import fail
from armkvm.kvm.kvm_host import kvm_get_running_vcpu
from armkvm.kvm.vgic.dist import map_is_active, map_phys_irq, reset_mapped_irq, set_owner
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, VGIC_NR_SGIS

if TYPE_CHECKING:
    from armkvm.host.host import Host
    from armkvm.host.pcpu import PerCpuIrq, PhysicalCpu
    from armkvm.kvm.vcpu import Vcpu


def kvm_timer_hyp_init(host: Host) -> None:
    """The guest timers' per-CPU interrupts of a host are ours from now on."""
    host.request_percpu_irq(kvm_arch_timer_handler, forwarded=host.kind.gic_active_state)


def kvm_arch_timer_handler(host_irq: PerCpuIrq) -> None:
    """A guest timer's interrupt: the business of the vCPU that is loaded.

    There may be none: kvm_timer_vcpu_put() has turned the timer off, but the interrupt that it had
    raised by then is still on its way through the interrupt controller.
    """
    vcpu = kvm_get_running_vcpu(host_irq.pcpu)
    if vcpu is not None:
        vcpu.arch_timer.handler(host_irq)


class ArchTimer:
    """struct arch_timer_cpu: the timers of one vCPU."""

    def __init__(self, vcpu: Vcpu) -> None:
        vm = vcpu.vm
        kind = vm.host.kind
        self.vcpu = vcpu
        self.gic_active_state = kind.gic_active_state
        self.point = vm.host.sched.point
        self.vtimer = TimerContext(vcpu, "vtimer", "cntv", vm.voffset, 0, direct=True)
        self.ptimer = TimerContext(vcpu, "ptimer", "cntp", vm.poffset, 1, direct=kind.vhe)
        self.timers = (self.vtimer, self.ptimer)
        self.direct_ptimer = self.ptimer if kind.vhe else None
        self.emul_ptimer = None if kind.vhe else self.ptimer
        self.enabled = False
        self.bg_timer = Hrtimer(self._bg_timer_expire)
        self._cnthctl = -1

    def vcpu_init(self) -> None:
        """kvm_timer_vcpu_init(): each new vCPU moves the VM's virtual counter back to zero.

        That is what KVM does, unless KVM_ARM_SET_COUNTER_OFFSET has fixed the offsets.
        """
        vm = self.vcpu.vm
        if not vm.counter_offset_set:
            vm.voffset.value = self.vcpu.now() >> NS_PER_TICK_SHIFT
            vm.poffset.value = 0

    def reset(self) -> None:
        """kvm_timer_vcpu_reset(): off, output low. CVAL stays. The vCPU is not loaded."""
        for ctx in self.timers:
            ctx.ctl = 0
            if self.enabled:
                ctx.update_irq(False)
        if self.enabled and self.vcpu.vgic_cpu is not None:
            reset_mapped_irq(self.vcpu, self.vtimer.irq)
            if self.direct_ptimer is not None:
                reset_mapped_irq(self.vcpu, self.direct_ptimer.irq)
        if self.emul_ptimer is not None:
            self.emul_ptimer.hrtimer.cancel()

    def enable(self) -> int:
        """kvm_timer_enable(), on the first run. Returns 0 or a negative errno."""
        vcpu = self.vcpu
        if vcpu.vgic_cpu is not None:
            # Without a vgic, no virtual interrupt is mapped to a physical one.
            if not self._irqs_are_valid():
                return -errno.EINVAL
            for ctx in (self.vtimer, self.direct_ptimer):
                if ctx is not None:
                    map_phys_irq(vcpu, ctx.host_irq, ctx.irq, ctx.should_fire)
        self.enabled = True
        trace = self.vcpu.trace
        if trace.kvm_get_timer_map is not None:
            # The map of a vCPU without nesting never changes: it is told once.
            direct = self.direct_ptimer is not None
            trace.kvm_get_timer_map(
                self.vcpu.vcpu_id, 0, 1 if direct else -1, -1, -1 if direct else 1
            )
        return 0

    def _irqs_are_valid(self) -> bool:
        """timer_irqs_are_valid(): each timer has a PPI of its own; from now on they stay."""
        vm = self.vcpu.vm
        with vm.config_lock:
            for ctx in self.timers:
                # Two timers with one PPI would both inject, so the second is not its owner.
                if set_owner(self.vcpu, ctx.irq, ctx):
                    return False
            vm.timer_ppis_immutable = True
        return True

    def set_ppi(self, which: int, ppi: int) -> None:
        """kvm_arm_timer_set_attr(). EINVAL, EBUSY, ENXIO."""
        vm = self.vcpu.vm
        if not vm.irqchip_in_kernel:
            fail(errno.EINVAL)
        if not VGIC_NR_SGIS <= ppi < VGIC_NR_PRIVATE_IRQS:
            fail(errno.EINVAL)
        with vm.config_lock:
            if vm.timer_ppis_immutable:
                fail(errno.EBUSY)
            if which >= len(self.timers):
                fail(errno.ENXIO)
            vm.timer_ppi[which] = ppi

    # load and put

    def load(self, pcpu: PhysicalCpu) -> None:
        """kvm_timer_vcpu_load()."""
        if not self.enabled:
            return
        # The outputs are passed on before the registers are there, likely as they will be then. A
        # timer that expires in between is not lost: it was low, so its host interrupt is neither
        # active nor disabled, comes as soon as the registers are restored, and is passed on then.
        if self.gic_active_state:
            self._load_gic(self.vtimer, pcpu.vtimer_irq)
            if self.direct_ptimer is not None:
                self._load_gic(self.direct_ptimer, pcpu.ptimer_irq)
        else:
            self._load_nogic(pcpu)
        if self.point is not None:
            self.point(sched.TIMER_LOAD, self.vcpu)
        if self.bg_timer.queued:
            # It watched the deadlines of a vCPU that slept: from here on the hardware does.
            self.unblocking()
        self.vtimer.restore_state(pcpu)
        if self.direct_ptimer is not None:
            self.direct_ptimer.restore_state(pcpu)
        emul = self.emul_ptimer
        if emul is not None and (emul.level or emul.ctl & CTL_ENABLE):
            # Not the hardware's: the soft timer that `put` has cancelled must watch it again.
            emul.emulate(pcpu)
        self._set_traps()

    @staticmethod
    def _load_gic(ctx: TimerContext, host_irq: PerCpuIrq) -> None:
        """kvm_timer_vcpu_load_gic(): a timer that is high must not interrupt the guest it is for.

        Active is set from the level either way: what the last vCPU on this CPU left is replaced.
        With a vgic it is active as well until the guest deactivates the virtual interrupt: that is
        what deactivates the physical one (GICH_LR.HW), so nobody else may make it fire before.
        """
        level = ctx.should_fire()
        ctx.update_irq(level)
        if ctx.vcpu.vgic_cpu is not None and not level:
            level = map_is_active(ctx.vcpu, ctx.irq)
        host_irq.set_active(level)

    def _load_nogic(self, pcpu: PhysicalCpu) -> None:
        """kvm_timer_vcpu_load_nogic(): the same on a host that cannot set the active state.

        A timer stays high until the guest's handler has turned it off, and its host interrupt would
        end every entry before the first instruction of that handler. The controller cannot be told
        that the interrupt is being dealt with, so it is disabled while the output is high. It must
        be enabled again once the output is low (here, and in sync_user when the guest has lowered
        it), or nobody would hear of the next rise. Only the virtual timer is direct on such a host.
        """
        level = self.vtimer.should_fire()
        self.vtimer.update_irq(level)
        if level:
            pcpu.vtimer_irq.disable()
        else:
            pcpu.vtimer_irq.enable()

    def _set_traps(self) -> None:
        """timer_set_traps() and __timer_enable_traps(): what the guest may touch at EL1."""
        cnthctl = 0
        if self.vcpu.vm.poffset.value == 0:
            cnthctl = CNTHCTL_EL1PCTEN
            if self.direct_ptimer is not None:
                cnthctl |= CNTHCTL_EL1PCEN
        if cnthctl != self._cnthctl:
            self._cnthctl = self.vcpu.state.cnthctl = cnthctl

    def put(self, pcpu: PhysicalCpu) -> None:
        """kvm_timer_vcpu_put()."""
        if not self.enabled:
            return
        self.vtimer.save_state()
        if self.direct_ptimer is not None:
            self.direct_ptimer.save_state()
        elif self.ptimer.hrtimer.queued:
            # Only a vCPU that sleeps needs a soft timer after this, and bg_timer covers that.
            self.ptimer.hrtimer.cancel()
        if self.point is not None:
            self.point(sched.TIMER_PUT, self.vcpu)
        if self.vcpu.blocking:
            self.blocking(pcpu)

    def blocking(self, pcpu: PhysicalCpu) -> None:
        """kvm_timer_blocking(): wake this vCPU at the next rise of an output.

        Of one that rose after kvm_vcpu_check_block() looked, too: nobody knows of it yet, and
        this is the last look before the sleep.
        """
        expiry = NEVER
        for ctx in self.timers:
            if ctx.can_fire() and not (ctx.should_fire() and ctx.known_high()):
                expiry = min(expiry, ctx.expiry_ns())
        if expiry != NEVER:
            self.bg_timer.start(pcpu.hrtimers, expiry)

    def unblocking(self) -> None:
        """kvm_timer_unblocking()."""
        self.bg_timer.cancel()

    def _bg_timer_expire(self, _now: int) -> int | None:
        """kvm_bg_timer_expire(), in interrupt context."""
        self.vcpu.wake_up()
        return None

    # the run loop, user-space irqchip

    def handler(self, host_irq: PerCpuIrq) -> None:
        """kvm_arch_timer_handler(): a direct timer's host interrupt, with this vCPU loaded."""
        pcpu = host_irq.pcpu
        ctx = self.vtimer if host_irq is pcpu.vtimer_irq else self.ptimer
        if ctx.should_fire():
            ctx.update_irq(True)
        if not self.gic_active_state and not self.vcpu.vm.irqchip_in_kernel:
            # Without an active state it would come again at once, for ever (_load_nogic).
            pcpu.vtimer_irq.disable()

    def should_notify_user(self) -> bool:
        """A level differs from what user space was last told; both sides are read afresh."""
        told = self.vcpu.irq_level.value
        return (
            self.vtimer.should_fire() != bool(told & KVM_ARM_DEV_EL1_VTIMER)
            or self.ptimer.should_fire() != bool(told & KVM_ARM_DEV_EL1_PTIMER)
        )  # fmt: skip

    def update_run(self) -> None:
        """kvm_timer_update_run(): write our two bits, leave the others."""
        level = told = self.vcpu.irq_level.value
        level &= ~(KVM_ARM_DEV_EL1_VTIMER | KVM_ARM_DEV_EL1_PTIMER)
        if self.vtimer.should_fire():
            level |= KVM_ARM_DEV_EL1_VTIMER
        if self.ptimer.should_fire():
            level |= KVM_ARM_DEV_EL1_PTIMER
        if level != told:
            self.vcpu.irq_level.value = level

    def sync_user(self, pcpu: PhysicalCpu) -> None:
        """kvm_timer_sync_user(): after the guest, an output that fell may interrupt again.

        Only the virtual timer; a direct physical timer is looked at on the next load.
        """
        vtimer = self.vtimer
        if not vtimer.should_fire():
            if vtimer.level:
                vtimer.update_irq(False)
            if self.gic_active_state:
                if pcpu.vtimer_irq.active:
                    pcpu.vtimer_irq.set_active(False)
            else:
                pcpu.vtimer_irq.enable()

    # accesses that trap, and one-regs

    def write_sysreg(self, ctx: TimerContext, register: int, value: int) -> None:
        """kvm_arm_timer_write_sysreg(): a trapped write by the loaded vCPU."""
        pcpu = self.vcpu.pcpu
        assert pcpu is not None
        if ctx is self.emul_ptimer:
            ctx.hrtimer.cancel()
            ctx.write(register, value)
            if self.point is not None:
                self.point(sched.TIMER_WRITTEN, self.vcpu)
            ctx.emulate(pcpu)
        else:
            ctx.save_state()
            ctx.write(register, value)
            ctx.restore_state(pcpu)

    def read_sysreg(self, ctx: TimerContext, register: int) -> int:
        """kvm_arm_timer_read_sysreg(): a trapped read by the loaded vCPU."""
        if ctx is self.emul_ptimer:
            return ctx.read(register)
        pcpu = self.vcpu.pcpu
        assert pcpu is not None
        ctx.save_state()
        value = ctx.read(register)
        ctx.restore_state(pcpu)
        return value
