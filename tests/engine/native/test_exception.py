"""Synchronous exceptions: syndromes, vectors and returns (Arm ARM D1.3, ESR_EL1)."""

from __future__ import annotations

import pytest
from tests.engine.a64 import (
    ERET,
    NOP,
    UDF,
    WFE,
    WFI,
    b,
    brk,
    daifclr,
    daifset,
    dc,
    hvc,
    ldr,
    mrs,
    msr,
    smc,
    spsel,
    str_,
    svc,
    sys_word,
)
from tests.engine.world import (
    AF,
    CODE,
    CODE_FLAGS,
    DATA,
    DEVICE,
    EL0,
    EL1H,
    EL1T,
    PAGE,
    SA,
    SA0,
    USER,
    A,
    Space,
    Taken,
    World,
)

from armkvm.engine.cpu import Exit

IL = 1 << 25
MODES = pytest.mark.parametrize("pstate", [EL0, EL1T, EL1H], ids=["el0", "el1t", "el1h"])
FLAGS = 0xA << 28  # N and C: they are saved like the rest


def check(world: World, t: Taken, pstate: int, esr: int, elr: int) -> None:
    """Everything that AArch64.TakeException does but FAR."""
    assert t.esr == esr, hex(t.esr)
    assert t.elr == elr
    assert t.spsr == pstate
    assert t.offset == {EL0: 0x400, EL1T: 0, EL1H: 0x200}[pstate & 0x3FF]
    assert world.cpu.pstate & 0x3FF == EL1H  # EL1h, all masked
    assert world.cpu.pstate & (3 << 20) == 0  # SS and IL are clear


@MODES
@pytest.mark.parametrize(
    ("word", "ec", "iss", "behind"),
    [
        (svc(0), 0x15, 0, True),
        (svc(0xFFFF), 0x15, 0xFFFF, True),
        (brk(0x1234), 0x3C, 0x1234, False),
        (UDF, 0, 0, False),
        (0xFFFFFFFF, 0, 0, False),
        (0xD4400000, 0, 0, False),  # hlt
        (0xD4A00001, 0, 0, False),  # dcps1
        (0xD6BF03E0, 0, 0, False),  # drps
        (0xD523201F, 0, 0, False),  # MRS with op0 = 0
    ],
)
def test_instructions(
    world: World, pstate: int, word: int, ec: int, iss: int, behind: bool
) -> None:
    t = world.fault(word, pstate=pstate | FLAGS)
    check(world, t, pstate | FLAGS, ec << 26 | IL | iss, CODE + 4 * behind)


@pytest.mark.parametrize(
    ("word", "esr", "behind"),
    [
        (hvc(0xABCD), 0x16 << 26 | IL | 0xABCD, True),
        (smc(0x1234), 0x17 << 26 | IL | 0x1234, False),
        (WFI, 0x01 << 26 | IL | 0x1E << 20, False),
        # A register that nobody has: S3_7_C15_C15_7, read into X3 and written from it.
        (sys_word(1, 3, 7, 15, 15, 7, 3), 0x18 << 26 | IL | 0x3FFC7F | 3 << 5, False),
        (sys_word(0, 3, 7, 15, 15, 7, 3), 0x18 << 26 | IL | 0x3FFC7E | 3 << 5, False),
        (sys_word(0, 1, 7, 15, 15, 7, 31), 0x18 << 26 | IL | 0x1FFFFE, False),  # sys
    ],
)
def test_traps_to_el2(world: World, word: int, esr: int, behind: bool) -> None:
    """PC stays, but for HVC; nothing of EL1 changes; a trapped instruction does not count."""
    for pstate in (EL1H, EL1T):
        world.code(NOP, word)
        world.start(pstate=pstate)
        begin = world.s.count
        assert world.run(10) == Exit.TRAP
        assert world.s.esr_el2 == esr, hex(world.s.esr_el2)
        assert world.s.pc == CODE + 4 + 4 * behind
        assert world.s.count == begin + 1 + behind
        assert world.cpu.pstate == pstate
        assert (world.s.esr_el1, world.s.elr_el1) == (0, 0)


@pytest.mark.parametrize(
    "word",
    [
        hvc(1), smc(1), ERET, spsel(0), sys_word(1, 3, 7, 15, 15, 7, 3),
        sys_word(0, 1, 7, 15, 15, 7, 3),
        mrs(0, "sctlr_el1"), msr("sctlr_el1", 0), mrs(0, "midr_el1"), mrs(0, "currentel"),
        msr("tpidrro_el0", 0), mrs(0, "elr_el1"), dc("ivac", 0), sys_word(0, 3, 3, 14, 0, 0, 0),
        sys_word(0, 1, 0, 8, 7, 0, 31), sys_word(0, 1, 0, 7, 8, 0, 0), mrs(0, "sp_el0"),
    ],
)  # fmt: skip
def test_not_for_el0(world: World, word: int) -> None:
    t = world.fault(word, pstate=EL0)
    check(world, t, EL0, IL, CODE)


