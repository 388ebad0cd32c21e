"""The table of instructions: drawings, forms, guards."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator

import pytest

from armkvm.isa import table
from armkvm.isa.all import forms
from armkvm.isa.field import Field
from armkvm.isa.table import TABLE, Form, insn


@pytest.fixture
def own() -> Iterator[list[table.Insn]]:
    """Entries that a test makes; they leave the table with it."""
    before = len(TABLE)
    yield TABLE
    del TABLE[before:]


def described(own: list[table.Insn]) -> list[Form]:
    return [*own[-1].forms()]


def test_drawing(own: list[table.Insn]) -> None:
    """Literal bits, ignored bits, operands and specialising fields, from bit 31 down."""

    @insn("sf 0 x 100010 =sh:1 imm12:12 Rn:5 Rd:5", asm="add")
    def thing(m: object, sf: int, sh: int, imm12: Field, Rn: Field, Rd: Field) -> None: ...

    made = described(own)
    assert [f.name for f in made] == [f"thing_sf{a}_sh{b}" for a in (0, 1) for b in (0, 1)]
    for f in made:
        sf, sh = f.fields["sf"], f.fields["sh"]
        assert isinstance(sf, int)
        assert isinstance(sh, int)
        assert f.mask == 0b1101_1111_1100_0000_0000_0000_0000_0000
        assert f.value == sf << 31 | 0b100010 << 23 | sh << 22
        assert list(f.fields) == ["sf", "sh", "imm12", "Rn", "Rd"]
        word = f.value | 1 << 29 | 0xABC << 10 | 3 << 5 | 30
        assert f.matches(word)
        assert f.operands(word) == {"sf": sf, "sh": sh, "imm12": 0xABC, "Rn": 3, "Rd": 30}
        assert not f.matches(word ^ 1 << 30)


def test_a_field_that_is_fixed(own: list[table.Insn]) -> None:
    """`=` makes an operand a specialising field."""

    @insn("000000000000000000000000000000 =immx:2", asm="x")
    def thing(m: object, immx: int) -> None: ...

    assert [f.fields["immx"] for f in described(own)] == [0, 1, 2, 3]


def test_where_drops_forms_or_guards_them(own: list[table.Insn]) -> None:
    @insn(
        "000000000000000000000000 size:2 imm6:6",
        asm="x",
        where=lambda size, imm6: size != 3 if size != 1 else imm6.lt(10),
    )
    def thing(m: object, size: int, imm6: Field) -> None: ...

    made = described(own)
    assert [f.fields["size"] for f in made] == [0, 1, 2]
    assert [f.guard is None for f in made] == [True, False, True]
    assert made[1].matches(1 << 6 | 9)
    assert not made[1].matches(1 << 6 | 10)


@pytest.mark.parametrize(
    "drawing", ["", "0" * 31, "0" * 33, "imm12:12", "0" * 32 + " $", "0" * 27 + "5Rn:5"]
)
def test_bad_drawings(own: list[table.Insn], drawing: str) -> None:
    with pytest.raises(ValueError, match="drawing"):
        insn(drawing, asm="x")(lambda m: None)
    assert own is TABLE


def test_every_description_can_be_traced_by_its_fields() -> None:
    """Parameter names and fields agree; names of forms are unique; each says where it is from."""
    seen = set()
    for form in forms():
        takes = inspect.signature(form.insn.semantics)
        takes.bind(None, **form.fields)
        assert form.name not in seen
        seen.add(form.name)
        assert form.insn.ref
        assert form.value & ~form.mask == 0


def test_no_word_has_two_forms() -> None:
    """Of the forms whose bits allow a word, the guards leave at most one."""
    all_forms = forms()
    rng = random.Random(1)
    by_top: dict[int, list[Form]] = {}
    for form in all_forms:
        for top in range(256):
            if (top << 24 ^ form.value) & form.mask & 0xFF << 24 == 0:
                by_top.setdefault(top, []).append(form)
    for form in all_forms:
        for _ in range(10):
            word = form.value | rng.getrandbits(32) & ~form.mask & 0xFFFF_FFFF
            if form.matches(word):
                assert [f.name for f in by_top[word >> 24] if f.matches(word)] == [form.name]
