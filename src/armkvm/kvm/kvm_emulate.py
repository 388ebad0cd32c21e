"""What emulating an instruction does to the vCPU, after asm/kvm_emulate.h."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu


def kvm_incr_pc(vcpu: Vcpu) -> None:
    """The instruction that trapped is done: step over it.

    The PMU counts it, as if the CPU had executed it. `Vcpu.instructions` does not: it counts what
    the engine retires.
    """
    vcpu.state.pc += 4
    if vcpu.pmu is not None:
        vcpu.pmu.retire_emulated()
