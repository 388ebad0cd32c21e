"""Advanced SIMD across lanes, and the integer scalar pairwise sum (Arm ARM, C4.1).

    0 Q U 01110 size 11000 opcode 10 Rn Rd         01 U 11110 size 11000 opcode 10 Rn Rd

FMAXV, FADDP and their kin are in fp*.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import BHS, Entry, LaneOp, extend, lane_type, lanes_asm, reduce, wider
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def across(opcode: str, mnemonic: str, title: str, *, long: bool = False) -> Entry:
    """Enter a reduction of all lanes to a scalar, of the lanes' width or (long) of twice that."""
    u, op = opcode.split()

    def enter(operation: LaneOp) -> LaneOp:
        @insn(
            f"0 Q {u} 01110 size:2 11000 {op} 10 Rn:5 Rd:5",
            asm=lanes_asm(mnemonic + (" {ea}" if long else " {e}") + "{Rd}, v{Rn}.{T}"),
            ref=f"C7.2 {title}",
            feature="asimd",
            where=lambda Q, size, **_: size in BHS and (size < 2 or Q == 1),  # not 2S
            name=operation.__name__,
        )
        def semantics(m: Machine, Q: int, size: int, Rn: Field, Rd: Field, **U: int) -> None:
            m.set_V(Rd, operation(m, m.V(Rn, lane_type(Q, size)), **U))

        return operation

    return enter


@across("0 11011", "addv", "ADDV")
def ADDV(m: Machine, a: Value) -> Value:
    return reduce(m, "add", a)


@across("U 00011", "{us}addlv", "SADDLV, UADDLV", long=True)
def ADDLV(m: Machine, a: Value, U: int) -> Value:
    return reduce(m, "add", extend(a, U, wider(a.ty)))


@across("U 01010", "{us}maxv", "SMAXV, UMAXV")
def MAXV(m: Machine, a: Value, U: int) -> Value:
    return reduce(m, "umax" if U else "smax", a)


@across("U 11010", "{us}minv", "SMINV, UMINV")
def MINV(m: Machine, a: Value, U: int) -> Value:
    return reduce(m, "umin" if U else "smin", a)


@insn(
    "01 0 11110 11 11000 11011 10 Rn:5 Rd:5",
    asm="addp {Rd:d}, {Rn:v2d}",
    ref="C7.2 ADDP (scalar)",
    feature="asimd",
)
def ADDP_scalar(m: Machine, Rn: Field, Rd: Field) -> None:
    a = m.V(Rn, "<2 x i64>")
    m.set_V(Rd, a[0] + a[1])
