"""Mutants: an interrupt controller made late, or while something else goes on."""

from __future__ import annotations

from typing import Any

from armkvm.check.mutants.table import mutant
from armkvm.check.patching import Patch
from armkvm.kvm import reset, run, vgic_init, vm
from armkvm.kvm.vcpu import Vcpu


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
