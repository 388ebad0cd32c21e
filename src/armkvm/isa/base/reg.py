"""Data processing on registers (Arm ARM C4.1.95): logical and arithmetic with shifted or extended
operands, carries, conditional compare and select, one, two and three sources.

Each description holds for a whole row of the manual's tables. Left out: the parts of optional
extensions (pointer authentication, FlagM, CSSC, MOPS). CRC32 is in crc32.py.
"""

from __future__ import annotations

from armkvm.isa.asm import SHIFTS, R, X
from armkvm.isa.base import alias
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def _type(sf: int) -> str:
    return "i64" if sf else "i32"


def _amount(sf: int, imm6: Field, **_: object) -> bool | Field:
    """A 32-bit register cannot be shifted by 32 or more: UNALLOCATED."""
    return True if sf else imm6.lt(32)


def shift_reg(m: Machine, x: Value, shift: int, amount: Value) -> Value:
    """ShiftReg: LSL, LSR, ASR, ROR by an amount below the width."""
    if shift == 0:
        return x << amount
    if shift == 1:
        return x.lshr(amount)
    if shift == 2:
        return x.ashr(amount)
    return m.intrinsic(f"llvm.fshr.{x.ty}", x.ty, x, x, amount)


def extend_reg(m: Machine, Rm: Field, option: int, ty: str) -> Value:
    """ExtendReg before its shift: the low 8 to 64 bits, extended to ty."""
    part = ("i8", "i16", "i32", "i64")[option & 3]
    if part == "i64" or part == ty:
        return m.X(Rm, ty)
    x = m.X(Rm, part)
    return x.sext(ty) if option & 4 else x.zext(ty)


@insn("sf opc:2 01010 shift:2 N Rm:5 imm6:6 Rn:5 Rd:5", asm=alias.logical, where=_amount,
      ref="AND (shifted register), BIC, ORR, ORN, EOR, "
          "EON, ANDS, BICS")
def LOGICAL_reg(
    m: Machine, sf: int, opc: int, shift: int, N: int, Rm: Field, imm6: Field, Rn: Field, Rd: Field
) -> None:
    ty = _type(sf)
    x = m.X(Rn, ty)
    y = shift_reg(m, m.X(Rm, ty), shift, m.imm(imm6, "i8").zext(ty))
    if N:
        y = ~y
    r = x | y if opc == 1 else x ^ y if opc == 2 else x & y
    if opc == 3:
        m.set_flags_logic(r)
    m.set_X(Rd, r)


def _addsub(m: Machine, op: int, S: int, x: Value, y: Value) -> Value:
    r = x - y if op else x + y
    if S:
        (m.set_flags_sub if op else m.set_flags_add)(x, y, r)
    return r


@insn("sf op S 01011 shift:2 0 Rm:5 imm6:6 Rn:5 Rd:5", asm=alias.addsub,
      ref="ADD (shifted register), ADDS, SUB, SUBS",
      where=lambda sf, shift, imm6, **_: shift != 3 and _amount(sf, imm6))
def ADDSUB_reg(
    m: Machine, sf: int, op: int, S: int, shift: int, Rm: Field, imm6: Field, Rn: Field, Rd: Field
) -> None:
    ty = _type(sf)
    y = shift_reg(m, m.X(Rm, ty), shift, m.imm(imm6, "i8").zext(ty))
    m.set_X(Rd, _addsub(m, op, S, m.X(Rn, ty), y))


@insn("sf op S 01011 00 1 Rm:5 option:3 imm3:3 Rn:5 Rd:5", asm=alias.addsub_ext,
      ref="ADD (extended register), ADDS, SUB, SUBS",
      where=lambda imm3, **_: imm3.lt(5))
def ADDSUB_ext(
    m: Machine, sf: int, op: int, S: int, Rm: Field, option: int, imm3: Field, Rn: Field, Rd: Field
) -> None:
    ty = _type(sf)
    y = extend_reg(m, Rm, option, ty) << m.imm(imm3, "i8").zext(ty)
    r = _addsub(m, op, S, m.XSP(Rn, ty), y)
    (m.set_X if S else m.set_XSP)(Rd, r)


