"""KVM_SET_GUEST_DEBUG: single step, BRK, hardware breakpoints, watchpoints."""

from __future__ import annotations

import errno

import pytest
from tests.engine import a64
from tests.kvm.native import PROLOGUE, PSCI, RAM, Native, out
from tests.kvm.rig import fails

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi.caps import Cap
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


def test_a_step_begins_where_the_debugger_goes_on() -> None:
    """It moves the PC behind a BRK: one instruction is executed there."""
    with Native(a64.brk(0), a64.movz(0, 5), a64.NOP) as m:
        debug(m, STEP)
        for _ in PROLOGUE:
            stopped(m)
        assert stopped(m) == (BRK64, START)
        m.set(regs.CORE_PC, RAM + START + 4)
        assert stopped(m) == (SOFTSTP, START + 8)
        assert m.get(regs.core_x(0)) == 5


WATCHPT = 0x34
IL, WNR, DEBUG_EXCEPTION = 1 << 25, 1 << 6, 0x22
LOAD, STORE = 1, 2
HW = k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_HW
BUFFER = RAM + 0x4000
POINT = a64.mov(1, BUFFER)
CODE = START + 4 * len(POINT)


def watch(
    *watches: tuple[int, int], control: int = HW, lsc: int = 3, first: int = 0
) -> KvmGuestDebug:
    """Watchpoints on (address, bytes), as QEMU fills in dbg_wvr and dbg_wcr."""
    args = KvmGuestDebug(control=control)
    for n, (address, size) in enumerate(watches, first):
        args.dbg_wvr[n] = address & ~7
        if size <= 8:
            where = ((1 << size) - 1 << (address & 7)) << 5
        else:
            where = 0xFF << 5 | size.bit_length() - 1 << 24
        args.dbg_wcr[n] = 1 | 3 << 1 | lsc << 3 | where
    return args


def hit(m: Native) -> tuple[bool, int, int]:
    """KVM_RUN that ends at a watchpoint: whether a store, its address, offset of the PC."""
    m.struct.debug.far = 0
    assert stopped(m)[0] == WATCHPT
    hsr = m.struct.debug.hsr
    assert hsr & ~WNR == WATCHPT << 26 | IL | DEBUG_EXCEPTION
    assert m.struct.debug.hsr_high == 0
    return bool(hsr & WNR), m.struct.debug.far, m.pc


@pytest.mark.parametrize("kind", ["nvhe-gicv2", "vhe-gicv3"])
def test_a_watchpoint_stops_before_the_access(kind: str) -> None:
    with Native(POINT, a64.str_(28, 1, 8), a64.ldr(2, 1, 8), out(2), kind=kind) as m:
        m.vcpu.set_guest_debug(watch((BUFFER + 12, 2)))
        for _ in range(2):  # until the debugger steps over it
            assert hit(m) == (True, BUFFER + 12, CODE)
            assert m.memory[0x4000:0x4010] == bytes(16)
            assert m.vcpu.instructions == CODE // 4
        m.vcpu.set_guest_debug(watch((BUFFER + 8, 1), lsc=LOAD))
        assert hit(m) == (False, BUFFER + 8, CODE + 4)
        assert m.get(regs.core_x(2)) == 0
        debug(m, 0)
        assert m.stored() == (0, 0x1000_0000)


def test_a_debugger_steps_over_it() -> None:
    """gdb takes watchpoints out for a step; a step with them stops at them."""
    loop = [a64.add(0, 0, 1), a64.str_(0, 1), a64.b(-2)]
    with Native(a64.movz(0, 0), POINT, loop) as m:
        at = START + 4 + 4 * len(POINT) + 4
        for value in (1, 2, 3):
            m.vcpu.set_guest_debug(watch((BUFFER, 8), lsc=STORE))
            assert hit(m) == (True, BUFFER, at)
            assert m.get(regs.core_x(0)) == value
            m.vcpu.set_guest_debug(watch((BUFFER, 8), control=STEP | HW))
            assert hit(m) == (True, BUFFER, at)
            debug(m, STEP)
            assert stopped(m) == (SOFTSTP, at + 4)
            assert m.memory[0x4000] == value
        m.vcpu.set_guest_debug(watch((BUFFER, 8), control=STEP | HW))
        assert stopped(m) == (SOFTSTP, at - 4)
        assert stopped(m) == (SOFTSTP, at)
        assert hit(m) == (True, BUFFER, at)
        m.set(regs.CORE_PC, RAM + at + 4)  # it leaves the store out
        assert stopped(m) == (SOFTSTP, at - 4)
        assert m.memory[0x4000] == 3


def test_a_breakpoint_and_a_watchpoint_together() -> None:
    with Native(POINT, a64.NOP, a64.str_(28, 1), a64.NOP, out(0)) as m:
        args = watch((BUFFER, 1))
        for n, offset in enumerate((0, 8)):
            args.dbg_bvr[n], args.dbg_bcr[n] = RAM + CODE + offset, 0x1E7
        m.vcpu.set_guest_debug(args)
        assert stopped(m) == (BREAKPT, CODE)
        args.dbg_bcr[0] = 0
        m.vcpu.set_guest_debug(args)
        assert hit(m) == (True, BUFFER, CODE + 4)
        args.dbg_wcr[0] = 0
        m.vcpu.set_guest_debug(args)
        assert stopped(m) == (BREAKPT, CODE + 8)


