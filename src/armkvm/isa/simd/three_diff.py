"""Advanced SIMD three different: long, wide and narrowing operations, vector and scalar (C4.1).

    0 Q U 01110 size 1 Rm opcode 00 Rn Rd          01 U 11110 size 1 Rm opcode 00 Rn Rd

Q=1 takes (or, narrowing, writes) the upper halves. The lane operations work on lanes already
extended to the wide type. PMULL of 64-bit elements belongs to the cryptographic extension.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHS,
    HS,
    Entry,
    LaneOp,
    V_part,
    absolute_difference,
    esize,
    extend,
    lane_type,
    lanes_asm,
    narrower,
    sat_add,
    sat_sub,
    set_V_part,
    wider,
)
from armkvm.isa.table import insn
from armkvm.isa.value import Value

SHAPES = {
    "long": "{q2} v{Rd}.{Ta}, v{Rn}.{T}, v{Rm}.{T}",
    "wide": "{q2} v{Rd}.{Ta}, v{Rn}.{Ta}, v{Rm}.{T}",
    "narrow": "{q2} v{Rd}.{T}, v{Rn}.{Ta}, v{Rm}.{Ta}",
}


def three_different(
    opcode: str,
    mnemonic: str,
    title: str,
    *,
    shape: str = "long",
    sizes: tuple[int, ...] = BHS,
    scalar: tuple[int, ...] = (),
    accumulates: bool = False,
) -> Entry:
    """Enter an operation on wide lanes (m, a, b); `d` are the old wide lanes of the destination."""
    u, op = opcode.split()

    def enter(operation: LaneOp) -> LaneOp:
        @insn(
            f"0 Q {u} 01110 size:2 1 Rm:5 {op} 00 Rn:5 Rd:5",
            asm=lanes_asm(mnemonic + SHAPES[shape]),
            ref=f"C7.2 {title}",
            feature="asimd",
            where=lambda size, **_: size in sizes,
            name=operation.__name__ + "_vector",
        )
        def vector_form(
            m: Machine, Q: int, size: int, Rm: Field, Rn: Field, Rd: Field, U: int = 0
        ) -> None:
            wide = lane_type(1, size + 1)
            if shape == "narrow":
                set_V_part(m, Rd, Q, operation(m, m.V(Rn, wide), m.V(Rm, wide)))
                return
            b = extend(V_part(m, Rm, Q, size), U, wide)
            a = m.V(Rn, wide) if shape == "wide" else extend(V_part(m, Rn, Q, size), U, wide)
            old = {"d": m.V(Rd, wide)} if accumulates else {}
            m.set_V(Rd, operation(m, a, b, **old))

        if scalar:

            @insn(
                f"01 {u} 11110 size:2 1 Rm:5 {op} 00 Rn:5 Rd:5",
                asm=lanes_asm(mnemonic + " {ea}{Rd}, {e}{Rn}, {e}{Rm}"),
                ref=f"C7.2 {title}",
                feature="asimd",
                where=lambda size, **_: size in scalar,
                name=operation.__name__ + "_scalar",
            )
            def scalar_form(m: Machine, size: int, Rm: Field, Rn: Field, Rd: Field) -> None:
                ty = f"i{8 << size}"
                a, b = m.V(Rn, ty).sext(wider(ty)), m.V(Rm, ty).sext(wider(ty))
                old = {"d": m.V(Rd, wider(ty))} if accumulates else {}
                m.set_V(Rd, operation(m, a, b, **old))

        return operation

    return enter


# -- sums and differences ---------------------------------------------------------------------
@three_different("U 0000", "{us}addl", "SADDL, SADDL2, UADDL, UADDL2")
def ADDL(m: Machine, a: Value, b: Value) -> Value:
    return a + b


@three_different("U 0001", "{us}addw", "SADDW, SADDW2, UADDW, UADDW2", shape="wide")
def ADDW(m: Machine, a: Value, b: Value) -> Value:
    return a + b


@three_different("U 0010", "{us}subl", "SSUBL, SSUBL2, USUBL, USUBL2")
def SUBL(m: Machine, a: Value, b: Value) -> Value:
    return a - b


@three_different("U 0011", "{us}subw", "SSUBW, SSUBW2, USUBW, USUBW2", shape="wide")
def SUBW(m: Machine, a: Value, b: Value) -> Value:
    return a - b


@three_different("U 0111", "{us}abdl", "SABDL, SABDL2, UABDL, UABDL2")
def ABDL(m: Machine, a: Value, b: Value) -> Value:
    return absolute_difference(m, 0, a, b)  # extended lanes: signed holds both kinds


@three_different("U 0101", "{us}abal", "SABAL, SABAL2, UABAL, UABAL2", accumulates=True)
def ABAL(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return d + absolute_difference(m, 0, a, b)


# -- high halves ------------------------------------------------------------------------------
def high_half(v: Value, rounding: int) -> Value:
    """The upper half of each lane; rounding adds half of its unit (modulo the lane)."""
    e = esize(v.ty)
    if rounding:
        v = v + (1 << (e // 2 - 1))
    return v.lshr(e // 2).trunc(narrower(v.ty))


@three_different("0 0100", "addhn", "ADDHN, ADDHN2", shape="narrow")
def ADDHN(m: Machine, a: Value, b: Value) -> Value:
    return high_half(a + b, 0)


@three_different("1 0100", "raddhn", "RADDHN, RADDHN2", shape="narrow")
def RADDHN(m: Machine, a: Value, b: Value) -> Value:
    return high_half(a + b, 1)


@three_different("0 0110", "subhn", "SUBHN, SUBHN2", shape="narrow")
def SUBHN(m: Machine, a: Value, b: Value) -> Value:
    return high_half(a - b, 0)


@three_different("1 0110", "rsubhn", "RSUBHN, RSUBHN2", shape="narrow")
def RSUBHN(m: Machine, a: Value, b: Value) -> Value:
    return high_half(a - b, 1)


# -- products ---------------------------------------------------------------------------------
@three_different("U 1100", "{us}mull", "SMULL (vector), UMULL (vector)")
def MULL(m: Machine, a: Value, b: Value) -> Value:
    return a * b


@three_different("U 1000", "{us}mlal", "SMLAL (vector), UMLAL (vector)", accumulates=True)
def MLAL(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return d + a * b


@three_different("U 1010", "{us}mlsl", "SMLSL (vector), UMLSL (vector)", accumulates=True)
def MLSL(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return d - a * b


@three_different("0 1110", "pmull", "PMULL, PMULL2", sizes=(0,))
def PMULL(m: Machine, a: Value, b: Value) -> Value:
    """Polynomial product of bytes; the sign extension of a and b is dropped again."""
    a, b = a & 0xFF, b & 0xFF
    total = a & -(b & 1)
    for i in range(1, 8):
        total = total ^ ((a << i) & -(b.lshr(i) & 1))
    return total


def doubled_product(m: Machine, a: Value, b: Value) -> Value:
    """SignedSat(2 * a * b) in the wide lane."""
    product = a * b
    return sat_add(m, 0, product, product)


@three_different("0 1101", "sqdmull", "SQDMULL, SQDMULL2 (vector)", sizes=HS, scalar=HS)
def SQDMULL(m: Machine, a: Value, b: Value) -> Value:
    return doubled_product(m, a, b)


@three_different("0 1001", "sqdmlal", "SQDMLAL (vector)", sizes=HS, scalar=HS, accumulates=True)
def SQDMLAL(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return sat_add(m, 0, d, doubled_product(m, a, b))


@three_different("0 1011", "sqdmlsl", "SQDMLSL (vector)", sizes=HS, scalar=HS, accumulates=True)
def SQDMLSL(m: Machine, a: Value, b: Value, d: Value) -> Value:
    return sat_sub(m, 0, d, doubled_product(m, a, b))
