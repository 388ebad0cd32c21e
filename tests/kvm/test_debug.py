"""KVM_SET_GUEST_DEBUG: single step, BRK, hardware breakpoints."""

from __future__ import annotations

import errno

from tests.engine import a64
from tests.kvm.native import PROLOGUE, Native, out
from tests.kvm.rig import fails

from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmGuestDebug

START = 4 * len(PROLOGUE)
BREAKPT, SOFTSTP, BRK64 = 0x30, 0x32, 0x3C


def debug(m: Native, control: int) -> KvmGuestDebug:
    args = KvmGuestDebug(control=control)
    m.vcpu.set_guest_debug(args)
    return args


def stopped(m: Native) -> tuple[int, int]:
    """KVM_RUN that ends with KVM_EXIT_DEBUG: exception class and offset of the PC."""
    m.vcpu.run()
    assert m.struct.exit_reason == k.KVM_EXIT_DEBUG
    assert m.struct.flags == k.KVM_DEBUG_ARCH_HSR_HIGH_VALID
    return m.struct.debug.hsr >> 26, m.pc


STEP = k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_SINGLESTEP


def test_one_instruction_at_a_time() -> None:
    with Native(a64.NOP, a64.b(2), a64.NOP, out(31, 8), a64.NOP) as m:
        debug(m, STEP)
        for n in range(len(PROLOGUE)):
            assert stopped(m) == (SOFTSTP, 4 * (n + 1))
        assert stopped(m) == (SOFTSTP, START + 4)
        assert stopped(m) == (SOFTSTP, START + 12)
        # The store is KVM's to emulate: an exit, then the step that it completes.
        assert m.stored() == (8, 0)
        assert stopped(m) == (SOFTSTP, START + 16)
        assert stopped(m) == (SOFTSTP, START + 20)
        debug(m, 0)
        m.vcpu.limit = m.vcpu.instructions + 100
        assert m.vcpu.run_raw() == -errno.EINTR


def test_a_step_over_an_instruction_that_traps() -> None:
    with Native(a64.movz(0, 0x8400, 16), a64.hvc(0), a64.NOP) as m:
        debug(m, STEP)
        for _ in range(len(PROLOGUE) + 1):
            stopped(m)
        assert stopped(m) == (SOFTSTP, START + 8)
        assert m.get(0x6030_0000_0010_0000) == 0x10001


def test_brk_goes_to_user_space_while_debugging() -> None:
    with Native(a64.brk(0x123)) as m:
        debug(m, k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_SW_BP)
        assert stopped(m) == (BRK64, START)
        assert m.struct.debug.hsr & 0xFFFF == 0x123
        assert stopped(m) == (BRK64, START)
        debug(m, 0)
        assert m.stored() == (0xF00, BRK64 << 26 | 1 << 25 | 0x123)


def test_hardware_breakpoint() -> None:
    with Native(a64.movz(0, 0), a64.add(0, 0, 1), a64.NOP, a64.b(-2)) as m:
        args = KvmGuestDebug(control=k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_HW)
        args.dbg_bvr[2] = 0x4000_0000 + START + 8
        args.dbg_bcr[2] = 0x1E7
        m.vcpu.set_guest_debug(args)
        assert stopped(m) == (BREAKPT, START + 8)
        assert stopped(m) == (BREAKPT, START + 8)  # until user space steps over it
        assert m.get(0x6030_0000_0010_0000) == 1
        debug(m, STEP)
        assert stopped(m) == (SOFTSTP, START + 12)
        m.vcpu.set_guest_debug(args)
        assert stopped(m) == (BREAKPT, START + 8)
        assert m.get(0x6030_0000_0010_0000) == 2


def test_unknown_control_bits() -> None:
    with Native(a64.NOP) as m:
        fails(errno.EINVAL, lambda: debug(m, 1 << 18))
