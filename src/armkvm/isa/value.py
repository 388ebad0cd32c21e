"""Typed run-time values that the instruction descriptions compute with.

A `Value` names one SSA value of LLVM: its type is LLVM's spelling ("i64", "double", "<4 x i32>")
and every operator appends one LLVM instruction to the trace it belongs to. Python integers (and,
for floating-point types, floats) are accepted wherever a value is and take the other side's type; a
vector type splats them. Widths must match: a mistake is a TypeError while tracing, never bad code.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from typing import Protocol

_VECTOR = re.compile(r"<(\d+) x (\w+)>")
_FLOATS = {"half": 16, "float": 32, "double": 64}


class Emitter(Protocol):
    """What a value needs of the trace it lives in."""

    def emit(self, text: str) -> str:
        """Append `%n = text` and return `%n`."""


@cache
def lanes(ty: str) -> int:
    """Number of lanes of a vector type; 1 for a scalar."""
    m = _VECTOR.fullmatch(ty)
    return int(m[1]) if m else 1


@cache
def element(ty: str) -> str:
    """Lane type of a vector type; the type itself for a scalar."""
    m = _VECTOR.fullmatch(ty)
    return m[2] if m else ty


@cache
def bits(ty: str) -> int:
    """Width of a type in bits, all lanes together."""
    e = element(ty)
    return lanes(ty) * (_FLOATS[e] if e in _FLOATS else int(e[1:]))


def vector(n: int, ty: str) -> str:
    """The type of n lanes of ty."""
    return f"<{n} x {ty}>"


def same_shape(ty: str, elem: str) -> str:
    """`elem`, with as many lanes as `ty` has."""
    n = lanes(ty)
    return vector(n, elem) if _VECTOR.fullmatch(ty) else elem


@cache
def literal(ty: str, x: int | float) -> str:
    """LLVM's spelling of a constant of type ty; a vector type gets it in every lane."""
    e = element(ty)
    if e in _FLOATS:
        if e == "half":
            text = "0xH" + struct.pack(">e", x).hex().upper()
        else:
            text = "0x" + struct.pack(">d", float(x)).hex().upper()
    elif e == "i1":
        text = "true" if x else "false"
    else:
        w = int(e[1:])
        if not isinstance(x, int) or not -(1 << w) < x < (1 << w):
            raise TypeError(f"{x!r} does not fit {e}")
        text = str(x & ((1 << w) - 1))
    return text if e == ty else f"splat ({e} {text})"


