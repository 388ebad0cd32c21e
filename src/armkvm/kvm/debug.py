"""Debugging a guest from user space: KVM_SET_GUEST_DEBUG, after arch/arm64/kvm/debug.c.

BRK exits (MDCR_EL2.TDE). Single step is the engine's exact instruction limit where hardware has
PSTATE.SS; an instruction that KVM emulates is a step too. Hardware breakpoints compare the PC
before each instruction, so a guest that has one runs step by step. Left out: watchpoints (they
never match), the guest's own debugging with breakpoint registers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from armkvm.abi import kvm as k
from armkvm.arch import esr as e
from armkvm.host.cpu import EXIT_LIMIT, EXIT_TRAP
from armkvm.kvm.file import fail

if TYPE_CHECKING:
    from armkvm.abi.structs import KvmGuestDebug
    from armkvm.kvm.vcpu import Vcpu

KVM_GUESTDBG_VALID_MASK: Final = (
    k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_SW_BP | k.KVM_GUESTDBG_USE_HW
    | k.KVM_GUESTDBG_SINGLESTEP
)  # fmt: skip
BCR_ENABLE: Final = 1


class GuestDebug:
    """vcpu->guest_debug while it is enabled, with the external debug state."""

    def __init__(self, vcpu: Vcpu, args: KvmGuestDebug) -> None:
        self.vcpu = vcpu
        self.single_step = bool(args.control & k.KVM_GUESTDBG_SINGLESTEP)
        self.breakpoints: frozenset[int] = frozenset()
        if args.control & k.KVM_GUESTDBG_USE_HW:
            present = range(vcpu.vm.host.kind.breakpoints)
            self.breakpoints = frozenset(
                args.dbg_bvr[i] & ~3 for i in present if args.dbg_bcr[i] & BCR_ENABLE
            )
        self._from: int | None = None  # PC of the instruction that is being stepped

    def before_entry(self) -> bool:
        """An exception is due before the next instruction: kvm_run has the exit."""
        pc = self.vcpu.state.pc
        if self.single_step and self._from is not None and pc != self._from:
            self._from = None
            self.exit(e.EC_SOFTSTP_LOW << e.EC_SHIFT | e.IL | e.FSC_DEBUG)
            return True
        if pc in self.breakpoints:
            self.exit(e.EC_BREAKPT_LOW << e.EC_SHIFT | e.IL | e.FSC_DEBUG)
            return True
        return False

    def run(self) -> int:
        """Guest code, an instruction at a time if need be."""
        cpu, state = self.vcpu.cpu, self.vcpu.state
        if not self.single_step and not self.breakpoints:
            return cpu.run()
        limit, count, self._from = state.limit, state.count, state.pc
        state.limit = min(limit, count + 1)
        code = cpu.run()
        state.limit = limit
        if code == EXIT_LIMIT and state.count > count:
            state.esr_el2 = e.EC_SOFTSTP_LOW << e.EC_SHIFT | e.IL | e.FSC_DEBUG
            self._from = None
            return EXIT_TRAP
        return code

    def exit(self, esr: int) -> None:
        """Fill in KVM_EXIT_DEBUG."""
        run = self.vcpu.run_struct
        run.exit_reason = k.KVM_EXIT_DEBUG
        run.debug.hsr = esr & 0xFFFF_FFFF
        run.debug.hsr_high = esr >> 32
        run.flags = k.KVM_DEBUG_ARCH_HSR_HIGH_VALID


def set_guest_debug(vcpu: Vcpu, args: KvmGuestDebug) -> None:
    """kvm_arch_vcpu_ioctl_set_guest_debug(). EINVAL.

    A debugger has put its breakpoints into guest memory, or taken them out, without a word to
    KVM: its own stores to code are followed by cache maintenance on the host. Here this is the
    moment when they are seen.
    """
    if args.control & ~KVM_GUESTDBG_VALID_MASK:
        fail(errno.EINVAL)
    enabled = bool(args.control & k.KVM_GUESTDBG_ENABLE)
    vcpu.guest_debug = GuestDebug(vcpu, args) if enabled else None
    vcpu.state.tde = int(enabled)
    vcpu.vm.written()


def kvm_handle_guest_debug(vcpu: Vcpu, esr: int) -> int:
    """A debug exception: to user space."""
    debug = vcpu.guest_debug
    if debug is None or (esr >> e.EC_SHIFT == e.EC_SOFTSTP_LOW and not debug.single_step):
        return 1  # a step on the way to a breakpoint
    debug.exit(esr)
    return 0