@pytest.mark.parametrize(
    ("word", "bit", "iss"),
    [
        (dc("zva", 1), 14, 1 << 20 | 1 << 17 | 3 << 14 | 7 << 10 | 1 << 5 | 4 << 1),
        (dc("cvau", 1), 26, 1 << 20 | 1 << 17 | 3 << 14 | 7 << 10 | 1 << 5 | 11 << 1),
        (dc("ivau", 1), 26, 1 << 20 | 1 << 17 | 3 << 14 | 7 << 10 | 1 << 5 | 5 << 1),
        (mrs(1, "ctr_el0"), 15, 3 << 20 | 1 << 17 | 3 << 14 | 1 << 5 | 1),
        (mrs(1, "daif"), 9, 3 << 20 | 1 << 17 | 3 << 14 | 4 << 10 | 1 << 5 | 2 << 1 | 1),
        (msr("daif", 1), 9, 3 << 20 | 1 << 17 | 3 << 14 | 4 << 10 | 1 << 5 | 2 << 1),
        (daifset(3), 9, 6 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 3 << 1),
        (daifclr(2), 9, 7 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 2 << 1),
    ],
)
def test_what_sctlr_withholds_from_el0(world: World, word: int, bit: int, iss: int) -> None:
    """DZE, UCI, UCT, UMA: EC 0x18 to EL1 while clear, the instruction itself while set."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF | USER)
    low.install()
    world.s.sctlr_el1 &= ~(1 << bit)
    world.cpu.changed()
    t = world.fault(word, pstate=EL0, x1=DATA)
    check(world, t, EL0, 0x18 << 26 | IL | iss, CODE)
    world.s.sctlr_el1 |= 1 << bit
    world.cpu.changed()
    world.code(word)
    world.start(pstate=EL0, x1=DATA)
    assert world.run() == Exit.LIMIT
    assert world.taken() is None
    world.start(pstate=EL1H, x1=DATA)  # EL1 was never asked
    world.s.sctlr_el1 &= ~(1 << bit)
    world.cpu.changed()
    assert world.run() == Exit.LIMIT
    assert world.taken() is None


def test_wait_at_el0(world: World) -> None:
    """nTWI clear: to EL1; set: to EL2, as HCR_EL2.TWI asks. WFE never waits here."""
    world.s.sctlr_el1 &= ~(1 << 16 | 1 << 18)
    check(world, world.fault(WFI, pstate=EL0), EL0, 0x01 << 26 | IL | 0x1E << 20, CODE)
    world.s.hcr_vi = 1  # masked, but the wait is over: it is not trapped
    world.code(WFI, WFE, NOP)
    for pstate in (EL0, EL1H):
        world.start(pstate=pstate)
        assert world.run(3) == Exit.LIMIT
        assert world.s.pc == CODE + 12
    world.s.hcr_vi = 0
    world.s.sctlr_el1 |= 1 << 16
    world.start(pstate=EL0)
    assert world.run(3) == Exit.TRAP
    assert world.s.esr_el2 == 0x01 << 26 | IL | 0x1E << 20


# -- alignment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pstate", "bit", "other"), [(EL0, SA0, SA), (EL1H, SA, SA0), (EL1T, SA, SA0)]
)
@pytest.mark.parametrize(
    "word",
    [ldr(0, 31), str_(0, 31), 0xA9BF7BFD, 0xF84087E0],  # ..., stp x29, x30, [sp, #-16]!, ldr
)
def test_sp_alignment(world: World, pstate: int, bit: int, other: int, word: int) -> None:
    """EC 0x26 by SA0 at EL0 and by SA at EL1, whichever SP that uses; the base and memory stay."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF)
    low.map(0x5000_0000, DATA, AF | USER)
    low.install(sctlr=bit)
    sp = 0x5000_0108
    t = world.fault(word, pstate=pstate, sp=sp)
    check(world, t, pstate, 0x26 << 26 | IL, CODE)
    assert (world.cpu.sp_el1 if pstate == EL1H else world.cpu.sp_el0) == sp
    low.install(sctlr=other)
    world.code(word)
    world.start(pstate=pstate, sp=sp)
    world.run()
    assert world.taken() is None


@MODES
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_pc_alignment(world: World, pstate: int, offset: int) -> None:
    """EC 0x22, FAR and ELR the PC; before anything that the fetch could find."""
    for page in (CODE, 1 << 50):
        world.start(pc=page + offset, pstate=pstate)
        world.run()
        t = world.taken()
        assert t is not None
        check(world, t, pstate, 0x22 << 26 | IL, page + offset)
        assert t.far == page + offset


@MODES
def test_fp_trap(world: World, pstate: int) -> None:
    """CPACR_EL1.FPEN: 0 and 2 trap both levels, 1 traps EL0."""
    fmov, mrs_fpcr = 0x1E204000, mrs(0, "fpcr")  # fmov s0, s0
    for fpen in range(4):
        world.s.cpacr_el1 = fpen << 20
        world.cpu.changed()
        for word in (fmov, mrs_fpcr, 0x3DC00020):  # ldr q0, [x1]: before its data abort
            if fpen == 3 or (fpen == 1 and pstate != EL0):
                world.code(word)
                world.start(pstate=pstate, x1=DATA)
                world.run()
                assert world.taken() is None
            else:
                t = world.fault(word, pstate=pstate, x1=1 << 50)
                check(world, t, pstate, 0x07 << 26 | IL | 0x1E << 20, CODE)


