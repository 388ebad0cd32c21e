"""Data processing with an immediate (Arm ARM C4.1.92): PC-relative addresses, add and subtract,
logical, move wide, bitfield, extract.

Everything that depends on the immediates only is computed when the word is decoded: masks, shift
amounts, PC-relative distances. Left out: ADDG and SUBG (memory tagging).
"""

from __future__ import annotations

from armkvm.isa.base import alias
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn


def _type(sf: int) -> str:
    return "i64" if sf else "i32"


@insn("0 immlo:2 10000 immhi:19 Rd:5", asm=alias.adr, ref="ADR")
def ADR(m: Machine, immlo: Field, immhi: Field, Rd: Field) -> None:
    m.set_X(Rd, m.pc() + m.imm((immhi << 2 | immlo).sext(21)))


@insn("1 immlo:2 10000 immhi:19 Rd:5", asm=alias.adrp, ref="ADRP")
def ADRP(m: Machine, immlo: Field, immhi: Field, Rd: Field) -> None:
    m.set_X(Rd, m.page() + m.imm((immhi << 2 | immlo).sext(21) << 12))


@insn("sf op S 100010 sh imm12:12 Rn:5 Rd:5", asm=alias.addsub_imm,
      ref="ADD (immediate), ADDS, SUB, SUBS")
def ADDSUB_imm(
    m: Machine, sf: int, op: int, S: int, sh: int, imm12: Field, Rn: Field, Rd: Field
) -> None:
    x = m.XSP(Rn, _type(sf))
    y = m.imm(imm12 << 12 * sh, _type(sf))
    r = x - y if op else x + y
    if S:
        (m.set_flags_sub if op else m.set_flags_add)(x, y, r)
        m.set_X(Rd, r)
    else:
        m.set_XSP(Rd, r)


def _replicated(N: int) -> tuple[int, ...]:
    """DecodeBitMasks before the rotation, by imms; 0 where reserved."""
    out = []
    for imms in range(64):
        levels = N << 6 | ~imms & 63
        size = 1 << levels.bit_length() - 1 if levels > 1 else 0
        ones = (imms & size - 1) + 1
        if size == 0 or ones == size:
            out.append(0)
        else:
            out.append(sum((1 << ones) - 1 << i for i in range(0, 64, size)))
    return tuple(out)


BITMASKS = _replicated(0), _replicated(1)


def bitmask(N: int, immr: Field, imms: Field) -> Field:
    """DecodeBitMasks (shared/functions/common): the 64-bit immediate.

    Rotating within an element is rotating the replicated value: its period divides 64.
    """
    ones = imms.lookup(BITMASKS[N])
    return ones >> immr | ones << (64 - immr & 63)


@insn("sf opc:2 100100 N immr:6 imms:6 Rn:5 Rd:5", asm=alias.logical_imm,
      ref="AND (immediate), ORR, EOR, ANDS",
      where=lambda sf, N, imms, **_: sf >= N and imms.lookup(BITMASKS[N]).isnt(0))
def LOGICAL_imm(
    m: Machine, sf: int, opc: int, N: int, immr: Field, imms: Field, Rn: Field, Rd: Field
) -> None:
    x = m.X(Rn, _type(sf))
    y = m.imm(bitmask(N, immr, imms), _type(sf))
    if opc == 0:
        m.set_XSP(Rd, x & y)
    elif opc == 1:
        m.set_XSP(Rd, x | y)
    elif opc == 2:
        m.set_XSP(Rd, x ^ y)
    else:
        r = x & y
        m.set_flags_logic(r)
        m.set_X(Rd, r)


@insn("sf opc:2 100101 hw:2 imm16:16 Rd:5", asm=alias.move_wide,
      ref="MOVN, MOVZ, MOVK",
      where=lambda sf, opc, hw, **_: opc != 1 and (sf or hw < 2))
def MOVW(m: Machine, sf: int, opc: int, hw: int, imm16: Field, Rd: Field) -> None:
    y = imm16 << 16 * hw
    if opc == 0:
        m.set_X(Rd, m.imm(~y, _type(sf)))
    elif opc == 2:
        m.set_X(Rd, m.imm(y, _type(sf)))
    else:
        keep = (1 << (64 if sf else 32)) - 1 ^ 0xFFFF << 16 * hw
        m.set_X(Rd, m.X(Rd, _type(sf)) & keep | m.imm(y, _type(sf)))


@insn("sf opc:2 100110 N immr:6 imms:6 Rn:5 Rd:5", asm=alias.bitfield,
      ref="SBFM, BFM, UBFM",
      where=lambda sf, opc, N, immr, imms, **_:
          opc != 3 and sf == N and (True if sf else (immr | imms).lt(32)))
def BITFIELD(
    m: Machine, sf: int, opc: int, N: int, immr: Field, imms: Field, Rn: Field, Rd: Field
) -> None:
    size = 64 if sf else 32
    # Bit imms goes to the top, and from there to where it belongs: extraction (imms >= immr) and
    # insertion into zeros differ in the second distance only, and that is the same modulo size.
    up = size - 1 - imms
    down = up + immr & size - 1
    x = m.X(Rn, _type(sf)) << m.imm(up, "i8").zext(_type(sf))
    shift = m.imm(down, "i8").zext(_type(sf))
    if opc == 0:
        m.set_X(Rd, x.ashr(shift))
    elif opc == 2:
        m.set_X(Rd, x.lshr(shift))
    else:
        ones = (1 << size) - 1
        mask = (ones << up & ones) >> down
        m.set_X(Rd, x.lshr(shift) | m.X(Rd, _type(sf)) & m.imm(~mask, _type(sf)))


@insn("sf 00 100111 N 0 Rm:5 imms:6 Rn:5 Rd:5", asm=alias.extr, ref="EXTR",
      where=lambda sf, N, imms, **_: sf == N and (True if sf else imms.lt(32)))
def EXTR(m: Machine, sf: int, N: int, Rm: Field, imms: Field, Rn: Field, Rd: Field) -> None:
    ty = _type(sf)
    lsb = m.imm(imms, "i8").zext(ty)
    m.set_X(Rd, m.intrinsic(f"llvm.fshr.{ty}", ty, m.X(Rn, ty), m.X(Rm, ty), lsb))
