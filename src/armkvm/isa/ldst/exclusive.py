"""Exclusive and ordered loads and stores (C4.1: load/store exclusive; B2.9 for the monitor).

The local monitor lives in the CPU state: excl_addr (the virtual address, all ones when open),
excl_size (bytes) and the value that the load saw (excl_lo, excl_hi). A store passes when address
and size are those of the load and memory still holds that value: the comparison stands for the
global monitor, as in QEMU, so a value that changed and changed back is not noticed. Every
store-exclusive opens the monitor; exception return does too. All accesses here must be naturally
aligned, a pair to its whole size (B2.5.2). A store-exclusive is checked for faults before the
monitor is asked, an order that AArch64.ExclusiveMonitorsPass() leaves open.
Acquire and release order nothing beyond program order while virtual CPUs take turns; for the same
reason the comparison and the store need not be one host instruction. LDLAR and STLLR (FEAT_LOR) are
left out.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.ldst import text
from armkvm.isa.machine import Machine, Span, Transfer
from armkvm.isa.table import insn
from armkvm.isa.value import Value

OPEN = -1


def _set_monitor(m: Machine, address: Value, size: int, seen: list[Value]) -> None:
    """MarkExclusiveVA(), and the value that the store will look for."""
    m.put("excl_addr", address)
    m.put("excl_size", size)
    for name, part in zip(("excl_lo", "excl_hi"), seen, strict=False):
        m.put(name, part.zext("i64"))


def _monitor_passes(m: Machine, address: Value, size: int, span: Span) -> Value:
    """ExclusiveMonitorsPass(), as an i1."""
    passes = m.get("excl_addr").eq(address) & m.get("excl_size").eq(size)
    for i, name in enumerate(("excl_lo", "excl_hi")[: max(1, size // 8)]):
        passes = passes & span.load(8 * i, f"i{min(64, 8 * size)}").zext("i64").eq(m.get(name))
    return passes


def _store_exclusive(m: Machine, Rs: Field, address: Value, size: int, data: list[Value]) -> None:
    """Store the parts of data if the monitor allows it; W[Rs] tells."""
    span = m.span(address, size, write=True, align=size, acc="ordered")
    passes = _monitor_passes(m, address, size, span)
    with m.when(passes):
        for i, part in enumerate(data):
            span.store(i * part.bits // 8, part)
    span.done()
    m.put("excl_addr", OPEN)
    m.set_X(Rs, (~passes).zext("i32"))


def _suffix(size: int) -> str:
    return ("b", "h", "", "")[size]


def _stxr_text(size: int, Rs: int, immo0: int, Rn: int, Rt: int) -> str:
    name = ("stxr", "stlxr")[immo0] + _suffix(size)
    return f"{name} {text.R(0, Rs)}, {text.R(size == 3, Rt)}, {text.offset(Rn, 0)}"


@insn("size:2 001000 0 0 0 Rs:5 immo0 xxxxx Rn:5 Rt:5", asm=_stxr_text, ref="C6.2 STXR")
def STXR(m: Machine, size: int, Rs: Field, immo0: Field, Rn: Field, Rt: Field) -> None:
    """STXR and STLXR, all sizes."""
    _store_exclusive(m, Rs, m.base(Rn), 1 << size, [m.X(Rt, f"i{8 << size}")])


def _ldxr_text(size: int, immo0: int, Rn: int, Rt: int) -> str:
    name = ("ldxr", "ldaxr")[immo0] + _suffix(size)
    return f"{name} {text.R(size == 3, Rt)}, {text.offset(Rn, 0)}"


@insn("size:2 001000 0 1 0 xxxxx immo0 xxxxx Rn:5 Rt:5", asm=_ldxr_text, ref="C6.2 LDXR")
def LDXR(m: Machine, size: int, immo0: Field, Rn: Field, Rt: Field) -> None:
    """LDXR and LDAXR, all sizes."""
    address = m.base(Rn)
    data = m.load(address, f"i{8 << size}", acc="ordered")
    _set_monitor(m, address, 1 << size, [data])
    m.set_X(Rt, data)


def _stxp_text(sz: int, Rs: int, immo0: int, Rt2: int, Rn: int, Rt: int) -> str:
    regs = f"{text.R(0, Rs)}, {text.R(sz, Rt)}, {text.R(sz, Rt2)}"
    return f"{('stxp', 'stlxp')[immo0]} {regs}, {text.offset(Rn, 0)}"


@insn("1 sz 001000 0 0 1 Rs:5 immo0 Rt2:5 Rn:5 Rt:5", asm=_stxp_text, ref="C6.2 STXP")
def STXP(m: Machine, sz: int, Rs: Field, immo0: Field, Rt2: Field, Rn: Field, Rt: Field) -> None:
    """STXP and STLXP."""
    ty = ("i32", "i64")[sz]
    _store_exclusive(m, Rs, m.base(Rn), 8 << sz, [m.X(Rt, ty), m.X(Rt2, ty)])


def _ldxp_text(sz: int, immo0: int, Rt2: int, Rn: int, Rt: int) -> str:
    regs = f"{text.R(sz, Rt)}, {text.R(sz, Rt2)}"
    return f"{('ldxp', 'ldaxp')[immo0]} {regs}, {text.offset(Rn, 0)}"


@insn("1 sz 001000 0 1 1 xxxxx immo0 Rt2:5 Rn:5 Rt:5", asm=_ldxp_text, ref="C6.2 LDXP")
def LDXP(m: Machine, sz: int, immo0: Field, Rt2: Field, Rn: Field, Rt: Field) -> None:
    """LDXP and LDAXP; two words are seen as one doubleword (by a STXR of 8 bytes, too)."""
    address = m.base(Rn)
    span = m.span(address, 8 << sz, write=False, align=8 << sz, acc="ordered")
    seen = [span.load(8 * i, "i64") for i in range(1 + sz)]
    first, second = seen if sz else (seen[0].trunc("i32"), seen[0].lshr(32).trunc("i32"))
    _set_monitor(m, address, 8 << sz, seen)
    m.set_X(Rt, first)
    m.set_X(Rt2, second)


def _ordered_text(size: int, L: int, Rn: int, Rt: int) -> str:
    name = ("stlr", "ldar")[L] + _suffix(size)
    return f"{name} {text.R(size == 3, Rt)}, {text.offset(Rn, 0)}"


@insn("size:2 001000 1 L 0 xxxxx 1 xxxxx Rn:5 Rt:5", asm=_ordered_text, ref="C6.2 LDAR")
def LDAR(m: Machine, size: int, L: int, Rn: Field, Rt: Field) -> None:
    """LDAR and STLR, all sizes."""
    ty = f"i{8 << size}"
    address = m.base(Rn)
    one = Transfer(Rt, wide=size == 3)
    if L:
        m.set_X(Rt, m.load(address, ty, acc="ordered", one=one))
    else:
        m.store(address, m.X(Rt, ty), acc="ordered", one=one)
