"""Hints and barriers (Arm ARM C4.1.3, C6.2)."""

from __future__ import annotations

import itertools

import pytest
from tests.engine.a64 import ISB, NOP
from tests.engine.world import CODE, DATA, EL0, EL1H, World
from tests.isa.base.base_bench import UNDEFINED, run


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
