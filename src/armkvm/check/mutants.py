"""Bugs of history, put back: each a few lines in the place of the current code, by its commit.

A mutant names the scenarios in which to look for it, the likeliest first. Where the code of then
has no counterpart today (static keys), the mutant brings as much of it along as the bug needs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from armkvm.check import user
from armkvm.check.patching import Patch
from armkvm.host import sched
from armkvm.host.cpu import NEVER
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm import arch_timer, block, irq_line, psci, reset, run, sys_regs, vgic_init, vm
from armkvm.kvm import kvm_host as h
from armkvm.kvm.arch_timer import ArchTimer, TimerContext
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic_irq import map_is_active
from armkvm.kvm.vgic_mmio_v3 import dispatch_sgi


@dataclass(frozen=True)
class Mutant:
    """One bug."""

    name: str
    commit: str
    what: str
    apply: Callable[[Patch], None]
    scenarios: tuple[str, ...]


MUTANTS: dict[str, Mutant] = {}


def mutant(
    name: str, commit: str, what: str, *scenarios: str
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register one."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[name] = Mutant(name, commit, what, apply, scenarios)
        return apply

    return register


# user-space irqchip


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


# late creation


@mutant("late-vgic-allowed", "7330672befe6", "a vgic can be made after a vCPU has run: the "
        "reviewer's question", "late-vgic", "late-vgic-immediate-exit")  # fmt: skip
def _(p: Patch) -> None:
    p.set(Vcpu, "has_run_once", False)


@mutant("late-vgic-busy-ignored", "7330672befe6", "a vgic can be made while a vCPU is in KVM_RUN",
        "late-vgic")  # fmt: skip
def _(p: Patch) -> None:
    from contextlib import nullcontext

    p.set(vm.Vm, "all_vcpus_locked", lambda self: nullcontext())


@mutant("immediate-exit-is-no-run", "7330672befe6", "a run that ends at immediate_exit does not "
        "count", "late-vgic-immediate-exit")  # fmt: skip
def _(p: Patch) -> None:
    real = run.kvm_vcpu_ioctl_run

    def ioctl_run(vcpu: Vcpu) -> int:
        before = vcpu.pid
        ret = real(vcpu)
        if vcpu.run_struct.immediate_exit:
            vcpu.pid = before
        return ret

    from armkvm.kvm import vcpu as vcpu_module

    p.set(vcpu_module, "kvm_vcpu_ioctl_run", ioctl_run)


@mutant("failed-run-counts", "4.12 (has_run_once set first)", "a first run that fails counts as "
        "one", "late-vgic-failed-run")  # fmt: skip
def _(p: Patch) -> None:
    real = reset.kvm_arch_vcpu_run_pid_change

    def first_run(vcpu: Vcpu) -> int:
        vcpu.pid = vcpu.pid or 1
        return real(vcpu)

    p.set(run, "kvm_arch_vcpu_run_pid_change", first_run)


@mutant("no-private-irqs", "b3aa9283c0c5", "a vgic made after the vCPUs gives them no private "
        "interrupts", "vgic-then-vcpu", "late-vgic")  # fmt: skip
def _(p: Patch) -> None:
    real = vgic_init.create

    def create(vm: Any, model: int) -> None:
        real(vm, model)
        for vcpu in vm.vcpus:
            vcpu.vgic_cpu = None

    p.set(vgic_init, "create", create)


@mutant("vcpu-creation-race", "07212d16adc7", "a vCPU under construction is not seen by the "
        "vgic's creation", "vgic-vcpu-race")  # fmt: skip
def _(p: Patch) -> None:
    real = vgic_init.vcpu_init

    def vcpu_init(vcpu: Vcpu) -> None:
        real(vcpu)
        lock: Any = vcpu.vm.lock
        lock.release()
        point = vcpu.vm.host.sched.point
        if point is not None:
            point("vcpu-made", vcpu)
        lock.acquire()

    p.set(vgic_init, "vcpu_init", vcpu_init)


# levels and emulation


@mutant("rising-edges-only", "bee038a67487", "of an emulated timer only rising edges go to the "
        "vgic: the line never falls", "vgic-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: Any) -> None:
        fires = self.should_fire()
        if fires and not self.level:
            self.update_irq(True)
        if fires or not self.can_fire():
            return
        self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("soft-timer-forgotten", "b450dcce93bc", "after a change of level the soft timer is not "
        "set up", "vgic-emulated-moved")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: Any) -> None:
        fires = self.should_fire()
        if fires != self.level:
            self.update_irq(fires)
            return
        if fires or not self.can_fire():
            return
        self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("wrong-offset", "84135d3d18da", "the physical counter is read with the virtual one's "
        "offset", "counter")  # fmt: skip
def _(p: Patch) -> None:
    p.set(TimerContext, "counter", lambda self: (self.vcpu.now() >> 4) - self.vcpu.vm.voffset.value)


@mutant("tval-unsigned", "8fa761624871", "TVAL is not sign-extended: -1 is in the far future",
        "counter")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.write

    def write(self: TimerContext, register: int, value: int) -> None:
        if register == arch_timer.TIMER_REG_TVAL:
            self.cval = self.counter() + (value & 0xFFFF_FFFF)
        else:
            real(self, register, value)

    p.set(TimerContext, "write", write)


@mutant("sleep-forgets-ptimer", "245715cbe83c", "a sleeping vCPU is woken for the virtual timer "
        "only", "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def blocking(self: ArchTimer, pcpu: Any) -> None:
        ctx = self.vtimer
        if ctx.can_fire() and not ctx.should_fire():
            self.bg_timer.start(pcpu.hrtimers, ctx.expiry_ns())

    p.set(ArchTimer, "blocking", blocking)


@mutant("sleep-checks-twice", "found by this checker", "the soft timer of a sleep is not armed "
        "if the output rose after the last look", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    def blocking(self: ArchTimer, pcpu: Any) -> None:
        expiry = NEVER
        for ctx in self.timers:
            if ctx.can_fire() and not ctx.should_fire():
                expiry = min(expiry, ctx.expiry_ns())
        if expiry != NEVER:
            self.bg_timer.start(pcpu.hrtimers, expiry)

    p.set(ArchTimer, "blocking", blocking)


@mutant("first-run-not-loaded", "4.15-rc (timer enable flow)", "the timer of a first run is "
        "enabled after the vCPU is loaded, and never restored", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.load

    def load(self: ArchTimer, pcpu: Any) -> None:
        if self.vcpu.stat.returns or self.vcpu.stat.exits:
            real(self, pcpu)

    p.set(ArchTimer, "load", load)


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


# user space


@mutant("vmm-wrong-ppi", "VirtualBox NEMR3Native-linux-armv8.cpp", "the physical timer's bit moves "
        "the virtual timer's interrupt", "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    p.set(user.Vmm, "forwards", ((1, 27), (2, 27)))


@mutant("vmm-wrong-capability", "ruvm", "asks for capability 148, not 144", "timer-past")
def _(p: Patch) -> None:
    p.set(user.Vmm, "cap_user_irq", 148)


@mutant("vmm-one-bit", "gem5 base_cpu.cc", "only the virtual timer's bit is looked at",
        "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    p.set(user.Vmm, "forwards", ((1, 27),))
