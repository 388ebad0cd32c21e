"""Exception-generating and system instructions (Arm ARM C4.1.3, C6.2): SVC to ERET, barriers and
hints, MSR/MRS, and the SYS space: cache and TLB maintenance, address translation, DC ZVA.

Every system register of arch/sysreg.py has an MRS and an MSR form of its own, made here from its
row. Encodings of the MSR/MRS/SYS space without a form are UNDEFINED at EL0 and trapped to EL2 from
EL1.
"""

from __future__ import annotations

from armkvm.arch.sysreg import ALL, SYSREGS, Encoding, SysReg
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value

# Bits of SCTLR_EL1 that open something to EL0 (D17.2.118).
UMA, DZE, UCT, NTWI, NTWE, UCI = 9, 14, 15, 16, 18, 26
DCZ_BLOCK = 4  # DCZID_EL0.BS: log2 of words; DC ZVA clears 64 bytes

TLBI_ALL, TLBI_VA, TLBI_ASID = 0, 1, 2  # as engine/native/tlb.py takes them


def _user(m: Machine) -> Value:
    return m.get("el").eq(0)


def _bit(v: Value, n: int) -> Value:
    return v.lshr(n) & 1


def _privileged(m: Machine) -> None:
    """UNDEFINED at EL0."""
    with m.when(_user(m)):
        m.undefined()


def _gate(m: Machine, register: str, bits: tuple[int, ...]) -> None:
    """EL0 may go on only where one of these bits is set; else the access traps to EL1."""
    shut = _user(m) & (m.get(register) & sum(1 << b for b in bits)).eq(0)
    with m.when(shut):
        m.finish("sys_to_el1")


# -- exception generation (C4.1.3 "Exception generation") -----------------------------------


@insn("11010100 000 imm16:16 000 01", asm="svc #{imm16:hex}", ref="C6.2.365")
def SVC(m: Machine, imm16: Field) -> None:
    m.finish("svc", m.imm(imm16, "i16"))


@insn("11010100 000 imm16:16 000 10", asm="hvc #{imm16:hex}", ref="C6.2.100")
def HVC(m: Machine, imm16: Field) -> None:
    _privileged(m)
    m.finish("hvc", m.imm(imm16, "i16"))


@insn("11010100 000 imm16:16 000 11", asm="smc #{imm16:hex}", ref="C6.2.307")
def SMC(m: Machine, imm16: Field) -> None:
    _privileged(m)
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
    _privileged(m)
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
    with m.when(_user(m) & _bit(m.get("sctlr_el1"), NTWE).eq(0)):
        m.finish("wfx_to_el1", m.const("i64", 1))
    with m.when(m.get("twe").ne(0)):
        m.finish("wfe_trap")


@insn("1101010100 0 00 011 0010 0000 011 11111", asm="wfi", ref="C6.2.402")
def WFI(m: Machine) -> None:
    with m.when(_user(m) & _bit(m.get("sctlr_el1"), NTWI).eq(0)):
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


# -- MSR (immediate) ------------------------------------------------------------------------


@insn("1101010100 0 00 000 0100 immCRm:4 101 11111", asm="msr spsel, #{immCRm}", ref="C6.2.229")
def MSR_SPSel(m: Machine, immCRm: Field) -> None:
    _privileged(m)
    m.finish("write_spsel", m.imm(immCRm & 1))


@insn(
    "1101010100 0 00 011 0100 immCRm:4 11 =clear 11111",
    ref="C6.2.229",
    asm=lambda immCRm, clear: f"msr daif{('set', 'clr')[clear]}, #{immCRm}",
)
def MSR_DAIF_imm(m: Machine, immCRm: Field, clear: int) -> None:
    _gate(m, "sctlr_el1", (UMA,))
    daif, bits = m.get("daif"), m.imm(immCRm)
    if clear:
        m.put("daif", daif & ~bits)
        m.finish("unmasked")
    m.put("daif", daif | bits)


# -- MRS and MSR (register): one form a register and direction ------------------------------


