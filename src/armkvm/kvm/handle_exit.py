"""What to do after an exit: a total table by exception class, after arch/arm64/kvm/handle_exit.c.

A handler returns 1 to enter the guest again, 0 to go to user space with kvm_run filled in, or a
negative errno. Left out: AArch32 classes (the engine has no AArch32), SVE, nested.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from armkvm.abi.kvm import KVM_EXIT_INTR
from armkvm.arch import esr as e
from armkvm.arch.word import M64
from armkvm.host.cpu import EXIT_IRQ, EXIT_TRAP
from armkvm.kvm.block import kvm_vcpu_halt, kvm_vcpu_on_spin
from armkvm.kvm.debug import kvm_handle_guest_debug
from armkvm.kvm.hypercalls import kvm_smccc_call_handler
from armkvm.kvm.inject_fault import kvm_inject_undefined
from armkvm.kvm.kvm_emulate import kvm_incr_pc
from armkvm.kvm.mmio import kvm_handle_guest_abort
from armkvm.kvm.sys_regs import kvm_handle_sys_reg

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

ExitHandler = Callable[["Vcpu", int], int]


def handle_hvc(vcpu: Vcpu, esr: int) -> int:
    """HVC: the PC is behind it already."""
    vcpu.stat.hvc_exit_stat += 1
    if vcpu.trace.kvm_hvc_arm64 is not None:
        vcpu.trace.kvm_hvc_arm64(vcpu.vcpu_id, vcpu.state.pc, vcpu.x[0], esr & 0xFFFF)
    return kvm_smccc_call_handler(vcpu)


def handle_smc(vcpu: Vcpu, esr: int) -> int:
    """SMC, trapped: the PC is still at it. A non-zero immediate is reserved by the SMCCC."""
    kvm_incr_pc(vcpu)
    if esr & 0xFFFF:
        vcpu.x[0] = M64
        return 1
    return kvm_smccc_call_handler(vcpu)


def kvm_handle_wfx(vcpu: Vcpu, esr: int) -> int:
    """WFI sleeps; WFE gives way to others for a moment."""
    is_wfe = bool(esr & e.WFX_TI_WFE)
    if vcpu.trace.kvm_wfx_arm64 is not None:
        vcpu.trace.kvm_wfx_arm64(vcpu.vcpu_id, vcpu.state.pc, is_wfe)
    if is_wfe:
        vcpu.stat.wfe_exit_stat += 1
        kvm_vcpu_on_spin(vcpu)
    else:
        vcpu.stat.wfi_exit_stat += 1
        kvm_vcpu_halt(vcpu)
    kvm_incr_pc(vcpu)
    return 1


def kvm_handle_unknown_ec(vcpu: Vcpu, _esr: int) -> int:
    """Nothing that KVM offers to a guest."""
    kvm_inject_undefined(vcpu)
    return 1


def _exit_handlers() -> tuple[ExitHandler, ...]:
    table: list[ExitHandler] = [kvm_handle_unknown_ec] * 64
    table[e.EC_WFX] = kvm_handle_wfx
    table[e.EC_HVC64] = handle_hvc
    table[e.EC_SMC64] = handle_smc
    table[e.EC_SYS64] = kvm_handle_sys_reg
    table[e.EC_IABT_LOW] = kvm_handle_guest_abort
    table[e.EC_DABT_LOW] = kvm_handle_guest_abort
    for ec in (e.EC_SOFTSTP_LOW, e.EC_WATCHPT_LOW, e.EC_BREAKPT_LOW, e.EC_BRK64):
        table[ec] = kvm_handle_guest_debug
    return tuple(table)


arm_exit_handlers = _exit_handlers()


def handle_exit(vcpu: Vcpu, code: int) -> int:
    """Dispatch one exit."""
    if code == EXIT_TRAP:
        esr: int = vcpu.state.esr_el2
        vcpu.esr = esr
        ec = esr >> e.EC_SHIFT & 0x3F
        vcpu.stat.ec[ec] += 1
        return arm_exit_handlers[ec](vcpu, esr)
    if code == EXIT_IRQ:
        # The host's business, and it has been done.
        vcpu.stat.irq_exits += 1
        return 1
    # The instruction limit, which KVM does not have: as a signal would.
    vcpu.stat.limit_exits += 1
    vcpu.run_struct.exit_reason = KVM_EXIT_INTR
    return -errno.EINTR
