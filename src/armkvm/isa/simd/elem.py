"""Advanced SIMD vector by element and scalar by element, integers (Arm ARM, C4.1).

    0 Q U 01111 size L M Rm opcode H 0 Rn Rd       01 U 11111 size L M Rm opcode H 0 Rn Rd

The lane operations are those of three same and three different, with one element of Vm in every
lane. H:L:M select a halfword of V0 to V15, H:L a word of any register: the byte offset of the
element is known when the word is decoded.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    HS,
    Entry,
    LaneOp,
    V_part,
    broadcast,
    extend,
    lane_type,
    lanes_asm,
    wider,
)
from armkvm.isa.simd.three_diff import MLAL, MLSL, MULL, SQDMLAL, SQDMLSL, SQDMULL
from armkvm.isa.simd.three_same import MLA, MLS, MUL, SQDMULH, SQRDMULH
from armkvm.isa.table import insn

# From bit 23 down: for halfwords H:L:M is the index, for words M is bit 4 of the register.
OPERANDS = {1: "01 immL immM Rm:4 {op} immH 0", 2: "10 immL Rm:5 {op} immH 0"}


def _offset(size: int, immH: Field, immL: Field, immM: Field | int) -> Field:
    index = immH << 1 | immL
    return (index << 1 | immM) << 1 if size == 1 else index << 2


def _text(template: str, size: int) -> Callable[..., str]:
    format_lanes = lanes_asm(template, size)

    def text(*, immH: int, immL: int, immM: int = 0, **fields: int) -> str:
        index = immH << 2 | immL << 1 | immM if size == 1 else immH << 1 | immL
        return format_lanes(index=index, **fields)

    return text


def by_element(
    opcode: str,
    mnemonic: str,
    title: str,
    *,
    long: bool = False,
    scalar: bool = False,
    accumulates: bool = False,
) -> Entry:
    """Enter a lane operation with Vm.T[index] in every lane of its second operand.

    A long one gets its operands extended, as in three_diff.py.
    """

    def enter(operation: LaneOp) -> LaneOp:
        for size in HS:
            _enter(operation, opcode, mnemonic, title, size, long, scalar, accumulates)
        return operation

    return enter


def _enter(
    operation: LaneOp,
    opcode: str,
    mnemonic: str,
    title: str,
    size: int,
    long: bool,
    scalar: bool,
    accumulates: bool,
) -> None:
    u, op = opcode.split()
    e = f"i{8 << size}"
    drawing = OPERANDS[size].format(op=op)
    name = f"{operation.__name__}_elem{8 << size}"
    of_vectors = "{q2} v{Rd}.{Ta}, v{Rn}.{T}" if long else " v{Rd}.{T}, v{Rn}.{T}"
    of_scalars = " {ea}{Rd}, {e}{Rn}" if long else " {e}{Rd}, {e}{Rn}"

    @insn(
        f"0 Q {u} 01111 {drawing} Rn:5 Rd:5",
        asm=_text(mnemonic + of_vectors + ", v{Rm}.{e}[{index}]", size),
        ref=f"C7.2 {title}",
        feature="asimd",
        name=name + "_vector",
    )
    def vector_form(
        m: Machine,
        Q: int,
        immL: Field,
        Rm: Field,
        immH: Field,
        Rn: Field,
        Rd: Field,
        immM: Field | int = 0,
        U: int = 0,
    ) -> None:
        ty = lane_type(1, size + 1) if long else lane_type(Q, size)
        b = m.V_elem(Rm, _offset(size, immH, immL, immM), e)
        if long:
            a = extend(V_part(m, Rn, Q, size), U, ty)
            b = extend(b, U, wider(e))
        else:
            a = m.V(Rn, ty)
        old = {"d": m.V(Rd, ty)} if accumulates else {}
        m.set_V(Rd, operation(m, a, broadcast(b, ty), **old))

    if scalar:

        @insn(
            f"01 {u} 11111 {drawing} Rn:5 Rd:5",
            asm=_text(mnemonic + of_scalars + ", v{Rm}.{e}[{index}]", size),
            ref=f"C7.2 {title}",
            feature="asimd",
            name=name + "_scalar",
        )
        def scalar_form(
            m: Machine,
            immL: Field,
            Rm: Field,
            immH: Field,
            Rn: Field,
            Rd: Field,
            immM: Field | int = 0,
        ) -> None:
            ty = wider(e) if long else e
            a = m.V(Rn, e).sext(ty)
            b = m.V_elem(Rm, _offset(size, immH, immL, immM), e).sext(ty)
            old = {"d": m.V(Rd, ty)} if accumulates else {}
            m.set_V(Rd, operation(m, a, b, **old))


by_element("0 1000", "mul", "MUL (by element)")(MUL)
by_element("1 0000", "mla", "MLA (by element)", accumulates=True)(MLA)
by_element("1 0100", "mls", "MLS (by element)", accumulates=True)(MLS)
by_element("U 1010", "{us}mull", "SMULL, UMULL (by element)", long=True)(MULL)
by_element("U 0010", "{us}mlal", "SMLAL, UMLAL (by element)", long=True, accumulates=True)(MLAL)
by_element("U 0110", "{us}mlsl", "SMLSL, UMLSL (by element)", long=True, accumulates=True)(MLSL)
by_element("0 1011", "sqdmull", "SQDMULL (by element)", long=True, scalar=True)(SQDMULL)
by_element("0 0011", "sqdmlal", "SQDMLAL (by element)", long=True, scalar=True, accumulates=True)(
    SQDMLAL
)
by_element("0 0111", "sqdmlsl", "SQDMLSL (by element)", long=True, scalar=True, accumulates=True)(
    SQDMLSL
)
by_element("0 1100", "sqdmulh", "SQDMULH (by element)", scalar=True)(SQDMULH)
by_element("0 1101", "sqrdmulh", "SQRDMULH (by element)", scalar=True)(SQRDMULH)
