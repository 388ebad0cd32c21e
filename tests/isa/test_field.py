"""Decode-time expressions: integer arithmetic modulo 2**64, in Python and in the decoder alike."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armkvm.isa.field import MASK64, Field, evaluate, signed, word_bits

WORDS = st.integers(0, (1 << 32) - 1)
a, b = word_bits(0, 12), word_bits(12, 20)


def parts(word: int) -> tuple[int, int]:
    return word & 0xFFF, word >> 12


OPERATORS: dict[str, tuple[Field, Callable[[int, int], int]]] = {
    "a + b": (a + b, lambda x, y: x + y),
    "7 + a": (7 + a, lambda x, _: 7 + x),
    "a - b": (a - b, lambda x, y: x - y),
    "1 - a": (1 - a, lambda x, _: 1 - x),
    "a * b": (a * b, lambda x, y: x * y),
    "3 * b": (3 * b, lambda _, y: 3 * y),
    "a & b": (a & b, lambda x, y: x & y),
    "a | b": (a | b, lambda x, y: x | y),
    "8 | a": (8 | a, lambda x, _: 8 | x),
    "a ^ b": (a ^ b, lambda x, y: x ^ y),
    "~a": (~a, lambda x, _: ~x),
    "-a": (-a, lambda x, _: -x),
    "a << 60": (a << 60, lambda x, _: x << 60),
    "1 << a": (1 << a, lambda x, _: 1 << x if x < 64 else 0),
    "b >> 3": (b >> 3, lambda _, y: y >> 3),
    "-1 >> a": (Field("lshr", (MASK64, a)), lambda x, _: MASK64 >> x if x < 64 else 0),
    "is_": (a.is_(5), lambda x, _: x == 5),
    "isnt": ((a & 1).isnt(0), lambda x, _: x & 1),
    "lt": (a.lt(b), lambda x, y: x < y),
    "choose": ((a & 1).choose(a, b), lambda x, y: x if x & 1 else y),
    "sext": (a.sext(12) << 2, lambda x, _: signed(x, 12) * 4),
    "lookup": ((a & 3).lookup((10, 20, 30, -1)), lambda x, _: (10, 20, 30, -1)[x & 3]),
}


@pytest.mark.parametrize("name", OPERATORS)
@given(word=WORDS)
def test_operators(name: str, word: int) -> None:
    expression, meaning = OPERATORS[name]
    assert expression.eval(word) == meaning(*parts(word)) & MASK64


def test_integers_evaluate_to_themselves() -> None:
    assert evaluate(-1, 0) == MASK64
    assert evaluate(a, 0x123) == 0x123


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_signed(x: int) -> None:
    assert signed(x & MASK64) == x
    assert signed(x, 8) == (x + 128) % 256 - 128


def test_no_truth_while_tracing() -> None:
    """An `if` on what is not known yet would silently take one side."""
    with pytest.raises(TypeError, match="no truth while tracing"):
        bool(a.is_(1))


def test_equal_expressions_share_an_operand() -> None:
    """The decoder computes and stores each expression once: fields are compared by structure."""
    assert word_bits(5, 5) * 8 == word_bits(5, 5) * 8
    assert len({word_bits(5, 5) * 8, word_bits(5, 5) * 8, word_bits(5, 5) * 4}) == 2


def test_tables_hold_every_index() -> None:
    """Lookups of the instruction table stay inside: the native decoder does not check."""
    from armkvm.isa.all import forms

    rng = random.Random(1)
    for form in forms():
        for _ in range(20):
            word = form.value | rng.getrandbits(32) & ~form.mask & MASK64
            if form.guard is not None:
                form.guard.eval(word)
            form.operands(word)
