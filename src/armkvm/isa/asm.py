"""Assembly text: register names, conditions and the format specs of the `asm` templates.

A template is a `str.format` string over the fields of a drawing; a field is formatted by its spec:

    x w         X or W register, 31 is the zero register     xsp wsp    the same, 31 is SP
    r rsp       X or W by the field sf
    b h s d q   scalar SIMD&FP register                       v8h        vector register v3.8h
    hex         0x2a        signed   two's complement          *8  signed*8   scaled
    label       PC + 4 * signed, in hexadecimal               (nothing)  decimal

An `asm` may also be a function of the fields, as integers, and of `pc` when it asks for it.
Syntax is that of the manual (C1.2), spelled as binutils spells it.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import MASK64, signed

CONDITIONS = ("eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc",
              "hi", "ls", "ge", "lt", "gt", "le", "al", "nv")  # fmt: skip
SHIFTS = ("lsl", "lsr", "asr", "ror")
EXTENDS = ("uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx")


def X(n: int) -> str:
    """Name of X[n]; 31 is xzr."""
    return f"x{n}" if n < 31 else "xzr"


def W(n: int) -> str:
    """Name of W[n]; 31 is wzr."""
    return f"w{n}" if n < 31 else "wzr"


def XSP(n: int) -> str:
    """Name of X[n]; 31 is sp."""
    return f"x{n}" if n < 31 else "sp"


def WSP(n: int) -> str:
    """Name of W[n]; 31 is wsp."""
    return f"w{n}" if n < 31 else "wsp"


def R(sf: int, n: int) -> str:
    """X[n] or W[n]; 31 is the zero register."""
    return X(n) if sf else W(n)


def RSP(sf: int, n: int) -> str:
    """X[n] or W[n]; 31 is the stack pointer."""
    return XSP(n) if sf else WSP(n)


_REGISTERS: dict[str, Callable[[int], str]] = {"x": X, "w": W, "xsp": XSP, "wsp": WSP}


class Operand:
    """A field's value about to be formatted."""

    __slots__ = ("pc", "sf", "value", "width")

    def __init__(self, value: int, width: int, sf: int, pc: int) -> None:
        self.value, self.width, self.sf, self.pc = value, width, sf, pc

    def __format__(self, spec: str) -> str:
        n = self.value
        if spec == "":
            return str(n)
        if spec in _REGISTERS:
            return _REGISTERS[spec](n)
        if spec == "r":
            return R(self.sf, n)
        if spec == "rsp":
            return RSP(self.sf, n)
        if spec in ("b", "h", "s", "d", "q"):
            return f"{spec}{n}"
        if spec == "hex":
            return f"{n:#x}"
        if spec == "label":
            return f"{(self.pc + 4 * signed(n, self.width)) & MASK64:#x}"
        if spec[0] == "v" and spec[1:].isalnum():
            return f"v{n}.{spec[1:]}"
        sign, star, scale = spec.partition("*")
        if sign in ("", "signed") and (star == "" or scale.isdigit()):
            value = signed(n, self.width) if sign else n
            return str(value * int(scale) if star else value)
        raise ValueError(f"unknown format spec {spec!r} in an asm template")
