"""Advanced SIMD three same, floating point, vector and scalar (Arm ARM, C4.1).

0 Q U 01110 a sz 1 Rm opcode 1 Rn Rd          0 1 U 11110 a sz 1 Rm opcode 1 Rn Rd
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.fp.fpestimate import FPRecipStepFused, FPRSqrtStepFused
from armkvm.isa.fp.fpmath import (
    FPAbd,
    FPAdd,
    FPCompareAbsGE,
    FPCompareAbsGT,
    FPCompareEQ,
    FPCompareGE,
    FPCompareGT,
    FPDiv,
    FPMax,
    FPMaxNum,
    FPMin,
    FPMinNum,
    FPMul,
    FPMulAdd,
    FPMulX,
    FPNeg,
    FPSub,
)
from armkvm.isa.machine import Machine
from armkvm.isa.simd.fp import (
    ELEMENTS,
    Binary,
    V_lanes,
    arranged,
    fp_asm,
    set_V_lanes,
    three_same,
)
from armkvm.isa.table import insn

three_same("0 0 11000", "fmaxnm", FPMaxNum)
three_same("0 0 11010", "fadd", FPAdd)
three_same("0 0 11011", "fmulx", FPMulX, scalars=True)
three_same("0 0 11100", "fcmeq", FPCompareEQ, scalars=True)
three_same("0 0 11110", "fmax", FPMax)
three_same("0 0 11111", "frecps", FPRecipStepFused, scalars=True)
three_same("0 1 11000", "fminnm", FPMinNum)
three_same("0 1 11010", "fsub", FPSub)
three_same("0 1 11110", "fmin", FPMin)
three_same("0 1 11111", "frsqrts", FPRSqrtStepFused, scalars=True)
three_same("1 0 11011", "fmul", FPMul)
three_same("1 0 11100", "fcmge", FPCompareGE, scalars=True)
three_same("1 0 11101", "facge", FPCompareAbsGE, scalars=True)
# Unused lanes are 1.0 / 1.0: 0.0 / 0.0 would raise.
three_same("1 0 11111", "fdiv", FPDiv, spare=1.0)
three_same("1 1 11010", "fabd", FPAbd, scalars=True)
three_same("1 1 11100", "fcmgt", FPCompareGT, scalars=True)
three_same("1 1 11101", "facgt", FPCompareAbsGT, scalars=True)


@insn(
    "0 Q 0 01110 sub sz 1 Rm:5 11001 1 Rn:5 Rd:5",
    asm=lambda sub, **f: fp_asm(("fmla", "fmls")[sub] + " v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}")(**f),
    ref="C7.2 FMLA, FMLS (vector)",
    feature="asimd",
    where=arranged,
)
def FMLA_FMLS_vector(
    m: Machine, Q: int, sub: int, sz: int, Rm: Field, Rn: Field, Rd: Field
) -> None:
    e = ELEMENTS[sz]
    a, b = V_lanes(m, Rn, Q, e), V_lanes(m, Rm, Q, e)
    r = FPMulAdd(m, V_lanes(m, Rd, Q, e), FPNeg(m, a) if sub else a, b)
    set_V_lanes(m, Rd, Q, r)


# -- pairwise ---------------------------------------------------------------------------------
def _pairwise(opcode: str, mnemonic: str, operation: Binary) -> None:
    """Adjacent lanes of Vm:Vn."""
    a, op = opcode.split()

    @insn(
        f"0 Q 1 01110 {a} sz 1 Rm:5 {op} 1 Rn:5 Rd:5",
        asm=fp_asm(mnemonic + " v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}"),
        ref=f"C7.2 {mnemonic.upper()} (vector)",
        feature="asimd",
        where=arranged,
        name=f"{mnemonic.upper()}_vector",
    )
    def pairwise(m: Machine, Q: int, sz: int, Rm: Field, Rn: Field, Rd: Field) -> None:
        e = ELEMENTS[sz]
        x, y = V_lanes(m, Rn, Q, e), V_lanes(m, Rm, Q, e)
        n = x.lanes
        # With Q=0 lanes 2 and 3 of both are zeros.
        even = list(range(0, 2 * n, 2)) if Q else [0, 4, 2, 2]
        odd = [i + 1 for i in even]
        set_V_lanes(m, Rd, Q, operation(m, x.shuffle(even, y), x.shuffle(odd, y)))


_pairwise("0 11000", "fmaxnmp", FPMaxNum)
_pairwise("0 11010", "faddp", FPAdd)
_pairwise("0 11110", "fmaxp", FPMax)
_pairwise("1 11000", "fminnmp", FPMinNum)
_pairwise("1 11110", "fminp", FPMin)
