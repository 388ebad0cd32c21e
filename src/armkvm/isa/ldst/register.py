"""Loads and stores of one general-purpose register (C4.1: load/store register, all index forms).

Unsigned and unscaled offsets, pre- and post-index, register offset, unprivileged; and the
prefetches, which do nothing. Where writeback names the transfer register (K1.2 lets the CPU choose)
this does as QEMU: a store writes the old value, a load leaves the new base in the register.
Memory tags (STG, LDG) and pointer-authenticated loads (LDRAA) are not there: they are UNDEFINED.
"""

from __future__ import annotations

from armkvm.isa.field import Field, signed
from armkvm.isa.ldst import text
from armkvm.isa.machine import Machine, Transfer
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def allocated(size: int, opc: int, **_: object) -> bool:
    """True for the loads and stores among the (size, opc): 3, 2 is PRFM, the rest UNDEFINED."""
    return opc < 2 or size < (0, 0, 3, 2)[opc]


def access(
    m: Machine,
    size: int,
    opc: int,
    Rt: Field,
    address: Value,
    *,
    acc: str = "normal",
    writeback: bool = False,
) -> None:
    """One load or store of X[Rt] as (size, opc) say: plain, or sign-extended to 64 or 32 bits."""
    ty = f"i{8 << size}"
    # No syndrome with writeback: whoever completed the access could not know of it.
    one = None if writeback else Transfer(Rt, wide=size == 3 or opc == 2, signed=opc >= 2)
    if opc == 0:
        m.store(address, m.X(Rt, ty), acc=acc, one=one)
        return
    data = m.load(address, ty, acc=acc, one=one)
    if opc >= 2:
        data = data.sext("i64" if opc == 2 else "i32")
    m.set_X(Rt, data)


def _reg(size: int, opc: int, rt: int) -> str:
    return text.R(size == 3 or opc == 2, rt)


# -- immediate offsets ----------------------------------------------------------------------


