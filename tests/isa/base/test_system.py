"""System instructions: what they do to PSTATE, and which encodings there are (Arm ARM C5, C6.2)."""

from __future__ import annotations

import itertools

import pytest
from tests.engine.a64 import (
    ISB,
    NOP,
    at,
    daifclr,
    daifset,
    dc,
    ldr,
    mrs,
    msr,
    spsel,
    str_,
    sys_word,
    tlbi,
)
from tests.engine.world import CODE, DATA, EL0, EL1H, EL1T, Space, World

from armkvm.engine.cpu import Engine, Exit

UNDEFINED = 1 << 25
UMA, DZE = 1 << 9, 1 << 14


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def run(world: World, *words: int, pstate: int = EL1H, **x: int) -> None:
    """Run words that must not leave or take an exception."""
    world.code(*words)
    world.start(pstate=pstate, **x)
    assert world.run(len(words)) == Exit.LIMIT
    assert world.s.pc == CODE + 4 * len(words)


# -- PSTATE ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pstate", [EL1H, EL1T])
def test_modes_read_back(world: World, pstate: int) -> None:
    run(world, mrs(0, "currentel"), mrs(1, "spsel"), mrs(2, "daif"), mrs(3, "nzcv"),
        pstate=pstate | 0x6000_0000)  # fmt: skip
    assert [*world.s.x[0:4]] == [4, pstate & 1, 0x3C0, 0x6000_0000]


@pytest.mark.parametrize("start", range(16))
def test_daif(world: World, start: int) -> None:
    """Set and clear name the bits to change; MSR DAIF takes [9:6] and nothing else."""
    for bits in range(16):
        run(world, daifset(bits), pstate=5 | start << 6)
        assert world.cpu.pstate == 5 | (start | bits) << 6
        run(world, daifclr(bits), pstate=5 | start << 6)
        assert world.cpu.pstate == 5 | (start & ~bits) << 6
        run(world, msr("daif", 1), pstate=5 | start << 6, x1=bits << 6 | ~0x3C0)
        assert world.cpu.pstate == 5 | bits << 6


def test_daif_at_el0(world: World) -> None:
    """Where SCTLR_EL1.UMA is set, EL0 changes its own mask."""
    world.s.sctlr_el1 |= UMA
    world.cpu.changed()
    run(world, daifset(2), daifclr(4), mrs(0, "daif"), pstate=0x100)
    assert world.s.x[0] == 0x80
    assert world.cpu.pstate == 0x80


def test_nzcv(world: World) -> None:
    for flags in range(16):
        for pstate in (EL0, EL1H):
            run(world, msr("nzcv", 1), mrs(2, "nzcv"), pstate=pstate, x1=flags << 28 | 0xFFF_FFFF)
            assert world.s.x[2] == flags << 28
            assert world.cpu.pstate == pstate | flags << 28


def test_spsel(world: World) -> None:
    world.cpu.sp_el0, world.cpu.sp_el1 = 0x100, 0x200
    for imm in range(16):  # only bit 0 counts
        run(world, spsel(imm))
        assert world.cpu.pstate & 1 == imm & 1
        assert world.s.sp == (0x200 if imm & 1 else 0x100)
    run(world, msr("spsel", 1), x1=~1)
    assert (world.cpu.pstate & 1, world.s.sp) == (0, 0x100)


def test_sp_el0(world: World) -> None:
    """Not while it is the current SP: UNDEFINED at EL1, too (and not the hypervisor's matter)."""
    run(world, msr("sp_el0", 1), mrs(2, "sp_el0"), x1=0x1234)
    assert (world.s.x[2], world.cpu.sp_el0) == (0x1234, 0x1234)
    for word in (mrs(2, "sp_el0"), msr("sp_el0", 1)):
        t = world.fault(word, pstate=EL1T)
        assert (t.esr, t.elr, t.offset) == (UNDEFINED, CODE, 0)


def test_zero_register(world: World) -> None:
    """MSR from XZR writes zero, MRS to XZR changes nothing: SP least of all."""
    world.s.tpidr_el1 = 5
    run(world, mrs(31, "tpidr_el1"), msr("tpidr_el1", 31), sp=0x1230)
    assert (world.s.tpidr_el1, world.s.sp, world.s.zero) == (0, 0x1230, 0)


def test_dczid(world: World) -> None:
    """BS is log2 of words; DZP where DC ZVA would trap."""
    for pstate, dze, dzp in ((EL1H, 0, 0), (EL1H, DZE, 0), (EL0, 0, 16), (EL0, DZE, 0)):
        world.s.sctlr_el1 = world.s.sctlr_el1 & ~DZE | dze
        world.cpu.changed()
        run(world, mrs(0, "dczid_el0"), pstate=pstate)
        assert world.s.x[0] == dzp | 4


# -- hints and barriers ---------------------------------------------------------------------


@pytest.mark.parametrize("pstate", [EL0, EL1H])
def test_hints(world: World, pstate: int) -> None:
    """All 128 but WFI: with no pointer authentication, no BTI and no RAS they do nothing."""
    for n in range(128):
        if n == 3:
            continue
        before = [7 * i for i in range(31)]
        run(world, 0xD503201F | n << 5, pstate=pstate, **{f"x{i}": v for i, v in enumerate(before)})
        assert [*world.s.x] == before
        assert world.cpu.pstate == pstate


