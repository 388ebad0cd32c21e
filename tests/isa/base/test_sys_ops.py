"""The SYS space: which encodings there are and who may use them; AT (Arm ARM C5.3 to C5.5)."""

from __future__ import annotations

import itertools

import pytest
from tests.engine.a64 import at, dc, sys_word, tlbi
from tests.engine.world import CODE, DATA, EL0, Space, World
from tests.isa.base.base_bench import UNDEFINED, run

from armkvm.engine.cpu import Exit

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
