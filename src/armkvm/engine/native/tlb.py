"""The software TLBs: contexts, flushing, and TLB maintenance (Arm ARM D8.14).

EL1 has one data and one instruction TLB. EL0 has a pair for each of the last few address spaces
(TTBR0_EL1's base and the ASID), so that a context switch moves two pointers. By-address operations
ignore the ASID and go to every pair: invalidating more than was asked is always allowed.
"""

from __future__ import annotations

from armkvm.arch.sysreg import TLBI_ALL, TLBI_ASID
from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import bit, cpu_array, field_at, native, param, set_field_at, stage2
from armkvm.isa.value import Value

_D, _I = layout.DTLB_SIZE, layout.ITLB_SIZE


def build() -> None:
    """Enter the native functions of this file."""
    with native("flush_array", "i64 %array, i64 %entries") as fn:
        with fn.range(param(fn, "entries")) as i:
            entry = fn.pointer(param(fn, "array") + i * 32)
            set_field_at(fn, entry, 0, layout.NO_TAG)
            set_field_at(fn, entry, 8, layout.NO_TAG)
    with native("flush_el1", "") as fn:
        _flush(fn, cpu_array(fn, layout.DTLB_EL1), cpu_array(fn, layout.ITLB_EL1))
        fn.put("el1_low", 0)
        fn.put("el1_blocks", 0)
    with native("flush_context", "i64 %n") as fn:
        n = param(fn, "n")
        _flush(fn, cpu_array(fn, layout.DTLB_EL0) + n * _D, cpu_array(fn, layout.ITLB_EL0) + n * _I)
    with native("flush_all", "", public=True) as fn:
        fn.line("call void @flush_el1(ptr %cpu)")
        with fn.range(layout.CONTEXTS) as i:
            fn.line(f"call void @flush_context(ptr %cpu, i64 {i.ref})")
        fn.put("el0_blocks", 0)
        fn.put("el0_high", 0)
        fn.put("ic_host", 0)
    _set_context()
    _drop_address()
    _tlbi()


def _flush(fn: Function, data: Value, code: Value) -> None:
    fn.line(f"call void @flush_array(ptr %cpu, i64 {data.ref}, i64 {layout.DTLB_ENTRIES})")
    fn.line(f"call void @flush_array(ptr %cpu, i64 {code.ref}, i64 {layout.ITLB_ENTRIES})")


def current_key(fn: Function) -> Value:
    """TTBR0's table and the current ASID (TTBR1's where TCR_EL1.A1 says so; 8 bits without AS)."""
    ttbr0, tcr = fn.get("ttbr0_el1"), fn.get("tcr_el1")
    holder = fn.select(bit(tcr, 22).ne(0), fn.get("ttbr1_el1"), ttbr0)
    asid = holder.lshr(48)
    asid = fn.select(bit(tcr, 36).ne(0), asid, asid & 0xFF)
    return ttbr0 & 0x0000_FFFF_FFFF_FFFE | asid << 48


def _set_context() -> None:
    """Make the EL0 TLBs those of the current address space."""
    with native("set_context", "", public=True) as fn:
        key = current_key(fn)
        # What EL1 holds of the lower half, or not-global, belonged to the address space before.
        with fn.if_(fn.get("el1_low").ne(0)):
            fn.line("call void @flush_el1(ptr %cpu)")
        chosen = fn.var("i64", layout.CONTEXTS)
        keys = fn.gep("%cpu", layout.CONTEXT_KEYS)
        with fn.range(layout.CONTEXTS) as i:
            with fn.if_(field_at(fn, fn.gep(keys, i << 3), 0).eq(key)):
                chosen.set(i)
        with fn.if_(chosen.get().eq(layout.CONTEXTS)):
            victim = fn.get("next_context")
            fn.put("next_context", (victim + 1) & (layout.CONTEXTS - 1))
            chosen.set(victim)
            set_field_at(fn, fn.gep(keys, victim << 3), 0, key)
            fn.line(f"call void @flush_context(ptr %cpu, i64 {victim.ref})")
        n = chosen.get()
        fn.put("context", n)
        fn.put("dtlb_el0", cpu_array(fn, layout.DTLB_EL0) + n * _D)
        fn.put("itlb_el0", cpu_array(fn, layout.ITLB_EL0) + n * _I)
        with fn.if_(fn.get("el").eq(0)):
            fn.put("dtlb", fn.get("dtlb_el0"))
            fn.put("itlb", fn.get("itlb_el0"))