def test_as_many_as_the_capability_says() -> None:
    with Native(POINT, a64.str_(28, 1, 0), a64.str_(28, 1, 8), out(0)) as m:
        number = m.system.check_extension(Cap.GUEST_DEBUG_HW_WPS)
        assert number == 4
        m.vcpu.set_guest_debug(watch((BUFFER, 8), (BUFFER + 8, 8), first=number - 1))
        assert hit(m) == (True, BUFFER, CODE)
        m.vcpu.set_guest_debug(watch((BUFFER, 8), (BUFFER + 8, 8), first=number))
        assert m.stored()[0] == 0


@pytest.mark.parametrize("size", [16, 4096, 1 << 31])
def test_a_watched_range(size: int) -> None:
    with Native(POINT, a64.ldr(0, 1, 8), out(0)) as m:
        m.vcpu.set_guest_debug(watch((BUFFER & -size, size)))
        assert hit(m) == (False, BUFFER + 8, CODE)


def test_only_the_watched_vcpu_stops() -> None:
    with Native(POINT, a64.str_(28, 1, 0), a64.ldr(0, 1, 0), out(0, 8)) as m:
        other = m.vm.create_vcpu(1)
        other.arm_vcpu_init(features=PSCI)
        other.set_one_reg(regs.CORE_PC, RAM)
        m.vcpu.set_guest_debug(watch((BUFFER, 8)))
        assert hit(m) == (True, BUFFER, CODE)
        other.run()
        assert other.run_struct.exit_reason == k.KVM_EXIT_MMIO
        assert other.run_struct.mmio.value == 0x1000_0000
        assert hit(m) == (True, BUFFER, CODE)
        other.close()


@pytest.mark.parametrize("control", [0, HW & ~k.KVM_GUESTDBG_ENABLE, k.KVM_GUESTDBG_ENABLE])
def test_debugging_that_ends_leaves_no_watch_behind(control: int) -> None:
    """Without ENABLE or USE_HW the registers do not count."""
    with Native(POINT, a64.str_(28, 1, 0), a64.ldr(0, 1, 0), out(0, 8)) as m:
        m.vcpu.set_guest_debug(watch((BUFFER, 8)))
        assert hit(m) == (True, BUFFER, CODE)
        m.vcpu.set_guest_debug(watch((BUFFER, 8), control=control))
        assert m.stored() == (8, 0x1000_0000)


def test_what_is_refused_changes_nothing() -> None:
    with Native(POINT, a64.str_(28, 1, 0), out(0, 8)) as m:
        m.vcpu.set_guest_debug(watch((BUFFER, 8)))
        fails(errno.EINVAL, lambda: m.vcpu.set_guest_debug(watch(control=HW | 1 << 18)))
        assert hit(m) == (True, BUFFER, CODE)


def test_every_value_of_the_registers_is_taken() -> None:
    with Native(POINT, a64.str_(28, 1, 0), out(0, 8)) as m:
        args = KvmGuestDebug(control=HW)
        for n in range(16):
            args.dbg_wvr[n] = args.dbg_wcr[n] = args.dbg_bvr[n] = args.dbg_bcr[n] = (1 << 64) - 1
        m.vcpu.set_guest_debug(args)
        assert m.stored()[0] == 8


def test_a_reset_of_the_vcpu_leaves_the_watch() -> None:
    with Native(POINT, a64.str_(28, 1, 0), out(0, 8)) as m:
        m.vcpu.set_guest_debug(watch((BUFFER, 8)))
        for _ in range(2):
            m.vcpu.arm_vcpu_init(features=PSCI)
            m.set(regs.CORE_PC, RAM)
            assert hit(m) == (True, BUFFER, CODE)


CONTEXT_LINKED, LINKED = 0b0011 << 20 | 0x1E7, 1 << 20


@pytest.mark.parametrize(
    ("link", "breakpoint", "stops"),
    [
        (5, CONTEXT_LINKED, True),
        (4, CONTEXT_LINKED, True),
        (3, CONTEXT_LINKED, False),  # compares addresses alone
        (15, CONTEXT_LINKED, False),  # does not exist
        (5, CONTEXT_LINKED & ~1, False),  # disabled
        (5, 0x1E7, False),  # an address
    ],
)
def test_a_watchpoint_that_is_linked_to_a_context(link: int, breakpoint: int, stops: bool) -> None:
    program: list[int | list[int]] = [
        POINT, a64.str_(28, 1), a64.movz(2, 0x77), a64.msr("CONTEXTIDR_EL1", 2), a64.str_(28, 1),
        out(0, 8),
    ]  # fmt: skip
    with Native(*program) as m:
        args = watch((BUFFER, 8))
        args.dbg_wcr[0] |= LINKED | link << 16
        args.dbg_bvr[link], args.dbg_bcr[link] = 0x77, breakpoint
        m.vcpu.set_guest_debug(args)
        if stops:
            assert hit(m) == (True, BUFFER, CODE + 12)
        else:
            assert m.stored()[0] == 8


