"""Stage-2 aborts and MMIO, after arch/arm64/kvm/mmu.c (kvm_handle_guest_abort) and mmio.c.

An access that no memory slot backs is MMIO if its syndrome says what to do; the access itself is
completed on the next KVM_RUN, with the data that user space left in kvm_run. Left out: big-endian
guests (the engine has none).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi.kvm import KVM_EXIT_ARM_NISV, KVM_EXIT_MMIO
from armkvm.arch import esr as e
from armkvm.arch.word import M64
from armkvm.kvm.inject_fault import kvm_inject_dabt, kvm_inject_pabt, kvm_inject_size_fault
from armkvm.kvm.kvm_emulate import kvm_incr_pc

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

_MASK = (0xFF, 0xFFFF, 0xFFFF_FFFF, M64)  # by SAS


def kvm_handle_guest_abort(vcpu: Vcpu, esr: int) -> int:
    """A stage-2 abort, instruction or data."""
    state = vcpu.state
    page = (state.hpfar_el2 & ~0xF) << 8
    is_iabt = esr >> e.EC_SHIFT == e.EC_IABT_LOW
    if vcpu.trace.kvm_guest_fault is not None:
        vcpu.trace.kvm_guest_fault(vcpu.vcpu_id, state.pc, esr, state.far_el2, page)
    memslots = vcpu.memslots
    if page >= memslots.limit:
        return _beyond_ipa_space(vcpu, page, is_iabt)
    slot = memslots.find(page)
    write = bool(esr & e.DABT_WNR) and not is_iabt and not esr & e.DABT_S1PTW
    if slot is not None and not (write and slot.readonly):
        # In a slot, and the engine could not reach it: a hole.
        return -errno.EFAULT
    if is_iabt:
        # Nothing user space could do about it: there is no syndrome.
        kvm_inject_pabt(vcpu, state.far_el2)
        return 1
    if esr & e.DABT_S1PTW:
        # The guest put its page tables where no memory is.
        kvm_inject_dabt(vcpu, state.far_el2)
        return 1
    if esr & e.DABT_CM and slot is None:
        # Cache maintenance on a device, or on nothing: in neither case is there a line to clean.
        kvm_incr_pc(vcpu)
        return 1
    # HPFAR has the page; the offset in it is the virtual address's.
    return io_mem_abort(vcpu, esr, page | state.far_el2 & 0xFFF)


def _beyond_ipa_space(vcpu: Vcpu, page: int, is_iabt: bool) -> int:
    """An address that the VM's address space does not have."""
    fault = page | vcpu.state.far_el2 & 0xFFF
    if page >> vcpu.vm.host.kind.ipa_limit:
        kvm_inject_size_fault(vcpu, is_iabt, fault)
    elif is_iabt:
        kvm_inject_pabt(vcpu, fault)
    else:
        kvm_inject_dabt(vcpu, fault)
    return 1


def io_mem_abort(vcpu: Vcpu, esr: int, ipa: int) -> int:
    """MMIO: to user space."""
    if not esr & e.DABT_ISV:
        return _io_abort_without_syndrome(vcpu, esr, ipa)
    sas = esr >> e.DABT_SAS_SHIFT & 3
    mmio = vcpu.page.mmio
    mmio.phys_addr = ipa
    mmio.len = 1 << sas
    if esr & e.DABT_WNR:
        rt = esr >> e.DABT_SRT_SHIFT & 31
        value = vcpu.x[rt] if rt != 31 else 0
        # Only `len` bytes: the others keep what they held.
        vcpu.page.data[sas].value = value
        mmio.is_write = 1
        if vcpu.trace.kvm_mmio is not None:
            vcpu.trace.kvm_mmio(vcpu.vcpu_id, "write", 1 << sas, ipa, value & _MASK[sas])
    else:
        mmio.is_write = 0
        if vcpu.trace.kvm_mmio is not None:
            vcpu.trace.kvm_mmio(vcpu.vcpu_id, "unsatisfied-read", 1 << sas, ipa, 0)
    if vcpu.vm.mmio_bus.ranges and _in_kernel(vcpu, esr, ipa):
        return 1
    vcpu.run_struct.exit_reason = KVM_EXIT_MMIO
    vcpu.mmio_needed = True
    vcpu.stat.mmio_exit_user += 1
    return 0


def _in_kernel(vcpu: Vcpu, esr: int, ipa: int) -> bool:
    """A device in the kernel takes the access: kvm_run holds it, and nobody will see that."""
    bus = vcpu.vm.mmio_bus
    sas = esr >> e.DABT_SAS_SHIFT & 3
    if esr & e.DABT_WNR:
        if not bus.write(vcpu, ipa, 1 << sas, vcpu.page.data[sas].value):
            return False
    else:
        value = bus.read(vcpu, ipa, 1 << sas)
        if value is None:
            return False
        vcpu.page.data[sas].value = value
    vcpu.stat.mmio_exit_kernel += 1
    kvm_handle_mmio_return(vcpu)
    return True


def _io_abort_without_syndrome(vcpu: Vcpu, esr: int, ipa: int) -> int:
    """LDP, write-back and SIMD accesses: KVM does not decode instructions."""
    if vcpu.trace.kvm_mmio_nisv is not None:
        state = vcpu.state
        vcpu.trace.kvm_mmio_nisv(vcpu.vcpu_id, state.pc, esr, state.far_el2, ipa)
    if not vcpu.vm.nisv_to_user:
        return -errno.ENOSYS
    run = vcpu.run_struct
    run.exit_reason = KVM_EXIT_ARM_NISV
    iss = esr & (e.DABT_CM | e.DABT_WNR | e.FSC_MASK)
    if iss & e.FSC_TYPE_MASK == e.FSC_TRANSLATION:
        iss = iss & ~3 | vcpu.vm.memslots.fault_level(ipa)
    run.arm_nisv.esr_iss = iss
    run.arm_nisv.fault_ipa = ipa
    return 0


def kvm_handle_mmio_return(vcpu: Vcpu) -> None:
    """Complete the access that the last exit reported: write Rt, step over the instruction."""
    vcpu.mmio_needed = False
    esr = vcpu.esr
    if not esr & e.DABT_WNR:
        sas = esr >> e.DABT_SAS_SHIFT & 3
        value: int = vcpu.page.data[sas].value
        if vcpu.trace.kvm_mmio is not None:
            vcpu.trace.kvm_mmio(vcpu.vcpu_id, "read", 1 << sas, vcpu.page.mmio.phys_addr, value)
        if esr & e.DABT_SSE and sas != 3:
            sign = 1 << (8 << sas) - 1
            value = (value ^ sign) - sign
        value &= M64 if esr & e.DABT_SF else 0xFFFF_FFFF
        rt = esr >> e.DABT_SRT_SHIFT & 31
        if rt != 31:
            vcpu.x[rt] = value
    kvm_incr_pc(vcpu)
