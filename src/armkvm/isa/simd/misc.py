"""Advanced SIMD two-register miscellaneous, vector and scalar, lane by lane (Arm ARM, C4.1).

    0 Q U 01110 size 10000 opcode 10 Rn Rd         01 U 11110 size 10000 opcode 10 Rn Rd

Those that change the lanes' width are in misc_width.py, the estimates in estimate.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHS,
    BHSD,
    D,
    Entry,
    LaneOp,
    allocated,
    any_lane,
    esize,
    lane_op,
    lane_type,
    lanes_asm,
    most_negative,
    saturated,
    set_QC,
)
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def two_reg_misc(
    opcode: str,
    mnemonic: str,
    title: str,
    *,
    sizes: tuple[int, ...],
    scalar: tuple[int, ...] = (),
    accumulates: bool = False,
    shown_size: int | None = None,
    operands: str = "",
) -> Entry:
    """Enter a lane operation (m, a) as vector forms and, for the sizes in `scalar`, scalar ones.

    `operands` are written behind the registers; `shown_size` is for those whose size field is part
    of the opcode. `opcode` and `accumulates` are as for three_same.
    """
    u, op = opcode.split()

    def enter(operation: LaneOp) -> LaneOp:
        def apply(m: Machine, ty: str, Rn: Field, Rd: Field, U: dict[str, int]) -> None:
            old = {"d": m.V(Rd, ty)} if accumulates else {}
            m.set_V(Rd, operation(m, m.V(Rn, ty), **old, **U))

        @insn(
            f"0 Q {u} 01110 size:2 10000 {op} 10 Rn:5 Rd:5",
            asm=lanes_asm(mnemonic + " v{Rd}.{T}, v{Rn}.{T}" + operands, shown_size),
            ref=f"C7.2 {title}",
            feature="asimd",
            where=lambda Q, size, **_: allocated(Q, size, sizes),
            name=operation.__name__ + "_vector",
        )
        def vector_form(m: Machine, Q: int, size: int, Rn: Field, Rd: Field, **U: int) -> None:
            apply(m, lane_type(Q, size if shown_size is None else shown_size), Rn, Rd, U)

        if scalar:

            @insn(
                f"01 {u} 11110 size:2 10000 {op} 10 Rn:5 Rd:5",
                asm=lanes_asm(mnemonic + " {e}{Rd}, {e}{Rn}" + operands),
                ref=f"C7.2 {title}",
                feature="asimd",
                where=lambda size, **_: size in scalar,
                name=operation.__name__ + "_scalar",
            )
            def scalar_form(m: Machine, size: int, Rn: Field, Rd: Field, **U: int) -> None:
                apply(m, f"i{8 << size}", Rn, Rd, U)

        return operation

    return enter


# -- order of lanes and bits ------------------------------------------------------------------
def reverse(a: Value, container: int) -> Value:
    """The lanes in reverse order within containers of that many bits."""
    last = container // esize(a.ty) - 1
    return a.shuffle([i ^ last for i in range(a.lanes)])


@two_reg_misc("0 00000", "rev64", "REV64", sizes=BHS)
def REV64(m: Machine, a: Value) -> Value:
    return reverse(a, 64)


@two_reg_misc("1 00000", "rev32", "REV32 (vector)", sizes=(0, 1))
def REV32(m: Machine, a: Value) -> Value:
    return reverse(a, 32)


@two_reg_misc("0 00001", "rev16", "REV16 (vector)", sizes=(0,))
def REV16(m: Machine, a: Value) -> Value:
    return reverse(a, 16)


@two_reg_misc("1 00101", "mvn", "NOT", sizes=(0,))
def NOT(m: Machine, a: Value) -> Value:
    return ~a


@two_reg_misc("1 00101", "rbit", "RBIT (vector)", sizes=(1,), shown_size=0)
def RBIT(m: Machine, a: Value) -> Value:
    return lane_op(m, "bitreverse", a)


# -- counts -----------------------------------------------------------------------------------
@two_reg_misc("0 00101", "cnt", "CNT", sizes=(0,))
def CNT(m: Machine, a: Value) -> Value:
    return lane_op(m, "ctpop", a)


@two_reg_misc("1 00100", "clz", "CLZ (vector)", sizes=BHS)
def CLZ(m: Machine, a: Value) -> Value:
    return lane_op(m, "ctlz", a, False)


@two_reg_misc("0 00100", "cls", "CLS (vector)", sizes=BHS)
def CLS(m: Machine, a: Value) -> Value:
    return lane_op(m, "ctlz", a ^ a.ashr(esize(a.ty) - 1), False) - 1


# -- sign -------------------------------------------------------------------------------------
@two_reg_misc("0 01011", "abs", "ABS", sizes=BHSD, scalar=D)
def ABS(m: Machine, a: Value) -> Value:
    return lane_op(m, "abs", a, False)


@two_reg_misc("1 01011", "neg", "NEG (vector)", sizes=BHSD, scalar=D)
def NEG(m: Machine, a: Value) -> Value:
    return -a


def saturate_least(m: Machine, a: Value, result: Value) -> Value:
    """`result`, but the greatest number (and QC) where a is the least, which has no opposite."""
    least = a.eq(most_negative(a.ty))
    set_QC(m, any_lane(m, least))
    return m.select(least, ~most_negative(a.ty), result)


@two_reg_misc("0 00111", "sqabs", "SQABS", sizes=BHSD, scalar=BHSD)
def SQABS(m: Machine, a: Value) -> Value:
    return saturate_least(m, a, lane_op(m, "abs", a, False))


@two_reg_misc("1 00111", "sqneg", "SQNEG", sizes=BHSD, scalar=BHSD)
def SQNEG(m: Machine, a: Value) -> Value:
    return saturate_least(m, a, -a)


# -- sums of mixed signs ----------------------------------------------------------------------
@two_reg_misc("0 00011", "suqadd", "SUQADD", sizes=BHSD, scalar=BHSD, accumulates=True)
def SUQADD(m: Machine, a: Value, d: Value) -> Value:
    """SignedSat(SInt(d) + UInt(a)): with its sign bit inverted d is unsigned, and only overflow
    upwards is possible."""
    bias = most_negative(a.ty)
    return saturated(m, lane_op(m, "uadd.sat", d ^ bias, a) ^ bias, d + a)


@two_reg_misc("1 00011", "usqadd", "USQADD", sizes=BHSD, scalar=BHSD, accumulates=True)
def USQADD(m: Machine, a: Value, d: Value) -> Value:
    """UnsignedSat(UInt(d) + SInt(a)): an addition or a subtraction by the sign of a."""
    up, down = lane_op(m, "uadd.sat", d, a), lane_op(m, "usub.sat", d, -a)
    return saturated(m, m.select(a.slt(0), down, up), d + a)


# -- comparisons with zero --------------------------------------------------------------------
@two_reg_misc("0 01000", "cmgt", "CMGT (zero)", sizes=BHSD, scalar=D, operands=", #0")
def CMGT_zero(m: Machine, a: Value) -> Value:
    return a.sgt(0).sext(a.ty)


@two_reg_misc("1 01000", "cmge", "CMGE (zero)", sizes=BHSD, scalar=D, operands=", #0")
def CMGE_zero(m: Machine, a: Value) -> Value:
    return a.sge(0).sext(a.ty)


@two_reg_misc("0 01001", "cmeq", "CMEQ (zero)", sizes=BHSD, scalar=D, operands=", #0")
def CMEQ_zero(m: Machine, a: Value) -> Value:
    return a.eq(0).sext(a.ty)


@two_reg_misc("1 01001", "cmle", "CMLE (zero)", sizes=BHSD, scalar=D, operands=", #0")
def CMLE_zero(m: Machine, a: Value) -> Value:
    return a.sle(0).sext(a.ty)


@two_reg_misc("0 01010", "cmlt", "CMLT (zero)", sizes=BHSD, scalar=D, operands=", #0")
def CMLT_zero(m: Machine, a: Value) -> Value:
    return a.slt(0).sext(a.ty)
