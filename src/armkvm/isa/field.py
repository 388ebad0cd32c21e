"""Decode-time values: what is known when an instruction word is decoded, once, before it runs.

A `Field` is an expression over the 32-bit instruction word. The instruction descriptions compute
with it as with an integer (all arithmetic is modulo 2**64); the engine compiles the
expression into its decoder, the disassembler evaluates it in Python. Comparisons are methods that
give 0 or 1, so that nobody branches on a value that is not known yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MASK64 = (1 << 64) - 1

_EVAL: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b if b < 64 else 0,
    "lshr": lambda a, b: a >> b if b < 64 else 0,
    "eq": lambda a, b: int(a == b),
    "ult": lambda a, b: int(a < b),
}


@dataclass(frozen=True, slots=True)
class Field:
    """An expression over the instruction word. Built by operators, not by its constructor."""

    op: str
    args: tuple[Field | int | tuple[int, ...], ...]

    def __bool__(self) -> bool:
        raise TypeError("a decode-time value has no truth while tracing: use where= or .choose()")

    def __add__(self, y: Field | int) -> Field:
        return Field("add", (self, y))

    def __radd__(self, x: int) -> Field:
        return Field("add", (x, self))

    def __sub__(self, y: Field | int) -> Field:
        return Field("sub", (self, y))

    def __rsub__(self, x: int) -> Field:
        return Field("sub", (x, self))

    def __mul__(self, y: Field | int) -> Field:
        return Field("mul", (self, y))

    __rmul__ = __mul__

    def __and__(self, y: Field | int) -> Field:
        return Field("and", (self, y))

    __rand__ = __and__

    def __or__(self, y: Field | int) -> Field:
        return Field("or", (self, y))

    __ror__ = __or__

    def __xor__(self, y: Field | int) -> Field:
        return Field("xor", (self, y))

    __rxor__ = __xor__

    def __lshift__(self, y: Field | int) -> Field:
        return Field("shl", (self, y))

    def __rlshift__(self, x: int) -> Field:
        return Field("shl", (x, self))

    def __rshift__(self, y: Field | int) -> Field:
        return Field("lshr", (self, y))

    def __invert__(self) -> Field:
        return self ^ MASK64

    def __neg__(self) -> Field:
        return 0 - self

    def is_(self, y: Field | int) -> Field:
        """1 where equal, else 0."""
        return Field("eq", (self, y))

    def isnt(self, y: Field | int) -> Field:
        """1 where different, else 0."""
        return self.is_(y) ^ 1

    def lt(self, y: Field | int) -> Field:
        """1 where unsigned less than y, else 0."""
        return Field("ult", (self, y))

    def choose(self, yes: Field | int, no: Field | int) -> Field:
        """yes where this is not zero, else no."""
        return Field("choose", (self, yes, no))

    def sext(self, width: int) -> Field:
        """The low `width` bits, sign-extended to 64."""
        sign = 1 << (width - 1)
        return ((self & ((1 << width) - 1)) ^ sign) - sign

    def lookup(self, table: tuple[int, ...]) -> Field:
        """table[self]; the index must be in range."""
        return Field("lookup", (self, table))

    def eval(self, word: int) -> int:
        """The value for one instruction word, as an unsigned 64-bit integer."""
        if self.op == "bits":
            lo, width = self.args
            assert isinstance(lo, int)
            assert isinstance(width, int)
            return (word >> lo) & ((1 << width) - 1)
        if self.op == "lookup":
            index, table = self.args
            assert isinstance(index, Field)
            assert isinstance(table, tuple)
            return table[index.eval(word)] & MASK64
        vals = [evaluate(a, word) for a in self.args if not isinstance(a, tuple)]
        if self.op == "choose":
            return vals[1] if vals[0] else vals[2]
        return _EVAL[self.op](vals[0], vals[1]) & MASK64


def word_bits(lo: int, width: int) -> Field:
    """Bits [lo+width-1:lo] of the instruction word."""
    return Field("bits", (lo, width))


def evaluate(x: Field | int, word: int) -> int:
    """x for one instruction word, as an unsigned 64-bit integer."""
    return x.eval(word) if isinstance(x, Field) else x & MASK64


def signed(x: int, width: int = 64) -> int:
    """x read as a two's-complement number of that width."""
    x &= (1 << width) - 1
    return x - ((x >> (width - 1)) << width)