def test_barriers(world: World) -> None:
    """CLREX, DSB, DMB, ISB with every option; what is beside them is UNDEFINED."""
    for crm, op2 in itertools.product(range(16), range(8)):
        word = 0xD503301F | crm << 8 | op2 << 5
        if op2 in (2, 4, 5, 6):
            run(world, word)
        else:
            assert world.fault(word).esr == UNDEFINED


def test_msr_immediate_of_later_versions(world: World) -> None:
    """PAN, UAO, DIT, SSBS, TCO, CFINV and their kin are not there: UNDEFINED, not trapped."""
    there = {(0, 5), (3, 6), (3, 7)}
    for op1, op2 in itertools.product(range(8), range(8)):
        if (op1, op2) not in there:
            for pstate in (EL0, EL1H):
                word = 0xD500401F | op1 << 16 | 1 << 8 | op2 << 5
                assert world.fault(word, pstate=pstate).esr == UNDEFINED


def test_clrex(world: World) -> None:
    ldxr, stxr = 0xC85F7C20, 0xC8027C20  # x0, [x1]; w2, x0, [x1]
    run(world, ldxr, NOP, stxr, x1=DATA)
    assert world.s.x[2] == 0
    run(world, ldxr, 0xD503305F, stxr, x1=DATA)
    assert world.s.x[2] == 1


def test_isb(world: World) -> None:
    """It goes on at the next instruction, in the next page as well."""
    run(world, ISB, ISB)
    world.code(ISB, at=CODE + 0xFFC)
    world.start(pc=CODE + 0xFFC)
    world.run()
    assert world.s.pc == CODE + 0x1000


# -- the SYS space --------------------------------------------------------------------------

TLBI_FORMS = {(crm, op2) for crm in (3, 7) for op2 in (0, 1, 2, 3, 5, 7)}
IC_DC = {
    (0, 1, 0), (0, 5, 0), (0, 6, 1), (0, 6, 2), (0, 10, 2), (0, 14, 2),
    (3, 4, 1), (3, 5, 1), (3, 10, 1), (3, 11, 1), (3, 14, 1),
}  # fmt: skip
AT_FORMS = {(0, 8, op2) for op2 in range(4)}


def test_all_of_sys(world: World) -> None:
    """Which of the 2**14 SYS instructions exist; the others trap from EL1 (op0 = 1)."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, 1 << 10)
    low.install()
    expected = {(0, 8, *form) for form in TLBI_FORMS}
    expected |= {(op1, 7, crm, op2) for op1, crm, op2 in IC_DC | AT_FORMS}
    found = set()
    for op1, crn in itertools.product(range(8), (0, 7, 8, 9, 15)):
        for crm, op2 in itertools.product(range(16), range(8)):
            world.code(sys_word(0, 1, op1, crn, crm, op2, 1))
            world.start(x1=DATA)
            world.s.limit = world.s.count + 1
            if world.cpu.run() == Exit.LIMIT:
                assert world.s.pc == CODE + 4
                found.add((op1, crn, crm, op2))
            else:
                assert world.s.esr_el2 >> 26 == 0x18
    assert found == expected


@pytest.mark.parametrize("word", [tlbi("vmalle1"), tlbi("vae1is", 1), at("s1e0r", 1),
                                  dc("ivac", 1), sys_word(0, 1, 0, 7, 5, 0, 31)])  # fmt: skip
def test_el1_only(world: World, word: int) -> None:
    assert world.fault(word, pstate=EL0, x1=DATA).esr == UNDEFINED


@pytest.mark.parametrize(("op2", "user", "write"), [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)])
def test_address_translation_asks_as_another_would(
    world: World, op2: int, user: int, write: int
) -> None:
    """AT S1E1R, S1E1W, S1E0R, S1E0W: PAR_EL1.F for each kind of page; nothing is accessed."""
    low = Space(world)
    low.identity(CODE)
    for page, flags in enumerate((0, 1 << 7, 1 << 6, 3 << 6)):
        low.map(0x5000_0000 + page * 0x1000, DATA, 1 << 10 | flags)
    low.install()
    for page, readable, writable in ((0, "1", "1"), (1, "1", ""), (2, "10", "10"), (3, "10", "")):
        who = "0" if user else "1"
        allowed = who in (writable if write else readable)
        run(world, sys_word(0, 1, 0, 7, 8, op2, 1), x1=0x5000_0000 + page * 0x1000)
        assert world.s.par_el1 & 1 == (not allowed)


def test_fp_registers_trap_together(world: World) -> None:
    """FPCR and FPSR are trapped like the instructions, in both directions."""
    world.s.cpacr_el1 = 0
    world.cpu.changed()
    for word in (mrs(0, "fpcr"), msr("fpcr", 0), mrs(0, "fpsr"), msr("fpsr", 0)):
        assert world.fault(word).ec == 7


def test_loads_are_not_trapped(world: World) -> None:
    """A load, a store and a hint with floating point off: nothing."""
    world.s.cpacr_el1 = 0
    world.cpu.changed()
    run(world, ldr(0, 1), str_(0, 1), NOP, x1=DATA)