@insn("sf op S 11010000 Rm:5 000000 Rn:5 Rd:5", asm=alias.carry,
      ref="ADC, ADCS, SBC, SBCS")
def ADC(m: Machine, sf: int, op: int, S: int, Rm: Field, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    x, y = m.X(Rn, ty), m.X(Rm, ty)
    if op:
        y = ~y
    once = x + y
    r = once + m.carry().trunc(ty)
    if S:
        # Only one of the two additions can carry.
        m.set_flags(r, once.ult(x) | r.ult(once), ((x ^ r) & (y ^ r)).slt(0))
    m.set_X(Rd, r)


def _ccmp(m: Machine, op: int, cond: int, x: Value, y: Value, imm_nzcv: Field) -> None:
    holds = m.condition_holds(cond)  # of the flags as they were
    m.set_nzcv(m.imm(imm_nzcv))
    with m.when(holds):
        _addsub(m, op, 1, x, y)


@insn("sf op 1 11010010 Rm:5 cond:4 0 0 Rn:5 0 imm_nzcv:4", asm=alias.ccmp_reg,
      ref="CCMN (register), CCMP (register)")
def CCMP_reg(
    m: Machine, sf: int, op: int, Rm: Field, cond: int, Rn: Field, imm_nzcv: Field
) -> None:
    _ccmp(m, op, cond, m.X(Rn, _type(sf)), m.X(Rm, _type(sf)), imm_nzcv)


@insn("sf op 1 11010010 imm5:5 cond:4 1 0 Rn:5 0 imm_nzcv:4", asm=alias.ccmp_imm,
      ref="CCMN (immediate), CCMP (immediate)")
def CCMP_imm(
    m: Machine, sf: int, op: int, imm5: Field, cond: int, Rn: Field, imm_nzcv: Field
) -> None:
    _ccmp(m, op, cond, m.X(Rn, _type(sf)), m.imm(imm5, _type(sf)), imm_nzcv)


@insn("sf op 0 11010100 Rm:5 cond:4 0 o2 Rn:5 Rd:5", asm=alias.csel,
      ref="CSEL, CSINC, CSINV, CSNEG")
def CSEL(m: Machine, sf: int, op: int, Rm: Field, cond: int, o2: int, Rn: Field, Rd: Field) -> None:
    y = m.X(Rm, _type(sf))
    if op:
        y = ~y
    if o2:
        y = y + 1
    m.set_X(Rd, m.select(m.condition_holds(cond), m.X(Rn, _type(sf)), y))


@insn("sf 1 0 11010110 00000 000000 Rn:5 Rd:5", asm="rbit {Rd:r}, {Rn:r}", ref="RBIT")
def RBIT(m: Machine, sf: int, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    m.set_X(Rd, m.intrinsic(f"llvm.bitreverse.{ty}", ty, m.X(Rn, ty)))


@insn("sf 1 0 11010110 00000 000001 Rn:5 Rd:5", asm="rev16 {Rd:r}, {Rn:r}", ref="REV16")
def REV16(m: Machine, sf: int, Rn: Field, Rd: Field) -> None:
    x = m.X(Rn, _type(sf))
    even = 0x00FF00FF00FF00FF & (1 << x.bits) - 1
    m.set_X(Rd, (x & even) << 8 | x.lshr(8) & even)


@insn("sf 1 0 11010110 00000 00001 =opc Rn:5 Rd:5", ref="REV, REV32",
      asm=lambda sf, opc, Rn, Rd:
          f"{'rev' if sf == opc else 'rev32'} {R(sf, Rd)}, {R(sf, Rn)}",
      where=lambda sf, opc, **_: sf or not opc)
def REV(m: Machine, sf: int, opc: int, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    r = m.intrinsic(f"llvm.bswap.{ty}", ty, m.X(Rn, ty))
    if sf and not opc:
        r = shift_reg(m, r, 3, m.const(ty, 32))
    m.set_X(Rd, r)


@insn("sf 1 0 11010110 00000 000100 Rn:5 Rd:5", asm="clz {Rd:r}, {Rn:r}", ref="CLZ")
def CLZ(m: Machine, sf: int, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    m.set_X(Rd, m.intrinsic(f"llvm.ctlz.{ty}", ty, m.X(Rn, ty), False))


@insn("sf 1 0 11010110 00000 000101 Rn:5 Rd:5", asm="cls {Rd:r}, {Rn:r}", ref="CLS")
def CLS(m: Machine, sf: int, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    x = m.X(Rn, ty)
    m.set_X(Rd, m.intrinsic(f"llvm.ctlz.{ty}", ty, x ^ x.ashr(1), False) - 1)


@insn("sf 0 0 11010110 Rm:5 000010 Rn:5 Rd:5", asm="udiv {Rd:r}, {Rn:r}, {Rm:r}",
      ref="UDIV")
def UDIV(m: Machine, sf: int, Rm: Field, Rn: Field, Rd: Field) -> None:
    x, y = m.X(Rn, _type(sf)), m.X(Rm, _type(sf))
    zero = y.eq(0)
    m.set_X(Rd, m.select(zero, 0, x.udiv(m.select(zero, 1, y))))


@insn("sf 0 0 11010110 Rm:5 000011 Rn:5 Rd:5", asm="sdiv {Rd:r}, {Rn:r}, {Rm:r}",
      ref="SDIV")
def SDIV(m: Machine, sf: int, Rm: Field, Rn: Field, Rd: Field) -> None:
    x, y = m.X(Rn, _type(sf)), m.X(Rm, _type(sf))
    # Division by zero gives 0, and the most negative number divided by -1 is itself.
    quotient = x.sdiv(m.select((y + 1).ult(2), 1, y))
    m.set_X(Rd, m.select(y.eq(0), 0, m.select(y.eq(-1), -x, quotient)))


@insn("sf 0 0 11010110 Rm:5 0010 op2:2 Rn:5 Rd:5",
      asm=lambda sf, Rm, op2, Rn, Rd:
          f"{SHIFTS[op2]} {R(sf, Rd)}, {R(sf, Rn)}, {R(sf, Rm)}",
      ref="LSLV, LSRV, ASRV, RORV")
def SHIFTV(m: Machine, sf: int, Rm: Field, op2: int, Rn: Field, Rd: Field) -> None:
    x, amount = m.X(Rn, _type(sf)), m.X(Rm, _type(sf))
    m.set_X(Rd, shift_reg(m, x, op2, amount & x.bits - 1))


@insn("sf 00 11011 000 Rm:5 o0 Ra:5 Rn:5 Rd:5", asm=alias.madd, ref="MADD, MSUB")
def MADD(m: Machine, sf: int, Rm: Field, o0: int, Ra: Field, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    product = m.X(Rn, ty) * m.X(Rm, ty)
    a = m.X(Ra, ty)
    m.set_X(Rd, a - product if o0 else a + product)


@insn("1 00 11011 U 01 Rm:5 o0 Ra:5 Rn:5 Rd:5", asm=alias.maddl,
      ref="SMADDL, SMSUBL, UMADDL, UMSUBL")
def MADDL(m: Machine, U: int, Rm: Field, o0: int, Ra: Field, Rn: Field, Rd: Field) -> None:
    x, y = m.X(Rn, "i32"), m.X(Rm, "i32")
    product = x.zext("i64") * y.zext("i64") if U else x.sext("i64") * y.sext("i64")
    a = m.X(Ra)
    m.set_X(Rd, a - product if o0 else a + product)


@insn("1 00 11011 U 10 Rm:5 0 xxxxx Rn:5 Rd:5", ref="SMULH, UMULH",
      asm=lambda U, Rm, Rn, Rd: f"{'us'[not U]}mulh {X(Rd)}, {X(Rn)}, {X(Rm)}")
def MULH(m: Machine, U: int, Rm: Field, Rn: Field, Rd: Field) -> None:
    x, y = m.X(Rn), m.X(Rm)
    product = x.zext("i128") * y.zext("i128") if U else x.sext("i128") * y.sext("i128")
    m.set_X(Rd, product.lshr(64).trunc("i64"))
