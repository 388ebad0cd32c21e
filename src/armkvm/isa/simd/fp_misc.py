"""Advanced SIMD two-register miscellaneous, floating point, vector and scalar (Arm ARM, C4.1).

    0 Q U 01110 a sz 10000 opcode 10 Rn Rd         0 1 U 11110 a sz 10000 opcode 10 Rn Rd

FCVTL, FCVTN and FCVTXN, which change the lanes' width, are in fp_width.py; URECPE and URSQRTE,
which are integer arithmetic, in estimate.py.
"""

from __future__ import annotations

from armkvm.isa.fp.fpconvert import FixedToFP, FPRoundInt, FPToFixed
from armkvm.isa.fp.fpestimate import FPRecipEstimate, FPRecpX, FPRSqrtEstimate
from armkvm.isa.fp.fpformat import int_type
from armkvm.isa.fp.fpmath import (
    FPAbs,
    FPCompareEQ,
    FPCompareGE,
    FPCompareGT,
    FPNeg,
    FPSqrt,
)
from armkvm.isa.machine import Machine
from armkvm.isa.simd.fp import Binary, Unary, two_reg
from armkvm.isa.value import Value, same_shape

two_reg("0 1 01111", "fabs", FPAbs)
two_reg("1 1 01111", "fneg", FPNeg)
two_reg("1 1 11111", "fsqrt", FPSqrt)
# The estimates of zero raise: spare lanes are 1.0.
two_reg("0 1 11101", "frecpe", FPRecipEstimate, scalars=True, spare=1.0)
two_reg("1 1 11101", "frsqrte", FPRSqrtEstimate, scalars=True, spare=1.0)
two_reg("0 1 11111", "frecpx", FPRecpX, vectors=False, scalars=True)


# -- comparisons with zero --------------------------------------------------------------------
def _with_zero(test: Binary, *, swapped: bool = False) -> Unary:
    def operation(m: Machine, a: Value) -> Value:
        zero = m.const(a.ty, 0.0)
        return test(m, zero, a) if swapped else test(m, a, zero)

    return operation


for _opcode, _mnemonic, _test in (
    ("0 1 01100", "fcmgt", _with_zero(FPCompareGT)),
    ("0 1 01101", "fcmeq", _with_zero(FPCompareEQ)),
    ("0 1 01110", "fcmlt", _with_zero(FPCompareGT, swapped=True)),
    ("1 1 01100", "fcmge", _with_zero(FPCompareGE)),
    ("1 1 01101", "fcmle", _with_zero(FPCompareGE, swapped=True)),
):
    two_reg(_opcode, _mnemonic, _test, scalars=True, operands=", #0.0")


# -- to integral and to integer ---------------------------------------------------------------
def _round(letter: str) -> Unary:
    return lambda m, a: FPRoundInt(m, a, letter, exact=letter == "X")


two_reg("0 0 11000", "frintn", _round("N"))
two_reg("0 0 11001", "frintm", _round("M"))
two_reg("0 1 11000", "frintp", _round("P"))
two_reg("0 1 11001", "frintz", _round("Z"))
two_reg("1 0 11000", "frinta", _round("A"))
two_reg("1 0 11001", "frintx", _round("X"))
two_reg("1 1 11001", "frinti", _round("I"))


def _to_integer(letter: str, *, unsigned: bool) -> Unary:
    return lambda m, a: FPToFixed(m, a, int_type(a.ty), unsigned=unsigned, rounding=letter)


for _U in (0, 1):
    for _letter, _opcode in (
        ("N", "0 11010"), ("M", "0 11011"), ("A", "0 11100"), ("P", "1 11010"), ("Z", "1 11011"),
    ):  # fmt: skip
        two_reg(
            f"{_U} {_opcode}",
            f"fcvt{_letter.lower()}{'su'[_U]}",
            _to_integer(_letter, unsigned=_U == 1),
            scalars=True,
        )


def _from_integer(*, unsigned: bool) -> Unary:
    def operation(m: Machine, x: Value) -> Value:
        e = "double" if x.ty.endswith(("i64", "i64>")) else "float"
        return FixedToFP(m, x, same_shape(x.ty, e), unsigned=unsigned)

    return operation


two_reg("0 0 11101", "scvtf", _from_integer(unsigned=False), scalars=True, integers=True)
two_reg("1 0 11101", "ucvtf", _from_integer(unsigned=True), scalars=True, integers=True)
