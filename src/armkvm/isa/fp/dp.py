"""Scalar floating-point data processing, 1 to 3 sources, and FMOV (immediate) (Arm ARM, C4.1).

0 0 0 11110 ftype 1 opcode 10000 Rn Rd          FMOV FABS FNEG FSQRT FCVT FRINT*
0 0 0 11110 ftype 1 Rm opcode 10 Rn Rd          FADD ... FNMUL
0 0 0 11111 ftype o1 Rm o0 Ra Rn Rd             FMADD ...
0 0 0 11110 ftype 1 imm8 100 00000 Rd           FMOV (immediate)
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.fp.fpconvert import (
    FPRoundInt,
    double_to_half,
    double_to_single,
    half_to_double,
    half_to_single,
    single_to_double,
    single_to_half,
)
from armkvm.isa.fp.fpmath import (
    FPAbs,
    FPAdd,
    FPDiv,
    FPMax,
    FPMaxNum,
    FPMin,
    FPMinNum,
    FPMul,
    FPMulAdd,
    FPNeg,
    FPNMul,
    FPSqrt,
    FPSub,
)
from armkvm.isa.fp.scalar import (
    DOUBLE,
    HALF,
    LETTERS,
    SINGLE,
    TYPES,
    scalar_asm,
    single_or_double,
    vfp_expand_imm,
    vfp_number,
)
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value


# -- one source -------------------------------------------------------------------------------
def _one(opcode: str, mnemonic: str, operation: Callable[[Machine, Value], Value]) -> None:
    @insn(
        f"00011110 ftype:2 1 {opcode} 10000 Rn:5 Rd:5",
        asm=scalar_asm(mnemonic + " {t}{Rd}, {t}{Rn}"),
        ref=f"C7.2 {mnemonic.upper()} (scalar)",
        feature="fp",
        where=single_or_double,
        name=f"{mnemonic.upper()}_scalar",
    )
    def one_source(m: Machine, ftype: int, Rn: Field, Rd: Field) -> None:
        m.set_V(Rd, operation(m, m.V(Rn, TYPES[ftype])))


def _rounding(letter: str) -> Callable[[Machine, Value], Value]:
    return lambda m, a: FPRoundInt(m, a, letter, exact=letter == "X")


_one("000000", "fmov", lambda m, a: a)
_one("000001", "fabs", FPAbs)
_one("000010", "fneg", FPNeg)
_one("000011", "fsqrt", FPSqrt)
_one("001000", "frintn", _rounding("N"))
_one("001001", "frintp", _rounding("P"))
_one("001010", "frintm", _rounding("M"))
_one("001011", "frintz", _rounding("Z"))
_one("001100", "frinta", _rounding("A"))
_one("001110", "frintx", _rounding("X"))
_one("001111", "frinti", _rounding("I"))

_CONVERSIONS: dict[tuple[int, int], Callable[[Machine, Value], Value]] = {
    (SINGLE, DOUBLE): single_to_double,
    (SINGLE, HALF): single_to_half,
    (DOUBLE, SINGLE): double_to_single,
    (DOUBLE, HALF): double_to_half,
    (HALF, SINGLE): half_to_single,
    (HALF, DOUBLE): half_to_double,
}


@insn(
    "00011110 ftype:2 1 0001 opc:2 10000 Rn:5 Rd:5",
    asm=lambda ftype, opc, Rn, Rd: f"fcvt {LETTERS[opc]}{Rd}, {LETTERS[ftype]}{Rn}",
    ref="C7.2 FCVT",
    feature="fp",
    where=lambda ftype, opc, **_: (ftype, opc) in _CONVERSIONS,
)
def FCVT(m: Machine, ftype: int, opc: int, Rn: Field, Rd: Field) -> None:
    source = "i16" if ftype == HALF else TYPES[ftype]
    m.set_V(Rd, _CONVERSIONS[ftype, opc](m, m.V(Rn, source)))


# -- two sources ------------------------------------------------------------------------------
def _two(opcode: str, mnemonic: str, operation: Callable[[Machine, Value, Value], Value]) -> None:
    @insn(
        f"00011110 ftype:2 1 Rm:5 {opcode} 10 Rn:5 Rd:5",
        asm=scalar_asm(mnemonic + " {t}{Rd}, {t}{Rn}, {t}{Rm}"),
        ref=f"C7.2 {mnemonic.upper()} (scalar)",
        feature="fp",
        where=single_or_double,
        name=f"{mnemonic.upper()}_scalar",
    )
    def two_sources(m: Machine, ftype: int, Rm: Field, Rn: Field, Rd: Field) -> None:
        ty = TYPES[ftype]
        m.set_V(Rd, operation(m, m.V(Rn, ty), m.V(Rm, ty)))


_two("0000", "fmul", FPMul)
_two("0001", "fdiv", FPDiv)
_two("0010", "fadd", FPAdd)
_two("0011", "fsub", FPSub)
_two("0100", "fmax", FPMax)
_two("0101", "fmin", FPMin)
_two("0110", "fmaxnm", FPMaxNum)
_two("0111", "fminnm", FPMinNum)
_two("1000", "fnmul", FPNMul)


# -- three sources ----------------------------------------------------------------------------
_FUSED = ("fmadd", "fmsub", "fnmadd", "fnmsub")


@insn(
    "00011111 ftype:2 o1 Rm:5 o0 Ra:5 Rn:5 Rd:5",
    asm=lambda ftype, o1, Rm, o0, Ra, Rn, Rd: "{0} {t}{Rd}, {t}{Rn}, {t}{Rm}, {t}{Ra}".format(
        _FUSED[2 * o1 + o0], t=LETTERS[ftype], Rd=Rd, Rn=Rn, Rm=Rm, Ra=Ra
    ),
    ref="C7.2 FMADD, FMSUB, FNMADD, FNMSUB",
    feature="fp",
    where=single_or_double,
)
def FMADD_FMSUB_FNMADD_FNMSUB(
    m: Machine, ftype: int, o1: int, Rm: Field, o0: int, Ra: Field, Rn: Field, Rd: Field
) -> None:
    ty = TYPES[ftype]
    addend, a, b = m.V(Ra, ty), m.V(Rn, ty), m.V(Rm, ty)
    if o1:
        addend = FPNeg(m, addend)
    if o1 != o0:  # "if op1_neg then operand1 = FPNeg(operand1)", NaNs included
        a = FPNeg(m, a)
    m.set_V(Rd, FPMulAdd(m, addend, a, b))


# -- immediate --------------------------------------------------------------------------------
@insn(
    "00011110 ftype:2 1 imm8:8 100 00000 Rd:5",
    asm=lambda ftype, imm8, Rd: f"fmov {LETTERS[ftype]}{Rd}, #{vfp_number(imm8)}",
    ref="C7.2 FMOV (scalar, immediate)",
    feature="fp",
    where=single_or_double,
)
def FMOV_immediate(m: Machine, ftype: int, imm8: Field, Rd: Field) -> None:
    m.set_V(Rd, m.imm(vfp_expand_imm(imm8, ftype), "i64" if ftype == DOUBLE else "i32"))
