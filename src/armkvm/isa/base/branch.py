"""Branches (Arm ARM C4.1.93): immediate, conditional, compare, test, and to a register.

Left out: exception generation and return and hints (system.py), branches with pointer
authentication, BC.cond (FEAT_HBC). Without FEAT_BTI an indirect branch checks nothing.
"""

from __future__ import annotations

from armkvm.isa.asm import CONDITIONS, R
from armkvm.isa.field import MASK64, Field, signed
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn


@insn("op 00101 imm26:26", ref="B, BL",
      asm=lambda op, imm26, pc: f"b{'l' * op} {pc + 4 * signed(imm26, 26) & MASK64:#x}")
def B(m: Machine, op: int, imm26: Field) -> None:
    m.branch(imm26.sext(26) << 2, link=bool(op))


@insn("0101010 0 imm19:19 0 cond:4", ref="B.cond",
      asm=lambda imm19, cond, pc:
          f"b.{CONDITIONS[cond]} {pc + 4 * signed(imm19, 19) & MASK64:#x}")
def B_cond(m: Machine, imm19: Field, cond: int) -> None:
    # 0b1110 and 0b1111 both mean always (ConditionHolds).
    m.branch(imm19.sext(19) << 2, cond=None if cond >= 14 else m.condition_holds(cond))


@insn("sf 011010 op imm19:19 Rt:5", ref="CBZ, CBNZ",
      asm=lambda sf, op, imm19, Rt, pc:
          f"cb{'n' * op}z {R(sf, Rt)}, {pc + 4 * signed(imm19, 19) & MASK64:#x}")
def CBZ(m: Machine, sf: int, op: int, imm19: Field, Rt: Field) -> None:
    x = m.X(Rt, "i64" if sf else "i32")
    m.branch(imm19.sext(19) << 2, cond=x.ne(0) if op else x.eq(0))


@insn("imm_b5 011011 op imm_b40:5 imm14:14 Rt:5", ref="TBZ, TBNZ",
      asm=lambda imm_b5, op, imm_b40, imm14, Rt, pc:
          f"tb{'n' * op}z {R(imm_b5, Rt)}, #{imm_b5 << 5 | imm_b40}, "
          f"{pc + 4 * signed(imm14, 14) & MASK64:#x}")
def TBZ(m: Machine, imm_b5: Field, op: int, imm_b40: Field, imm14: Field, Rt: Field) -> None:
    bit = m.X(Rt) & m.imm(1 << (imm_b5 << 5 | imm_b40))
    m.branch(imm14.sext(14) << 2, cond=bit.ne(0) if op else bit.eq(0))


@insn("1101011 0 0 =opc:2 11111 000000 Rn:5 00000", ref="BR, BLR, RET",
      where=lambda opc, **_: opc != 3,
      asm=lambda opc, Rn:
          "ret" if (opc, Rn) == (2, 30) else f"{('br', 'blr', 'ret')[opc]} {R(1, Rn)}")
def BR(m: Machine, opc: int, Rn: Field) -> None:
    m.branch_to(m.X(Rn), link=opc == 1)
