"""The SYS space (Arm ARM C5.3 to C5.5): cache and TLB maintenance, address translation, DC ZVA."""

from __future__ import annotations

from armkvm.arch.sysreg import DCZID_BS, SCTLR_DZE, SCTLR_UCI, TLBI_ALL, TLBI_ASID, TLBI_VA
from armkvm.isa.base.access import gate, privileged
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn


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
        privileged(m)
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


def _enter_cache(
    text: str, op1: int, crm: int, op2: int, *, by_va: bool, opens: int | None
) -> None:
    @insn(
        _sys(op1, 7, crm, op2),
        asm=text if text.startswith("ic iall") else f"{text}, {{Rt:x}}",
        ref="C5.3",
        name=text.upper().replace(" ", "_"),
    )
    def maintain(m: Machine, Rt: Field) -> None:
        """There is an instruction cache; of the data side only the checks are seen."""
        if opens is None:
            privileged(m)
        else:
            gate(m, "sctlr_el1", opens)
        if text.startswith("ic iall"):
            m.finish("ic_iallu")
        elif by_va:
            # To invalidate is to lose what was written: it takes write permission.
            kind = "icache" if text == "ic ivau" else "cache"
            m.span(m.X(Rt), 1, write=text == "dc ivac", acc=kind).done()


for _row in (
    ("ic ialluis", 0, 1, 0, False, None),
    ("ic iallu", 0, 5, 0, False, None),
    ("ic ivau", 3, 5, 1, True, SCTLR_UCI),
    ("dc ivac", 0, 6, 1, True, None),
    ("dc isw", 0, 6, 2, False, None),
    ("dc csw", 0, 10, 2, False, None),
    ("dc cisw", 0, 14, 2, False, None),
    ("dc cvac", 3, 10, 1, True, SCTLR_UCI),
    ("dc cvau", 3, 11, 1, True, SCTLR_UCI),
    ("dc civac", 3, 14, 1, True, SCTLR_UCI),
):
    _enter_cache(_row[0], *_row[1:4], by_va=_row[4], opens=_row[5])


@insn(_sys(3, 7, 4, 1), asm="dc zva, {Rt:x}", ref="C5.3.8")
def DC_ZVA(m: Machine, Rt: Field) -> None:
    gate(m, "sctlr_el1", SCTLR_DZE)
    size = 4 << DCZID_BS
    block = m.span(m.X(Rt), 1, write=True, acc="zero")
    for offset in range(0, size, 16):
        block.store(offset, m.const("<2 x i64>", 0))
    block.done()


for _op2, (_text, _flags) in enumerate([("s1e1r", 0), ("s1e1w", 1), ("s1e0r", 4), ("s1e0w", 5)]):

    def _enter_at(text: str, op2: int, flags: int) -> None:
        @insn(_sys(0, 7, 8, op2), asm=f"at {text}, {{Rt:x}}", ref="C5.4", name=f"AT_{text.upper()}")
        def at(m: Machine, Rt: Field) -> None:
            privileged(m)
            m.tell("address_translate", m.X(Rt), m.const("i64", flags))

    _enter_at(_text, _op2, _flags)