class Value:
    """One SSA value: `ty` its LLVM type, `ref` its name or literal, `m` the trace that owns it."""

    __slots__ = ("m", "ref", "ty")

    def __init__(self, m: Emitter, ty: str, ref: str) -> None:
        self.m, self.ty, self.ref = m, ty, ref

    def __repr__(self) -> str:
        return f"{self.ty} {self.ref}"

    def __bool__(self) -> bool:
        raise TypeError("a run-time value has no truth while tracing: use m.select or m.when")

    # -- plumbing ---------------------------------------------------------------------------
    def _new(self, ty: str, text: str) -> Value:
        return Value(self.m, ty, self.m.emit(text))

    def operand(self, x: Value | int | float) -> str:
        """The LLVM spelling of x as an operand of this value's type."""
        if isinstance(x, Value):
            if x.ty != self.ty:
                raise TypeError(f"{x.ty} where {self.ty} was expected")
            return x.ref
        return literal(self.ty, x)

    def _op(self, op: str, y: Value | int | float) -> Value:
        return self._new(self.ty, f"{op} {self.ty} {self.ref}, {self.operand(y)}")

    def _rop(self, op: str, x: int | float) -> Value:
        return self._new(self.ty, f"{op} {self.ty} {self.operand(x)}, {self.ref}")

    def _cmp(self, op: str, y: Value | int | float) -> Value:
        return self._new(same_shape(self.ty, "i1"), f"{op} {self.ty} {self.ref}, {self.operand(y)}")

    @property
    def bits(self) -> int:
        """Width in bits."""
        return bits(self.ty)

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return lanes(self.ty)

    # -- integers ---------------------------------------------------------------------------
    def __add__(self, y: Value | int) -> Value:
        return self if isinstance(y, int) and y == 0 else self._op("add", y)

    def __sub__(self, y: Value | int) -> Value:
        return self if isinstance(y, int) and y == 0 else self._op("sub", y)

    def __rsub__(self, x: int) -> Value:
        return self._rop("sub", x)

    def __mul__(self, y: Value | int) -> Value:
        return self._op("mul", y)

    def __and__(self, y: Value | int) -> Value:
        return self._op("and", y)

    def __or__(self, y: Value | int) -> Value:
        return self if isinstance(y, int) and y == 0 else self._op("or", y)

    def __xor__(self, y: Value | int) -> Value:
        return self if isinstance(y, int) and y == 0 else self._op("xor", y)

    __radd__, __rmul__, __rand__, __ror__, __rxor__ = __add__, __mul__, __and__, __or__, __xor__

    def __invert__(self) -> Value:
        return self._op("xor", 1 if element(self.ty) == "i1" else -1)

    def __neg__(self) -> Value:
        return self._rop("sub", 0)

    def __lshift__(self, y: Value | int) -> Value:
        return self if isinstance(y, int) and y == 0 else self._op("shl", y)

    def lshr(self, y: Value | int) -> Value:
        """Logical shift right; the amount must be below the width (as for <<)."""
        return self if isinstance(y, int) and y == 0 else self._op("lshr", y)

    def ashr(self, y: Value | int) -> Value:
        """Arithmetic shift right."""
        return self if isinstance(y, int) and y == 0 else self._op("ashr", y)

    def udiv(self, y: Value | int) -> Value:
        """Unsigned quotient; the divisor must not be zero."""
        return self._op("udiv", y)

    def urem(self, y: Value | int) -> Value:
        """Unsigned remainder; the divisor must not be zero."""
        return self._op("urem", y)

    def sdiv(self, y: Value | int) -> Value:
        """Signed quotient; neither zero divisor nor overflow may reach it."""
        return self._op("sdiv", y)

    def eq(self, y: Value | int) -> Value:
        """Equal, as i1 (a vector of i1 for vectors; so for all comparisons)."""
        return self._cmp("icmp eq", y)

    def ne(self, y: Value | int) -> Value:
        """Not equal."""
        return self._cmp("icmp ne", y)

    def ult(self, y: Value | int) -> Value:
        """Unsigned less than."""
        return self._cmp("icmp ult", y)

    def ule(self, y: Value | int) -> Value:
        """Unsigned less than or equal."""
        return self._cmp("icmp ule", y)

    def ugt(self, y: Value | int) -> Value:
        """Unsigned greater than."""
        return self._cmp("icmp ugt", y)

    def uge(self, y: Value | int) -> Value:
        """Unsigned greater than or equal."""
        return self._cmp("icmp uge", y)

    def slt(self, y: Value | int) -> Value:
        """Signed less than."""
        return self._cmp("icmp slt", y)

    def sle(self, y: Value | int) -> Value:
        """Signed less than or equal."""
        return self._cmp("icmp sle", y)

    def sgt(self, y: Value | int) -> Value:
        """Signed greater than."""
        return self._cmp("icmp sgt", y)

    def sge(self, y: Value | int) -> Value:
        """Signed greater than or equal."""
        return self._cmp("icmp sge", y)

    # -- floating point ---------------------------------------------------------------------
    def fadd(self, y: Value | float) -> Value:
        """IEEE sum in the current rounding mode (the host's NaN rules: see isa/fp)."""
        return self._op("fadd", y)

    def fsub(self, y: Value | float) -> Value:
        """IEEE difference."""
        return self._op("fsub", y)

    def fmul(self, y: Value | float) -> Value:
        """IEEE product."""
        return self._op("fmul", y)

    def fdiv(self, y: Value | float) -> Value:
        """IEEE quotient."""
        return self._op("fdiv", y)

    def fneg(self) -> Value:
        """Sign bit inverted, NaNs included; raises nothing."""
        return self._new(self.ty, f"fneg {self.ty} {self.ref}")

    def fcmp(self, pred: str, y: Value | float) -> Value:
        """By LLVM's predicate: oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno."""
        return self._cmp(f"fcmp {pred}", y)

    # -- casts ------------------------------------------------------------------------------
    def cast(self, op: str, ty: str) -> Value:
        """One LLVM cast (fptosi, sitofp, fpext, fptrunc, ...) to ty."""
        return self._new(ty, f"{op} {self.ty} {self.ref} to {ty}")

    def zext(self, ty: str) -> Value:
        """Zero-extended to ty (unchanged when it has that type)."""
        return self if ty == self.ty else self.cast("zext", ty)

    def sext(self, ty: str) -> Value:
        """Sign-extended to ty."""
        return self if ty == self.ty else self.cast("sext", ty)

    def trunc(self, ty: str) -> Value:
        """Low bits, as ty."""
        return self if ty == self.ty else self.cast("trunc", ty)

    def bitcast(self, ty: str) -> Value:
        """The same bits as another type of the same width."""
        return self if ty == self.ty else self.cast("bitcast", ty)

    # -- lanes ------------------------------------------------------------------------------
    def __getitem__(self, i: int | Value) -> Value:
        ix = i if isinstance(i, Value) else Value(self.m, "i32", str(i))
        return self._new(element(self.ty), f"extractelement {self.ty} {self.ref}, {ix!r}")

    def insert(self, i: int | Value, x: Value | int | float) -> Value:
        """This vector with lane i replaced by x."""
        ix = i if isinstance(i, Value) else Value(self.m, "i32", str(i))
        e = element(self.ty)
        ref = x.ref if isinstance(x, Value) else literal(e, x)
        if isinstance(x, Value) and x.ty != e:
            raise TypeError(f"{x.ty} where {e} was expected")
        return self._new(self.ty, f"insertelement {self.ty} {self.ref}, {e} {ref}, {ix!r}")

    def splat(self, n: int) -> Value:
        """A vector of n lanes that all hold this scalar."""
        ty = vector(n, self.ty)
        one = self._new(ty, f"insertelement {ty} poison, {self!r}, i32 0")
        return one.shuffle([0] * n)

    def shuffle(self, mask: list[int], other: Value | None = None) -> Value:
        """Lanes picked by mask; indices from `lanes` on pick from `other`."""
        if other is not None and other.ty != self.ty:
            raise TypeError(f"{other.ty} where {self.ty} was expected")
        picks = ", ".join(f"i32 {i}" for i in mask)
        rhs = other.ref if other is not None else "poison"
        return self._new(
            vector(len(mask), element(self.ty)),
            f"shufflevector {self.ty} {self.ref}, {self.ty} {rhs}, <{len(mask)} x i32> <{picks}>",
        )
