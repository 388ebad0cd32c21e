"""Constants that the hypervisor's files share, after linux/kvm_host.h and asm/kvm_host.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from armkvm.arch.hcr import HCR_VF, HCR_VI, HCR_VSE

if TYPE_CHECKING:
    from armkvm.host.pcpu import PhysicalCpu
    from armkvm.kvm.vcpu import Vcpu

# vcpu->hcr: virtual IRQ, FIQ and SError are pending
LINES: Final = HCR_VF | HCR_VI | HCR_VSE

# vcpu->mode: whether who raises something must kick
OUTSIDE_GUEST_MODE: Final = 0
IN_GUEST_MODE: Final = 1

# vcpu->requests: what a vCPU must look at before it enters the guest
REQ_VM_DEAD: Final = 1 << 0
REQ_SLEEP: Final = 1 << 1
REQ_VCPU_RESET: Final = 1 << 2
REQ_IRQ_PENDING: Final = 1 << 3
REQ_SUSPEND: Final = 1 << 4
REQ_UNBLOCK: Final = 1 << 5


def kvm_get_running_vcpu(pcpu: PhysicalCpu) -> Vcpu | None:
    """The vCPU that is loaded on a CPU."""
    return cast("Vcpu | None", pcpu.vcpu)
