"""Advanced SIMD bitwise operations on registers (Arm ARM, C4.1, three same with opcode 00011).

The size field selects the operation; the lanes do not matter. Those with an immediate are in
imm.py.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import Entry, LaneOp, lanes_asm
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def _text(mnemonic: str) -> Callable[..., str]:
    full = lanes_asm(mnemonic + " v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}", size=0)
    copy = lanes_asm("mov v{Rd}.{T}, v{Rn}.{T}", size=0)

    def text(*, Rm: int, Rn: int, **fields: int) -> str:
        return (copy if mnemonic == "orr" and Rm == Rn else full)(Rm=Rm, Rn=Rn, **fields)

    return text


def bitwise(U: str, size: str, mnemonic: str, title: str) -> Entry:
    """Enter an operation on the registers' bits: Vn, Vm and the old Vd."""

    def enter(operation: LaneOp) -> LaneOp:
        @insn(
            f"0 Q {U} 01110 {size} 1 Rm:5 00011 1 Rn:5 Rd:5",
            asm=_text(mnemonic),
            ref=f"C7.2 {title}",
            feature="asimd",
            name=operation.__name__ + "_vector",
        )
        def semantics(m: Machine, Q: int, Rm: Field, Rn: Field, Rd: Field) -> None:
            ty = "<2 x i64>" if Q else "i64"
            m.set_V(Rd, operation(m.V(Rn, ty), m.V(Rm, ty), m.V(Rd, ty)))

        return operation

    return enter


@bitwise("0", "00", "and", "AND (vector)")
def AND(a: Value, b: Value, d: Value) -> Value:
    return a & b


@bitwise("0", "01", "bic", "BIC (vector, register)")
def BIC(a: Value, b: Value, d: Value) -> Value:
    return a & ~b


@bitwise("0", "10", "orr", "ORR (vector, register)")
def ORR(a: Value, b: Value, d: Value) -> Value:
    return a | b


@bitwise("0", "11", "orn", "ORN (vector)")
def ORN(a: Value, b: Value, d: Value) -> Value:
    return a | ~b


@bitwise("1", "00", "eor", "EOR (vector)")
def EOR(a: Value, b: Value, d: Value) -> Value:
    return a ^ b


@bitwise("1", "01", "bsl", "BSL")
def BSL(a: Value, b: Value, d: Value) -> Value:
    return b ^ ((b ^ a) & d)


@bitwise("1", "10", "bit", "BIT")
def BIT(a: Value, b: Value, d: Value) -> Value:
    return d ^ ((d ^ a) & b)


@bitwise("1", "11", "bif", "BIF")
def BIF(a: Value, b: Value, d: Value) -> Value:
    return d ^ ((d ^ a) & ~b)
