"""Guest memory accesses off the fast path, and the pages of op records.

`mem_access` is what a slow handler calls: it checks alignment, walks, applies stage 2, refills the
software TLB and gives a host pointer. An access that crosses a page goes through a 64-byte bounce
buffer that `mem_commit` writes back. A page that holds decoded records never has a write entry in
any TLB: a write to it comes here and drops the records first. Device memory, and everything while
SCTLR_EL1.A is set, never gets an entry either: alignment is checked here.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.interp.handler import (
    ACCESS_CACHE,
    ACCESS_UNPRIV,
    ACCESS_WRITE,
    ACCESS_ZERO,
    ALIGN_SHIFT,
    ELEMENT_SHIFT,
)
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import bit, cpu_array, field_at, native, param, set_field_at, stage2
from armkvm.engine.native.walk import ALIGNMENT, WALK_EL0, WALK_WRITE
from armkvm.isa.value import Value

NO_FAULT, STAGE1, STAGE2 = 0, 1, 2  # fault_kind


def build() -> None:
    """Enter the native functions of this file."""
    _translate_page()
    _mem_access()
    _mem_commit()
    _drop_records()
    _purge_writes()
    _code_page()


def data_entry(fn: Function, tlb: Value, va: Value) -> str:
    """Pointer to the data TLB entry of an address."""
    index = va.lshr(12) & (layout.DTLB_ENTRIES - 1)
    return fn.pointer(tlb + index * layout.DTLB_ENTRY)


def _translate_page() -> None:
    """The host address of va for an access that stays in its page; 0 and fault_* on a fault."""
    with native("translate_page", "i64 %va, i64 %flags", ret="i64") as fn:
        va, flags = param(fn, "va"), param(fn, "flags")
        write = (flags & ACCESS_WRITE).ne(0)
        el0 = fn.get("el").eq(0) | (flags & ACCESS_UNPRIV).ne(0)
        how = write.zext("i64") * WALK_WRITE | el0.zext("i64") * WALK_EL0
        status = fn.call("walk", "i64", "ptr %cpu", va, how)
        fn.put("fault_va", va)
        with fn.if_(status.ne(0)):
            fn.put("fault_kind", STAGE1)
            fn.put("fault_status", status & 0x3F)
            fn.ret(0)
        device = fn.get("walk_attr").ne(0)
        cache = (flags & ACCESS_CACHE).ne(0)
        checked = device | bit(fn.get("sctlr_el1"), 1).ne(0)
        misaligned = (va & (flags.lshr(ELEMENT_SHIFT) - 1)).ne(0)
        with fn.if_(device & (misaligned | (flags & ACCESS_ZERO).ne(0))):
            fn.put("fault_kind", STAGE1)
            fn.put("fault_status", ALIGNMENT)
            fn.ret(0)
        ipa = fn.get("walk_ipa")
        seg = fn.call("segment", "ptr", "ptr %cpu", ipa)
        absent = fn.value("i1", f"icmp eq ptr {seg.ref}, null")
        with fn.if_(absent & cache):
            fn.ret(cpu_array(fn, layout.BOUNCE))
        with fn.if_(absent):
            _stage2_fault(fn, ipa, va)
        seg_flags = field_at(fn, seg.ref, layout.SEG_FLAGS)
        write = write & ~cache  # DC IVAC wants the permission and leaves the data alone
        with fn.if_(write & (seg_flags & layout.SEG_READONLY).ne(0)):
            _stage2_fault(fn, ipa, va)
        offset = ipa - field_at(fn, seg.ref, layout.SEG_IPA)
        host = field_at(fn, seg.ref, layout.SEG_HOST) + offset
        with fn.if_(write):
            codemap = field_at(fn, seg.ref, layout.SEG_CODEMAP)
            page = field_at(fn, fn.pointer(codemap + offset.lshr(12 - 3)), 0)
            with fn.if_(page.ne(0)):
                fn.line(f"call void @drop_records(ptr %cpu, i64 {page.ref})")
            with fn.if_((seg_flags & layout.SEG_LOGGED).ne(0)):
                log = fn.pointer(field_at(fn, seg.ref, layout.SEG_LOG) + offset.lshr(15))
                mask = fn.const("i8", 1) << (offset.lshr(12) & 7).trunc("i8")
                fn.store_at(log, fn.load_at(log, "i8") | mask)
        with fn.if_(~checked & ~cache):
            _refill(fn, va, host, write, el0)
        fn.ret(host | (va & 4095))


def _stage2_fault(fn: Function, ipa: Value, va: Value) -> None:
    fn.put("fault_kind", STAGE2)
    fn.put("fault_ipa", ipa | (va & 4095))
    fn.ret(0)


def _refill(fn: Function, va: Value, host: Value, write: Value, el0: Value) -> None:
    """Enter va -> host in the TLB of the regime. Writes imply reads; reads keep a write tag,
    but never one that an earlier walk gave for another page."""
    tag, addend = va & layout.PAGE_MASK, host - (va & layout.PAGE_MASK)
    tlb = fn.select(el0, fn.get("dtlb_el0"), cpu_array(fn, layout.DTLB_EL1))
    entry = data_entry(fn, tlb, va)
    same = field_at(fn, entry, 0).eq(tag) & field_at(fn, entry, 16).eq(addend)
    old = fn.select(same, field_at(fn, entry, 8), layout.NO_TAG)
    set_field_at(fn, entry, 0, tag)
    set_field_at(fn, entry, 8, fn.select(write, tag, old))
    set_field_at(fn, entry, 16, addend)
    shift = fn.get("walk_shift")
    set_field_at(fn, entry, 24, shift)
    note_entry(fn, va, el0, shift)


def note_entry(fn: Function, va: Value, el0: Value, shift: Value) -> None:
    """Remember what a later TLB maintenance operation has to know about the entries."""
    low = bit(va, 55).eq(0)
    with fn.if_(~el0 & (low | fn.get("walk_ng").ne(0))):
        fn.put("el1_low", 1)
    with fn.if_(el0 & ~low):
        fn.put("el0_high", 1)
    with fn.if_(shift.ugt(12)):
        with fn.if_(el0):
            fn.put("el0_blocks", 1)
        with fn.unless(el0):
            fn.put("el1_blocks", 1)


def _mem_access() -> None:
    """A host pointer for `flags & 0xff` bytes at va (see handler.py for the flags), or null."""
    with native("mem_access", "i64 %va, i64 %flags", ret="ptr") as fn:
        va, flags = param(fn, "va"), param(fn, "flags")
        fn.put("access", flags)
        # AArch64.CheckAlignment comes before the translation.
        align = (flags.lshr(ALIGN_SHIFT) & 0xFF) - 1
        checked = bit(fn.get("sctlr_el1"), 1).ne(0)
        align = align | fn.select(checked, flags.lshr(ELEMENT_SHIFT) - 1, 0)
        with fn.if_((va & align).ne(0)):
            fn.put("fault_va", va)
            fn.put("fault_kind", STAGE1)
            fn.put("fault_status", ALIGNMENT)
            fn.line("ret ptr null")
            fn.ended = True
        first = fn.call("translate_page", "i64", "ptr %cpu", va, flags)
        room = fn.const("i64", 4096) - (va & 4095)
        size = flags & 0xFF
        with fn.if_(first.eq(0) | size.ule(room)):
            fn.line(f"ret ptr {fn.pointer(first)}")
            fn.ended = True
        second_va = va + room
        second = fn.call("translate_page", "i64", "ptr %cpu", second_va, flags)
        with fn.if_(second.eq(0)):
            fn.line("ret ptr null")
            fn.ended = True
        bounce = fn.gep("%cpu", layout.BOUNCE)
        copy_bytes(fn, bounce, fn.pointer(first), room)
        copy_bytes(fn, fn.gep(bounce, room), fn.pointer(second), size - room)
        with fn.if_((flags & ACCESS_WRITE).ne(0)):
            fn.put("bounce_host0", first)
            fn.put("bounce_host1", second)
            fn.put("bounce_split", room)
            fn.put("bounce_size", size)
        fn.line(f"ret ptr {bounce}")
        fn.ended = True


def copy_bytes(fn: Function, to: str, source: str, n: Value) -> None:
    """memmove of n bytes."""
    fn.line(f"call void @llvm.memmove.p0.p0.i64(ptr {to}, ptr {source}, i64 {n.ref}, i1 false)")


def _mem_commit() -> None:
    """End of a written span: a bounced access goes to memory."""
    with native("mem_commit", "") as fn:
        size = fn.get("bounce_size")
        with fn.if_(size.ne(0)):
            split = fn.get("bounce_split")
            bounce = fn.gep("%cpu", layout.BOUNCE)
            copy_bytes(fn, fn.pointer(fn.get("bounce_host0")), bounce, split)
            second = fn.pointer(fn.get("bounce_host1"))
            copy_bytes(fn, second, fn.gep(bounce, split), size - split)
            fn.put("bounce_size", 0)


def _drop_records() -> None:
    """Forget the decoded records of a page (given by address): its code is about to change."""
    with native("drop_records", "i64 %page") as fn:
        page = fn.pointer(param(fn, "page"))
        with fn.if_(field_at(fn, page, layout.META_LIVE).ne(0)):
            reset_records(fn, page)


def reset_records(fn: Function, page: str) -> None:
    """All records of a page undecoded, and its sentinel."""
    with fn.range(1024) as i:
        at = fn.gep(page, i << layout.RECORD_SHIFT)
        fn.line(f"store ptr @undecoded, ptr {at}, align 8")
    fn.line(f"store ptr @page_end, ptr {fn.gep(page, 1024 * layout.RECORD)}, align 8")
    set_field_at(fn, page, layout.META_LIVE, 0)


def _purge_writes() -> None:
    """The page of records is about to decode: no CPU may write its memory behind our back."""
    with native("make_live", "ptr %page") as fn:
        with fn.unless(field_at(fn, "%page", layout.META_LIVE).eq(0)):
            fn.ret()
        set_field_at(fn, "%page", layout.META_LIVE, 1)
        fn.line("call void @purge_writes(ptr %cpu, ptr %page)")
    with native("purge_writes", "ptr %page") as fn:
        host = field_at(fn, "%page", layout.META_CODE)
        table = stage2(fn)
        cpus = fn.gep(table, layout.S2_CPU_LIST)
        with fn.range(field_at(fn, table, layout.S2_NCPUS)) as n:
            other = fn.pointer(field_at(fn, fn.gep(cpus, n << 3), 0))
            entries = fn.gep(other, layout.DTLB_EL1)
            with fn.range(layout.DTLB_ENTRIES * (1 + layout.CONTEXTS)) as i:
                entry = fn.gep(entries, i * layout.DTLB_ENTRY)
                tag = field_at(fn, entry, 8)
                with fn.if_((tag + field_at(fn, entry, 16)).eq(host)):
                    set_field_at(fn, entry, 8, layout.NO_TAG)


def _code_page() -> None:
    """The page of records for the code at an IPA in a segment; 0 when the arena is full."""
    with native("code_page", "ptr %seg, i64 %ipa", ret="i64") as fn:
        offset = param(fn, "ipa") - field_at(fn, "%seg", layout.SEG_IPA)
        slot = fn.pointer(field_at(fn, "%seg", layout.SEG_CODEMAP) + offset.lshr(12 - 3))
        page = field_at(fn, slot, 0)
        with fn.if_(page.ne(0)):
            fn.ret(page)
        table = stage2(fn)
        fresh = field_at(fn, table, layout.S2_ARENA)
        after = fresh + layout.PAGE_STRIDE
        with fn.if_(after.ugt(field_at(fn, table, layout.S2_ARENA_END))):
            fn.ret(0)
        set_field_at(fn, table, layout.S2_ARENA, after)
        at = fn.pointer(fresh)
        set_field_at(fn, at, layout.META_CODE, field_at(fn, "%seg", layout.SEG_HOST) + offset)
        set_field_at(fn, at, layout.META_IPA, param(fn, "ipa"))
        reset_records(fn, at)
        set_field_at(fn, slot, 0, fresh)
        fn.ret(fresh)