def _read_special(m: Machine, r: SysReg) -> Value:
    name = r.name
    if name == "CURRENTEL":
        return m.get("el") << 2
    if name == "SPSEL":
        return m.get("spsel")
    if name == "SP_EL0":
        with m.when(m.get("spsel").eq(0)):
            m.finish("unallocated")
        return m.get("sp_el0_")
    if name == "NZCV":
        return m.nzcv() << 28
    if name == "DAIF":
        return m.get("daif") << 6
    if name == "FPCR":
        return m.get("fpcr")
    if name == "FPSR":
        return m.ask("read_fpsr")
    if name == "DCZID_EL0":
        prohibited = _user(m) & _bit(m.get("sctlr_el1"), DZE).eq(0)
        return prohibited.zext("i64") << 4 | DCZ_BLOCK
    return m.ask("read_" + r.field, m.count())


def _write_special(m: Machine, r: SysReg, v: Value) -> None:
    name = r.name
    if name == "SPSEL":
        m.finish("write_spsel", v & 1)
    elif name == "SP_EL0":
        with m.when(m.get("spsel").eq(0)):
            m.finish("unallocated")
        m.put("sp_el0_", v)
    elif name == "NZCV":
        m.set_nzcv(v.lshr(28) & 15)
    elif name == "DAIF":
        m.put("daif", v.lshr(6) & 15)
        m.finish("unmasked")
    elif name in ("FPCR", "FPSR"):
        m.ask("write_" + r.field, v)
    else:
        m.ask("write_" + r.field, m.count(), v)
        m.finish("unmasked" if name in _UNMASKING else "check")


# After a write to these an interrupt may be taken; no deadline has moved.
_UNMASKING = frozenset(
    ("ICC_PMR_EL1", "ICC_BPR0_EL1", "ICC_BPR1_EL1", "ICC_CTLR_EL1", "ICC_IGRPEN0_EL1",
     "ICC_IGRPEN1_EL1")
)  # fmt: skip

# Which bit of CNTKCTL_EL1 opens a timer register to EL0, and which of CNTHCTL_EL2 keeps EL2 out.
_COUNTERS = {
    "CNTFRQ_EL0": ((0, 1), None),
    "CNTPCT_EL0": ((0,), 0),
    "CNTVCT_EL0": ((1,), None),
    "CNTP_TVAL_EL0": ((9,), 1),
    "CNTP_CTL_EL0": ((9,), 1),
    "CNTP_CVAL_EL0": ((9,), 1),
    "CNTV_TVAL_EL0": ((8,), None),
    "CNTV_CTL_EL0": ((8,), None),
    "CNTV_CVAL_EL0": ((8,), None),
}


def _check_access(m: Machine, r: SysReg, *, write: bool) -> None:
    el0 = r.el0 == "rw" or (r.el0 == "ro" and not write)
    if not el0:
        _privileged(m)
    if r.el0_gate:
        _gate(m, "sctlr_el1", r.el0_gate)
    if r.name in _COUNTERS:
        opens, trap = _COUNTERS[r.name]
        _gate(m, "cntkctl_el1", opens)
        if trap is not None:
            with m.when(_bit(m.get("cnthctl"), trap).eq(0)):
                m.finish("trap_sys")
    if r.name.startswith("ICC_"):
        # Without a virtual interface for the guest, EL2 traps all of them.
        with m.when(m.get("icc_sre").eq(0)):
            m.finish("trap_sys")
    if r.name in ("FPCR", "FPSR"):
        with m.when(m.get("fp_trap").ne(0)):
            m.finish("fp_trapped")


def _drawing(enc: Encoding, read: bool) -> str:
    op0, op1, crn, crm, op2 = enc
    return f"1101010100 {int(read)} {op0:02b} {op1:03b} {crn:04b} {crm:04b} {op2:03b} Rt:5"


def _enter(r: SysReg) -> None:
    text = r.name.lower()
    if r.el1 != "wo":

        @insn(
            _drawing(r.enc, True), asm=f"mrs {{Rt:x}}, {text}", ref="C6.2.228", name=f"MRS_{r.name}"
        )
        def mrs(m: Machine, Rt: Field) -> None:
            _check_access(m, r, write=False)
            m.set_X(Rt, _read_special(m, r) if r.kind == "special" else m.get(r.field))

    if r.el1 != "ro":

        @insn(
            _drawing(r.enc, False),
            asm=f"msr {text}, {{Rt:x}}",
            ref="C6.2.230",
            name=f"MSR_{r.name}",
        )
        def msr(m: Machine, Rt: Field) -> None:
            _check_access(m, r, write=True)
            v = m.X(Rt)
            if r.kind == "special":
                _write_special(m, r, v)
                return
            v = v if r.mask == ALL else v & r.mask
            m.put(r.field, v | r.ones)
            if r.effect:
                m.finish(r.effect)


