"""Advanced SIMD shifts by register, vector and scalar (Arm ARM, C7.2 SSHL to UQRSHL).

The low byte of each lane of Vm is a signed amount: positive shifts left, negative shifts right, and
any of -128..127 is allowed. LLVM's shifts are undefined from the lane's width on, so every amount
is brought into range first and the results beyond it are selected.
"""

from __future__ import annotations

from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHSD,
    D,
    any_lane,
    esize,
    lane_op,
    saturated_like,
    set_QC,
)
from armkvm.isa.simd.three_same import three_same
from armkvm.isa.value import Value


def low_byte(b: Value) -> Value:
    """SInt(b<7:0>) in every lane."""
    e = esize(b.ty)
    return (b << (e - 8)).ashr(e - 8)


def shift_right(m: Machine, U: int, a: Value, n: Value) -> Value:
    """a >> n for any unsigned n: zeros or copies of the sign from the width on."""
    e = esize(a.ty)
    if not U:
        return a.ashr(lane_op(m, "umin", n, m.const(n.ty, e - 1)))
    return m.select(n.ult(e), a.lshr(n & (e - 1)), 0)


def shift_right_rounded(m: Machine, U: int, a: Value, n: Value) -> Value:
    """(a + 2**(n-1)) >> n for n >= 1, without the sum's overflow: the last bit out is added."""
    t = shift_right(m, U, a, n - 1)
    return (t.lshr(1) if U else t.ashr(1)) + (t & 1)


def shift(
    m: Machine, a: Value, b: Value, U: int, *, rounding: bool = False, saturating: bool = False
) -> Value:
    """The manual's common operation of the class: left or right by the low byte of b's lanes."""
    e = esize(a.ty)
    s = low_byte(b)
    left_amount = s & (e - 1)
    shifted = a << left_amount
    if saturating:
        back = shifted.lshr(left_amount) if U else shifted.ashr(left_amount)
        overflow = a.ne(0) & (back.ne(a) | s.sge(e)) & s.sgt(0)
        limit = m.const(a.ty, -1) if U else saturated_like(a)
        left = m.select(overflow, limit, shifted)
        set_QC(m, any_lane(m, overflow))
    else:
        left = m.select(s.slt(e), shifted, 0)
    right = (shift_right_rounded if rounding else shift_right)(m, U, a, -s)
    return m.select(s.slt(0), right, left)


@three_same("U 01000", "{us}shl", "SSHL, USHL", sizes=BHSD, scalar=D)
def SHL_reg(m: Machine, a: Value, b: Value, U: int) -> Value:
    return shift(m, a, b, U)


@three_same("U 01001", "{us}qshl", "SQSHL (register), UQSHL (register)", sizes=BHSD, scalar=BHSD)
def QSHL_reg(m: Machine, a: Value, b: Value, U: int) -> Value:
    return shift(m, a, b, U, saturating=True)


@three_same("U 01010", "{us}rshl", "SRSHL, URSHL", sizes=BHSD, scalar=D)
def RSHL_reg(m: Machine, a: Value, b: Value, U: int) -> Value:
    return shift(m, a, b, U, rounding=True)


@three_same("U 01011", "{us}qrshl", "SQRSHL, UQRSHL", sizes=BHSD, scalar=BHSD)
def QRSHL_reg(m: Machine, a: Value, b: Value, U: int) -> Value:
    return shift(m, a, b, U, rounding=True, saturating=True)
