"""PSCI by HVC and SMC, after arch/arm64/kvm/psci.c. Version 1.1, or 0.1 without the vCPU feature.

A call returns 1 to go on in the guest, 0 for an exit to user space. Left out: the migration calls.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.arch.word import M64
from armkvm.kvm import kvm_host as h
from armkvm.kvm.block import kvm_arch_vcpu_runnable, kvm_vcpu_halt

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

MPIDR_HWID_BITMASK = 0xFF_00FF_FFFF

FEATURES = frozenset((
    p.PSCI_0_2_FN_PSCI_VERSION, p.PSCI_0_2_FN_CPU_SUSPEND, p.PSCI_0_2_FN64_CPU_SUSPEND,
    p.PSCI_0_2_FN_CPU_OFF, p.PSCI_0_2_FN_CPU_ON, p.PSCI_0_2_FN64_CPU_ON,
    p.PSCI_0_2_FN_AFFINITY_INFO, p.PSCI_0_2_FN64_AFFINITY_INFO, p.PSCI_0_2_FN_MIGRATE_INFO_TYPE,
    p.PSCI_0_2_FN_SYSTEM_OFF, p.PSCI_0_2_FN_SYSTEM_RESET, p.PSCI_1_0_FN_PSCI_FEATURES,
    p.ARM_SMCCC_VERSION_FUNC_ID,
))  # fmt: skip
SUSPEND_FNS = (p.PSCI_1_0_FN_SYSTEM_SUSPEND, p.PSCI_1_0_FN64_SYSTEM_SUSPEND)
RESET2_FNS = (p.PSCI_1_1_FN_SYSTEM_RESET2, p.PSCI_1_1_FN64_SYSTEM_RESET2)


def kvm_psci_version(vcpu: Vcpu) -> int:
    """kvm_psci_version(): the latest, unless user space has chosen for the VM."""
    if vcpu.features & 1 << k.KVM_ARM_VCPU_PSCI_0_2:
        return vcpu.vm.psci_version or p.KVM_ARM_PSCI_LATEST
    return p.KVM_ARM_PSCI_0_1


def kvm_psci_call(vcpu: Vcpu) -> int:
    """kvm_psci_call(): by the version that the VM offers."""
    fn = vcpu.x[0] & 0xFFFF_FFFF
    version = kvm_psci_version(vcpu)
    if version >= p.KVM_ARM_PSCI_1_0:
        value = _psci_1_x(vcpu, fn, version)
    elif version == p.KVM_ARM_PSCI_0_2:
        value = _psci_0_2(vcpu, fn, version)
    else:
        value = _psci_0_1(vcpu, fn)
    if value is None:
        return 0
    vcpu.x[0] = value & M64
    return 1


def _arg(vcpu: Vcpu, n: int, fn: int) -> int:
    """Argument n of the call; a 32-bit call has 32-bit arguments."""
    value: int = vcpu.x[n]
    return value if fn & p.PSCI_0_2_64BIT else value & 0xFFFF_FFFF


def _psci_1_x(vcpu: Vcpu, fn: int, version: int) -> int | None:
    minor = version & 0xFFFF
    if fn == p.PSCI_0_2_FN_PSCI_VERSION:
        return version
    if fn == p.PSCI_1_0_FN_PSCI_FEATURES:
        asked = vcpu.x[1] & 0xFFFF_FFFF
        offered = (
            asked in FEATURES
            or (asked in SUSPEND_FNS and vcpu.vm.system_suspend)
            or (asked in RESET2_FNS and minor >= 1)
        )
        return 0 if offered else p.PSCI_RET_NOT_SUPPORTED
    if fn in SUSPEND_FNS:
        if not vcpu.vm.system_suspend:
            return p.PSCI_RET_NOT_SUPPORTED
        # User space decides what becomes of it, X0 included.
        _system_event(vcpu, k.KVM_SYSTEM_EVENT_SUSPEND)
        return None
    if fn in RESET2_FNS and minor >= 1:
        kind = _arg(vcpu, 1, fn)
        if p.PSCI_1_1_RESET_TYPE_SYSTEM_WARM_RESET < kind < p.PSCI_1_1_RESET_TYPE_VENDOR_START:
            return p.PSCI_RET_INVALID_PARAMS
        flags = k.KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2
        _prepare_system_event(vcpu, k.KVM_SYSTEM_EVENT_RESET, flags)
        return None
    return _psci_0_2(vcpu, fn, version)


def _psci_0_2(vcpu: Vcpu, fn: int, version: int) -> int | None:
    match fn:
        case p.PSCI_0_2_FN_PSCI_VERSION:
            return version
        case p.PSCI_0_2_FN_CPU_SUSPEND | p.PSCI_0_2_FN64_CPU_SUSPEND:
            # Standby: the state ID is the same as a WFI's.
            kvm_vcpu_halt(vcpu)
            return p.PSCI_RET_SUCCESS
        case p.PSCI_0_2_FN_CPU_OFF:
            vcpu.power_off()
            return p.PSCI_RET_SUCCESS
        case p.PSCI_0_2_FN_CPU_ON | p.PSCI_0_2_FN64_CPU_ON:
            return _vcpu_on(vcpu, fn)
        case p.PSCI_0_2_FN_AFFINITY_INFO | p.PSCI_0_2_FN64_AFFINITY_INFO:
            return _affinity_info(vcpu, fn)
        case p.PSCI_0_2_FN_MIGRATE_INFO_TYPE:
            return p.PSCI_0_2_TOS_MP
        case p.PSCI_0_2_FN_SYSTEM_OFF:
            _prepare_system_event(vcpu, k.KVM_SYSTEM_EVENT_SHUTDOWN)
            return None
        case p.PSCI_0_2_FN_SYSTEM_RESET:
            _prepare_system_event(vcpu, k.KVM_SYSTEM_EVENT_RESET)
            return None
        case _:
            return p.PSCI_RET_NOT_SUPPORTED


def _psci_0_1(vcpu: Vcpu, fn: int) -> int:
    match fn:
        case p.KVM_PSCI_FN_CPU_OFF:
            vcpu.power_off()
            return p.PSCI_RET_SUCCESS
        case p.KVM_PSCI_FN_CPU_ON:
            return _vcpu_on(vcpu, fn)
        case _:
            return p.PSCI_RET_NOT_SUPPORTED


def _vcpu_on(source: Vcpu, fn: int) -> int:
    """kvm_psci_vcpu_on(): make the target reset itself when it wakes up."""
    target = _arg(source, 1, fn)
    if target & ~MPIDR_HWID_BITMASK:
        return p.PSCI_RET_INVALID_PARAMS
    for vcpu in source.vm.vcpus:
        if vcpu.state.mpidr_el1 & MPIDR_HWID_BITMASK == target:
            break
    else:
        return p.PSCI_RET_INVALID_PARAMS
    with vcpu.wait:
        if not vcpu.stopped:
            if kvm_psci_version(source) == p.KVM_ARM_PSCI_0_1:
                return p.PSCI_RET_INVALID_PARAMS
            return p.PSCI_RET_ALREADY_ON
        vcpu.reset_state = (_arg(source, 2, fn), _arg(source, 3, fn))
        vcpu.requests |= h.REQ_VCPU_RESET
        # Runnable last: from here on its thread may see it.
        vcpu.mp_state = k.KVM_MP_STATE_RUNNABLE
    vcpu.wake_up()
    return p.PSCI_RET_SUCCESS


def _affinity_info(source: Vcpu, fn: int) -> int:
    target, level = _arg(source, 1, fn), _arg(source, 2, fn)
    if target & ~MPIDR_HWID_BITMASK or level > 3:
        return p.PSCI_RET_INVALID_PARAMS
    mask = MPIDR_HWID_BITMASK & ~((1 << 8 * level) - 1)
    matching = [vcpu for vcpu in source.vm.vcpus if vcpu.state.mpidr_el1 & mask == target & mask]
    if not matching:
        return p.PSCI_RET_INVALID_PARAMS
    if any(not vcpu.stopped for vcpu in matching):
        return p.PSCI_0_2_AFFINITY_LEVEL_ON
    return p.PSCI_0_2_AFFINITY_LEVEL_OFF


def _system_event(vcpu: Vcpu, kind: int, data: tuple[int, ...] = ()) -> None:
    """Fill in an exit of kind KVM_EXIT_SYSTEM_EVENT."""
    run = vcpu.run_struct
    event = run.system_event
    ctypes.memset(ctypes.addressof(event), 0, ctypes.sizeof(event))
    event.type = kind
    event.ndata = len(data)
    for i, value in enumerate(data):
        event.data[i] = value
    run.exit_reason = k.KVM_EXIT_SYSTEM_EVENT


def _prepare_system_event(vcpu: Vcpu, kind: int, flags: int = 0) -> None:
    """kvm_prepare_system_event(): all vCPUs of the VM stay out of the guest.

    Should user space let this one go on after all, it finds a failure in X0.
    """
    for other in vcpu.vm.vcpus:
        other.mp_state = k.KVM_MP_STATE_STOPPED
        other.make_request(h.REQ_SLEEP)
        if other is not vcpu:
            other.vcpu_kick()
    vcpu.x[0] = p.PSCI_RET_INTERNAL_FAILURE & M64
    _system_event(vcpu, kind, (flags,))


def suspend(vcpu: Vcpu) -> int:
    """kvm_vcpu_suspend(): MP state SUSPENDED is a WFI; user space is told of the wake-up."""
    kvm_vcpu_halt(vcpu)
    if vcpu.mp_state == k.KVM_MP_STATE_SUSPENDED:
        vcpu.make_request(h.REQ_SUSPEND)
    if kvm_arch_vcpu_runnable(vcpu):
        _system_event(vcpu, k.KVM_SYSTEM_EVENT_WAKEUP)
        return 0
    return 1