for _register in SYSREGS:
    _enter(_register)


# -- SYS: cache, TLB, address translation (C5.4, C5.5, C5.3) --------------------------------


def _sys(op1: int, crn: int, crm: int, op2: int) -> str:
    return f"1101010100 0 01 {op1:03b} {crn:04b} {crm:04b} {op2:03b} Rt:5"


def _enter_tlbi(text: str, op1: int, crm: int, op2: int, kind: int, routine: str) -> None:
    @insn(
        _sys(op1, 8, crm, op2),
        asm=f"tlbi {text}" + ("" if kind == TLBI_ALL else ", {Rt:x}"),
        ref="C5.5",
        name=f"TLBI_{text.upper()}",
    )
    def tlbi(m: Machine, Rt: Field) -> None:
        _privileged(m)
        m.finish(routine, m.const("i64", kind), m.X(Rt))


for _shared, _crm, _routine in (("", 7, "tlb_maintenance"), ("is", 3, "tlb_maintenance_is")):
    for _op2, (_text, _kind) in {
        0: ("vmalle1", TLBI_ALL),
        1: ("vae1", TLBI_VA),
        2: ("aside1", TLBI_ASID),
        3: ("vaae1", TLBI_VA),
        5: ("vale1", TLBI_VA),
        7: ("vaale1", TLBI_VA),
    }.items():
        _enter_tlbi(_text + _shared, 0, _crm, _op2, _kind, _routine)


def _enter_cache(text: str, op1: int, crm: int, op2: int, *, by_va: bool, gate: int | None) -> None:
    @insn(
        _sys(op1, 7, crm, op2),
        asm=text if text.startswith("ic iall") else f"{text}, {{Rt:x}}",
        ref="C5.3",
        name=text.upper().replace(" ", "_"),
    )
    def maintain(m: Machine, Rt: Field) -> None:
        """There is an instruction cache; of the data side only the checks are seen."""
        if gate is None:
            _privileged(m)
        else:
            _gate(m, "sctlr_el1", (gate,))
        if text.startswith("ic iall"):
            m.finish("ic_iallu")
        elif by_va:
            # To invalidate is to lose what was written: it takes write permission.
            kind = "icache" if text == "ic ivau" else "cache"
            m.span(m.X(Rt), 1, write=text == "dc ivac", acc=kind).done()


for _row in (
    ("ic ialluis", 0, 1, 0, False, None),
    ("ic iallu", 0, 5, 0, False, None),
    ("ic ivau", 3, 5, 1, True, UCI),
    ("dc ivac", 0, 6, 1, True, None),
    ("dc isw", 0, 6, 2, False, None),
    ("dc csw", 0, 10, 2, False, None),
    ("dc cisw", 0, 14, 2, False, None),
    ("dc cvac", 3, 10, 1, True, UCI),
    ("dc cvau", 3, 11, 1, True, UCI),
    ("dc civac", 3, 14, 1, True, UCI),
):
    _enter_cache(_row[0], *_row[1:4], by_va=_row[4], gate=_row[5])


@insn(_sys(3, 7, 4, 1), asm="dc zva, {Rt:x}", ref="C5.3.8")
def DC_ZVA(m: Machine, Rt: Field) -> None:
    _gate(m, "sctlr_el1", (DZE,))
    size = 4 << DCZ_BLOCK
    block = m.span(m.X(Rt), 1, write=True, acc="zero")
    for offset in range(0, size, 16):
        block.store(offset, m.const("<2 x i64>", 0))
    block.done()


for _op2, (_text, _flags) in enumerate([("s1e1r", 0), ("s1e1w", 1), ("s1e0r", 4), ("s1e0w", 5)]):

    def _enter_at(text: str, op2: int, flags: int) -> None:
        @insn(_sys(0, 7, 8, op2), asm=f"at {text}, {{Rt:x}}", ref="C5.4", name=f"AT_{text.upper()}")
        def at(m: Machine, Rt: Field) -> None:
            _privileged(m)
            m.ask("address_translate", m.X(Rt), m.const("i64", flags))

    _enter_at(_text, _op2, _flags)
