"""Advanced SIMD loads and stores of one structure (C4.1: single structure).

LD1 to LD4 and ST1 to ST4 of one lane of each register, whose other lanes stay; LD1R to LD4R, which
repeat the element in every lane; all with and without post-index. The lane number is scattered over
Q, S and size: here it is a decode-time byte offset into the register, one drawing an element size.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.ldst.simd_struct import address_text, list_text, post_index, register
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def _lane(m: Machine, L: int, n: int, scale: int, offset: Field, Rt: Field, address: Value) -> None:
    """One element of each of n registers, at byte `offset` of the register."""
    step, ty = 1 << scale, f"i{8 << scale}"
    span = m.span(address, n * step, write=not L, elem=step)
    if L:
        for i in range(n):
            m.set_V_elem(register(Rt, i), offset, span.load(i * step, ty))
    else:
        for i in range(n):
            span.store(i * step, m.V_elem(register(Rt, i), offset, ty))
        span.done()


def _lane_text(L: int, n: int, scale: int, index: int, rt: int, rn: int, rm: int | None) -> str:
    regs = list_text(rt, n, "bhsd"[scale])
    return f"{('st', 'ld')[L]}{n} {regs}[{index}], {address_text(rn, rm, n << scale)}"


# The number of registers less one is opcode<0>:R, drawn "o" and "r": both specialise.


def _b_text(
    immQ: int, L: int, r: int, o: int, immS: int, immsize: int, Rn: int, Rt: int,
    Rm: int | None = None,
) -> str:  # fmt: skip
    return _lane_text(L, 1 + (o << 1 | r), 0, immQ << 3 | immS << 2 | immsize, Rt, Rn, Rm)


@insn("0 immQ 0011010 L r 00000 00 o immS immsize:2 Rn:5 Rt:5", asm=_b_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_b(
    m: Machine, immQ: Field, L: int, r: int, o: int, immS: Field, immsize: Field, Rn: Field,
    Rt: Field,
) -> None:  # fmt: skip
    """One byte of one to four registers."""
    offset = immQ << 3 | immS << 2 | immsize
    _lane(m, L, 1 + (o << 1 | r), 0, offset, Rt, m.base(Rn))


@insn("0 immQ 0011011 L r Rm:5 00 o immS immsize:2 Rn:5 Rt:5", asm=_b_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_b_post(
    m: Machine, immQ: Field, L: int, r: int, Rm: Field, o: int, immS: Field, immsize: Field,
    Rn: Field, Rt: Field,
) -> None:  # fmt: skip
    """One byte of one to four registers, post-index."""
    offset, address, n = immQ << 3 | immS << 2 | immsize, m.base(Rn), 1 + (o << 1 | r)
    _lane(m, L, n, 0, offset, Rt, address)
    post_index(m, Rn, Rm, address, n)


def _h_text(
    immQ: int, L: int, r: int, o: int, immS: int, immh: int, Rn: int, Rt: int,
    Rm: int | None = None,
) -> str:  # fmt: skip
    return _lane_text(L, 1 + (o << 1 | r), 1, immQ << 2 | immS << 1 | immh, Rt, Rn, Rm)


@insn("0 immQ 0011010 L r 00000 01 o immS immh 0 Rn:5 Rt:5", asm=_h_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_h(
    m: Machine, immQ: Field, L: int, r: int, o: int, immS: Field, immh: Field, Rn: Field, Rt: Field
) -> None:
    """One halfword of one to four registers."""
    offset = immQ << 3 | immS << 2 | immh << 1
    _lane(m, L, 1 + (o << 1 | r), 1, offset, Rt, m.base(Rn))


@insn("0 immQ 0011011 L r Rm:5 01 o immS immh 0 Rn:5 Rt:5", asm=_h_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_h_post(
    m: Machine, immQ: Field, L: int, r: int, Rm: Field, o: int, immS: Field, immh: Field,
    Rn: Field, Rt: Field,
) -> None:  # fmt: skip
    """One halfword of one to four registers, post-index."""
    offset, address, n = immQ << 3 | immS << 2 | immh << 1, m.base(Rn), 1 + (o << 1 | r)
    _lane(m, L, n, 1, offset, Rt, address)
    post_index(m, Rn, Rm, address, 2 * n)


def _s_text(
    immQ: int, L: int, r: int, o: int, immS: int, Rn: int, Rt: int, Rm: int | None = None
) -> str:
    return _lane_text(L, 1 + (o << 1 | r), 2, immQ << 1 | immS, Rt, Rn, Rm)


@insn("0 immQ 0011010 L r 00000 10 o immS 00 Rn:5 Rt:5", asm=_s_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_s(
    m: Machine, immQ: Field, L: int, r: int, o: int, immS: Field, Rn: Field, Rt: Field
) -> None:
    """One word of one to four registers."""
    _lane(m, L, 1 + (o << 1 | r), 2, immQ << 3 | immS << 2, Rt, m.base(Rn))


@insn("0 immQ 0011011 L r Rm:5 10 o immS 00 Rn:5 Rt:5", asm=_s_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_s_post(
    m: Machine, immQ: Field, L: int, r: int, Rm: Field, o: int, immS: Field, Rn: Field, Rt: Field
) -> None:
    """One word of one to four registers, post-index."""
    address, n = m.base(Rn), 1 + (o << 1 | r)
    _lane(m, L, n, 2, immQ << 3 | immS << 2, Rt, address)
    post_index(m, Rn, Rm, address, 4 * n)


def _d_text(immQ: int, L: int, r: int, o: int, Rn: int, Rt: int, Rm: int | None = None) -> str:
    return _lane_text(L, 1 + (o << 1 | r), 3, immQ, Rt, Rn, Rm)


@insn("0 immQ 0011010 L r 00000 10 o 0 01 Rn:5 Rt:5", asm=_d_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_d(m: Machine, immQ: Field, L: int, r: int, o: int, Rn: Field, Rt: Field) -> None:
    """One doubleword of one to four registers."""
    _lane(m, L, 1 + (o << 1 | r), 3, immQ << 3, Rt, m.base(Rn))


@insn("0 immQ 0011011 L r Rm:5 10 o 0 01 Rn:5 Rt:5", asm=_d_text,
      ref="C7.2 LD1 (single structure)", feature="asimd")  # fmt: skip
def LD1_lane_d_post(
    m: Machine, immQ: Field, L: int, r: int, Rm: Field, o: int, Rn: Field, Rt: Field
) -> None:
    """One doubleword of one to four registers, post-index."""
    address, n = m.base(Rn), 1 + (o << 1 | r)
    _lane(m, L, n, 3, immQ << 3, Rt, address)
    post_index(m, Rn, Rm, address, 8 * n)


# -- load and replicate ---------------------------------------------------------------------


def _replicate_text(
    Q: int, r: int, o: int, size: int, Rn: int, Rt: int, Rm: int | None = None
) -> str:
    n = 1 + (o << 1 | r)
    regs = list_text(Rt, n, f"{(8 << Q) >> size}{'bhsd'[size]}")
    return f"ld{n}r {regs}, {address_text(Rn, Rm, n << size)}"


def _replicate(m: Machine, Q: int, n: int, size: int, Rt: Field, address: Value) -> None:
    span = m.span(address, n << size, write=False, elem=1 << size)
    lanes = (8 << Q) >> size
    for i in range(n):
        element = span.load(i << size, f"i{8 << size}")
        m.set_V(register(Rt, i), element.splat(lanes) if lanes > 1 else element)


@insn("0 Q 0011010 1 r 00000 11 o 0 size:2 Rn:5 Rt:5", asm=_replicate_text, ref="C7.2 LD1R",
      feature="asimd")  # fmt: skip
def LD1R(m: Machine, Q: int, r: int, o: int, size: int, Rn: Field, Rt: Field) -> None:
    """LD1R, LD2R, LD3R, LD4R."""
    _replicate(m, Q, 1 + (o << 1 | r), size, Rt, m.base(Rn))


@insn("0 Q 0011011 1 r Rm:5 11 o 0 size:2 Rn:5 Rt:5", asm=_replicate_text, ref="C7.2 LD1R",
      feature="asimd")  # fmt: skip
def LD1R_post(
    m: Machine, Q: int, r: int, Rm: Field, o: int, size: int, Rn: Field, Rt: Field
) -> None:
    """LD1R, LD2R, LD3R, LD4R, post-index."""
    address, n = m.base(Rn), 1 + (o << 1 | r)
    _replicate(m, Q, n, size, Rt, address)
    post_index(m, Rn, Rm, address, n << size)
