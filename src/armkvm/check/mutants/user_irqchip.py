"""Mutants: VMs with their interrupt controller in user space, beside others.

The patch of 2017 with one thing left out each time, and what was mended in the years after it.
"""

from __future__ import annotations

from typing import Any

from armkvm.abi import kvm as k
from armkvm.check.execution.patching import Patch
from armkvm.check.mutants.table import mutant
from armkvm.host.pcpu import PerCpuIrq, PhysicalCpu
from armkvm.kvm import block, reset, run, sys_regs
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.arch_timer_context import TimerContext
from armkvm.kvm.pmu import emul as pmu_emul
from armkvm.kvm.pmu.emul import Pmu
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic import v3 as vgic_v3
from armkvm.kvm.vgic.dist import map_is_active
from armkvm.kvm.vgic.mmio_v3 import dispatch_sgi


@mutant("ppi-left-disabled", "d60d8b64280c", "I8", "a VM without a vgic masks the host's timer "
        "interrupt by disabling it, and leaves the CPU: the next VM never gets it",
        "two-vms")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer._load_gic

    def load_gic(ctx: TimerContext, host_irq: PerCpuIrq) -> None:
        if ctx.vcpu.vgic_cpu is not None:
            real(ctx, host_irq)
            return
        level = ctx.should_fire()
        ctx.update_irq(level)
        host_irq.set_active(False)
        if level:
            host_irq.disable()
        else:
            host_irq.enable()

    def sync_user(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        load_gic(self.vtimer, pcpu.vtimer_irq)

    p.set(ArchTimer, "_load_gic", staticmethod(load_gic))
    p.set(ArchTimer, "sync_user", sync_user)


@mutant("injection-by-global-key", "cd15d2050c04", "I14", "once a VM with a user-space controller "
        "exists, VMs with a vgic get no timer interrupts", "two-vms")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.update_irq

    def update_irq(self: TimerContext, level: bool) -> None:
        self.level = level
        if not _users(self.vcpu):
            real(self, level)

    p.set(TimerContext, "update_irq", update_irq)
    _count_users(p, leak=False)


@mutant("key-never-drops", "f1d7231cede9", "I15", "the count of VMs with a user-space controller "
        "is lowered in a hook that is not called when a VM goes", "timer-past")  # fmt: skip
def _(p: Patch) -> None:
    _count_users(p, leak=True)


@mutant("key-after-failure", "38d7aacca092 (CVE-2024-53195)", "I0", "a first run fails between "
        "switching the timer on and counting: the next init injects into a vgic that is not there",
        "late-vgic-failed-enable")  # fmt: skip
def _(p: Patch) -> None:
    _count_users(p, leak=False)
    _failed_run_leaves_timer_enabled(p)
    real = TimerContext.update_irq

    def update_irq(self: TimerContext, level: bool) -> None:
        if not _users(self.vcpu):
            # WARN_ON() of what an injection comes to
            assert self.vcpu.vm.vgic_lazy_init() == 0
        real(self, level)

    p.set(TimerContext, "update_irq", update_irq)


def _users(vcpu: Vcpu) -> int:
    keys: dict[str, int] = getattr(vcpu.vm.host, "static_keys", {})
    return keys.get("userspace_irqchip_in_use", 0)


def _add(vcpu: Vcpu, n: int) -> None:
    vcpu.vm.host.static_keys = {  # type: ignore[attr-defined]
        "userspace_irqchip_in_use": _users(vcpu) + n
    }


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
        if counted and self._destroyed and not leak:
            _add(self, -1)

    p.set(Vcpu, "destroy", destroyed)


def _failed_run_leaves_timer_enabled(p: Patch) -> None:
    def first_run(vcpu: Vcpu) -> int:
        ret: int = real(vcpu)
        if ret and vcpu.pmu is not None and not vcpu.pmu.created:
            vcpu.arch_timer.enabled = True
        return ret

    real = p.set(run, "kvm_arch_vcpu_run_pid_change", first_run)


@mutant("failed-run-enables-timer", "found by this checker; seen in 6.12", "I9", "a first run that "
        "fails at the PMU leaves the timer enabled: it is never mapped to a vgic made then",
        "late-vgic-failed-enable")  # fmt: skip
def _(p: Patch) -> None:
    _failed_run_leaves_timer_enabled(p)
    real = ArchTimer.enable
    p.set(ArchTimer, "enable", lambda self: 0 if self.enabled else real(self))


@mutant("vgic-state-without-vgic", "22601127c0fa", "I0", "loading the timers asks the vgic, also "
        "where there is none", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    def load_gic(ctx: TimerContext, host_irq: PerCpuIrq) -> None:
        level = ctx.should_fire()
        ctx.update_irq(level)
        if not level:
            level = map_is_active(ctx.vcpu, ctx.irq)
        host_irq.set_active(level)

    p.set(ArchTimer, "_load_gic", staticmethod(load_gic))


@mutant("wfi-never-blocks", "13e59ece5b30", "I6", "WFI ends while the level that was last passed "
        "on is high; of a mapped timer that stays so", "vgic-rearmed")  # fmt: skip
def _(p: Patch) -> None:
    real = block.kvm_arch_vcpu_runnable

    def runnable(vcpu: Vcpu) -> bool:
        return real(vcpu) or any(t.level for t in vcpu.arch_timer.timers)

    p.set(block, "kvm_arch_vcpu_runnable", runnable)


@mutant("icc-sgi-without-vgic", "3e6245ebe7ef (CVE-2024-46707)", "I0", "a guest without a GICv3 "
        "writes ICC_SGI1R_EL1 and the host follows a pointer that is not there",
        "gic-registers")  # fmt: skip
def _(p: Patch) -> None:
    sgi = sys_regs.sys_reg_descs[3, 0, 12, 11, 5][1]
    key = next(key for key, access in sys_regs._BY_KEY.items() if access is sgi)

    def access_gic_sgi(vcpu: Vcpu, value: int | None) -> int | None:
        dispatch_sgi(vcpu, value or 0, allow_group1=True)
        return None

    p.set(sys_regs, "_BY_KEY", sys_regs._BY_KEY | {key: access_gic_sgi})


@mutant("icc-not-trapped", "da888524c393", "I9", "without a vgic, accesses to the GICv3's system "
        "registers do not trap: the guest has the host's", "id-registers")  # fmt: skip
def _(p: Patch) -> None:
    _after_first_run(p, lambda vcpu: setattr(vcpu.state, "icc_sre", vgic_v3.SRE_EL1))


@mutant("id-register-of-others", "50e7cce81b9b", "I9", "the GIC field is taken out of "
        "ID_AA64PFR0_EL1 of the vCPU that runs first, and of no other", "id-registers")  # fmt: skip
def _(p: Patch) -> None:
    real = sys_regs.set_gic_field

    def set_gic_field(vcpu: Vcpu, gic: bool) -> None:
        if gic or not vcpu.vm.has_run:
            real(vcpu, gic)

    p.set(sys_regs, "set_gic_field", set_gic_field)


def _after_first_run(p: Patch, then: Any) -> None:
    real = reset.kvm_arch_vcpu_run_pid_change

    def first_run(vcpu: Vcpu) -> int:
        ret = real(vcpu)
        if not ret:
            then(vcpu)
        return ret

    p.set(run, "kvm_arch_vcpu_run_pid_change", first_run)


@mutant("bits-of-others", "3fe17e682616", "I5", "the whole word is written, not the kernel's bits",
        "gic-scribbles")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.update_run

    def update_run(self: ArchTimer) -> None:
        self.vcpu.irq_level.value = 0
        real(self)

    p.set(ArchTimer, "update_run", update_run)


@mutant("no-notification", "d9e139778376", "I1", "a changed level does not keep the guest from "
        "being entered", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    p.set(ArchTimer, "should_notify_user", lambda self: False)


@mutant("levels-not-written", "d9e139778376", "I2", "only a forced return writes the bits",
        "timer-masked")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.update_run

    def update_run(self: ArchTimer) -> None:
        if self.vcpu.run_struct.exit_reason == 10:
            real(self)

    p.set(ArchTimer, "update_run", update_run)


@mutant("never-masked", "d9e139778376", "I3", "the host's interrupt is not masked while the output "
        "is high", "timer-past")  # fmt: skip
def _(p: Patch) -> None:
    p.set(PerCpuIrq, "set_active", lambda self, active: None)


@mutant("never-unmasked", "d9e139778376", "I8", "a falling output does not let the host's "
        "interrupt fire again, and loading only ever masks", "timer-rearmed")  # fmt: skip
def _(p: Patch) -> None:
    def sync_user(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        if not self.vtimer.should_fire() and self.vtimer.level:
            self.vtimer.update_irq(False)

    def load_gic(ctx: TimerContext, host_irq: PerCpuIrq) -> None:
        level = ctx.should_fire()
        ctx.update_irq(level)
        if level:
            host_irq.set_active(True)

    p.set(ArchTimer, "sync_user", sync_user)
    p.set(ArchTimer, "_load_gic", staticmethod(load_gic))


@mutant("pmu-wants-enable", "54bbee190d42", "I1", "the PMU's output counts overflows of enabled "
        "counters only", "pmu-overflow")  # fmt: skip
def _(p: Patch) -> None:
    real = Pmu.overflow_status
    p.set(Pmu, "overflow_status", lambda self: bool(self.pmovs & self.pmcnten) and real(self))


@mutant("pmu-bit-without-pmu", "found by this checker", "I2", "the PMU's bit is nobody's in a VM "
        "without a PMU: who sets it finds it set for ever", "gic-overwrites")  # fmt: skip
def _(p: Patch) -> None:
    for name in ("should_notify_user", "update_run"):
        _only_with_pmu(p, name)


def _only_with_pmu(p: Patch, name: str) -> None:
    real = getattr(pmu_emul, name)
    p.set(pmu_emul, name, lambda vcpu: vcpu.pmu is not None and real(vcpu))


@mutant("line-of-vcpu-256", "92f35b751c71", "I10", "KVM_IRQ_LINE has 8 bits for the vCPU: 256 is 0",
        "irq-line-names")  # fmt: skip
def _(p: Patch) -> None:
    p.set(k, "KVM_ARM_IRQ_VCPU2_MASK", 0)
