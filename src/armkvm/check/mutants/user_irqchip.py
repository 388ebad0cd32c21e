"""Mutants: the ABI of the user-space irqchip, and the first years of its timers.

B1 to B11 of the catalogue, and the patch itself with one thing left out each time.
"""

from __future__ import annotations

from typing import Any

from armkvm.check.mutants.table import mutant
from armkvm.check.patching import Patch
from armkvm.kvm import block, reset, run, sys_regs
from armkvm.kvm.arch_timer import ArchTimer, TimerContext
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic_irq import map_is_active
from armkvm.kvm.vgic_mmio_v3 import dispatch_sgi


@mutant("ppi-left-disabled", "d60d8b64280c", "a VM leaves the host's timer interrupt disabled on "
        "its CPU; the next VM there never gets it", "two-vms-nogic")  # fmt: skip
def _(p: Patch) -> None:
    def load_nogic(self: ArchTimer, pcpu: Any) -> None:
        level = self.vtimer.should_fire()
        self.vtimer.update_irq(level)
        if level:
            pcpu.vtimer_irq.disable()

    p.set(ArchTimer, "_load_nogic", load_nogic)


@mutant("injection-by-global-key", "cd15d2050c04", "once a VM with a user-space controller exists, "
        "VMs with a vgic get no timer interrupts", "two-vms")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.update_irq

    def update_irq(self: TimerContext, level: bool) -> None:
        self.level = level
        if _keys(self.vcpu).get("userspace_irqchip_in_use", 0) <= 0:
            real(self, level)

    p.set(TimerContext, "update_irq", update_irq)
    _count_users(p, leak=False)


@mutant("key-never-drops", "f1d7231cede9", "the count of VMs with a user-space controller is "
        "lowered in a hook that runs too late", "timer-past")  # fmt: skip
def _(p: Patch) -> None:
    _count_users(p, leak=True)


@mutant("key-unbalanced", "38d7aacca092 (CVE-2024-53195)", "raised after a failed first run, "
        "lowered by a test that a late vgic has changed", "late-vgic-failed-run")  # fmt: skip
def _(p: Patch) -> None:
    real = reset.kvm_arch_vcpu_run_pid_change

    def first_run(vcpu: Vcpu) -> int:
        if not vcpu.vm.irqchip_in_kernel and not vcpu.ran_once:
            _add(vcpu, 1)
        return real(vcpu)

    p.set(run, "kvm_arch_vcpu_run_pid_change", first_run)
    destroy = Vcpu.destroy

    def destroyed(self: Vcpu) -> None:
        if not self._destroyed and not self.vm.irqchip_in_kernel and self.ran_once:
            _add(self, -1)
        destroy(self)

    p.set(Vcpu, "destroy", destroyed)


def _keys(vcpu: Vcpu) -> dict[str, int]:
    host: Any = vcpu.vm.host
    if not hasattr(host, "static_keys"):
        host.static_keys = {}
    keys: dict[str, int] = host.static_keys
    return keys


def _add(vcpu: Vcpu, n: int) -> None:
    keys = _keys(vcpu)
    keys["userspace_irqchip_in_use"] = keys.get("userspace_irqchip_in_use", 0) + n


def _count_users(p: Patch, *, leak: bool) -> None:
    """static_branch_inc(&userspace_irqchip_in_use) at the first run, dec at the end."""
    real = reset.kvm_arch_vcpu_run_pid_change

    def first_run(vcpu: Vcpu) -> int:
        new = not vcpu.ran_once
        ret = real(vcpu)
        if not ret and new and not vcpu.vm.irqchip_in_kernel:
            _add(vcpu, 1)
        return ret

    p.set(run, "kvm_arch_vcpu_run_pid_change", first_run)
    destroy = Vcpu.destroy

    def destroyed(self: Vcpu) -> None:
        counted = self.ran_once and not self.vm.irqchip_in_kernel and not self._destroyed
        destroy(self)
        if counted and not leak:
            _add(self, -1)

    p.set(Vcpu, "destroy", destroyed)


@mutant("vgic-state-without-vgic", "22601127c0fa", "loading the timers asks the vgic, also where "
        "there is none", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    def load_gic(ctx: TimerContext, host_irq: Any) -> None:
        level = ctx.should_fire()
        ctx.update_irq(level)
        if not level:
            level = map_is_active(ctx.vcpu, ctx.irq)
        host_irq.set_active(level)

    p.set(ArchTimer, "_load_gic", staticmethod(load_gic))


@mutant("wfi-never-blocks", "13e59ece5b30", "WFI ends while an output is high, also if user space "
        "knows it", "wfi-told")  # fmt: skip
def _(p: Patch) -> None:
    real = block.kvm_arch_vcpu_runnable

    def runnable(vcpu: Vcpu) -> bool:
        return real(vcpu) or any(t.should_fire() for t in vcpu.arch_timer.timers)

    p.set(block, "kvm_arch_vcpu_runnable", runnable)


@mutant("icc-sgi-without-vgic", "CVE-2024-46707", "a guest without a GICv3 writes ICC_SGI1R_EL1 "
        "and the host follows a pointer that is not there", "gic-registers")  # fmt: skip
def _(p: Patch) -> None:
    key = next(
        k for k, access in sys_regs._BY_KEY.items()
        if access is sys_regs.sys_reg_descs[3, 0, 12, 11, 5][1]
    )  # fmt: skip

    def access_gic_sgi(vcpu: Vcpu, value: int | None) -> int | None:
        dispatch_sgi(vcpu, value or 0, allow_group1=True)
        return None

    p.set(sys_regs, "_BY_KEY", sys_regs._BY_KEY | {key: access_gic_sgi})


@mutant("bits-of-others", "3fe17e682616", "the whole word is written, not the kernel's bits",
        "gic-scribbles")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.update_run

    def update_run(self: ArchTimer) -> None:
        self.vcpu.irq_level.value &= 7
        real(self)

    p.set(ArchTimer, "update_run", update_run)


@mutant("no-notification", "d9e139778376", "a changed level does not keep the guest from being "
        "entered", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    p.set(ArchTimer, "should_notify_user", lambda self: False)


@mutant("levels-not-written", "d9e139778376", "only a forced return writes the bits",
        "timer-masked")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.update_run

    def update_run(self: ArchTimer) -> None:
        if self.vcpu.run_struct.exit_reason == 10:
            real(self)

    p.set(ArchTimer, "update_run", update_run)


@mutant("never-masked", "d9e139778376", "the host's interrupt is not masked while the output is "
        "high", "timer-past")  # fmt: skip
def _(p: Patch) -> None:
    from armkvm.host.pcpu import PerCpuIrq

    p.set(PerCpuIrq, "set_active", lambda self, active: None)


@mutant("never-unmasked", "d9e139778376", "a falling output does not let the host's interrupt "
        "fire again, and loading only ever masks", "timer-rearmed")  # fmt: skip
def _(p: Patch) -> None:
    def sync_user(self: ArchTimer, pcpu: Any) -> None:
        if not self.vtimer.should_fire() and self.vtimer.level:
            self.vtimer.update_irq(False)

    def load_gic(ctx: TimerContext, host_irq: Any) -> None:
        level = ctx.should_fire()
        ctx.update_irq(level)
        if level:
            host_irq.set_active(True)

    p.set(ArchTimer, "sync_user", sync_user)
    p.set(ArchTimer, "_load_gic", staticmethod(load_gic))
