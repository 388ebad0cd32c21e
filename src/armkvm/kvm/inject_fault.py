"""Faults that KVM injects into the guest, after arch/arm64/kvm/inject_fault.c.

They arrive as the hardware would deliver them at EL1. Left out: AArch32, nested.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.arch import esr as e
from armkvm.arch.hcr import HCR_VSE
from armkvm.kvm.file import fail

if TYPE_CHECKING:
    from armkvm.abi.structs import KvmVcpuEvents
    from armkvm.kvm.vcpu import Vcpu

PSTATE_EL_MASK = 0xC


def _inject_abort(vcpu: Vcpu, is_iabt: bool, address: int, fsc: int = e.FSC_EXTABT) -> None:
    """inject_abt64(): a synchronous abort at the current instruction."""
    from_el0 = vcpu.cpu.pstate & PSTATE_EL_MASK == 0
    if is_iabt:
        ec = e.EC_IABT_LOW if from_el0 else e.EC_IABT_CUR
    else:
        ec = e.EC_DABT_LOW if from_el0 else e.EC_DABT_CUR
    vcpu.cpu.take_exception(ec << e.EC_SHIFT | vcpu.esr & e.IL | fsc, address)


def kvm_inject_dabt(vcpu: Vcpu, address: int) -> None:
    """A synchronous external data abort."""
    _inject_abort(vcpu, False, address)


def kvm_inject_pabt(vcpu: Vcpu, address: int) -> None:
    """A synchronous external instruction abort."""
    _inject_abort(vcpu, True, address)


def kvm_inject_size_fault(vcpu: Vcpu, is_iabt: bool, address: int) -> None:
    """An address size fault, level 0: an output address beyond what the CPU implements.

    KVM puts the intermediate physical address into FAR_EL1 here.
    """
    _inject_abort(vcpu, is_iabt, address, e.FSC_ADDRESS_SIZE)


def kvm_inject_undefined(vcpu: Vcpu) -> None:
    """The instruction is UNDEFINED. FAR_EL1 keeps what it held."""
    esr = e.EC_UNKNOWN << e.EC_SHIFT | vcpu.esr & e.IL
    vcpu.cpu.take_exception(esr, vcpu.state.far_el1)


def get_events(vcpu: Vcpu, events: KvmVcpuEvents) -> None:
    """KVM_GET_VCPU_EVENTS."""
    events.serror_pending = int(bool(vcpu.hcr & HCR_VSE))
    events.serror_has_esr = int(vcpu.vm.host.kind.ras)
    if events.serror_pending and events.serror_has_esr:
        events.serror_esr = vcpu.state.vsesr_el2


def set_events(vcpu: Vcpu, events: KvmVcpuEvents) -> None:
    """KVM_SET_VCPU_EVENTS: a pending SError, an external abort on the access that exited.

    The abort is taken at once (commit_pending_events(), Linux 6.17): KVM_GET_VCPU_EVENTS does not
    return it, so it has to be in the registers that user space saves.
    """
    if any(events.reserved) or any(events.pad):
        fail(errno.EINVAL)
    ras = vcpu.vm.host.kind.ras
    if events.serror_pending:
        if events.serror_has_esr and (not ras or events.serror_esr & ~e.ISS_MASK):
            fail(errno.EINVAL)  # a syndrome needs RAS
        # Without one of user space's, it says that it is implementation defined.
        iss = events.serror_esr if events.serror_has_esr else e.SERROR_IDS
        vcpu.state.vsesr_el2 = iss if ras else 0
        with vcpu.wait:
            vcpu.hcr |= HCR_VSE
    if events.ext_dabt_pending:
        # The access that exited has failed: the next KVM_RUN must not complete it at the vector.
        vcpu.mmio_needed = False
        kvm_inject_dabt(vcpu, vcpu.state.far_el2)


def sync_serror(vcpu: Vcpu) -> None:
    """Exit: a pending SError stays pending, unless the guest has taken it, which clears VSE."""
    if not vcpu.state.hcr_vse:
        with vcpu.wait:
            vcpu.hcr &= ~HCR_VSE
        vcpu.lines_in_hw &= ~HCR_VSE
