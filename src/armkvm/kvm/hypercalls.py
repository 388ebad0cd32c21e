"""SMCCC calls, after arch/arm64/kvm/hypercalls.c. What is no SMCCC service goes to PSCI.

Which services a VM has, user space may choose (KVM_REG_ARM_STD_HYP_BMAP, ...). Left out: the SMCCC
filter; TRNG, which answers NOT_SUPPORTED, as random numbers are an input that nobody recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armkvm.abi import psci as p
from armkvm.abi import regs as r
from armkvm.arch.timer import NS_PER_TICK_SHIFT
from armkvm.arch.word import M64
from armkvm.kvm import pvtime
from armkvm.kvm.psci import kvm_psci_call

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

# Bits of the bitmaps of services
STD_HYP_PV_TIME = 1 << 0
VENDOR_HYP_FUNC_FEAT, VENDOR_HYP_PTP = 1 << 0, 1 << 1

# The engine speculates nothing, so none of the workarounds has anything to do.
_ARCH_FEATURES = {
    p.ARM_SMCCC_ARCH_WORKAROUND_1: p.SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
    p.ARM_SMCCC_ARCH_WORKAROUND_2: p.SMCCC_RET_NOT_REQUIRED,
    p.ARM_SMCCC_ARCH_WORKAROUND_3: p.SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
}


def kvm_smccc_call_handler(vcpu: Vcpu) -> int:
    """An SMCCC call: the function is in W0, results go to X0..X3."""
    fn = vcpu.x[0] & 0xFFFF_FFFF
    services = vcpu.vm.smccc_services
    std_hyp = services.get(r.KVM_REG_ARM_STD_HYP_BMAP, STD_HYP_PV_TIME)
    vendor = services.get(r.KVM_REG_ARM_VENDOR_HYP_BMAP, VENDOR_HYP_FUNC_FEAT | VENDOR_HYP_PTP)
    match fn:
        case p.ARM_SMCCC_VERSION_FUNC_ID:
            results = [p.ARM_SMCCC_VERSION_1_1, 0, 0, 0]
        case p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID:
            asked = vcpu.x[1] & 0xFFFF_FFFF
            answer = _ARCH_FEATURES.get(asked, p.SMCCC_RET_NOT_SUPPORTED)
            if asked == p.ARM_SMCCC_HV_PV_TIME_FEATURES and std_hyp & STD_HYP_PV_TIME:
                answer = p.SMCCC_RET_SUCCESS
            results = [answer, 0, 0, 0]
        case p.ARM_SMCCC_HV_PV_TIME_FEATURES if std_hyp & STD_HYP_PV_TIME:
            results = [_pv_time_features(vcpu), 0, 0, 0]
        case p.ARM_SMCCC_HV_PV_TIME_ST if std_hyp & STD_HYP_PV_TIME:
            base = pvtime.init_stolen_time(vcpu)
            results = [base, 0, 0, 0]  # INVALID_GPA is NOT_SUPPORTED
        case p.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID if vendor & VENDOR_HYP_FUNC_FEAT:
            results = list(p.KVM_UID)
        case p.ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID if vendor & VENDOR_HYP_FUNC_FEAT:
            results = [vendor, 0, 0, 0]
        case p.ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID if vendor & VENDOR_HYP_PTP:
            results = _ptp(vcpu)
        case _:
            return kvm_psci_call(vcpu)
    for i, value in enumerate(results):
        vcpu.x[i] = value & M64
    return 1


def _pv_time_features(vcpu: Vcpu) -> int:
    """kvm_hypercall_pv_features()."""
    asked = vcpu.x[1] & 0xFFFF_FFFF
    known = asked in (p.ARM_SMCCC_HV_PV_TIME_FEATURES, p.ARM_SMCCC_HV_PV_TIME_ST)
    offered = known and vcpu.steal.base != pvtime.INVALID_GPA
    return p.SMCCC_RET_SUCCESS if offered else p.SMCCC_RET_NOT_SUPPORTED


def _ptp(vcpu: Vcpu) -> list[int]:
    """kvm_ptp_get_time(): the wall clock and the guest's counter, at the same instant."""
    vm = vcpu.vm
    match vcpu.x[1] & 0xFFFF_FFFF:
        case p.KVM_PTP_VIRT_COUNTER:
            offset = vm.voffset.value
        case p.KVM_PTP_PHYS_COUNTER:
            offset = vm.poffset.value
        case _:
            return [p.SMCCC_RET_NOT_SUPPORTED, 0, 0, 0]
    now = vcpu.now()
    wall = vm.clock.epoch_ns + now
    cycles = (now >> NS_PER_TICK_SHIFT) - offset & M64
    return [wall >> 32, wall & 0xFFFF_FFFF, cycles >> 32, cycles & 0xFFFF_FFFF]
