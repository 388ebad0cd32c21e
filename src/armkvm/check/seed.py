"""Variants of the hypervisor: `current`, and `seed`, the patch of April 2017 as it was posted.

The patch (d9e139778376 in its version 3) keeps a *cached* level for each timer. It is brought up to
date before the guest, with interrupts still enabled (`flush_hwstate`), and after it
(`sync_hwstate`); what user space is told, and whether it is told, follows the cache. The host's
interrupt is disabled and enabled at flush, for VMs with their controller in user space, and marked
active for those with a vgic. Loading a vCPU touches neither. A WFI ends, in the code around the
patch, as soon as an output is high (kvm_cpu_has_pending_timer).

Of what stood around it, the soft timer that finds itself early and the vgic that keeps a line as it
was told of it are those of 4.11. Its world switch, which saves and restores the timer at each
entry, is represented by today's load and put. Left out: what the patch did not touch, and hosts
whose physical timer the guest has to itself, which came later.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from armkvm.abi.kvm import KVM_ARM_DEV_EL1_PTIMER, KVM_ARM_DEV_EL1_VTIMER
from armkvm.check.execution.patching import Patch
from armkvm.host import sched
from armkvm.kvm import block, handle_exit, psci
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.vgic.cpu import VgicCpu
from armkvm.kvm.vgic.dist import map_is_active, map_phys_irq
from armkvm.kvm.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armkvm.check.world.world import World
    from armkvm.host.pcpu import PhysicalCpu
    from armkvm.kvm import Vcpu


@dataclass(frozen=True)
class Variant:
    """Another hypervisor: what it replaces, and what it does at named points."""

    name: str
    apply: Callable[[Patch], None] | None = None
    hooks: Callable[[World], None] | None = None
    hosts: tuple[str, ...] = ()  # kinds of host that it does not know


def enable(self: ArchTimer) -> int:
    """kvm_timer_enable() of the patch."""
    if self.enabled:
        return 0
    vm = self.vcpu.vm
    if vm.irqchip_in_kernel:
        if not vm.vgic.initialized:
            return -errno.ENODEV
        map_phys_irq(self.vcpu, self.vtimer.host_irq, self.vtimer.irq, self.vtimer.should_fire)
        for ctx in self.timers:
            self.vcpu.vm.vgic.irq(self.vcpu, ctx.irq).owner = ctx
    self.enabled = True
    return 0


def load(self: ArchTimer, pcpu: PhysicalCpu) -> None:
    """The registers go to the hardware; nothing else."""
    if not self.enabled:
        return
    if self.point is not None:
        self.point(sched.TIMER_LOAD, self.vcpu)
    self.vtimer.restore_state(pcpu)
    if self.direct_ptimer is not None:
        self.direct_ptimer.restore_state(pcpu)
    self._set_traps()


def update_state(timer: ArchTimer) -> None:
    """kvm_timer_update_state()."""
    if not timer.enabled:
        return
    for ctx in timer.timers:
        level = ctx.should_fire()
        if level != ctx.level:
            ctx.update_irq(level)


def flush_hwstate(vcpu: Vcpu) -> None:
    """kvm_timer_flush_hwstate(): before the guest, host interrupts enabled."""
    timer = vcpu.arch_timer
    pcpu = vcpu.pcpu
    if not timer.enabled or pcpu is None:
        return
    update_state(timer)
    ptimer = timer.emul_ptimer
    if ptimer is not None and not ptimer.should_fire() and ptimer.can_fire():
        ptimer.hrtimer.start(pcpu.hrtimers, ptimer.expiry_ns())
    if not vcpu.vm.irqchip_in_kernel:
        if timer.vtimer.level:
            pcpu.vtimer_irq.disable()
        else:
            pcpu.vtimer_irq.enable()
    else:
        level = timer.vtimer.level or map_is_active(vcpu, timer.vtimer.irq)
        pcpu.vtimer_irq.set_active(level)


def sync_hwstate(vcpu: Vcpu) -> None:
    """kvm_timer_sync_hwstate(): after the guest."""
    timer = vcpu.arch_timer
    if timer.emul_ptimer is not None:
        timer.emul_ptimer.hrtimer.cancel()
    update_state(timer)


def should_notify_user(self: ArchTimer) -> bool:
    """kvm_timer_should_notify_user(): by the cached levels."""
    told = self.vcpu.irq_level.value
    return (
        self.vtimer.level != bool(told & KVM_ARM_DEV_EL1_VTIMER)
        or self.ptimer.level != bool(told & KVM_ARM_DEV_EL1_PTIMER)
    )  # fmt: skip


def update_run(self: ArchTimer) -> None:
    """kvm_timer_update_run(): the cached levels."""
    word = self.vcpu.irq_level.value & ~(KVM_ARM_DEV_EL1_VTIMER | KVM_ARM_DEV_EL1_PTIMER)
    word |= KVM_ARM_DEV_EL1_VTIMER if self.vtimer.level else 0
    word |= KVM_ARM_DEV_EL1_PTIMER if self.ptimer.level else 0
    self.vcpu.irq_level.value = word


def handler(self: ArchTimer, host_irq: Any) -> None:
    """kvm_arch_timer_handler(): the exit is all it was for; sync looks at the timer."""
    host_irq.set_active(False)


def schedule_timer(self: ArchTimer, pcpu: PhysicalCpu) -> None:
    """kvm_timer_schedule(), before the first look at what could end the sleep."""
    self.vtimer.save_state()
    due = [ctx.expiry_ns() for ctx in self.timers if ctx.can_fire()]
    if due and not any(ctx.should_fire() for ctx in self.timers):
        self.bg_timer.start(pcpu.hrtimers, min(due))
    self.vtimer.restore_state(pcpu)


def expire(self: ArchTimer, now: int) -> int | None:
    """kvm_timer_expire(): early, if the guest's counter was moved back meanwhile: sleep on."""
    due = [ctx.expiry_ns() for ctx in self.timers if ctx.can_fire()]
    if due and min(due) > now:
        return min(due)
    self.vcpu.wake_up()
    return None


