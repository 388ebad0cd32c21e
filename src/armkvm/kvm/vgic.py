"""Creating an in-kernel interrupt controller: who may, and when (vgic-init.c, kvm_vgic_create).

No host kind has one yet (HostKind.vgic_types), so every caller ends at the first check. The order
of the checks is what answers the question of 2017, what happens if a VM that has run with its
interrupt controller in user space gets one in the kernel: it cannot.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi.kvm import KVM_DEV_TYPE_ARM_VGIC_V2, KVM_VGIC_V2_MAX_CPUS, KVM_VGIC_V3_MAX_CPUS
from armkvm.kvm.file import File, fail

if TYPE_CHECKING:
    from armkvm.kvm.vm import Vm


def create(vm: Vm, kind: int) -> File:
    """Make the VM's interrupt controller; the caller holds vm.lock.

    ENODEV (the host cannot), EBUSY (a vCPU is in an ioctl), EEXIST, EBUSY (a vCPU has run),
    E2BIG (more vCPUs than the model allows), in this order.
    """
    if kind not in vm.host.kind.vgic_types:
        fail(errno.ENODEV)
    with vm.all_vcpus_locked(), vm.config_lock:
        if vm.irqchip_in_kernel:
            fail(errno.EEXIST)
        if any(vcpu.has_run_once for vcpu in vm.vcpus):
            fail(errno.EBUSY)
        limit = KVM_VGIC_V2_MAX_CPUS if kind == KVM_DEV_TYPE_ARM_VGIC_V2 else KVM_VGIC_V3_MAX_CPUS
        if len(vm.vcpus) > limit:
            fail(errno.E2BIG)
        vm.max_vcpus = limit
    fail(errno.ENODEV)
