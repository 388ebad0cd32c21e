"""SMCCC calls, after arch/arm64/kvm/hypercalls.c. What is no SMCCC service goes to PSCI.

Which services a VM has, user space may choose (KVM_REG_ARM_STD_HYP_BMAP, ...), and what becomes of
single calls (smccc_filter.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs as r
from armkvm.abi.structs import KvmRunHypercall
from armkvm.arch import esr as e
from armkvm.arch.timer import NS_PER_TICK_SHIFT
from armkvm.arch.word import M64
from armkvm.kvm import pvtime
from armkvm.kvm.psci import kvm_psci_call
from armkvm.kvm.trng import TRNG_FUNCTIONS, kvm_trng_call

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

# The engine speculates nothing, so none of the workarounds has anything to do.
_ARCH_FEATURES = {
    p.ARM_SMCCC_ARCH_WORKAROUND_1: p.SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
    p.ARM_SMCCC_ARCH_WORKAROUND_2: p.SMCCC_RET_NOT_REQUIRED,
    p.ARM_SMCCC_ARCH_WORKAROUND_3: p.SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
}


def kvm_smccc_call_handler(vcpu: Vcpu) -> int:
    """An SMCCC call: the function is in W0, results go to X0..X3."""
    fn = vcpu.x[0] & 0xFFFF_FFFF
    match _action(vcpu, fn):
        case k.KVM_SMCCC_FILTER_DENY:
            results = [p.SMCCC_RET_NOT_SUPPORTED, 0, 0, 0]
        case k.KVM_SMCCC_FILTER_FWD_TO_USER:
            return _prepare_hypercall_exit(vcpu, fn)
        case _ if fn in _SERVICES:
            results = _SERVICES[fn].call(vcpu)
        case _:
            return kvm_psci_call(vcpu)
    for i, value in enumerate(results):
        vcpu.x[i] = value & M64
    return 1


def _action(vcpu: Vcpu, fn: int) -> int:
    """kvm_smccc_get_action(): the filter's word, then whether the VM has the service."""
    action = vcpu.vm.smccc_filter.action(fn)
    if action == k.KVM_SMCCC_FILTER_HANDLE and not _has_service(vcpu, fn):
        return k.KVM_SMCCC_FILTER_DENY
    return action


def _has_service(vcpu: Vcpu, fn: int) -> bool:
    """kvm_smccc_test_fw_bmap(); of what has no bit, PSCI makes out what it knows."""
    service = _SERVICES.get(fn, _NO_BIT)
    return not service.bit or bool(services(vcpu.vm, service.bitmap) & service.bit)


def services(vm: Vm, bitmap: int) -> int:
    """The services of a VM, by the one-reg that has the bitmap."""
    return vm.smccc_services.get(bitmap, SERVICES[bitmap])


def _prepare_hypercall_exit(vcpu: Vcpu, fn: int) -> int:
    """kvm_prepare_hypercall_exit(): user space reads the arguments and sets the results itself."""
    is_smc = vcpu.esr >> e.EC_SHIFT & 0x3F == e.EC_SMC64
    run = vcpu.run_struct
    run.exit_reason = k.KVM_EXIT_HYPERCALL
    run.hypercall = KvmRunHypercall(nr=fn, flags=k.KVM_HYPERCALL_EXIT_SMC if is_smc else 0)
    return 0


# services


def _version(_vcpu: Vcpu) -> list[int]:
    return [p.ARM_SMCCC_VERSION_1_1, 0, 0, 0]


def _arch_features(vcpu: Vcpu) -> list[int]:
    asked = vcpu.x[1] & 0xFFFF_FFFF
    answer = _ARCH_FEATURES.get(asked, p.SMCCC_RET_NOT_SUPPORTED)
    if asked == p.ARM_SMCCC_HV_PV_TIME_FEATURES and _has_service(vcpu, asked):
        answer = p.SMCCC_RET_SUCCESS
    return [answer, 0, 0, 0]


def _pv_time_features(vcpu: Vcpu) -> list[int]:
    """kvm_hypercall_pv_features()."""
    asked = vcpu.x[1] & 0xFFFF_FFFF
    known = asked in (p.ARM_SMCCC_HV_PV_TIME_FEATURES, p.ARM_SMCCC_HV_PV_TIME_ST)
    offered = known and vcpu.steal.base != pvtime.INVALID_GPA
    return [p.SMCCC_RET_SUCCESS if offered else p.SMCCC_RET_NOT_SUPPORTED, 0, 0, 0]


def _pv_time_st(vcpu: Vcpu) -> list[int]:
    return [pvtime.init_stolen_time(vcpu), 0, 0, 0]  # INVALID_GPA is NOT_SUPPORTED


def _vendor_uid(_vcpu: Vcpu) -> list[int]:
    return list(p.KVM_UID)


def _vendor_features(vcpu: Vcpu) -> list[int]:
    return [services(vcpu.vm, r.KVM_REG_ARM_VENDOR_HYP_BMAP), 0, 0, 0]


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


class _Service(NamedTuple):
    """How a function is answered, and its bit in the bitmap of a one-reg, if it has one."""

    call: Callable[[Vcpu], list[int]]
    bitmap: int = 0
    bit: int = 0


_NO_BIT: Final = _Service(lambda _vcpu: [])
_SERVICES: Final[dict[int, _Service]] = {
    p.ARM_SMCCC_VERSION_FUNC_ID: _Service(_version),
    p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID: _Service(_arch_features),
    **dict.fromkeys(TRNG_FUNCTIONS, _Service(kvm_trng_call, r.KVM_REG_ARM_STD_BMAP, 1 << 0)),
    p.ARM_SMCCC_HV_PV_TIME_FEATURES: _Service(
        _pv_time_features, r.KVM_REG_ARM_STD_HYP_BMAP, 1 << 0
    ),
    p.ARM_SMCCC_HV_PV_TIME_ST: _Service(_pv_time_st, r.KVM_REG_ARM_STD_HYP_BMAP, 1 << 0),
    p.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID: _Service(
        _vendor_uid, r.KVM_REG_ARM_VENDOR_HYP_BMAP, 1 << 0
    ),
    p.ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID: _Service(
        _vendor_features, r.KVM_REG_ARM_VENDOR_HYP_BMAP, 1 << 0
    ),
    p.ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID: _Service(_ptp, r.KVM_REG_ARM_VENDOR_HYP_BMAP, 1 << 1),
}


def _all_services() -> dict[int, int]:
    found: dict[int, int] = {}
    for service in _SERVICES.values():
        if service.bit:
            found[service.bitmap] = found.get(service.bitmap, 0) | service.bit
    return found


SERVICES: Final = _all_services()  # all that there are: bits by one-reg
