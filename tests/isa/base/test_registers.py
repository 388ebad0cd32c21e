"""MSR and MRS: what they do to PSTATE, and the registers that are special (Arm ARM C5.1, C5.2)."""

from __future__ import annotations

import itertools

import pytest
from tests.engine.a64 import NOP, daifclr, daifset, ldr, mrs, msr, spsel, str_
from tests.engine.world import CODE, DATA, EL0, EL1H, EL1T, World
from tests.isa.base.base_bench import UNDEFINED, run

UMA, DZE = 1 << 9, 1 << 14


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


def test_msr_immediate_of_later_versions(world: World) -> None:
    """PAN, UAO, DIT, SSBS, TCO, CFINV and their kin are not there: UNDEFINED, not trapped."""
    there = {(0, 5), (3, 6), (3, 7)}
    for op1, op2 in itertools.product(range(8), range(8)):
        if (op1, op2) not in there:
            for pstate in (EL0, EL1H):
                word = 0xD500401F | op1 << 16 | 1 << 8 | op2 << 5
                assert world.fault(word, pstate=pstate).esr == UNDEFINED


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
