"""Loads relative to the PC (C4.1: load register (literal)), general-purpose and SIMD&FP."""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.ldst import text
from armkvm.isa.machine import Machine, Transfer
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def _address(m: Machine, imm19: Field) -> Value:
    return m.pc() + m.imm(imm19.sext(19) << 2)


def _literal_text(opc: int, imm19: int, Rt: int, pc: int) -> str:
    name = "ldrsw" if opc == 2 else "ldr"
    return f"{name} {text.R(opc, Rt)}, {text.label(pc, imm19)}"


@insn("opc:2 011 0 00 imm19:19 Rt:5", asm=_literal_text, ref="C6.2 LDR (literal)",
      where=lambda opc, **_: opc != 3)  # fmt: skip
def LDR_literal(m: Machine, opc: int, imm19: Field, Rt: Field) -> None:
    """LDR W, LDR X, LDRSW."""
    one = Transfer(Rt, wide=opc != 0, signed=opc == 2)
    data = m.load(_address(m, imm19), "i64" if opc == 1 else "i32", one=one)
    m.set_X(Rt, data.sext("i64") if opc == 2 else data)


def _literal_fp_text(opc: int, imm19: int, Rt: int, pc: int) -> str:
    return f"ldr {text.fpr(Rt, 2 + opc)}, {text.label(pc, imm19)}"


@insn("opc:2 011 1 00 imm19:19 Rt:5", asm=_literal_fp_text, ref="C7.2 LDR (literal, SIMD&FP)",
      feature="fp", where=lambda opc, **_: opc != 3)  # fmt: skip
def LDR_literal_fp(m: Machine, opc: int, imm19: Field, Rt: Field) -> None:
    """LDR of an S, D or Q register."""
    m.set_V(Rt, m.load(_address(m, imm19), ("i32", "i64", "<2 x i64>")[opc]))


def _prfm_text(imm19: int, immop: int, pc: int) -> str:
    return f"prfm {text.prefetch(immop)}, {text.label(pc, imm19)}"


@insn("11 011 0 00 imm19:19 immop:5", asm=_prfm_text, ref="C6.2 PRFM (literal)")
def PRFM_literal(m: Machine, imm19: Field, immop: Field) -> None:
    """A hint."""
