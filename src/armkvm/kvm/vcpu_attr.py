"""Device attributes of a vCPU, after kvm_arm_vcpu_{set,get,has}_attr() in arch/arm64/kvm/guest.c.

The groups are those of devices/vcpu.rst. The order of the checks is the kernel's; an attribute's
value is read from the client only when it is the value's turn.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from armkvm.abi import kvm as k
from armkvm.kvm import pvtime
from armkvm.kvm.file import Read, fail
from armkvm.kvm.pmu import attr as pmu_attr

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

# What KVM_GET_DEVICE_ATTR returns has this many bytes.
SIZE: Final = {
    k.KVM_ARM_VCPU_PMU_V3_CTRL: 4, k.KVM_ARM_VCPU_TIMER_CTRL: 4, k.KVM_ARM_VCPU_PVTIME_CTRL: 8,
}  # fmt: skip
TIMERS: Final = (k.KVM_ARM_VCPU_TIMER_IRQ_VTIMER, k.KVM_ARM_VCPU_TIMER_IRQ_PTIMER)


def has_attr(vcpu: Vcpu, group: int, attr: int) -> None:
    """KVM_HAS_DEVICE_ATTR. ENXIO."""
    match group:
        case k.KVM_ARM_VCPU_PMU_V3_CTRL:
            pmu_attr.has_attr(vcpu, attr)
        case k.KVM_ARM_VCPU_TIMER_CTRL if attr in TIMERS:
            pass
        case k.KVM_ARM_VCPU_PVTIME_CTRL:
            pvtime.has_attr(attr)
        case _:
            fail(errno.ENXIO)


def get_attr(vcpu: Vcpu, group: int, attr: int) -> int:
    """KVM_GET_DEVICE_ATTR. ENXIO, and what the group says."""
    match group:
        case k.KVM_ARM_VCPU_PMU_V3_CTRL:
            value = pmu_attr.get_attr(vcpu, attr)
        case k.KVM_ARM_VCPU_TIMER_CTRL if attr in TIMERS:
            value = vcpu.arch_timer.timers[attr].irq
        case k.KVM_ARM_VCPU_PVTIME_CTRL:
            value = pvtime.get_attr(vcpu, attr)
        case _:
            fail(errno.ENXIO)
    return value


def set_attr(vcpu: Vcpu, group: int, attr: int, read: Read) -> None:
    """KVM_SET_DEVICE_ATTR. ENXIO, and what the group says."""
    match group:
        case k.KVM_ARM_VCPU_PMU_V3_CTRL:
            with vcpu.vm.config_lock:
                pmu_attr.set_attr(vcpu, attr, read)
        case k.KVM_ARM_VCPU_TIMER_CTRL:
            _set_timer(vcpu, attr, read)
        case k.KVM_ARM_VCPU_PVTIME_CTRL:
            pvtime.set_attr(vcpu, attr, read)
        case _:
            fail(errno.ENXIO)


def _set_timer(vcpu: Vcpu, attr: int, read: Read) -> None:
    """kvm_arm_timer_set_attr(): a PPI means something only to an interrupt controller of ours."""
    if not vcpu.vm.irqchip_in_kernel:
        fail(errno.EINVAL)
    vcpu.arch_timer.set_ppi(attr, int.from_bytes(read(4), "little", signed=True))