# -- return ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spsr", [EL0, EL1T, EL1H, 0xF000_0000, 0x9000_0044, 0x6000_0105])
def test_return(world: World, spsr: int) -> None:
    world.code(ERET)
    world.start()
    world.s.elr_el1, world.s.spsr_el1, world.s.excl_addr = CODE + 0x40, spsr, DATA
    world.cpu.sp_el0, world.cpu.sp_el1 = 0x1111, 0x2222
    assert world.run() == Exit.LIMIT
    assert (world.s.pc, world.cpu.pstate) == (CODE + 0x40, spsr)
    assert world.s.excl_addr == (1 << 64) - 1  # ClearExclusiveLocal
    assert world.s.sp == (0x2222 if spsr & 1 else 0x1111)
    assert (world.cpu.sp_el0, world.cpu.sp_el1) == (0x1111, 0x2222)


@pytest.mark.parametrize("mode", [m for m in range(32) if m not in (0, 4, 5)])
@pytest.mark.parametrize("pstate", [EL1H, EL1T])
def test_illegal_return(world: World, mode: int, pstate: int) -> None:
    """The mode stays, PSTATE.IL is set, the target raises EC 0x0E (D1.3.5, D1.4.4)."""
    world.code(ERET)
    world.start(pstate=pstate)
    world.s.elr_el1, world.s.spsr_el1 = CODE + 0x40, 0xF000_00C0 | mode
    world.run()
    t = world.taken()
    assert t is not None
    assert (t.esr, t.elr) == (0x0E << 26 | IL, CODE + 0x40)
    assert t.spsr == 0xF010_00C0 | pstate & 0x1F
    assert t.offset == (0x200 if pstate == EL1H else 0)
    assert world.cpu.pstate & (1 << 20) == 0


def test_illegal_state_restored(world: World) -> None:
    """SPSR.IL comes back with a legal return, and with PSTATE as user space sets it."""
    world.code(ERET)
    world.start()
    world.s.elr_el1, world.s.spsr_el1 = CODE + 0x40, EL0 | 1 << 20
    world.run()
    t = world.taken()
    assert t is not None
    assert (t.esr, t.elr, t.spsr, t.offset) == (0x0E << 26 | IL, CODE + 0x40, EL0 | 1 << 20, 0x400)
    world.start(pstate=EL1H | 1 << 20)
    world.run()
    t = world.taken()
    assert t is not None
    assert (t.esr, t.elr) == (0x0E << 26 | IL, CODE)


def test_stack_pointers_are_banked(world: World) -> None:
    """SPSel, exception entry and return each switch SP."""
    world.code(spsel(0), spsel(1), mrs(3, "sp_el0"), svc(0))
    world.start()
    world.cpu.sp_el0, world.cpu.sp_el1 = 0x1000, 0x2000
    for expected in (0x1000, 0x2000, 0x2000, 0x2000):
        world.run()
        assert world.s.sp == expected
    assert world.s.x[3] == 0x1000
    world.code(svc(0))
    world.start(pstate=EL0)
    world.s.sp = 0x3000
    world.run()
    assert world.s.sp == 0x2000
    assert world.cpu.sp_el0 == 0x3000


def test_alignment_is_looked_at_first(world: World) -> None:
    """SCTLR_EL1.A and ordered accesses: before the translation; Device memory: after it."""
    low = Space(world)
    low.identity(CODE)
    slot = low.map(DATA, DATA, AF | USER | DEVICE)
    low.install()
    missing = 0x7000_0001
    assert world.fault(ldr(0, 1), x1=missing).fsc == 0x05
    assert world.fault(0xC8DFFC20, x1=missing).fsc == 0x21  # ldar x0, [x1]
    low.install(sctlr=A)
    t = world.fault(ldr(0, 1), x1=missing)
    assert (t.fsc, t.far) == (0x21, missing)
    low.install()
    t = world.fault(str_(0, 1), x1=DATA + 1)
    assert (t.fsc, t.wnr, t.far) == (0x21, 1, DATA + 1)
    world.quad(slot, DATA | DEVICE | USER | PAGE)
    world.cpu.changed()
    assert world.fault(str_(0, 1), x1=DATA + 1).fsc == 0x0B  # the access flag


def test_exception_in_the_last_word_of_a_page(world: World) -> None:
    """ELR of SVC is in the next page, which need not be there."""
    low = Space(world)
    low.map(CODE, CODE, CODE_FLAGS)
    low.install()
    world.code(svc(7), at=CODE + 0xFFC)
    world.start(pc=CODE + 0xFFC)
    world.run()
    t = world.taken()
    assert t is not None
    check(world, t, EL1H, 0x15 << 26 | IL | 7, CODE + 0x1000)
    world.code(b(-1), at=CODE + 0xFFC)
    world.start(pc=CODE + 0xFFC)
    world.run()
    assert world.s.pc == CODE + 0xFF8
