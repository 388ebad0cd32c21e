"""The software TLBs: contexts, flushing, and TLB maintenance (Arm ARM D8.14).

EL1 has one data and one instruction TLB. EL0 has a pair for each of the last few address spaces
(TTBR0_EL1's base and the ASID), so that a context switch moves two pointers. By-address operations
ignore the ASID and go to every pair: invalidating more than was asked is always allowed.
"""

from __future__ import annotations

from armkvm.arch.sysreg import TLBI_ALL, TLBI_ASID
from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function, bit
from armkvm.engine.llvm.native import exported, native
from armkvm.engine.native.walk import stage2
from armkvm.isa.value import Value

_D, _I = layout.DTLB_SIZE, layout.ITLB_SIZE


def _at(fn: Function, offset: int) -> Value:
    """The address of one of the CPU's TLBs."""
    return (fn.cpu + offset).address()


# -- flushing ---------------------------------------------------------------------------------


@native
def flush_array(fn: Function, array: Value, entries: Value) -> None:
    """Every entry of a TLB."""
    with fn.range(entries) as i:
        entry = fn.pointer(array + i * 32)
        entry.put(0, layout.NO_TAG)
        entry.put(8, layout.NO_TAG)


def _flush(fn: Function, data: Value, code: Value) -> None:
    flush_array(fn, data, fn.i64(layout.DTLB_ENTRIES))
    flush_array(fn, code, fn.i64(layout.ITLB_ENTRIES))


@native
def flush_el1(fn: Function) -> None:
    """What EL1 holds."""
    _flush(fn, _at(fn, layout.DTLB_EL1), _at(fn, layout.ITLB_EL1))
    fn.put("el1_low", 0)
    fn.put("el1_blocks", 0)


@native
def flush_context(fn: Function, n: Value) -> None:
    """What EL0 holds of the nth address space."""
    _flush(fn, _at(fn, layout.DTLB_EL0) + n * _D, _at(fn, layout.ITLB_EL0) + n * _I)


@exported
def flush_all(fn: Function) -> None:
    """Everything."""
    flush_el1(fn)
    with fn.range(layout.CONTEXTS) as i:
        flush_context(fn, i)
    fn.put("el0_blocks", 0)
    fn.put("el0_high", 0)
    fn.put("ic_host", 0)


# -- contexts ---------------------------------------------------------------------------------


def current_key(fn: Function) -> Value:
    """TTBR0's table and the current ASID (TTBR1's where TCR_EL1.A1 says so; 8 bits without AS)."""
    ttbr0, tcr = fn.get("ttbr0_el1"), fn.get("tcr_el1")
    holder = fn.select(bit(tcr, 22).ne(0), fn.get("ttbr1_el1"), ttbr0)
    asid = holder.lshr(48)
    asid = fn.select(bit(tcr, 36).ne(0), asid, asid & 0xFF)
    return ttbr0 & 0x0000_FFFF_FFFF_FFFE | asid << 48


@exported
def set_context(fn: Function) -> None:
    """Make the EL0 TLBs those of the current address space."""
    key = current_key(fn)
    # What EL1 holds of the lower half, or not-global, belonged to the address space before.
    with fn.if_(fn.get("el1_low").ne(0)):
        flush_el1(fn)
    chosen = fn.var("i64", layout.CONTEXTS)
    keys = fn.cpu + layout.CONTEXT_KEYS
    with fn.range(layout.CONTEXTS) as i:
        with fn.if_((keys + (i << 3)).get(0).eq(key)):
            chosen.set(i)
    with fn.if_(chosen.get().eq(layout.CONTEXTS)):
        victim = fn.get("next_context")
        fn.put("next_context", (victim + 1) & (layout.CONTEXTS - 1))
        chosen.set(victim)
        (keys + (victim << 3)).put(0, key)
        flush_context(fn, victim)
    n = chosen.get()
    fn.put("context", n)
    fn.put("dtlb_el0", _at(fn, layout.DTLB_EL0) + n * _D)
    fn.put("itlb_el0", _at(fn, layout.ITLB_EL0) + n * _I)
    with fn.if_(fn.get("el").eq(0)):
        fn.put("dtlb", fn.get("dtlb_el0"))
        fn.put("itlb", fn.get("itlb_el0"))


# -- maintenance ------------------------------------------------------------------------------


@native
def drop_address(fn: Function, data: Value, code: Value, va: Value, blocks: Value) -> None:
    """Drop va (bits [55:12]) from one pair of TLBs; `blocks`: some entries are of larger blocks."""

    def drop(array: Value, i: Value) -> None:
        entry = fn.pointer(array + i * 32)
        shift = entry.get(24)
        # Bits [63:56] are a tag where TBI is on, and are not compared.
        with fn.if_(((entry.get(0) ^ va) << 8).lshr(8).lshr(shift & 63).eq(0)):
            entry.put(0, layout.NO_TAG)
            entry.put(8, layout.NO_TAG)

    with fn.if_(blocks.eq(0)):
        drop(data, va.lshr(12) & (layout.DTLB_ENTRIES - 1))
        drop(code, va.lshr(12) & (layout.ITLB_ENTRIES - 1))
        fn.ret()
    with fn.range(layout.DTLB_ENTRIES) as i:
        drop(data, i)
    with fn.range(layout.ITLB_ENTRIES) as i:
        drop(code, i)


@native
def tlbi(fn: Function, kind: Value, xt: Value) -> None:
    """TLBI: its kind, and the operand register of the instruction."""
    with fn.if_(kind.eq(TLBI_ALL)):
        flush_all(fn)
        fn.ret()
    keys = fn.cpu + layout.CONTEXT_KEYS
    with fn.if_(kind.eq(TLBI_ASID)):
        asid = xt.lshr(48)
        asid = fn.select(bit(fn.get("tcr_el1"), 36).ne(0), asid, asid & 0xFF)
        with fn.range(layout.CONTEXTS) as i:
            with fn.if_((keys + (i << 3)).get(0).lshr(48).eq(asid)):
                flush_context(fn, i)
        with fn.if_(fn.get("el1_low").ne(0)):
            flush_el1(fn)
        fn.ret()
    va = (xt << 20).ashr(8)  # bits [55:12] of the address
    data, code = _at(fn, layout.DTLB_EL1), _at(fn, layout.ITLB_EL1)
    drop_address(fn, data, code, va, fn.get("el1_blocks"))
    blocks = fn.get("el0_blocks")
    el0_too = bit(va, 55).eq(0) | fn.get("el0_high").ne(0)
    with fn.if_(el0_too), fn.range(layout.CONTEXTS) as i:
        data = _at(fn, layout.DTLB_EL0) + i * _D
        code = _at(fn, layout.ITLB_EL0) + i * _I
        drop_address(fn, data, code, va, blocks)


@native
def tlbi_shared(fn: Function, kind: Value, xt: Value) -> None:
    """TLBI on every CPU of the VM; they stand still meanwhile (virtual CPUs take turns)."""
    table = stage2(fn)
    cpus = table + layout.S2_CPU_LIST
    with fn.range(table.get(layout.S2_NCPUS)) as n:
        tlbi.on(fn.pointer((cpus + (n << 3)).get(0)), kind, xt)
