"""Mutants: the run loop, lines and kicks, PSCI, reset, save and restore, closing."""

from __future__ import annotations

import errno
from typing import Any

from armkvm.arch.hcr import HCR_VF, HCR_VI
from armkvm.check.execution.locks import get_ident
from armkvm.check.execution.patching import Patch
from armkvm.check.mutants.table import mutant
from armkvm.host import sched
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm import block, irq_line, one_reg, psci, reset, run, vcpu_ioctl
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.kvm_host import kvm_get_running_vcpu
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic.irq import VgicIrq
from armkvm.kvm.vgic.mmio import VgicIoDevice


@mutant("line-without-request", "325f9c649c8a", "I6", "a line is set and the vCPU woken, without a "
        "request: one that is about to enter sees it at some later exit",
        "line-running")  # fmt: skip
def _(p: Patch) -> None:
    def line(vcpu: Vcpu, num: int, level: bool) -> None:
        bit = HCR_VI if num == 0 else HCR_VF
        with vcpu.wait:
            vcpu.hcr = vcpu.hcr | bit if level else vcpu.hcr & ~bit
        if vcpu.point is not None:
            vcpu.point(sched.LINE_SET, vcpu)
        vcpu.wake_up()

    p.set(irq_line, "vcpu_interrupt_line", line)


@mutant("suspend-skips-wfi", "a867e9d0cc15", "I6", "CPU_SUSPEND sleeps without what WFI prepares",
        "psci-suspend")  # fmt: skip
def _(p: Patch) -> None:
    def halt(vcpu: Vcpu) -> None:
        vcpu.task.woken = False
        if not block.kvm_vcpu_check_block(vcpu):
            block.schedule(vcpu)

    p.set(psci, "kvm_vcpu_halt", halt)


@mutant("pc-not-committed", "26e0aabb38a6", "I4", "a device access is completed after "
        "immediate_exit is looked at: user space sees an old PC", "immediate-exit")  # fmt: skip
def _(p: Patch) -> None:
    real = run.kvm_arch_vcpu_ioctl_run

    def ioctl_run(vcpu: Vcpu, wants_to_run: bool) -> int:
        if not wants_to_run:
            return -errno.EINTR
        return real(vcpu, wants_to_run)

    p.set(run, "kvm_arch_vcpu_ioctl_run", ioctl_run)


# reset


@mutant("reset-keeps-timer", "not known (kvm_timer_vcpu_reset())", "I12",
        "a reset leaves the timers on", "reset")  # fmt: skip
def _(p: Patch) -> None:
    p.set(ArchTimer, "reset", lambda self: None)


@mutant("reset-drops-lines", "not known (vcpu_reset_hcr())", "I12", "a reset lowers lines that "
        "user space drives", "reset")  # fmt: skip
def _(p: Patch) -> None:
    real = reset.kvm_reset_vcpu

    def kvm_reset_vcpu(vcpu: Vcpu) -> None:
        real(vcpu)
        vcpu.hcr = 0

    p.set(reset, "kvm_reset_vcpu", kvm_reset_vcpu)


# save and restore


@mutant("cpu-on-not-saved", "6826c6849b46", "I13", "user space reads the registers of a vCPU "
        "before the CPU_ON that is pending for it", "psci-saved")  # fmt: skip
def _(p: Patch) -> None:
    p.set(vcpu_ioctl, "pending_reset", lambda vcpu: None)


@mutant("saved-id-refused", 'not known ("Make all 32bit ID registers fully writable", 6.18)', "I13",
        "an ID register that the first run has changed is not taken back by a new vCPU",
        "save-restore-vhe")  # fmt: skip
def _(p: Patch) -> None:
    def identity(vcpu: Vcpu, enc: tuple[int, int, int, int, int], value: int) -> None:
        if value != vcpu.cpu.get_sysreg(*enc):
            raise OSError(errno.EINVAL, "read-only")

    p.set(one_reg, "set_id_reg", identity)


@mutant("restore-wants-running", "41ee52ecbcdc", "I0", "user space's writes to the vgic ask the "
        "vCPU that is running for its timer's level, and there is none",
        "vgic-user-writes")  # fmt: skip
def _(p: Patch) -> None:
    def uaccess_write(self: VgicIoDevice, vcpu: Vcpu, addr: int, value: int) -> int:
        region = self.find(vcpu, addr, 4)
        return 0 if region is None else region.write(vcpu, addr, 4, value) or 0

    def phys_line_level(self: VgicIrq) -> bool:
        assert self.target_vcpu is not None
        me = get_ident()
        on_cpus = [kvm_get_running_vcpu(pcpu) for pcpu in self.target_vcpu.vm.host.pcpus]
        running: Any = next((v for v in on_cpus if v is not None and v.pid == me), None)
        timers = running.arch_timer.timers
        return any(t.irq == self.intid and t.should_fire() for t in timers)

    p.set(VgicIoDevice, "uaccess_write", uaccess_write)
    p.set(VgicIrq, "phys_line_level", phys_line_level)


@mutant("ids-of-their-names", "290a6bb06de9", "I11", "CVAL and CNT are taken by the names of their "
        "encodings", "counter")  # fmt: skip
def _(p: Patch) -> None:
    from armkvm.abi import regs

    table = dict(one_reg._TIMER_REGS)
    cnt, cval = regs.KVM_REG_ARM_TIMER_CNT, regs.KVM_REG_ARM_TIMER_CVAL
    table[cnt], table[cval] = table[cval], table[cnt]
    p.set(one_reg, "_TIMER_REGS", table)


# closing


@mutant("timer-outlives-vcpu", "not known (kvm_timer_vcpu_terminate())", "I15", "a vCPU goes and "
        "leaves its soft timer armed", "close-pending")  # fmt: skip
def _(p: Patch) -> None:
    real = Vcpu.destroy

    def destroy(self: Vcpu) -> None:
        timers: tuple[Hrtimer, ...] = (self.arch_timer.bg_timer, self.arch_timer.ptimer.hrtimer)
        armed = [(timer, timer._base, timer.expires) for timer in timers]
        real(self)
        for timer, base, expires in armed:
            if base is not None:
                timer.start(base, expires)

    p.set(Vcpu, "destroy", destroy)
    p.set(ArchTimer, "unblocking", lambda self: None)
