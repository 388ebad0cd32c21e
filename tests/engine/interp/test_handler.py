"""What a description alone decides: its syndrome, its trap."""

from __future__ import annotations

import pytest
from tests.engine.interp.forms import described, engine_of
from tests.engine.world import AF, CODE, MMIO, Space, World

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine, Transfer

IL = 1 << 25
LDAPR = 0xF8BFC020  # LDAPR X0, [X1]


def ldapr(m: Machine, Rn: Field, Rt: Field) -> None:
    one = Transfer(Rt, wide=True)
    m.set_X(Rt, m.load(m.base(Rn), "i64", acc="ordered", one=one))


@pytest.fixture(scope="module")
def world() -> World:
    own = described("11 111 0 00 101 11111 1 100 00 Rn:5 Rt:5", ldapr)
    world = World(engine_of([own]))
    low = Space(world)
    low.identity(CODE)
    low.map(MMIO, MMIO, AF)
    low.install()
    return world


@pytest.mark.parametrize("rt", [0, 7, 31])
def test_a_new_load_has_its_syndrome_from_its_description(world: World, rt: int) -> None:
    """LDAPR, which is not in the table: the register, its size, acquire; no file but its own."""
    iss = 1 << 24 | 3 << 22 | rt << 16 | 1 << 15 | 1 << 14 | 7
    assert world.trapped(LDAPR | rt) == 0x24 << 26 | IL | iss
