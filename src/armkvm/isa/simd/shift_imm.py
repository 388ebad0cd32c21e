"""Advanced SIMD shift by immediate and its scalar forms: lanes keep their width (Arm ARM, C4.1).

    0 Q U 011110 immh immb opcode 1 Rn Rd          01 U 111110 immh immb opcode 1 Rn Rd

The highest set bit of immh is the element size, so each size has a drawing of its own; the amount
is a decode-time operand. A right shift may be as long as the lane, which LLVM's may not: those
shift by one less and then by one. Shifts that narrow or widen are in shift_width.py.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHSD,
    D,
    Entry,
    LaneOp,
    allocated,
    any_lane,
    esize,
    imm_lanes,
    lane_type,
    lanes_asm,
    saturated_like,
    set_QC,
)
from armkvm.isa.table import insn
from armkvm.isa.value import Value

# immh:immb by element size: the operand is what the leading one leaves.
AMOUNT = ("0001 imm:3", "001 imm:4", "01 imm:5", "1 imm:6")


def shift_text(template: str, size: int, right: bool) -> Callable[..., str]:
    """Assembly with the amount, {n}, that `imm` encodes."""
    format_lanes = lanes_asm(template, size)

    def text(*, imm: int, **fields: int) -> str:
        return format_lanes(n=(8 << size) - imm if right else imm, **fields)

    return text


def shift_by_immediate(
    opcode: str,
    mnemonic: str,
    title: str,
    *,
    right: bool = False,
    scalar: tuple[int, ...] = D,
    accumulates: bool = False,
) -> Entry:
    """Enter a lane operation (m, a, n).

    n are lanes that hold the amount of a left shift (0 to the width - 1) or, so that it never
    reaches the width, the amount of a right shift minus one.
    """

    def enter(operation: LaneOp) -> LaneOp:
        for size in BHSD:
            _enter(operation, opcode, mnemonic, title, size, right, size in scalar, accumulates)
        return operation

    return enter


def _enter(
    operation: LaneOp,
    opcode: str,
    mnemonic: str,
    title: str,
    size: int,
    right: bool,
    scalar: bool,
    accumulates: bool,
) -> None:
    u, op = opcode.split()
    name = f"{operation.__name__}_imm{8 << size}"

    def apply(m: Machine, ty: str, imm: Field, Rn: Field, Rd: Field, U: dict[str, int]) -> None:
        n = imm_lanes(m, ((8 << size) - 1) - imm if right else imm, ty)
        old = {"d": m.V(Rd, ty)} if accumulates else {}
        m.set_V(Rd, operation(m, m.V(Rn, ty), n, **old, **U))

    @insn(
        f"0 Q {u} 011110 {AMOUNT[size]} {op} 1 Rn:5 Rd:5",
        asm=shift_text(mnemonic + " v{Rd}.{T}, v{Rn}.{T}, #{n}", size, right),
        ref=f"C7.2 {title}",
        feature="asimd",
        where=lambda Q, **_: allocated(Q, size, BHSD),
        name=name + "_vector",
    )
    def vector_form(m: Machine, Q: int, imm: Field, Rn: Field, Rd: Field, **U: int) -> None:
        apply(m, lane_type(Q, size), imm, Rn, Rd, U)

    if scalar:

        @insn(
            f"01 {u} 111110 {AMOUNT[size]} {op} 1 Rn:5 Rd:5",
            asm=shift_text(mnemonic + " {e}{Rd}, {e}{Rn}, #{n}", size, right),
            ref=f"C7.2 {title}",
            feature="asimd",
            name=name + "_scalar",
        )
        def scalar_form(m: Machine, imm: Field, Rn: Field, Rd: Field, **U: int) -> None:
            apply(m, f"i{8 << size}", imm, Rn, Rd, U)


# -- right ------------------------------------------------------------------------------------
def shifted_right(a: Value, less_one: Value, U: int, rounding: bool = False) -> Value:
    """a >> (less_one + 1); rounding adds the last bit shifted out."""
    t = a.lshr(less_one) if U else a.ashr(less_one)
    result = t.lshr(1) if U else t.ashr(1)
    return result + (t & 1) if rounding else result


@shift_by_immediate("U 00000", "{us}shr", "SSHR, USHR", right=True)
def SHR(m: Machine, a: Value, n: Value, U: int) -> Value:
    return shifted_right(a, n, U)


@shift_by_immediate("U 00010", "{us}sra", "SSRA, USRA", right=True, accumulates=True)
def SRA(m: Machine, a: Value, n: Value, d: Value, U: int) -> Value:
    return d + shifted_right(a, n, U)


@shift_by_immediate("U 00100", "{us}rshr", "SRSHR, URSHR", right=True)
def RSHR(m: Machine, a: Value, n: Value, U: int) -> Value:
    return shifted_right(a, n, U, rounding=True)


@shift_by_immediate("U 00110", "{us}rsra", "SRSRA, URSRA", right=True, accumulates=True)
def RSRA(m: Machine, a: Value, n: Value, d: Value, U: int) -> Value:
    return d + shifted_right(a, n, U, rounding=True)


@shift_by_immediate("1 01000", "sri", "SRI", right=True, accumulates=True)
def SRI(m: Machine, a: Value, n: Value, d: Value) -> Value:
    mask = shifted_right(m.const(a.ty, -1), n, 1)
    return (d & ~mask) | shifted_right(a, n, 1)


# -- left -------------------------------------------------------------------------------------
@shift_by_immediate("0 01010", "shl", "SHL")
def SHL(m: Machine, a: Value, n: Value) -> Value:
    return a << n


@shift_by_immediate("1 01010", "sli", "SLI", accumulates=True)
def SLI(m: Machine, a: Value, n: Value, d: Value) -> Value:
    mask = m.const(a.ty, -1) << n
    return (d & ~mask) | (a << n)


def saturated_left(m: Machine, a: Value, n: Value, unsigned: int, limit: Value) -> Value:
    """a << n, or `limit` and QC where shifting back does not give a again."""
    shifted = a << n
    back = shifted.lshr(n) if unsigned else shifted.ashr(n)
    overflow = back.ne(a)
    set_QC(m, any_lane(m, overflow))
    return m.select(overflow, limit, shifted)


@shift_by_immediate("U 01110", "{us}qshl", "SQSHL (immediate), UQSHL (immediate)", scalar=BHSD)
def QSHL(m: Machine, a: Value, n: Value, U: int) -> Value:
    return saturated_left(m, a, n, U, m.const(a.ty, -1) if U else saturated_like(a))


@shift_by_immediate("1 01100", "sqshlu", "SQSHLU", scalar=BHSD)
def SQSHLU(m: Machine, a: Value, n: Value) -> Value:
    """Signed to unsigned: negative lanes give zero, and saturate even when not shifted."""
    e = esize(a.ty)
    negative = a.ashr(e - 1)
    shifted = a << n
    overflow = shifted.lshr(n).ne(a) | a.slt(0)
    set_QC(m, any_lane(m, overflow))
    return m.select(overflow, ~negative, shifted)
