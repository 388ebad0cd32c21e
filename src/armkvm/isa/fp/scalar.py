"""Scalar floating point: what the fp_*.py files share (Arm ARM, C4.1 "Data Processing -- Scalar
Floating-Point and Advanced SIMD").

ftype says single (00), double (01) or half (11). Half precision is only converted from and to: its
arithmetic is FEAT_FP16, which is not offered, and UNDEFINED here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from armkvm.isa.asm import R
from armkvm.isa.field import Field

SINGLE, DOUBLE, HALF = 0, 1, 3
TYPES = {SINGLE: "float", DOUBLE: "double"}
LETTERS = {SINGLE: "s", DOUBLE: "d", HALF: "h"}


def single_or_double(ftype: int, **_: Any) -> bool:
    """The ftypes that have arithmetic."""
    return ftype in TYPES


def scalar_asm(template: str) -> Callable[..., str]:
    """Assembly from a str.format template over the fields; {t} is the type's letter, {X...} of a
    register field its X or W name by sf."""

    def text(**fields: int) -> str:
        names = {f"X{k[1:]}": R(fields.get("sf", 1), v) for k, v in fields.items() if k[0] == "R"}
        return template.format(**fields, **names, t=LETTERS.get(fields.get("ftype", 0), "?"))

    return text


def vfp_expand_imm(imm8: Field, ftype: int) -> Field:
    """VFPExpandImm(): the bits of the float or double that an 8-bit immediate stands for."""
    sign, low = imm8 >> 7, imm8 & 0x3F
    b6 = (imm8 >> 6) & 1
    if ftype == DOUBLE:
        return sign << 63 | b6.choose(0x3FC0 << 48, 0x4000 << 48) | low << 48
    return sign << 31 | b6.choose(0x3E000000, 0x40000000) | low << 19


def vfp_number(imm8: int) -> str:
    """The same as a decimal number, as assemblers print it."""
    exponent = ((imm8 >> 4 & 7) ^ 4) - 3
    value = (16 + (imm8 & 15)) / 16 * 2.0**exponent
    return f"{-value if imm8 >> 7 else value:.8f}"
