"""Debugging a guest from user space: KVM_SET_GUEST_DEBUG, after arch/arm64/kvm/debug.c.

BRK exits (MDCR_EL2.TDE). Single step is the engine's exact instruction limit where hardware has
PSTATE.SS; an instruction that KVM emulates is a step too. Hardware breakpoints compare the PC
before each instruction, so a guest that has one runs step by step. Watchpoints are the engine's
(engine/native/debug.py): with one the guest runs as freely as without, and accesses to its page go
the slow way. Left out: the guest's own debugging with breakpoint registers; breakpoints that
compare a VMID, which user space cannot know, and links to them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from armkvm.abi import kvm as k
from armkvm.arch import debug as d
from armkvm.arch import esr as e
from armkvm.arch.debug import Watchpoint
from armkvm.host.cpu import EXIT_LIMIT, EXIT_TRAP
from armkvm.kvm.file import fail

if TYPE_CHECKING:
    from armkvm.abi.structs import KvmGuestDebug
    from armkvm.kvm.vcpu import Vcpu

KVM_GUESTDBG_VALID_MASK: Final = (
    k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_SW_BP | k.KVM_GUESTDBG_USE_HW
    | k.KVM_GUESTDBG_SINGLESTEP
)  # fmt: skip


CONTEXTIDR_EL1: Final = 3, 0, 13, 0, 1


class Breakpoint(NamedTuple):
    """One breakpoint (D2.8): its registers, and the context ID that it compares too or instead."""

    value: int | None
    control: int
    context: int | None

    def matches(self, vcpu: Vcpu) -> bool:
        """AArch64.BreakpointMatch() for the instruction at the PC. Faults of its fetch come first:
        a page that the guest has yet to bring in does not stop twice.
        """
        if not d.state_match(self.control, vcpu.state.el):
            return False
        if self.value is not None and (vcpu.state.pc ^ self.value) & d.DEBUG_ADDRESS & ~3:
            return False
        if self.context not in (None, vcpu.cpu.get_sysreg(*CONTEXTIDR_EL1) & 0xFFFF_FFFF):
            return False
        return vcpu.cpu.fetches()


class GuestDebug:
    """vcpu->guest_debug while it is enabled, with the external debug state."""

    def __init__(self, vcpu: Vcpu, args: KvmGuestDebug) -> None:
        self.vcpu = vcpu
        self.single_step = bool(args.control & k.KVM_GUESTDBG_SINGLESTEP)
        self.breakpoints: tuple[Breakpoint, ...] = ()
        self.watchpoints: tuple[Watchpoint, ...] = ()
        if args.control & k.KVM_GUESTDBG_USE_HW:
            self.breakpoints = tuple(_breakpoints(args))
            self.watchpoints = tuple(_watchpoints(args))
        self._from: int | None = None  # PC of the instruction that is being stepped

    def before_entry(self) -> bool:
        """An exception is due before the next instruction: kvm_run has the exit."""
        pc = self.vcpu.state.pc
        if self.single_step and self._from is not None and pc != self._from:
            self.exit(e.EC_SOFTSTP_LOW << e.EC_SHIFT | e.IL | e.FSC_DEBUG)
            return True
        if any(breakpoint.matches(self.vcpu) for breakpoint in self.breakpoints):
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
        """Fill in KVM_EXIT_DEBUG. Where user space goes on, a step begins anew."""
        self._from = None
        run = self.vcpu.run_struct
        run.exit_reason = k.KVM_EXIT_DEBUG
        run.debug.hsr = esr & 0xFFFF_FFFF
        run.debug.hsr_high = esr >> 32
        run.flags = k.KVM_DEBUG_ARCH_HSR_HIGH_VALID


def _type(control: int) -> int:
    return control >> d.BCR_BT_SHIFT & 0xF


def _linked(args: KvmGuestDebug, control: int) -> int | None:
    """The context ID of the breakpoint that another one or a watchpoint is linked to.

    None: the link leads to none that compares one, so that what is linked never matches (D2.9.7).
    """
    n = control >> d.DBGCR_LBN_SHIFT & 0xF
    to = args.dbg_bcr[n]
    if n in d.CONTEXT_AWARE and to & d.DBGCR_E and _type(to) == d.BT_CONTEXT_LINKED:
        return int(args.dbg_bvr[n]) & 0xFFFF_FFFF
    return None


def _breakpoints(args: KvmGuestDebug) -> Iterator[Breakpoint]:
    for n in range(d.BREAKPOINTS):
        value, control = args.dbg_bvr[n], args.dbg_bcr[n]
        if not control & d.DBGCR_E:
            continue
        match _type(control):
            case d.BT_ADDRESS:
                yield Breakpoint(value, control, None)
            case d.BT_ADDRESS_LINKED:
                context = _linked(args, control)
                if context is not None:
                    yield Breakpoint(value, control, context)
            case d.BT_CONTEXT if n in d.CONTEXT_AWARE:
                yield Breakpoint(None, control, value & 0xFFFF_FFFF)


def _watchpoints(args: KvmGuestDebug) -> Iterator[Watchpoint]:
    for n in range(d.WATCHPOINTS):
        control = args.dbg_wcr[n]
        context = _linked(args, control) if control & d.WCR_WT else 0
        if control & d.DBGCR_E and context is not None:
            yield Watchpoint(args.dbg_wvr[n], control, context)


def set_guest_debug(vcpu: Vcpu, args: KvmGuestDebug) -> None:
    """kvm_arch_vcpu_ioctl_set_guest_debug(). EINVAL.

    A debugger has put its breakpoints into guest memory, or taken them out, without a word to
    KVM: its own stores to code are followed by cache maintenance on the host. Here this is the
    moment when they are seen.
    """
    if args.control & ~KVM_GUESTDBG_VALID_MASK:
        fail(errno.EINVAL)
    enabled = bool(args.control & k.KVM_GUESTDBG_ENABLE)
    before = vcpu.guest_debug.watchpoints if vcpu.guest_debug else ()
    vcpu.guest_debug = GuestDebug(vcpu, args) if enabled else None
    watchpoints = vcpu.guest_debug.watchpoints if vcpu.guest_debug else ()
    if watchpoints != before:
        vcpu.cpu.set_watchpoints(watchpoints)
    vcpu.state.tde = int(enabled)
    vcpu.vm.written()


def kvm_handle_guest_debug(vcpu: Vcpu, esr: int) -> int:
    """A debug exception: to user space."""
    debug = vcpu.guest_debug
    if debug is None or (esr >> e.EC_SHIFT == e.EC_SOFTSTP_LOW and not debug.single_step):
        return 1  # a step on the way to a breakpoint
    debug.exit(esr)
    if esr >> e.EC_SHIFT == e.EC_WATCHPT_LOW:
        vcpu.run_struct.debug.far = vcpu.state.far_el2
    return 0
