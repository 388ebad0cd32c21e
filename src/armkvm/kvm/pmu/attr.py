"""Attributes of the PMU: KVM_ARM_VCPU_PMU_V3_CTRL, after pmu-emul.c and devices/vcpu.rst.

The host has one PMU; its number is what /sys/bus/event_source/devices/armv8_pmuv3_0/type would say.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from armkvm.abi import kvm as k
from armkvm.kvm.file import fail
from armkvm.kvm.pmu.emul import MAX_COUNTERS, NR_EVENTS, Pmu, irq_is_ppi, irq_is_spi
from armkvm.kvm.vgic.dist import set_owner

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

HOST_PMU_TYPE: Final = 8

ATTRIBUTES: Final = (
    k.KVM_ARM_VCPU_PMU_V3_IRQ, k.KVM_ARM_VCPU_PMU_V3_INIT, k.KVM_ARM_VCPU_PMU_V3_FILTER,
    k.KVM_ARM_VCPU_PMU_V3_SET_PMU,
)  # fmt: skip


def has_attr(vcpu: Vcpu, attr: int) -> None:
    """kvm_arm_pmu_v3_has_attr(). ENXIO."""
    if attr not in ATTRIBUTES or vcpu.pmu is None:
        fail(errno.ENXIO)


def get_attr(vcpu: Vcpu, attr: int) -> int:
    """kvm_arm_pmu_v3_get_attr(). EINVAL: no vgic. ENODEV: no PMU. ENXIO: not set, or write-only."""
    if attr != k.KVM_ARM_VCPU_PMU_V3_IRQ:
        fail(errno.ENXIO)
    if not vcpu.vm.irqchip_in_kernel:
        fail(errno.EINVAL)
    if vcpu.pmu is None:
        fail(errno.ENODEV)
    if not vcpu.pmu.irq_initialized:
        fail(errno.ENXIO)
    return vcpu.pmu.irq_num


def set_attr(vcpu: Vcpu, attr: int, read: Callable[[int], bytes]) -> None:
    """kvm_arm_pmu_v3_set_attr(). ENODEV: no PMU. EBUSY: initialised, or a vCPU has run. ENXIO."""
    pmu = vcpu.pmu
    if pmu is None:
        fail(errno.ENODEV)
    if pmu.created:
        fail(errno.EBUSY)
    match attr:
        case k.KVM_ARM_VCPU_PMU_V3_IRQ:
            _set_irq(vcpu, pmu, read)
        case k.KVM_ARM_VCPU_PMU_V3_FILTER:
            _set_filter(vcpu.vm, read(8))
        case k.KVM_ARM_VCPU_PMU_V3_SET_PMU:
            if int.from_bytes(read(4), "little", signed=True) != HOST_PMU_TYPE:
                fail(errno.ENXIO)
            if vcpu.vm.has_run:
                fail(errno.EBUSY)
            vcpu.vm.pmcr_n = MAX_COUNTERS
        case k.KVM_ARM_VCPU_PMU_V3_INIT:
            _init(vcpu, pmu)
        case _:
            fail(errno.ENXIO)


def _set_irq(vcpu: Vcpu, pmu: Pmu, read: Callable[[int], bytes]) -> None:
    """A PPI, the same for all vCPUs, or an SPI, another one for each."""
    if not vcpu.vm.irqchip_in_kernel:
        fail(errno.EINVAL)
    irq = int.from_bytes(read(4), "little", signed=True)
    if not irq_is_ppi(irq) and not irq_is_spi(irq):
        fail(errno.EINVAL)
    taken = [v.pmu.irq_num for v in vcpu.vm.vcpus if v.pmu is not None and v.pmu.irq_initialized]
    if any(number != irq if irq_is_ppi(irq) else number == irq for number in taken):
        fail(errno.EINVAL)
    if pmu.irq_initialized:
        fail(errno.EBUSY)
    pmu.irq_num = irq


def _set_filter(vm: Vm, raw: bytes) -> None:
    """struct kvm_pmu_event_filter: base_event, nevents, action. The first one sets the default."""
    base, count, action = struct.unpack_from("<HHB", raw)
    if base + count > NR_EVENTS:
        fail(errno.EINVAL)
    if action not in (k.KVM_PMU_EVENT_ALLOW, k.KVM_PMU_EVENT_DENY):
        fail(errno.EINVAL)
    if vm.has_run:
        fail(errno.EBUSY)
    allow = action == k.KVM_PMU_EVENT_ALLOW
    if vm.pmu_filter is None:
        vm.pmu_filter = bytearray([not allow]) * NR_EVENTS
    vm.pmu_filter[base : base + count] = bytes([allow]) * count


def _init(vcpu: Vcpu, pmu: Pmu) -> None:
    """kvm_arm_pmu_v3_init(): with a vgic, the interrupt belongs to the PMU from now on."""
    vm = vcpu.vm
    if vm.irqchip_in_kernel:
        if not vm.vgic.initialized:
            fail(errno.ENODEV)
        if not pmu.irq_initialized:
            fail(errno.ENXIO)
        ret = set_owner(vcpu, pmu.irq_num, pmu)
        if ret:
            fail(-ret)
    pmu.created = True
