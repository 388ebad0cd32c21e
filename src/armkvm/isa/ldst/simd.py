"""Loads and stores of one SIMD&FP register (C4.1: load/store register with V = 1).

B, H, S, D and Q registers; a load clears the bits above. Literals and pairs are in literal.py and
pair.py, structures in simd_struct.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field, signed
from armkvm.isa.ldst import text
from armkvm.isa.ldst.register import extend_word
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value

TYPES = ("i8", "i16", "i32", "i64", "<2 x i64>")


def scale(size: int, opc: int) -> int:
    """log2 of the bytes of the register: opc<1>:size."""
    return (opc & 2) << 1 | size


def allocated(size: int, opc: int, **_: object) -> bool:
    """True where the register is one of B, H, S, D, Q."""
    return scale(size, opc) <= 4


def access(m: Machine, size: int, opc: int, Rt: Field, address: Value) -> None:
    """One load or store of V[Rt]."""
    ty = TYPES[scale(size, opc)]
    if opc & 1:
        m.set_V(Rt, m.load(address, ty))
    else:
        m.store(address, m.V(Rt, ty))


def _head(size: int, opc: int, rt: int, stem: str = "r") -> str:
    return f"{('st', 'ld')[opc & 1]}{stem} {text.fpr(rt, scale(size, opc))}"


def _unsigned_text(size: int, opc: int, imm12: int, Rn: int, Rt: int) -> str:
    return f"{_head(size, opc, Rt)}, {text.offset(Rn, imm12 << scale(size, opc))}"


@insn("size:2 111 1 01 opc:2 imm12:12 Rn:5 Rt:5", asm=_unsigned_text,
      ref="C7.2 LDR (immediate, SIMD&FP)", feature="fp", where=allocated)  # fmt: skip
def LDST_fp_unsigned(m: Machine, size: int, opc: int, imm12: Field, Rn: Field, Rt: Field) -> None:
    """LDR and STR, unsigned scaled offset."""
    access(m, size, opc, Rt, m.base(Rn) + m.imm(imm12 << scale(size, opc)))


def _unscaled_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    return f"{_head(size, opc, Rt, 'ur')}, {text.offset(Rn, signed(imm9, 9))}"


@insn("size:2 111 1 00 opc:2 0 imm9:9 00 Rn:5 Rt:5", asm=_unscaled_text,
      ref="C7.2 LDUR (SIMD&FP)", feature="fp", where=allocated)  # fmt: skip
def LDST_fp_unscaled(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """LDUR and STUR."""
    access(m, size, opc, Rt, m.base(Rn) + m.imm(imm9.sext(9)))


def _post_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    return f"{_head(size, opc, Rt)}, {text.post_index(Rn, signed(imm9, 9))}"


@insn("size:2 111 1 00 opc:2 0 imm9:9 01 Rn:5 Rt:5", asm=_post_text,
      ref="C7.2 LDR (immediate, SIMD&FP)", feature="fp", where=allocated)  # fmt: skip
def LDST_fp_post(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """Post-index."""
    address = m.base(Rn)
    access(m, size, opc, Rt, address)
    m.set_XSP(Rn, address + m.imm(imm9.sext(9)))


def _pre_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    return f"{_head(size, opc, Rt)}, {text.pre_index(Rn, signed(imm9, 9))}"


@insn("size:2 111 1 00 opc:2 0 imm9:9 11 Rn:5 Rt:5", asm=_pre_text,
      ref="C7.2 LDR (immediate, SIMD&FP)", feature="fp", where=allocated)  # fmt: skip
def LDST_fp_pre(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """Pre-index."""
    address = m.base(Rn) + m.imm(imm9.sext(9))
    access(m, size, opc, Rt, address)
    m.set_XSP(Rn, address)


def _register_text(size: int, opc: int, Rm: int, immx: int, S: int, Rn: int, Rt: int) -> str:
    where = text.extended(Rn, Rm, immx << 2 | 3, S, scale(size, opc))
    return f"{_head(size, opc, Rt)}, {where}"


@insn("size:2 111 1 00 opc:2 1 Rm:5 immx 11 S 10 Rn:5 Rt:5", asm=_register_text,
      ref="C7.2 LDR (register, SIMD&FP)", feature="fp", where=allocated)  # fmt: skip
def LDST_fp_register(
    m: Machine, size: int, opc: int, Rm: Field, immx: Field, S: int, Rn: Field, Rt: Field
) -> None:
    """Register offset, 64 bits: LSL and SXTX (immx) are the same."""
    access(m, size, opc, Rt, m.base(Rn) + (m.X(Rm) << scale(size, opc) * S))


def _extended_text(size: int, opc: int, Rm: int, sign: int, S: int, Rn: int, Rt: int) -> str:
    where = text.extended(Rn, Rm, sign << 2 | 2, S, scale(size, opc))
    return f"{_head(size, opc, Rt)}, {where}"


@insn("size:2 111 1 00 opc:2 1 Rm:5 sign 10 S 10 Rn:5 Rt:5", asm=_extended_text,
      ref="C7.2 LDR (register, SIMD&FP)", feature="fp", where=allocated)  # fmt: skip
def LDST_fp_extended(
    m: Machine, size: int, opc: int, Rm: Field, sign: int, S: int, Rn: Field, Rt: Field
) -> None:
    """Register offset, 32 bits: UXTW or SXTW."""
    access(m, size, opc, Rt, m.base(Rn) + extend_word(m, Rm, sign, scale(size, opc) * S))
