"""KVM_CHECK_EXTENSION on /dev/kvm and on a VM (api.rst 4.4)."""

from __future__ import annotations

from armkvm.abi import ioctl as nr
from armkvm.abi.caps import Cap
from armkvm.conformance.session import Session

ASKED = (
    Cap.ARM_USER_IRQ, Cap.IRQCHIP, Cap.DEVICE_CTRL, Cap.ONE_REG, Cap.IRQFD, Cap.IRQ_ROUTING,
    Cap.SIGNAL_MSI, Cap.MSI_DEVID, Cap.IOEVENTFD, Cap.IMMEDIATE_EXIT, Cap.MP_STATE, Cap.ARM_PSCI,
    Cap.ARM_PSCI_0_2, Cap.ARM_PMU_V3, Cap.ARM_VM_IPA_SIZE, Cap.NR_VCPUS, Cap.MAX_VCPUS,
    Cap.MAX_VCPU_ID, Cap.NR_MEMSLOTS, Cap.READONLY_MEM, Cap.COALESCED_MMIO, Cap.SYNC_MMU,
    Cap.USER_MEMORY, Cap.DESTROY_MEMORY_REGION_WORKS, Cap.JOIN_MEMORY_REGIONS_WORKS,
    Cap.ARM_EL1_32BIT, Cap.VCPU_EVENTS, Cap.VCPU_ATTRIBUTES, Cap.SET_GUEST_DEBUG,
    Cap.ARM_SET_DEVICE_ADDR, Cap.ARM_NISV_TO_USER, Cap.ARM_INJECT_SERROR_ESR,
    Cap.ARM_INJECT_EXT_DABT, Cap.ARM_SVE, Cap.ARM_PTRAUTH_ADDRESS, Cap.STEAL_TIME,
    Cap.ARM_IRQ_LINE_LAYOUT_2, Cap.ENABLE_CAP_VM, Cap.MULTI_ADDRESS_SPACE, Cap.EXIT_HYPERCALL,
    Cap.PTP_KVM, Cap.SYSTEM_EVENT_DATA, Cap.ARM_SYSTEM_SUSPEND, Cap.GUEST_DEBUG_HW_BPS,
    Cap.GUEST_DEBUG_HW_WPS,
)  # fmt: skip


def caps(session: Session) -> None:
    """The API's version and size, then every capability twice."""
    session.emit("== caps")
    version = session.ask(session.kvm, nr.KVM_GET_API_VERSION).ret
    session.emit(f"  API={version} VCPU_MMAP_SIZE={session.mmap_size}")
    vm = session.client.ioctl(session.kvm, nr.KVM_CREATE_VM, 0)
    for fd, whose in ((session.kvm, "sys"), (vm, "vm ")):
        for cap in ASKED:
            # MSI_DEVID of no VM is an error: -1.
            value = session.ask(fd, nr.KVM_CHECK_EXTENSION, cap.value).ret
            session.emit(f"  {whose} KVM_CHECK_EXTENSION KVM_CAP_{cap.name}({cap.value}) = {value}")
    session.client.close(vm)
