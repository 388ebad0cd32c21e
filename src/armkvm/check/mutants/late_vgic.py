"""Mutants: an interrupt controller made late, or while something else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from armkvm.check.execution.patching import Patch
from armkvm.check.mutants.table import mutant
from armkvm.kvm import psci, reset, run, vm
from armkvm.kvm import vcpu as vcpu_module
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic import init as vgic_init
from armkvm.kvm.vgic.cpu import VgicCpu
from armkvm.kvm.vm import Vm


@mutant("late-vgic-allowed", "7330672befe6", "I9", "a vgic can be made after a vCPU has run: the "
        "reviewer's question", "late-vgic", "late-vgic-immediate-exit")  # fmt: skip
def _(p: Patch) -> None:
    p.set(Vcpu, "has_run_once", False)


@mutant("late-vgic-busy-ignored", "7330672befe6", "I9", "a vgic can be made while a vCPU is in "
        "KVM_RUN", "late-vgic")  # fmt: skip
def _(p: Patch) -> None:
    p.set(vm.Vm, "all_vcpus_locked", lambda self: nullcontext())


@mutant("immediate-exit-is-no-run", "7330672befe6", "I9", "a run that ends at immediate_exit does "
        "not count", "late-vgic-immediate-exit")  # fmt: skip
def _(p: Patch) -> None:
    real = run.kvm_vcpu_ioctl_run

    def ioctl_run(vcpu: Vcpu) -> int:
        before = vcpu.pid
        ret = real(vcpu)
        if vcpu.run_struct.immediate_exit:
            vcpu.pid = before
        return ret

    p.set(vcpu_module, "kvm_vcpu_ioctl_run", ioctl_run)


@mutant("failed-run-counts", "1408e73d21fe", "I9", "has_run_once is set first: a first run that "
        "fails counts as one", "late-vgic-failed-run")  # fmt: skip
def _(p: Patch) -> None:
    real = reset.kvm_arch_vcpu_run_pid_change

    def first_run(vcpu: Vcpu) -> int:
        vcpu.pid = vcpu.pid or 1
        return real(vcpu)

    p.set(run, "kvm_arch_vcpu_run_pid_change", first_run)


@mutant("no-private-irqs", "b3aa9283c0c5", "I9", "private interrupts are made by initialisation, "
        "not by creation: until then the vCPUs have none", "late-vgic")  # fmt: skip
def _(p: Patch) -> None:
    create, init = vgic_init.create, vgic_init.vgic_init

    def created(vm: Vm, model: int) -> None:
        create(vm, model)
        for vcpu in vm.vcpus:
            vcpu.vgic_cpu = None

    def initialised(vm: Vm) -> int:
        for vcpu in vm.vcpus:
            vcpu.vgic_cpu = vcpu.vgic_cpu or VgicCpu(vcpu)
        return init(vm)

    p.set(vgic_init, "create", created)
    p.set(vgic_init, "vgic_init", initialised)


@mutant("vcpu-creation-race", "07212d16adc7", "I0", "a vCPU under construction is not seen by the "
        "vgic's creation", "vgic-vcpu-race")  # fmt: skip
def _(p: Patch) -> None:
    real = vgic_init.vcpu_init

    def vcpu_init(vcpu: Vcpu) -> None:
        real(vcpu)
        # The VM's lock is not held from here until the vCPU is put on the list.
        lock: Any = vcpu.vm.lock
        lock.release()
        _meanwhile(vcpu.vm, "vcpu-made")
        lock.acquire()

    p.set(vgic_init, "vcpu_init", vcpu_init)


@mutant("cpu-on-takes-vm-lock", "0acc7239c20a", "I0", "CPU_ON takes the VM's lock within the "
        "vCPU's mutex, others the other way round", "psci-cpu-on-irqchip")  # fmt: skip
def _(p: Patch) -> None:
    real = psci._vcpu_on

    def vcpu_on(source: Vcpu, fn: int) -> int:
        with source.vm.lock:
            return real(source, fn)

    @contextmanager
    def all_vcpus_locked(self: Vm) -> Iterator[None]:
        _meanwhile(self, "locks-vcpus")
        for vcpu in self.vcpus:
            vcpu.mutex.acquire()
        try:
            yield
        finally:
            for vcpu in self.vcpus:
                vcpu.mutex.release()

    p.set(psci, "_vcpu_on", vcpu_on)
    p.set(vm.Vm, "all_vcpus_locked", all_vcpus_locked)


def _meanwhile(vm: Vm, name: str) -> None:
    """Somebody else may come in between here."""
    point = vm.host.sched.point
    if point is not None:
        point(name, vm)
