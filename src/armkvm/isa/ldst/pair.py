"""Loads and stores of two registers (C4.1: load/store pair), general-purpose and SIMD&FP.

Offset, pre-index, post-index and no-allocate (LDNP, whose hint means nothing here). Both registers
travel in one span: a fault in either half leaves both, and the base, as they were. A load that
names one register twice is CONSTRAINED UNPREDICTABLE (K1.2); as in QEMU the general-purpose form
keeps the first word and the SIMD&FP form the second.
"""

from __future__ import annotations

from armkvm.isa.field import Field, signed
from armkvm.isa.ldst import text
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value

NO_ALLOCATE, POST_INDEX, OFFSET, PRE_INDEX = range(4)


def _address(m: Machine, index: int, Rn: Field, offset: Field) -> tuple[Value, Value]:
    """The address of the access and the base after it."""
    base = m.base(Rn)
    moved = base + m.imm(offset)
    return (base if index == POST_INDEX else moved), moved


def _address_text(index: int, n: int, imm: int) -> str:
    return (text.offset, text.post_index, text.offset, text.pre_index)[index](n, imm)


def _pair_allocated(opc: int, index: int, L: int, **_: object) -> bool:
    # opc 1 is LDPSW: a load, without a no-allocate form (as a store it is STGP, of memory tags).
    return opc in (0, 2) or (opc == 1 and L == 1 and index != NO_ALLOCATE)


def _pair_text(opc: int, index: int, L: int, imm7: int, Rt2: int, Rn: int, Rt: int) -> str:
    name = ("stnp", "ldnp")[L] if index == NO_ALLOCATE else ("stp", "ldp")[L]
    scale = 2 + (opc >> 1)
    regs = f"{text.R(opc != 0, Rt)}, {text.R(opc != 0, Rt2)}"
    where = _address_text(index, Rn, signed(imm7, 7) << scale)
    return f"{name}{'sw' if opc == 1 else ''} {regs}, {where}"


@insn("opc:2 101 0 0 index:2 L imm7:7 Rt2:5 Rn:5 Rt:5", asm=_pair_text, ref="C6.2 LDP",
      where=_pair_allocated)  # fmt: skip
def LDP(
    m: Machine, opc: int, index: int, L: int, imm7: Field, Rt2: Field, Rn: Field, Rt: Field
) -> None:
    """LDP, STP, LDPSW, LDNP, STNP."""
    scale = 2 + (opc >> 1)
    ty = f"i{8 << scale}"
    address, moved = _address(m, index, Rn, imm7.sext(7) << scale)
    span = m.span(address, 2 << scale, write=not L, elem=1 << scale)
    if L:
        first, second = span.load(0, ty), span.load(1 << scale, ty)
        if opc == 1:
            first, second = first.sext("i64"), second.sext("i64")
        m.set_X(Rt2, second)
        m.set_X(Rt, first)
    else:
        span.store(0, m.X(Rt, ty))
        span.store(1 << scale, m.X(Rt2, ty))
        span.done()
    if index in (POST_INDEX, PRE_INDEX):
        m.set_XSP(Rn, moved)


def _pair_fp_text(opc: int, index: int, L: int, imm7: int, Rt2: int, Rn: int, Rt: int) -> str:
    name = ("stnp", "ldnp")[L] if index == NO_ALLOCATE else ("stp", "ldp")[L]
    scale = 2 + opc
    where = _address_text(index, Rn, signed(imm7, 7) << scale)
    return f"{name} {text.fpr(Rt, scale)}, {text.fpr(Rt2, scale)}, {where}"


@insn("opc:2 101 1 0 index:2 L imm7:7 Rt2:5 Rn:5 Rt:5", asm=_pair_fp_text,
      ref="C7.2 LDP (SIMD&FP)", feature="fp", where=lambda opc, **_: opc != 3)  # fmt: skip
def LDP_fp(
    m: Machine, opc: int, index: int, L: int, imm7: Field, Rt2: Field, Rn: Field, Rt: Field
) -> None:
    """LDP, STP, LDNP, STNP of S, D and Q registers."""
    scale = 2 + opc
    ty = ("i32", "i64", "<2 x i64>")[opc]
    address, moved = _address(m, index, Rn, imm7.sext(7) << scale)
    span = m.span(address, 2 << scale, write=not L, elem=1 << scale)
    if L:
        first, second = span.load(0, ty), span.load(1 << scale, ty)
        m.set_V(Rt, first)
        m.set_V(Rt2, second)
    else:
        span.store(0, m.V(Rt, ty))
        span.store(1 << scale, m.V(Rt2, ty))
        span.done()
    if index in (POST_INDEX, PRE_INDEX):
        m.set_XSP(Rn, moved)