def switching(*breakpoints: tuple[int, int, int]) -> list[int]:
    """Offsets where (number, value, control) stop a program that goes to context 0x77 and back."""
    write = a64.msr("CONTEXTIDR_EL1", 2)
    program: list[int] = [a64.movz(2, 0x77), write, a64.NOP, a64.movz(2, 0), write, a64.NOP]
    with Native(program, out(0, 8)) as m:
        args = KvmGuestDebug(control=HW)
        for n, value, control in breakpoints:
            args.dbg_bvr[n], args.dbg_bcr[n] = value, control
        seen = []
        m.vcpu.set_guest_debug(args)
        m.vcpu.run()
        while m.struct.exit_reason == k.KVM_EXIT_DEBUG:
            assert m.struct.debug.hsr == BREAKPT << 26 | IL | DEBUG_EXCEPTION
            seen.append(m.pc - START)
            debug(m, STEP)
            assert stopped(m)[0] == SOFTSTP
            m.vcpu.set_guest_debug(args)
            m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_MMIO
        return seen


ADDRESS_LINKED, CONTEXT = 0b0001 << 20 | 0x1E7, 0b0010 << 20 | 0x1E7


def test_breakpoints_that_compare_a_context() -> None:
    """Alone every instruction of it stops; linked, an address within it."""
    here, later, before = (RAM + START + offset for offset in (8, 20, 0))
    assert switching((4, 0x77, CONTEXT)) == [8, 12, 16]
    assert switching((3, 0x77, CONTEXT)) == []  # compares addresses alone
    context = 5, 0x77, CONTEXT_LINKED
    assert switching(context) == []
    assert switching((5, here, CONTEXT_LINKED)) == []
    for address in (here, later, before):
        control = ADDRESS_LINKED | 5 << 16
        assert switching((1, address, control), context) == [8] * (address == here)
        assert switching((1, address, control)) == []
        assert switching((1, address, control), (5, 0x77, CONTEXT)) == [8, 12, 16]  # the 5th
        assert switching((1, address, 0x1E7)) == [address - RAM - START]


@pytest.mark.parametrize(
    ("control", "stops"),
    [
        (0x1E1, False),  # PMC: no level
        (0x1E3, True),  # EL1
        (0x1E5, False),  # EL0
        (0x1E7, True),
        (0x1E7 | 1 << 14, True),  # SSC: Non-secure
        (0x1E7 | 2 << 14, False),  # Secure
        (0x1E7 | 1 << 13, True),  # HMC: and EL2
        (0x1E5 | 1 << 13, False),  # reserved
        (0x1E7 | 0b0100 << 20, False),  # a mismatch, of AArch32
        (0x1E6, False),
    ],
)
def test_a_breakpoint_has_levels(control: int, stops: bool) -> None:
    assert switching((0, RAM + START + 8, control)) == [8] * stops


@pytest.mark.parametrize("target", [0x900_0000, RAM + 0x2002, 1 << 45])
def test_a_fault_of_the_fetch_comes_before_a_breakpoint(target: int) -> None:
    """No memory: KVM injects an abort; not aligned; beyond the physical addresses."""
    with Native(a64.mov(1, target), a64.br(1)) as m:
        args = KvmGuestDebug(control=HW)
        args.dbg_bvr[0], args.dbg_bcr[0] = target, 0x1E7
        m.vcpu.set_guest_debug(args)
        offset, esr = m.stored()
        assert offset == 0xF00
        assert esr >> 26 == (0x22 if target & 3 else 0x21)


@pytest.mark.parametrize("tag", [0, 0xFFFE << 48])
def test_a_breakpoint_compares_what_there_is_of_addresses(tag: int) -> None:
    """Bits [48:2]: gdb does not extend the sign in all its versions (DBGBVR<n>_EL1.RESS)."""
    assert switching((0, RAM + START + 8 | tag | 3, 0x1E7)) == [8]


def test_a_watch_beside_what_is_used_changes_no_count() -> None:
    """The same instructions, the same time, the same memory: however the run is cut."""
    loop = [a64.str_(0, 1, 16), a64.ldr(2, 1, 16), a64.subs(0, 0, 1), a64.cbnz(0, -3)]
    program: list[int | list[int]] = [POINT, a64.movz(0, 2000), loop, a64.mrs(3, "CNTVCT_EL0")]
    results = set()
    for watches in ((), ((BUFFER, 8),), ((BUFFER + 24, 8), (BUFFER + 0x1000, 4096))):
        for budget in (None, 1, 777):
            with Native(*program, out(3)) as m:
                m.vcpu.set_guest_debug(watch(*watches, control=HW if watches else 0))
                while budget and m.struct.exit_reason != k.KVM_EXIT_MMIO:
                    m.vcpu.limit = m.vcpu.instructions + budget
                    m.vcpu.run_raw()
                time = m.struct.mmio.value if budget else m.stored()[1]
                results.add((time, m.vcpu.instructions, m.memory[:]))
    assert len(results) == 1
