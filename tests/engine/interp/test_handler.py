"""What a description alone decides: its syndrome, its trap."""

from __future__ import annotations

import pytest
from tests.engine.interp.forms import described, engine_of
from tests.engine.world import AF, CODE, MMIO, Space, World

from armkvm.engine.interp.handler import Handler
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine, Transfer
from armkvm.isa.table import FEATURES, Feature

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


def eor(m: Machine, Rn: Field, Rd: Field) -> None:
    m.set_V(Rd, m.V(Rd, "<2 x i64>") ^ m.V(Rn, "<2 x i64>"))


AESE = "01001110 00101000 010010 Rn:5 Rd:5"


def test_a_later_feature_traps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its declaration says what traps: with CPACR_EL1.FPEN shut, EC 0x07."""
    monkeypatch.setitem(FEATURES, "aes", Feature("aes", traps="fp"))
    world = World(engine_of([described(AESE, eor, feature="aes")]))
    world.s.cpacr_el1 = 0
    world.cpu.changed()
    t = world.fault(0x4E284820)
    assert t.esr == 0x07 << 26 | IL | 0x1E << 20


def test_who_uses_a_simd_register_has_to_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURES, "aes", Feature("aes"))
    [form] = described(AESE, eor, feature="aes").forms()
    with pytest.raises(TypeError, match="its feature 'aes' has to trap"):
        Handler(form, "h").trace()
