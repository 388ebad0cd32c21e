"""Mutants: user space that reads device_irq_level wrongly, as three real ones do."""

from __future__ import annotations

from armkvm.abi.kvm import KVM_ARM_DEV_EL1_PTIMER as PTIMER
from armkvm.abi.kvm import KVM_ARM_DEV_EL1_VTIMER as VTIMER
from armkvm.arch.gic import PPI_VIRTUAL_TIMER
from armkvm.check.execution.patching import Patch
from armkvm.check.mutants.table import mutant
from armkvm.check.world import user


@mutant("vmm-wrong-ppi", "VirtualBox 4908d8d1a85c", "I14", "the physical timer's bit moves the "
        "virtual timer's interrupt", "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    p.set(user.Vmm, "forwards", ((VTIMER, PPI_VIRTUAL_TIMER), (PTIMER, PPI_VIRTUAL_TIMER)))


@mutant("vmm-wrong-capability", "tamnd/ruvm", "I14", "asks for capability 148, not 144",
        "timer-past")  # fmt: skip
def _(p: Patch) -> None:
    p.set(user.Vmm, "cap_user_irq", 148)


@mutant("vmm-one-bit", "gem5 base_cpu.cc", "I14", "only the virtual timer's bit is looked at",
        "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    p.set(user.Vmm, "forwards", ((VTIMER, PPI_VIRTUAL_TIMER),))
