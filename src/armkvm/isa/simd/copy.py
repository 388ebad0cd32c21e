"""Advanced SIMD copy: DUP, INS, SMOV, UMOV (Arm ARM, C4.1).

    0 Q op 01110000 imm5 0 imm4 1 Rn Rd

The lowest set bit of imm5 is the element size and the bits above it are the index, so each size
has a drawing of its own. Elements are read and written in the CPU state, at an offset known when
the word is decoded.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.asm import R
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import BHSD, allocated, arrangement, lane_type
from armkvm.isa.table import insn
from armkvm.isa.value import lanes

# imm5 by element size: with its index as an operand, and with the index ignored.
INDEXED = ("imm:4 1", "imm:3 10", "imm:2 100", "imm 1000")
IGNORED = ("xxxx 1", "xxx 10", "xx 100", "x 1000")


def _dup_text(size: int) -> Callable[..., str]:
    e = "bhsd"[size]
    return lambda Q, imm, Rn, Rd: f"dup v{Rd}.{arrangement(Q, size)}, v{Rn}.{e}[{imm}]"


def _dup_scalar_text(size: int) -> Callable[..., str]:
    e = "bhsd"[size]
    return lambda imm, Rn, Rd: f"mov {e}{Rd}, v{Rn}.{e}[{imm}]"


def _dup_general_text(size: int) -> Callable[..., str]:
    return lambda Q, Rn, Rd: f"dup v{Rd}.{arrangement(Q, size)}, {R(size == 3, Rn)}"


def _ins_text(size: int) -> Callable[..., str]:
    e = "bhsd"[size]
    return lambda imm, imm4, Rn, Rd: f"mov v{Rd}.{e}[{imm}], v{Rn}.{e}[{imm4}]"


def _ins_general_text(size: int) -> Callable[..., str]:
    return lambda imm, Rn, Rd: f"mov v{Rd}.{'bhsd'[size]}[{imm}], {R(size == 3, Rn)}"


def _mov_text(name: str, size: int) -> Callable[..., str]:
    return lambda Q, imm, Rn, Rd: f"{name} {R(Q, Rd)}, v{Rn}.{'bhsd'[size]}[{imm}]"


def _enter(size: int) -> None:
    """The descriptions of one element size."""
    e, bits = f"i{8 << size}", 8 << size

    def fits(Q: int, **_: object) -> bool:
        return allocated(Q, size, BHSD)

    @insn(
        f"0 Q 0 01110000 {INDEXED[size]} 0 0000 1 Rn:5 Rd:5",
        asm=_dup_text(size),
        ref="C7.2 DUP (element)",
        feature="asimd",
        where=fits,
        name=f"DUP_elem{bits}_vector",
    )
    def DUP_elem(m: Machine, Q: int, imm: Field, Rn: Field, Rd: Field) -> None:
        m.set_V(Rd, m.V_elem(Rn, imm << size, e).splat(lanes(lane_type(Q, size))))

    @insn(
        f"01 0 11110000 {INDEXED[size]} 0 0000 1 Rn:5 Rd:5",
        asm=_dup_scalar_text(size),
        ref="C7.2 DUP (element)",
        feature="asimd",
        name=f"DUP_elem{bits}_scalar",
    )
    def DUP_elem_scalar(m: Machine, imm: Field, Rn: Field, Rd: Field) -> None:
        m.set_V(Rd, m.V_elem(Rn, imm << size, e))

    @insn(
        f"0 Q 0 01110000 {IGNORED[size]} 0 0001 1 Rn:5 Rd:5",
        asm=_dup_general_text(size),
        ref="C7.2 DUP (general)",
        feature="asimd",
        where=fits,
        name=f"DUP_general{bits}",
    )
    def DUP_general(m: Machine, Q: int, Rn: Field, Rd: Field) -> None:
        m.set_V(Rd, m.X(Rn, e).splat(lanes(lane_type(Q, size))))

    @insn(
        f"0 1 0 01110000 {INDEXED[size]} 0 0011 1 Rn:5 Rd:5",
        asm=_ins_general_text(size),
        ref="C7.2 INS (general)",
        feature="asimd",
        name=f"INS_general{bits}",
    )
    def INS_general(m: Machine, imm: Field, Rn: Field, Rd: Field) -> None:
        m.set_V_elem(Rd, imm << size, m.X(Rn, e))

    @insn(
        f"0 1 1 01110000 {INDEXED[size]} 0 imm4:{4 - size} {'x' * size} 1 Rn:5 Rd:5",
        asm=_ins_text(size),
        ref="C7.2 INS (element)",
        feature="asimd",
        name=f"INS_elem{bits}",
    )
    def INS_elem(m: Machine, imm: Field, imm4: Field, Rn: Field, Rd: Field) -> None:
        m.set_V_elem(Rd, imm << size, m.V_elem(Rn, imm4 << size, e))

    if size < 3:

        @insn(
            f"0 Q 0 01110000 {INDEXED[size]} 0 0101 1 Rn:5 Rd:5",
            asm=_mov_text("smov", size),
            ref="C7.2 SMOV",
            feature="asimd",
            where=lambda Q, **_: size < 2 + Q,
            name=f"SMOV_{bits}",
        )
        def SMOV(m: Machine, Q: int, imm: Field, Rn: Field, Rd: Field) -> None:
            m.set_X(Rd, m.V_elem(Rn, imm << size, e).sext("i64" if Q else "i32"))

    @insn(
        f"0 Q 0 01110000 {INDEXED[size]} 0 0111 1 Rn:5 Rd:5",
        asm=_mov_text("umov" if size < 2 else "mov", size),
        ref="C7.2 UMOV",
        feature="asimd",
        where=lambda Q, **_: (size == 3) == (Q == 1),
        name=f"UMOV_{bits}",
    )
    def UMOV(m: Machine, Q: int, imm: Field, Rn: Field, Rd: Field) -> None:
        m.set_X(Rd, m.V_elem(Rn, imm << size, e))


for _size in BHSD:
    _enter(_size)
