"""KVM_CHECK_EXTENSION: kvm_vm_ioctl_check_extension() and its generic part, for what is here.

A capability that is not offered reads 0, as an unknown one does; so does ARM_EL1_32BIT, which the
host's CPU would have and the engine has not. Values that depend on the host
are those of the two hosts in the ground truth.
"""

from __future__ import annotations

import errno

from armkvm.abi.caps import Cap
from armkvm.abi.kvm import (
    KVM_COALESCED_MMIO_PAGE_OFFSET,
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_MAX_IRQ_ROUTES,
    KVM_USER_MEM_SLOTS,
)
from armkvm.arch.debug import BREAKPOINTS, WATCHPOINTS
from armkvm.host.host import HostKind
from armkvm.kvm.debug import KVM_GUESTDBG_VALID_MASK
from armkvm.kvm.file import fail

MANUAL_DIRTY_LOG_PROTECT = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET

_FIXED: dict[int, int] = {
    Cap.USER_MEMORY: 1,
    Cap.NR_VCPUS: 1,  # advice: as many as the host has CPUs
    Cap.NR_MEMSLOTS: KVM_USER_MEM_SLOTS,
    Cap.MP_STATE: 1,
    Cap.COALESCED_MMIO: KVM_COALESCED_MMIO_PAGE_OFFSET,
    Cap.SYNC_MMU: 1,
    Cap.DESTROY_MEMORY_REGION_WORKS: 1,
    Cap.SET_GUEST_DEBUG: 1,
    Cap.IRQ_ROUTING: KVM_MAX_IRQ_ROUTES,
    Cap.JOIN_MEMORY_REGIONS_WORKS: 1,
    Cap.IRQFD: 1,
    Cap.IOEVENTFD: 1,
    Cap.INTERNAL_ERROR_DATA: 1,
    Cap.VCPU_EVENTS: 1,
    Cap.ONE_REG: 1,
    Cap.SIGNAL_MSI: 1,
    Cap.READONLY_MEM: 1,
    Cap.IRQFD_RESAMPLE: 1,
    Cap.ARM_PSCI: 1,
    Cap.ARM_SET_DEVICE_ADDR: 1,
    Cap.DEVICE_CTRL: 1,
    Cap.ENABLE_CAP_VM: 1,
    Cap.ARM_PSCI_0_2: 1,
    Cap.CHECK_EXTENSION_VM: 1,
    Cap.IOEVENTFD_ANY_LENGTH: 1,
    Cap.ARM_PMU_V3: 1,
    Cap.VCPU_ATTRIBUTES: 1,
    Cap.IMMEDIATE_EXIT: 1,
    Cap.ARM_USER_IRQ: 1,
    Cap.ARM_IRQ_LINE_LAYOUT_2: 1,
    Cap.COALESCED_PIO: 1,
    Cap.MANUAL_DIRTY_LOG_PROTECT2: MANUAL_DIRTY_LOG_PROTECT,
    Cap.ARM_NISV_TO_USER: 1,
    Cap.ARM_INJECT_EXT_DABT: 1,
    Cap.GUEST_DEBUG_HW_BPS: BREAKPOINTS,
    Cap.GUEST_DEBUG_HW_WPS: WATCHPOINTS,
    Cap.STEAL_TIME: 1,
    Cap.SET_GUEST_DEBUG2: KVM_GUESTDBG_VALID_MASK,
    Cap.PTP_KVM: 1,
    Cap.BINARY_STATS_FD: 1,
    Cap.SYSTEM_EVENT_DATA: 1,
    Cap.ARM_SYSTEM_SUSPEND: 1,
    Cap.COUNTER_OFFSET: 1,
    Cap.USER_MEMORY2: 1,
    Cap.ARM_SUPPORTED_REG_MASK_RANGES: 1 << 0,  # the range of feature ID registers
}


def check_extension(kind: HostKind, cap: int) -> int:
    """What a host of this kind answers. Unknown capabilities: 0. EINVAL: only a VM knows."""
    match cap:
        case Cap.IRQCHIP:
            return int(bool(kind.vgic_types))
        case Cap.MAX_VCPUS | Cap.MAX_VCPU_ID:
            return kind.max_vcpus
        case Cap.ARM_VM_IPA_SIZE:
            return kind.ipa_limit
        case Cap.ARM_INJECT_SERROR_ESR:
            return int(kind.ras)
        case Cap.MSI_DEVID:
            fail(errno.EINVAL)  # this one is a question about a VM
    return _FIXED.get(cap, 0)