def _unsigned_text(size: int, opc: int, imm12: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('r', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.offset(Rn, imm12 << size)}"


@insn("size:2 111 0 01 opc:2 imm12:12 Rn:5 Rt:5", asm=_unsigned_text,
      ref="C6.2 LDR (immediate)", where=allocated)  # fmt: skip
def LDST_unsigned(m: Machine, size: int, opc: int, imm12: Field, Rn: Field, Rt: Field) -> None:
    """LDR, STR and their narrow forms, unsigned scaled offset."""
    access(m, size, opc, Rt, m.base(Rn) + m.imm(imm12 << size))


def _unscaled_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('ur', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.offset(Rn, signed(imm9, 9))}"


@insn("size:2 111 0 00 opc:2 0 imm9:9 00 Rn:5 Rt:5", asm=_unscaled_text, ref="C6.2 LDUR",
      where=allocated)  # fmt: skip
def LDST_unscaled(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """LDUR, STUR and their narrow forms."""
    access(m, size, opc, Rt, m.base(Rn) + m.imm(imm9.sext(9)))


def _unpriv_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('tr', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.offset(Rn, signed(imm9, 9))}"


@insn("size:2 111 0 00 opc:2 0 imm9:9 10 Rn:5 Rt:5", asm=_unpriv_text, ref="C6.2 LDTR",
      where=allocated)  # fmt: skip
def LDST_unpriv(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """LDTR, STTR: at EL1 the access has the permissions of EL0."""
    access(m, size, opc, Rt, m.base(Rn) + m.imm(imm9.sext(9)), acc="unpriv")


def _post_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('r', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.post_index(Rn, signed(imm9, 9))}"


@insn("size:2 111 0 00 opc:2 0 imm9:9 01 Rn:5 Rt:5", asm=_post_text, ref="C6.2 LDR (immediate)",
      where=allocated)  # fmt: skip
def LDST_post(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """Post-index: the address is the base, the offset is added to the base afterwards."""
    address = m.base(Rn)
    access(m, size, opc, Rt, address, writeback=True)
    m.set_XSP(Rn, address + m.imm(imm9.sext(9)))


def _pre_text(size: int, opc: int, imm9: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('r', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.pre_index(Rn, signed(imm9, 9))}"


@insn("size:2 111 0 00 opc:2 0 imm9:9 11 Rn:5 Rt:5", asm=_pre_text, ref="C6.2 LDR (immediate)",
      where=allocated)  # fmt: skip
def LDST_pre(m: Machine, size: int, opc: int, imm9: Field, Rn: Field, Rt: Field) -> None:
    """Pre-index: the offset is added first, and the sum is written back."""
    address = m.base(Rn) + m.imm(imm9.sext(9))
    access(m, size, opc, Rt, address, writeback=True)
    m.set_XSP(Rn, address)


# -- register offset ------------------------------------------------------------------------


def _register_text(size: int, opc: int, Rm: int, immx: int, S: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('r', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.extended(Rn, Rm, immx << 2 | 3, S, size)}"


@insn("size:2 111 0 00 opc:2 1 Rm:5 immx 11 S 10 Rn:5 Rt:5", asm=_register_text,
      ref="C6.2 LDR (register)", where=allocated)  # fmt: skip
def LDST_register(
    m: Machine, size: int, opc: int, Rm: Field, immx: Field, S: int, Rn: Field, Rt: Field
) -> None:
    """Register offset, 64 bits: LSL and SXTX (immx) are the same."""
    access(m, size, opc, Rt, m.base(Rn) + (m.X(Rm) << size * S))


def _extended_text(size: int, opc: int, Rm: int, sign: int, S: int, Rn: int, Rt: int) -> str:
    head = f"{text.mnemonic('r', size, opc)} {_reg(size, opc, Rt)}"
    return f"{head}, {text.extended(Rn, Rm, sign << 2 | 2, S, size)}"


@insn("size:2 111 0 00 opc:2 1 Rm:5 sign 10 S 10 Rn:5 Rt:5", asm=_extended_text,
      ref="C6.2 LDR (register)", where=allocated)  # fmt: skip
def LDST_extended(
    m: Machine, size: int, opc: int, Rm: Field, sign: int, S: int, Rn: Field, Rt: Field
) -> None:
    """Register offset, 32 bits: UXTW or SXTW."""
    access(m, size, opc, Rt, m.base(Rn) + extend_word(m, Rm, sign, size * S))


def extend_word(m: Machine, Rm: Field, sign: int, shift: int) -> Value:
    """ExtendReg() of W[Rm]."""
    word = m.X(Rm, "i32")
    return (word.sext("i64") if sign else word.zext("i64")) << shift


# -- prefetches -----------------------------------------------------------------------------


def _prfm_text(imm12: int, Rn: int, immop: int) -> str:
    return f"prfm {text.prefetch(immop)}, {text.offset(Rn, imm12 << 3)}"


@insn("11 111 0 01 10 imm12:12 Rn:5 immop:5", asm=_prfm_text, ref="C6.2 PRFM (immediate)")
def PRFM_unsigned(m: Machine, imm12: Field, Rn: Field, immop: Field) -> None:
    """A hint: no access, no fault, no check of SP."""


def _prfum_text(imm9: int, Rn: int, immop: int) -> str:
    return f"prfum {text.prefetch(immop)}, {text.offset(Rn, signed(imm9, 9))}"


@insn("11 111 0 00 10 0 imm9:9 00 Rn:5 immop:5", asm=_prfum_text, ref="C6.2 PRFUM")
def PRFM_unscaled(m: Machine, imm9: Field, Rn: Field, immop: Field) -> None:
    """A hint."""


def _prfm_register_text(Rm: int, immo: int, immx: int, immS: int, Rn: int, immop: int) -> str:
    address = text.extended(Rn, Rm, immo << 2 | 2 | immx, immS, 3)
    return f"prfm {text.prefetch(immop)}, {address}"


@insn("11 111 0 00 10 1 Rm:5 immo 1 immx immS 10 Rn:5 immop:5", asm=_prfm_register_text,
      ref="C6.2 PRFM (register)")  # fmt: skip
def PRFM_register(
    m: Machine, Rm: Field, immo: Field, immx: Field, immS: Field, Rn: Field, immop: Field
) -> None:
    """A hint."""
