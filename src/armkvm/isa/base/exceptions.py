"""Exception-generating instructions, hints and barriers (Arm ARM C4.1.3, C6.2): SVC to ERET."""

from __future__ import annotations

from armkvm.arch.sysreg import SCTLR_NTWE, SCTLR_NTWI
from armkvm.isa.base.access import privileged, user
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn

# -- exception generation (C4.1.3 "Exception generation") -----------------------------------


@insn("11010100 000 imm16:16 000 01", asm="svc #{imm16:hex}", ref="C6.2.365")
def SVC(m: Machine, imm16: Field) -> None:
    m.finish("svc", m.imm(imm16, "i16"))


@insn("11010100 000 imm16:16 000 10", asm="hvc #{imm16:hex}", ref="C6.2.100")
def HVC(m: Machine, imm16: Field) -> None:
    privileged(m)
    m.finish("hvc", m.imm(imm16, "i16"))


@insn("11010100 000 imm16:16 000 11", asm="smc #{imm16:hex}", ref="C6.2.307")
def SMC(m: Machine, imm16: Field) -> None:
    privileged(m)
    m.finish("smc", m.imm(imm16, "i16"))


@insn("11010100 001 imm16:16 000 00", asm="brk #{imm16:hex}", ref="C6.2.44")
def BRK(m: Machine, imm16: Field) -> None:
    m.finish("brk", m.imm(imm16, "i16"))


@insn("11010100 010 imm16:16 000 00", asm="hlt #{imm16:hex}", ref="C6.2.98")
def HLT(m: Machine, imm16: Field) -> None:
    m.undefined()  # no external debugger: halting is not allowed


@insn(
    "11010100 101 imm16:16 000 =LL:2",
    asm="dcps{LL} #{imm16:hex}",
    ref="C6.2.87",
    where=lambda LL, imm16: LL != 0,
)
def DCPS(m: Machine, imm16: Field, LL: int) -> None:
    m.undefined()  # only in Debug state


@insn("1101011 0100 11111 000000 11111 00000", asm="eret", ref="C6.2.97")
def ERET(m: Machine) -> None:
    privileged(m)
    m.finish("eret")


@insn("1101011 0101 11111 000000 11111 00000", asm="drps", ref="C6.2.91")
def DRPS(m: Machine) -> None:
    m.undefined()  # only in Debug state


# -- hints and barriers (C4.1.3 "Hints", "Barriers") ----------------------------------------

_HINTS = {0: "nop", 1: "yield", 2: "wfe", 3: "wfi", 4: "sev", 5: "sevl"}


def _hint_text(immCRm: int, immop2: int) -> str:
    n = immCRm << 3 | immop2
    return _HINTS.get(n, f"hint #{n:#x}")


@insn(
    "1101010100 0 00 011 0010 immCRm:4 immop2:3 11111",
    asm=_hint_text,
    ref="C6.2.99",
    where=lambda immCRm, immop2: (immCRm << 3 | immop2).lt(2) | (immCRm << 3 | immop2).lt(4) ^ 1,
)
def HINT(m: Machine, immCRm: Field, immop2: Field) -> None:
    """All hints but WFE and WFI do nothing."""


@insn("1101010100 0 00 011 0010 0000 010 11111", asm="wfe", ref="C6.2.400")
def WFE(m: Machine) -> None:
    """It may always return at once (D1.6.1), unless the hypervisor wants to see it."""
    with m.when(user(m) & (m.get("sctlr_el1") & SCTLR_NTWE).eq(0)):
        m.finish("wfx_to_el1", m.const("i64", 1))
    with m.when(m.get("twe").ne(0)):
        m.finish("wfe_trap")


@insn("1101010100 0 00 011 0010 0000 011 11111", asm="wfi", ref="C6.2.402")
def WFI(m: Machine) -> None:
    with m.when(user(m) & (m.get("sctlr_el1") & SCTLR_NTWI).eq(0)):
        m.finish("wfx_to_el1", m.const("i64", 0))
    m.finish("wfi")


_DOMAINS = {
    1: "oshld", 2: "oshst", 3: "osh", 5: "nshld", 6: "nshst", 7: "nsh",
    9: "ishld", 10: "ishst", 11: "ish", 13: "ld", 14: "st", 15: "sy",
}  # fmt: skip


@insn(
    "1101010100 0 00 011 0011 immCRm:4 =op2:3 11111",
    ref="C6.2.92",
    asm=lambda immCRm, op2: f"{('dsb', 'dmb')[op2 & 1]} {_DOMAINS.get(immCRm, f'#{immCRm:#x}')}",
    where=lambda immCRm, op2: op2 in (4, 5),
)
def BARRIER(m: Machine, immCRm: Field, op2: int) -> None:
    """One CPU runs at a time: every access is already ordered and complete."""


@insn("1101010100 0 00 011 0011 xxxx 110 11111", asm="isb", ref="C6.2.131")
def ISB(m: Machine) -> None:
    m.finish("resync")


@insn("1101010100 0 00 011 0011 xxxx 010 11111", asm="clrex", ref="C6.2.55")
def CLREX(m: Machine) -> None:
    m.put("excl_addr", -1)