def apply(p: Patch) -> None:
    """The patch."""
    for function in (enable, load, should_notify_user, update_run, handler):
        p.set(ArchTimer, function.__name__, function)
    p.set(ArchTimer, "sync_user", lambda self, pcpu: sync_hwstate(self.vcpu))

    # The vgic of 4.11 keeps a mapped line as it was told of it, until it is told otherwise.
    populate = VgicCpu._populate_lr

    def populate_lr(self: VgicCpu, irq: VgicIrq) -> int | None:
        line = irq.line_level
        value = populate(self, irq)
        irq.line_level = line
        return value

    p.set(VgicCpu, "_populate_lr", populate_lr)
    p.set(VgicCpu, "_resample", lambda self, irq, deactivated, pending: None)

    # The soft timer of a sleep is set up before the first look, not by put.
    p.set(ArchTimer, "blocking", lambda self, pcpu: None)
    p.set(ArchTimer, "_bg_timer_expire", expire)
    halt = block.kvm_vcpu_halt

    def kvm_vcpu_block(vcpu: Vcpu) -> None:
        if vcpu.pcpu is not None:
            schedule_timer(vcpu.arch_timer, vcpu.pcpu)
        halt(vcpu)

    p.set(handle_exit, "kvm_vcpu_halt", kvm_vcpu_block)
    p.set(psci, "kvm_vcpu_halt", kvm_vcpu_block)

    def check_block(vcpu: Vcpu) -> bool:
        """kvm_vcpu_check_block() with kvm_cpu_has_pending_timer() of 4.11."""
        runnable = not vcpu.stopped and not vcpu.pause
        vgic = vcpu.vgic_cpu
        return bool(
            (runnable and (vcpu.hcr & 0xC0 or (vgic is not None and vgic.pending_irq())))
            or any(ctx.should_fire() for ctx in vcpu.arch_timer.timers)
            or vcpu.signal_pending
            or vcpu.requests & 0x21
        )

    p.set(block, "kvm_vcpu_check_block", check_block)


def hooks(world: World) -> None:
    """Where the patch has calls that today's run loop has not."""

    def after_exit(vcpu: Vcpu) -> None:
        if vcpu.vm.irqchip_in_kernel:
            sync_hwstate(vcpu)

    world.hooks[sched.BEFORE_IN_GUEST] = flush_hwstate
    world.hooks[sched.AFTER_EXIT] = after_exit


VARIANTS = {v.name: v for v in (Variant("current"), Variant("seed", apply, hooks, ("vhe-gicv3",)))}