def _drop_address() -> None:
    """Drop va (bits [55:12]) from one pair of TLBs; `blocks`: some entries are of larger blocks."""
    with native("drop_address", "i64 %data, i64 %code, i64 %va, i64 %blocks") as fn:
        va = param(fn, "va")

        def drop(array: Value, i: Value) -> None:
            entry = fn.pointer(array + i * 32)
            shift = field_at(fn, entry, 24)
            # Bits [63:56] are a tag where TBI is on, and are not compared.
            with fn.if_(((field_at(fn, entry, 0) ^ va) << 8).lshr(8).lshr(shift & 63).eq(0)):
                set_field_at(fn, entry, 0, layout.NO_TAG)
                set_field_at(fn, entry, 8, layout.NO_TAG)

        with fn.if_(param(fn, "blocks").eq(0)):
            index = va.lshr(12) & (layout.DTLB_ENTRIES - 1)
            drop(param(fn, "data"), index)
            drop(param(fn, "code"), va.lshr(12) & (layout.ITLB_ENTRIES - 1))
            fn.ret()
        with fn.range(layout.DTLB_ENTRIES) as i:
            drop(param(fn, "data"), i)
        with fn.range(layout.ITLB_ENTRIES) as i:
            drop(param(fn, "code"), i)


def _tlbi() -> None:
    """TLBI: kind, and the operand register of the instruction. `tlbi_shared`: on every CPU of
    the VM, which stand still meanwhile (virtual CPUs take turns)."""
    with native("tlbi_shared", "i64 %kind, i64 %xt") as fn:
        table = stage2(fn)
        cpus = fn.gep(table, layout.S2_CPU_LIST)
        with fn.range(field_at(fn, table, layout.S2_NCPUS)) as n:
            cpu = fn.pointer(field_at(fn, fn.gep(cpus, n << 3), 0))
            fn.line(f"call void @tlbi(ptr {cpu}, i64 %kind, i64 %xt)")
    with native("tlbi", "i64 %kind, i64 %xt") as fn:
        kind, xt = param(fn, "kind"), param(fn, "xt")
        with fn.if_(kind.eq(TLBI_ALL)):
            fn.line("call void @flush_all(ptr %cpu)")
            fn.ret()
        keys = fn.gep("%cpu", layout.CONTEXT_KEYS)
        with fn.if_(kind.eq(TLBI_ASID)):
            asid = xt.lshr(48)
            asid = fn.select(bit(fn.get("tcr_el1"), 36).ne(0), asid, asid & 0xFF)
            with fn.range(layout.CONTEXTS) as i:
                with fn.if_(field_at(fn, fn.gep(keys, i << 3), 0).lshr(48).eq(asid)):
                    fn.line(f"call void @flush_context(ptr %cpu, i64 {i.ref})")
            with fn.if_(fn.get("el1_low").ne(0)):
                fn.line("call void @flush_el1(ptr %cpu)")
            fn.ret()
        va = (xt << 20).ashr(8)  # bits [55:12] of the address
        call = "call void @drop_address(ptr %cpu, "
        data, code = cpu_array(fn, layout.DTLB_EL1), cpu_array(fn, layout.ITLB_EL1)
        blocks = fn.get("el1_blocks")
        fn.line(f"{call}i64 {data.ref}, i64 {code.ref}, i64 {va.ref}, i64 {blocks.ref})")
        blocks = fn.get("el0_blocks")
        el0_too = bit(va, 55).eq(0) | fn.get("el0_high").ne(0)
        with fn.if_(el0_too), fn.range(layout.CONTEXTS) as i:
            data = cpu_array(fn, layout.DTLB_EL0) + i * _D
            code = cpu_array(fn, layout.ITLB_EL0) + i * _I
            fn.line(f"{call}i64 {data.ref}, i64 {code.ref}, i64 {va.ref}, i64 {blocks.ref})")
