"""The instruction cache: pages of op records, and when they are dropped.

A page of records stands for a guest page that was executed, as a line of a physically tagged cache
would: it keeps a copy of the instructions, taken when the first of them is decoded, and everything
that decodes reads the copy. What a guest executes thus depends on what it did and not on where a
run is cut, whoever else writes that memory. Records are found by the page's host address, so two
guest addresses of one page share them.

They are dropped by IC IVAU, by IC IALLU and IALLUIS, and by the VM's own stores: a page with
decoded records has no write entry in any TLB of the VM, so a store to it comes to
engine/native/memory.py first. Stores from elsewhere (another VM, a thread, a process) are seen
after cache maintenance, as CTR_EL0.DIC = 0 says.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import field_at, native, param, routine, set_field_at, stage2
from armkvm.isa.value import Value

_GOLDEN = 0x9E37_79B9_7F4A_7C15 - (1 << 64)  # 2**64 / phi: spreads neighbouring pages


def build() -> None:
    """Enter the native functions of this file."""
    _page_entry()
    _code_page()
    _make_live()
    _drop_page()
    _drop_range()
    with routine("ic_iallu") as fn:
        fn.line("call void @drop_range(ptr %cpu, i64 0, i64 -1)")
        fn.next()


def _page_entry() -> None:
    """The entry of a host page in the table of record pages: its own, or a free one for it."""
    with native("page_entry", "i64 %host", ret="ptr") as fn:
        host, table = param(fn, "host"), stage2(fn)
        entries = fn.pointer(field_at(fn, table, layout.S2_PAGES))
        shift = field_at(fn, table, layout.S2_PAGES_SHIFT)
        i = fn.var("i64", (host.lshr(12) * _GOLDEN).lshr(shift))
        with fn.loop():
            entry = fn.gep(entries, i.get() * layout.PAGES_ENTRY)
            key = field_at(fn, entry, 0)
            with fn.if_(key.eq(host) | key.eq(0)):
                fn.line(f"ret ptr {entry}")
                fn.ended = True
            i.set((i.get() + 1) & fn.const("i64", -1).lshr(shift))


def _code_page() -> None:
    """The page of records for a host page; 0 when the arena is full."""
    with native("code_page", "i64 %host", ret="i64") as fn:
        entry = fn.call("page_entry", "ptr", "ptr %cpu", param(fn, "host")).ref
        page = field_at(fn, entry, 8)
        with fn.if_(page.ne(0)):
            fn.ret(page)
        table = stage2(fn)
        fresh = field_at(fn, table, layout.S2_ARENA_NEXT)
        after = fresh + layout.PAGE_STRIDE
        with fn.if_(after.ugt(field_at(fn, table, layout.S2_ARENA_END))):
            fn.ret(0)
        set_field_at(fn, table, layout.S2_ARENA_NEXT, after)
        at = fn.pointer(fresh)
        set_field_at(fn, at, layout.META_CODE, param(fn, "host"))
        set_field_at(fn, at, layout.META_WORDS, fresh + layout.PAGE_WORDS)
        _reset_records(fn, at)
        set_field_at(fn, entry, 0, param(fn, "host"))
        set_field_at(fn, entry, 8, fresh)
        fn.ret(fresh)


def _reset_records(fn: Function, page: str) -> None:
    """All records of a page undecoded, and its sentinel."""
    with fn.range(1024) as i:
        at = fn.gep(page, i << layout.RECORD_SHIFT)
        fn.line(f"store ptr @undecoded, ptr {at}, align 8")
    fn.line(f"store ptr @page_end, ptr {fn.gep(page, 1024 * layout.RECORD)}, align 8")
    set_field_at(fn, page, layout.META_LIVE, 0)


def _make_live() -> None:
    """The page of records is about to decode: from now on no CPU writes its memory unseen."""
    with native("make_live", "ptr %page") as fn:
        with fn.unless(field_at(fn, "%page", layout.META_LIVE).eq(0)):
            fn.ret()
        set_field_at(fn, "%page", layout.META_LIVE, 1)
        fn.line("call void @purge_writes(ptr %cpu, ptr %page)")
        words = fn.gep("%page", layout.PAGE_WORDS)
        memory = fn.pointer(field_at(fn, "%page", layout.META_CODE))
        copy_bytes(fn, words, memory, fn.const("i64", 4096))
    with native("purge_writes", "ptr %page") as fn:
        host = field_at(fn, "%page", layout.META_CODE)
        table = stage2(fn)
        cpus = fn.gep(table, layout.S2_CPU_LIST)
        with fn.range(field_at(fn, table, layout.S2_NCPUS)) as n:
            other = fn.pointer(field_at(fn, fn.gep(cpus, n << 3), 0))
            set_field_at(fn, other, layout.OFFSET["ic_host"], 0)
            entries = fn.gep(other, layout.DTLB_EL1)
            with fn.range(layout.DTLB_ENTRIES * (1 + layout.CONTEXTS)) as i:
                entry = fn.gep(entries, i * layout.DTLB_ENTRY)
                tag = field_at(fn, entry, 8)
                with fn.if_((tag + field_at(fn, entry, 16)).eq(host)):
                    set_field_at(fn, entry, 8, layout.NO_TAG)


def copy_bytes(fn: Function, to: str, source: str, n: Value) -> None:
    """memmove of n bytes."""
    fn.line(f"call void @llvm.memmove.p0.p0.i64(ptr {to}, ptr {source}, i64 {n.ref}, i1 false)")


def _drop_page() -> None:
    """Forget what was decoded of a host page: its code is about to change, or has changed."""
    with native("drop_page", "i64 %host") as fn:
        entry = fn.call("page_entry", "ptr", "ptr %cpu", param(fn, "host")).ref
        page = field_at(fn, entry, 8)
        with fn.if_(page.ne(0)):
            fn.call("drop_records", "void", "ptr %cpu", page)
    with native("drop_records", "i64 %page") as fn:
        records = fn.pointer(param(fn, "page"))
        with fn.if_(field_at(fn, records, layout.META_LIVE).ne(0)):
            _reset_records(fn, records)


def _drop_range() -> None:
    """drop_page for whole pages of host memory; all of it is 0 and -1.

    By the pages asked for or by those that have records, whichever are fewer.
    """
    with native("drop_range", "i64 %host, i64 %size", public=True) as fn:
        host, size, table = param(fn, "host"), param(fn, "size"), stage2(fn)
        first = field_at(fn, table, layout.S2_ARENA)
        used = field_at(fn, table, layout.S2_ARENA_NEXT) - first
        with fn.if_(size.lshr(12).ult(used.udiv(layout.PAGE_STRIDE))):
            with fn.range(size.lshr(12)) as i:
                fn.call("drop_page", "void", "ptr %cpu", host + (i << 12))
            fn.ret()
        at = fn.var("i64", 0)
        with fn.loop() as loop:
            loop.break_if(at.get().uge(used))
            page = first + at.get()
            code = field_at(fn, fn.pointer(page), layout.META_CODE)
            with fn.if_((code - host).ult(size)):
                fn.call("drop_records", "void", "ptr %cpu", page)
            at.set(at.get() + layout.PAGE_STRIDE)
