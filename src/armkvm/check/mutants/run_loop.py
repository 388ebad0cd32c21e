"""Mutants: the run loop, lines and kicks, PSCI, reset, registers, teardown."""

from __future__ import annotations

import errno

from armkvm.check.mutants.table import mutant
from armkvm.check.patching import Patch
from armkvm.host import sched
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm import block, irq_line, psci, reset, run
from armkvm.kvm import kvm_host as h
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.vcpu import Vcpu


@mutant("line-without-kick", "325f9c649c8a", "a line is set and the vCPU is not told: it sees it "
        "at some later exit", "line-running", "wfi-line")  # fmt: skip
def _(p: Patch) -> None:
    def line(vcpu: Vcpu, num: int, level: bool) -> None:
        bit = h.HCR_VI if num == 0 else h.HCR_VF
        with vcpu.wait:
            vcpu.hcr = vcpu.hcr | bit if level else vcpu.hcr & ~bit
        if vcpu.point is not None:
            vcpu.point(sched.LINE_SET, vcpu)

    p.set(irq_line, "vcpu_interrupt_line", line)


@mutant("suspend-skips-wfi", "PSCI CPU_SUSPEND (2022)", "CPU_SUSPEND sleeps without what WFI "
        "prepares", "psci-suspend")  # fmt: skip
def _(p: Patch) -> None:
    def halt(vcpu: Vcpu) -> None:
        vcpu.task.woken = False
        if not block.kvm_vcpu_check_block(vcpu):
            block.schedule(vcpu)

    p.set(psci, "kvm_vcpu_halt", halt)


@mutant("pc-not-committed", "26e0aabb38a6", "a device access is completed after immediate_exit is "
        "looked at: user space sees an old PC and the access twice", "immediate-exit",
        "save-restore")  # fmt: skip
def _(p: Patch) -> None:
    real = run.kvm_arch_vcpu_ioctl_run

    def ioctl_run(vcpu: Vcpu, wants_to_run: bool) -> int:
        if not wants_to_run:
            return -errno.EINTR
        return real(vcpu, wants_to_run)

    p.set(run, "kvm_arch_vcpu_ioctl_run", ioctl_run)


@mutant("reset-keeps-timer", "kvm_timer_vcpu_reset()", "a reset leaves the timers on", "reset")
def _(p: Patch) -> None:
    p.set(ArchTimer, "reset", lambda self: None)


@mutant("reset-drops-lines", "before 6.x (HCR reset)", "a reset lowers lines that user space "
        "drives", "reset")  # fmt: skip
def _(p: Patch) -> None:
    real = reset.kvm_reset_vcpu

    def kvm_reset_vcpu(vcpu: Vcpu) -> None:
        real(vcpu)
        vcpu.hcr = 0

    p.set(reset, "kvm_reset_vcpu", kvm_reset_vcpu)


@mutant("timer-outlives-vcpu", "vgic and timer teardown", "a vCPU goes and leaves its soft timer "
        "armed", "close-pending")  # fmt: skip
def _(p: Patch) -> None:
    real = Vcpu.destroy

    def destroy(self: Vcpu) -> None:
        p_cancel = Hrtimer.cancel
        try:
            Hrtimer.cancel = lambda self: None  # type: ignore[method-assign]
            real(self)
        finally:
            Hrtimer.cancel = p_cancel  # type: ignore[method-assign]

    p.set(Vcpu, "destroy", destroy)
    p.set(ArchTimer, "unblocking", lambda self: None)


@mutant("ids-of-their-names", "KVM_REG_ARM_TIMER_CVAL/CNT", "CVAL and CNT are taken by the names "
        "of their encodings", "counter", "save-restore")  # fmt: skip
def _(p: Patch) -> None:
    from armkvm.abi import regs
    from armkvm.kvm import one_reg

    table = dict(one_reg._TIMER_REGS)
    cnt, cval = regs.KVM_REG_ARM_TIMER_CNT, regs.KVM_REG_ARM_TIMER_CVAL
    table[cnt], table[cval] = table[cval], table[cnt]
    p.set(one_reg, "_TIMER_REGS", table)
