"""Advanced SIMD three same, vector and scalar: lane by lane, integers (Arm ARM, C4.1).

    0 Q U 01110 size 1 Rm opcode 1 Rn Rd          0 1 U 11110 size 1 Rm opcode 1 Rn Rd

Each description is a lane operation, traced once for every shape. Shifts by register are in
shift_reg.py, the bitwise ones in logic.py, floating point in fp*.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHS,
    BHSD,
    HS,
    D,
    Entry,
    LaneOp,
    absolute_difference,
    allocated,
    any_lane,
    esize,
    even_lanes,
    lane_op,
    lane_type,
    lanes_asm,
    most_negative,
    odd_lanes,
    sat_add,
    sat_sub,
    set_QC,
    wider,
)
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def three_same(
    opcode: str,
    mnemonic: str,
    title: str,
    *,
    sizes: tuple[int, ...],
    scalar: tuple[int, ...] = (),
    accumulates: bool = False,
) -> Entry:
    """Enter a lane operation (m, a, b) as vector forms and, for the sizes in `scalar`, scalar ones.

    `opcode` is U (0, 1 or the letter: then the operation gets it) and the opcode field; one that
    accumulates gets the destination's old lanes as `d`.
    """
    u, op = opcode.split()

    def enter(operation: LaneOp) -> LaneOp:
        def apply(m: Machine, ty: str, Rm: Field, Rn: Field, Rd: Field, U: dict[str, int]) -> None:
            old = {"d": m.V(Rd, ty)} if accumulates else {}
            m.set_V(Rd, operation(m, m.V(Rn, ty), m.V(Rm, ty), **old, **U))

        @insn(
            f"0 Q {u} 01110 size:2 1 Rm:5 {op} 1 Rn:5 Rd:5",
            asm=lanes_asm(mnemonic + " v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}"),
            ref=f"C7.2 {title}",
            feature="asimd",
            where=lambda Q, size, **_: allocated(Q, size, sizes),
            name=operation.__name__ + "_vector",
        )
        def vector_form(
            m: Machine, Q: int, size: int, Rm: Field, Rn: Field, Rd: Field, **U: int
        ) -> None:
            apply(m, lane_type(Q, size), Rm, Rn, Rd, U)

        if scalar:

            @insn(
                f"01 {u} 11110 size:2 1 Rm:5 {op} 1 Rn:5 Rd:5",
                asm=lanes_asm(mnemonic + " {e}{Rd}, {e}{Rn}, {e}{Rm}"),
                ref=f"C7.2 {title}",
                feature="asimd",
                where=lambda size, **_: size in scalar,
                name=operation.__name__ + "_scalar",
            )
            def scalar_form(
                m: Machine, size: int, Rm: Field, Rn: Field, Rd: Field, **U: int
            ) -> None:
                apply(m, f"i{8 << size}", Rm, Rn, Rd, U)

        return operation

    return enter


# -- sums and differences ---------------------------------------------------------------------
@three_same("0 10000", "add", "ADD (vector)", sizes=BHSD, scalar=D)
def ADD(m: Machine, a: Value, b: Value) -> Value:
    return a + b


@three_same("1 10000", "sub", "SUB (vector)", sizes=BHSD, scalar=D)
def SUB(m: Machine, a: Value, b: Value) -> Value:
    return a - b


@three_same("U 00000", "{us}hadd", "SHADD, UHADD", sizes=BHS)
def HADD(m: Machine, a: Value, b: Value, U: int) -> Value:
    half = (a ^ b).lshr(1) if U else (a ^ b).ashr(1)
    return (a & b) + half  # the common bits count twice, so once in the half


@three_same("U 00010", "{us}rhadd", "SRHADD, URHADD", sizes=BHS)
def RHADD(m: Machine, a: Value, b: Value, U: int) -> Value:
    half = (a ^ b).lshr(1) if U else (a ^ b).ashr(1)
    return (a | b) - half


@three_same("U 00100", "{us}hsub", "SHSUB, UHSUB", sizes=BHS)
def HSUB(m: Machine, a: Value, b: Value, U: int) -> Value:
    borrow = ~a & b & 1
    return (a.lshr(1) - b.lshr(1) if U else a.ashr(1) - b.ashr(1)) - borrow


@three_same("U 00001", "{us}qadd", "SQADD, UQADD", sizes=BHSD, scalar=BHSD)
def QADD(m: Machine, a: Value, b: Value, U: int) -> Value:
    return sat_add(m, U, a, b)


@three_same("U 00101", "{us}qsub", "SQSUB, UQSUB", sizes=BHSD, scalar=BHSD)
def QSUB(m: Machine, a: Value, b: Value, U: int) -> Value:
    return sat_sub(m, U, a, b)


@three_same("U 01110", "{us}abd", "SABD, UABD", sizes=BHS)
def ABD(m: Machine, a: Value, b: Value, U: int) -> Value:
    return absolute_difference(m, U, a, b)


@three_same("U 01111", "{us}aba", "SABA, UABA", sizes=BHS, accumulates=True)
def ABA(m: Machine, a: Value, b: Value, d: Value, U: int) -> Value:
    return d + absolute_difference(m, U, a, b)


# -- comparisons ------------------------------------------------------------------------------
@three_same("0 00110", "cmgt", "CMGT (register)", sizes=BHSD, scalar=D)
def CMGT(m: Machine, a: Value, b: Value) -> Value:
    return a.sgt(b).sext(a.ty)


@three_same("1 00110", "cmhi", "CMHI (register)", sizes=BHSD, scalar=D)
def CMHI(m: Machine, a: Value, b: Value) -> Value:
    return a.ugt(b).sext(a.ty)


@three_same("0 00111", "cmge", "CMGE (register)", sizes=BHSD, scalar=D)
def CMGE(m: Machine, a: Value, b: Value) -> Value:
    return a.sge(b).sext(a.ty)


@three_same("1 00111", "cmhs", "CMHS (register)", sizes=BHSD, scalar=D)
def CMHS(m: Machine, a: Value, b: Value) -> Value:
    return a.uge(b).sext(a.ty)


@three_same("0 10001", "cmtst", "CMTST", sizes=BHSD, scalar=D)
def CMTST(m: Machine, a: Value, b: Value) -> Value:
    return (a & b).ne(0).sext(a.ty)


@three_same("1 10001", "cmeq", "CMEQ (register)", sizes=BHSD, scalar=D)
def CMEQ(m: Machine, a: Value, b: Value) -> Value:
    return a.eq(b).sext(a.ty)


@three_same("U 01100", "{us}max", "SMAX, UMAX", sizes=BHS)
def MAX(m: Machine, a: Value, b: Value, U: int) -> Value:
    return lane_op(m, "umax" if U else "smax", a, b)


@three_same("U 01101", "{us}min", "SMIN, UMIN", sizes=BHS)
def MIN(m: Machine, a: Value, b: Value, U: int) -> Value:
    return lane_op(m, "umin" if U else "smin", a, b)


# -- pairwise ---------------------------------------------------------------------------------
@three_same("0 10111", "addp", "ADDP (vector)", sizes=BHSD)
def ADDP(m: Machine, a: Value, b: Value) -> Value:
    return even_lanes(a, b) + odd_lanes(a, b)


@three_same("U 10100", "{us}maxp", "SMAXP, UMAXP", sizes=BHS)
def MAXP(m: Machine, a: Value, b: Value, U: int) -> Value:
    return MAX(m, even_lanes(a, b), odd_lanes(a, b), U)


@three_same("U 10101", "{us}minp", "SMINP, UMINP", sizes=BHS)
def MINP(m: Machine, a: Value, b: Value, U: int) -> Value:
    return MIN(m, even_lanes(a, b), odd_lanes(a, b), U)


# -- products ---------------------------------------------------------------------------------
@three_same("0 10011", "mul", "MUL (vector)", sizes=BHS)
def MUL(m: Machine, a: Value, b: Value) -> Value:
    return a * b


@three_same("0 10010", "mla", "MLA (vector)", sizes=BHS, accumulates=True)
def MLA(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return d + a * b


@three_same("1 10010", "mls", "MLS (vector)", sizes=BHS, accumulates=True)
def MLS(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return d - a * b


@three_same("1 10011", "pmul", "PMUL", sizes=(0,))
def PMUL(m: Machine, a: Value, b: Value) -> Value:
    """Lanes as polynomials over {0, 1}: the partial products of eight bits, added without carry."""
    total = a & -(b & 1)
    for i in range(1, 8):
        total = total ^ ((a << i) & -(b.lshr(i) & 1))
    return total


def doubling_high_half(m: Machine, a: Value, b: Value, rounding: bool) -> Value:
    """SatQ of the high half of 2 * a * b; only the square of the least number saturates."""
    e = esize(a.ty)
    least = most_negative(a.ty)
    product = a.sext(wider(a.ty)) * b.sext(wider(a.ty))
    if rounding:
        product = product + (1 << (e - 2))
    high = product.ashr(e - 1).trunc(a.ty)
    overflow = a.eq(least) & b.eq(least)
    set_QC(m, any_lane(m, overflow))
    return m.select(overflow, ~least, high)


@three_same("0 10110", "sqdmulh", "SQDMULH (vector)", sizes=HS, scalar=HS)
def SQDMULH(m: Machine, a: Value, b: Value) -> Value:
    return doubling_high_half(m, a, b, rounding=False)


@three_same("1 10110", "sqrdmulh", "SQRDMULH (vector)", sizes=HS, scalar=HS)
def SQRDMULH(m: Machine, a: Value, b: Value) -> Value:
    return doubling_high_half(m, a, b, rounding=True)
