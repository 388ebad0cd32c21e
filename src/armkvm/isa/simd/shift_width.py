"""Advanced SIMD shift by immediate that narrows or widens the lanes (Arm ARM, C4.1).

    0 Q U 011110 immh immb opcode 1 Rn Rd          01 U 111110 immh immb opcode 1 Rn Rd

SHRN, RSHRN, SQSHRN and their kin take lanes twice as wide as immh says; SSHLL and USHLL (SXTL,
UXTL) make such. Drawings are as in shift_imm.py. Q=1 works on the upper half of the narrow
side.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHS,
    Entry,
    LaneOp,
    V_part,
    extend,
    imm_lanes,
    lane_type,
    lanes_asm,
    narrower,
    sat_narrow,
    set_V_part,
)
from armkvm.isa.simd.shift_imm import AMOUNT, shift_text, shifted_right
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def shift_narrow(opcode: str, mnemonic: str, title: str, *, scalar: bool = False) -> Entry:
    """Enter a narrowing lane operation (m, a, n) with n the amount minus one."""

    def enter(operation: LaneOp) -> LaneOp:
        for size in BHS:
            _enter(operation, opcode, mnemonic, title, size, scalar)
        return operation

    return enter


def _enter(
    operation: LaneOp, opcode: str, mnemonic: str, title: str, size: int, scalar: bool
) -> None:
    u, op = opcode.split()
    name = f"{operation.__name__}_imm{8 << size}"

    def narrowed(m: Machine, ty: str, imm: Field, Rn: Field, U: dict[str, int]) -> Value:
        return operation(m, m.V(Rn, ty), imm_lanes(m, ((8 << size) - 1) - imm, ty), **U)

    @insn(
        f"0 Q {u} 011110 {AMOUNT[size]} {op} 1 Rn:5 Rd:5",
        asm=shift_text(mnemonic + "{q2} v{Rd}.{T}, v{Rn}.{Ta}, #{n}", size, right=True),
        ref=f"C7.2 {title}",
        feature="asimd",
        name=name + "_vector",
    )
    def vector_form(m: Machine, Q: int, imm: Field, Rn: Field, Rd: Field, **U: int) -> None:
        set_V_part(m, Rd, Q, narrowed(m, lane_type(1, size + 1), imm, Rn, U))

    if scalar:

        @insn(
            f"01 {u} 111110 {AMOUNT[size]} {op} 1 Rn:5 Rd:5",
            asm=shift_text(mnemonic + " {e}{Rd}, {ea}{Rn}, #{n}", size, right=True),
            ref=f"C7.2 {title}",
            feature="asimd",
            name=name + "_scalar",
        )
        def scalar_form(m: Machine, imm: Field, Rn: Field, Rd: Field, **U: int) -> None:
            m.set_V(Rd, narrowed(m, f"i{16 << size}", imm, Rn, U))


@shift_narrow("0 10000", "shrn", "SHRN, SHRN2")
def SHRN(m: Machine, a: Value, n: Value) -> Value:
    return shifted_right(a, n, 1).trunc(narrower(a.ty))


@shift_narrow("0 10001", "rshrn", "RSHRN, RSHRN2")
def RSHRN(m: Machine, a: Value, n: Value) -> Value:
    return shifted_right(a, n, 1, rounding=True).trunc(narrower(a.ty))


@shift_narrow("U 10010", "{us}qshrn", "SQSHRN, UQSHRN", scalar=True)
def QSHRN(m: Machine, a: Value, n: Value, U: int) -> Value:
    return sat_narrow(m, shifted_right(a, n, U), source=U, result=U)


@shift_narrow("U 10011", "{us}qrshrn", "SQRSHRN, UQRSHRN", scalar=True)
def QRSHRN(m: Machine, a: Value, n: Value, U: int) -> Value:
    return sat_narrow(m, shifted_right(a, n, U, rounding=True), source=U, result=U)


@shift_narrow("1 10000", "sqshrun", "SQSHRUN, SQSHRUN2", scalar=True)
def SQSHRUN(m: Machine, a: Value, n: Value) -> Value:
    return sat_narrow(m, shifted_right(a, n, 0), source=0, result=1)


@shift_narrow("1 10001", "sqrshrun", "SQRSHRUN, SQRSHRUN2", scalar=True)
def SQRSHRUN(m: Machine, a: Value, n: Value) -> Value:
    return sat_narrow(m, shifted_right(a, n, 0, rounding=True), source=0, result=1)


def _long_text(size: int) -> Callable[..., str]:
    shift = shift_text("{us}shll{q2} v{Rd}.{Ta}, v{Rn}.{T}, #{n}", size, right=False)
    extension = lanes_asm("{us}xtl{q2} v{Rd}.{Ta}, v{Rn}.{T}", size)
    return lambda imm, **fields: shift(imm=imm, **fields) if imm else extension(**fields)


def _enter_long(size: int) -> None:
    @insn(
        f"0 Q U 011110 {AMOUNT[size]} 10100 1 Rn:5 Rd:5",
        asm=_long_text(size),
        ref="C7.2 SSHLL, SSHLL2, USHLL, USHLL2",
        feature="asimd",
        name=f"SHLL_imm{8 << size}",
    )
    def SSHLL_USHLL(m: Machine, Q: int, U: int, imm: Field, Rn: Field, Rd: Field) -> None:
        wide = lane_type(1, size + 1)
        m.set_V(Rd, extend(V_part(m, Rn, Q, size), U, wide) << imm_lanes(m, imm, wide))


for _size in BHS:
    _enter_long(_size)
