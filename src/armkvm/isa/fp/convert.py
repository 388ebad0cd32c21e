"""Conversions between floating point and integer or fixed point, and FMOV to and from general
registers (Arm ARM, C4.1).

    sf 0 0 11110 ftype 1 rmode opcode 000000 Rn Rd     integer
    sf 0 0 11110 ftype 0 rmode opcode scale Rn Rd      fixed point
"""

from __future__ import annotations

from typing import Any

from armkvm.isa.asm import R
from armkvm.isa.field import Field
from armkvm.isa.fp.fpconvert import FixedToFP, FPToFixed
from armkvm.isa.fp.scalar import LETTERS, TYPES, scalar_asm, single_or_double
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn


def integer_type(sf: int) -> str:
    """The type of a W or X register."""
    return "i64" if sf else "i32"


# -- to integer -------------------------------------------------------------------------------
def _to_integer(rmode: str, opcode: str, rounding: str) -> None:
    name = f"fcvt{rounding.lower()}"

    def text(sf: int, ftype: int, U: int, Rn: int, Rd: int) -> str:
        return f"{name}{'su'[U]} {R(sf, Rd)}, {LETTERS[ftype]}{Rn}"

    @insn(
        f"sf 0011110 ftype:2 1 {rmode} {opcode} U 000000 Rn:5 Rd:5",
        asm=text,
        ref=f"C7.2 {name.upper()}S, {name.upper()}U (scalar)",
        feature="fp",
        where=single_or_double,
        name=f"{name.upper()}_integer",
    )
    def convert(m: Machine, sf: int, ftype: int, U: int, Rn: Field, Rd: Field) -> None:
        a = m.V(Rn, TYPES[ftype])
        m.set_X(Rd, FPToFixed(m, a, integer_type(sf), unsigned=U == 1, rounding=rounding))


_to_integer("00", "00", "N")
_to_integer("01", "00", "P")
_to_integer("10", "00", "M")
_to_integer("11", "00", "Z")
_to_integer("00", "10", "A")


# -- from integer -----------------------------------------------------------------------------
@insn(
    "sf 0011110 ftype:2 1 00 01 U 000000 Rn:5 Rd:5",
    asm=lambda sf, ftype, U, Rn, Rd: f"{'su'[U]}cvtf {LETTERS[ftype]}{Rd}, {R(sf, Rn)}",
    ref="C7.2 SCVTF, UCVTF (scalar, integer)",
    feature="fp",
    where=single_or_double,
)
def CVTF_integer(m: Machine, sf: int, ftype: int, U: int, Rn: Field, Rd: Field) -> None:
    x = m.X(Rn, integer_type(sf))
    m.set_V(Rd, FixedToFP(m, x, TYPES[ftype], unsigned=U == 1))


# -- fixed point ------------------------------------------------------------------------------
def _fixed(sf: int, ftype: int, immscale: Field | int, **_: Any) -> bool | int | Field:
    """ "if sf == '0' && scale<5> == '0' then UNDEFINED" """
    if ftype not in TYPES:
        return False
    return True if sf else immscale >> 5


def _fixed_text(mnemonic: str, operands: str) -> Any:
    inner = scalar_asm(mnemonic + " " + operands)

    def text(**f: int) -> str:
        return f"{inner(**f).replace('?', 'su'[f['U']])}, #{64 - f['immscale']}"

    return text


@insn(
    "sf 0011110 ftype:2 0 11 00 U immscale:6 Rn:5 Rd:5",
    asm=_fixed_text("fcvtz?", "{Xd}, {t}{Rn}"),
    ref="C7.2 FCVTZS, FCVTZU (scalar, fixed-point)",
    feature="fp",
    where=_fixed,
)
def FCVTZ_fixed(
    m: Machine, sf: int, ftype: int, U: int, immscale: Field, Rn: Field, Rd: Field
) -> None:
    a, ity = m.V(Rn, TYPES[ftype]), integer_type(sf)
    m.set_X(Rd, FPToFixed(m, a, ity, unsigned=U == 1, rounding="Z", fbits=64 - immscale))


@insn(
    "sf 0011110 ftype:2 0 00 01 U immscale:6 Rn:5 Rd:5",
    asm=_fixed_text("?cvtf", "{t}{Rd}, {Xn}"),
    ref="C7.2 SCVTF, UCVTF (scalar, fixed-point)",
    feature="fp",
    where=_fixed,
)
def CVTF_fixed(
    m: Machine, sf: int, ftype: int, U: int, immscale: Field, Rn: Field, Rd: Field
) -> None:
    x = m.X(Rn, integer_type(sf))
    m.set_V(Rd, FixedToFP(m, x, TYPES[ftype], unsigned=U == 1, fbits=64 - immscale))


# -- between the register files ---------------------------------------------------------------
@insn(
    "sf 0011110 0 sz 1 00 110 000000 Rn:5 Rd:5",
    asm=lambda sf, sz, Rn, Rd: f"fmov {R(sf, Rd)}, {LETTERS[sz]}{Rn}",
    ref="C7.2 FMOV (general)",
    feature="fp",
    where=lambda sf, sz, **_: sf == sz,
)
def FMOV_to_general(m: Machine, sf: int, sz: int, Rn: Field, Rd: Field) -> None:
    m.set_X(Rd, m.V(Rn, integer_type(sf)))


@insn(
    "sf 0011110 0 sz 1 00 111 000000 Rn:5 Rd:5",
    asm=lambda sf, sz, Rn, Rd: f"fmov {LETTERS[sz]}{Rd}, {R(sf, Rn)}",
    ref="C7.2 FMOV (general)",
    feature="fp",
    where=lambda sf, sz, **_: sf == sz,
)
def FMOV_from_general(m: Machine, sf: int, sz: int, Rn: Field, Rd: Field) -> None:
    m.set_V(Rd, m.X(Rn, integer_type(sf)))


@insn(
    "1 0011110 10 1 01 110 000000 Rn:5 Rd:5",
    asm=lambda Rn, Rd: f"fmov {R(1, Rd)}, v{Rn}.d[1]",
    ref="C7.2 FMOV (general)",
    feature="fp",
)
def FMOV_from_top_half(m: Machine, Rn: Field, Rd: Field) -> None:
    m.set_X(Rd, m.V_elem(Rn, 8, "i64"))


@insn(
    "1 0011110 10 1 01 111 000000 Rn:5 Rd:5",
    asm=lambda Rn, Rd: f"fmov v{Rd}.d[1], {R(1, Rn)}",
    ref="C7.2 FMOV (general)",
    feature="fp",
)
def FMOV_to_top_half(m: Machine, Rn: Field, Rd: Field) -> None:
    m.set_V_elem(Rd, 8, m.X(Rn))
