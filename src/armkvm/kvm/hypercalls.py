"""SMCCC calls, after arch/arm64/kvm/hypercalls.c. What is no SMCCC service goes to PSCI.

Left out: the SMCCC filter, paravirtualised time, TRNG, PTP: they answer NOT_SUPPORTED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armkvm.abi import psci as p
from armkvm.kvm.kvm_host import M64
from armkvm.kvm.psci import kvm_psci_call

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

# The engine speculates nothing, so none of the workarounds has anything to do.
_ARCH_FEATURES = {
    p.ARM_SMCCC_ARCH_WORKAROUND_1: p.SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
    p.ARM_SMCCC_ARCH_WORKAROUND_2: p.SMCCC_RET_NOT_REQUIRED,
    p.ARM_SMCCC_ARCH_WORKAROUND_3: p.SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
}


def kvm_smccc_call_handler(vcpu: Vcpu) -> int:
    """An SMCCC call: the function is in W0, results go to X0..X3."""
    fn = vcpu.x[0] & 0xFFFF_FFFF
    match fn:
        case p.ARM_SMCCC_VERSION_FUNC_ID:
            results = [p.ARM_SMCCC_VERSION_1_1, 0, 0, 0]
        case p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID:
            asked = vcpu.x[1] & 0xFFFF_FFFF
            results = [_ARCH_FEATURES.get(asked, p.SMCCC_RET_NOT_SUPPORTED), 0, 0, 0]
        case p.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID:
            results = list(p.KVM_UID)
        case p.ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID:
            results = [1, 0, 0, 0]  # this call itself
        case _:
            return kvm_psci_call(vcpu)
    for i, value in enumerate(results):
        vcpu.x[i] = value & M64
    return 1
