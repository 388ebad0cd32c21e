"""MSR and MRS (Arm ARM C5.1, C6.2.228 to C6.2.230).

Every system register of arch/sysreg.py has an MRS and an MSR form of its own, made here from its
row. Encodings of the MSR/MRS/SYS space without a form are UNDEFINED at EL0 and trapped to EL2 from
EL1.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.arch.sysreg import ALL, DCZID_BS, DCZID_DZP, SCTLR_DZE, SCTLR_UMA, SYSREGS, SysReg
from armkvm.isa.base.access import gate, privileged, user
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value

# -- MSR (immediate) ------------------------------------------------------------------------


@insn("1101010100 0 00 000 0100 immCRm:4 101 11111", asm="msr spsel, #{immCRm}", ref="C6.2.229")
def MSR_SPSel(m: Machine, immCRm: Field) -> None:
    privileged(m)
    m.finish("write_spsel", m.imm(immCRm & 1))


@insn(
    "1101010100 0 00 011 0100 immCRm:4 11 =clear 11111",
    ref="C6.2.229",
    asm=lambda immCRm, clear: f"msr daif{('set', 'clr')[clear]}, #{immCRm}",
)
def MSR_DAIF_imm(m: Machine, immCRm: Field, clear: int) -> None:
    gate(m, "sctlr_el1", SCTLR_UMA)
    daif, bits = m.get("daif"), m.imm(immCRm)
    if clear:
        m.put("daif", daif & ~bits)
        m.finish("unmasked")
    m.put("daif", daif | bits)


# -- what rows name as reader and writer ----------------------------------------------------


def _sp_el0(m: Machine) -> None:
    """It cannot be named while it is the current SP."""
    with m.when(m.get("spsel").eq(0)):
        m.finish("unallocated")


def _read_sp_el0(m: Machine) -> Value:
    _sp_el0(m)
    return m.get("sp_el0_")


def _write_sp_el0(m: Machine, v: Value) -> None:
    _sp_el0(m)
    m.put("sp_el0_", v)


def _read_dczid(m: Machine) -> Value:
    prohibited = user(m) & (m.get("sctlr_el1") & SCTLR_DZE).eq(0)
    return m.select(prohibited, m.const("i64", DCZID_DZP | DCZID_BS), DCZID_BS)


READERS: dict[str, Callable[[Machine], Value]] = {
    "currentel": lambda m: m.get("el") << 2,
    "daif": lambda m: m.get("daif") << 6,
    "dczid": _read_dczid,
    "fpcr": lambda m: m.get("fpcr"),
    "fpsr": lambda m: m.ask("read_fpsr"),
    "nzcv": lambda m: m.nzcv() << 28,
    "sp_el0": _read_sp_el0,
    "spsel": lambda m: m.get("spsel"),
}
WRITERS: dict[str, Callable[[Machine, Value], object]] = {
    "daif": lambda m, v: m.put("daif", v.lshr(6) & 15),
    "fpcr": lambda m, v: m.tell("write_fpcr", v),
    "fpsr": lambda m, v: m.tell("write_fpsr", v),
    "nzcv": lambda m, v: m.set_nzcv(v.lshr(28) & 15),
    "sp_el0": _write_sp_el0,
    "spsel": lambda m, v: m.finish("write_spsel", v & 1),
}


# -- MRS and MSR (register): one form a register and direction ------------------------------


def _check_access(m: Machine, r: SysReg, *, write: bool) -> None:
    if r.el0 not in ("rw", "wo" if write else "ro"):
        privileged(m)
    if r.gate is not None:
        gate(m, *r.gate)
    if r.kind == "trapped":
        m.finish("trap_sys")
    if r.trap is not None:
        field, bits = r.trap
        with m.when((m.get(field) & bits).eq(0)):
            m.finish("trap_sys")


def _read(m: Machine, r: SysReg) -> Value:
    if r.has_field:
        return m.get(r.field)
    return READERS[r.reader](m) if r.reader else m.ask("read_" + r.field, m.count())


def _write(m: Machine, r: SysReg, v: Value) -> None:
    if r.has_field:
        m.put(r.field, (v if r.mask == ALL else v & r.mask) | r.ones)
    elif r.writer:
        WRITERS[r.writer](m, v)
    else:
        m.tell("write_" + r.field, m.count(), v)
    if r.effect:
        m.finish(r.effect)


def _drawing(r: SysReg, read: bool) -> str:
    op0, op1, crn, crm, op2 = r.enc
    return f"1101010100 {int(read)} {op0:02b} {op1:03b} {crn:04b} {crm:04b} {op2:03b} Rt:5"


def _enter(r: SysReg) -> None:
    text, feature = r.name.lower(), r.feature
    if r.el1 != "wo":
        asm, name = f"mrs {{Rt:x}}, {text}", f"MRS_{r.name}"

        @insn(_drawing(r, True), asm=asm, ref="C6.2.228", name=name, feature=feature)
        def mrs(m: Machine, Rt: Field) -> None:
            _check_access(m, r, write=False)
            m.set_X(Rt, _read(m, r))

    if r.el1 != "ro":
        asm, name = f"msr {text}, {{Rt:x}}", f"MSR_{r.name}"

        @insn(_drawing(r, False), asm=asm, ref="C6.2.230", name=name, feature=feature)
        def msr(m: Machine, Rt: Field) -> None:
            _check_access(m, r, write=True)
            _write(m, r, m.X(Rt))


for _register in SYSREGS:
    _enter(_register)
