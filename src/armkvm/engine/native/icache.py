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
from armkvm.engine.llvm.code import Code, Routine, routine
from armkvm.engine.llvm.ir import Function, Pointer
from armkvm.engine.llvm.native import exported, native
from armkvm.engine.native.walk import stage2
from armkvm.isa.value import Value

_GOLDEN = 0x9E37_79B9_7F4A_7C15 - (1 << 64)  # 2**64 / phi: spreads neighbouring pages

undecoded = Routine("undecoded")  # interp/decoder.py: the handler of every fresh record
page_end = Routine("page_end")  # native/control.py: the sentinel behind a page's records


@native
def page_entry(fn: Function, host: Value) -> Pointer:
    """The entry of a host page in the table of record pages: its own, or a free one for it."""
    table = stage2(fn)
    entries = fn.pointer(table.get(layout.S2_PAGES))
    shift = table.get(layout.S2_PAGES_SHIFT)
    i = fn.var("i64", (host.lshr(12) * _GOLDEN).lshr(shift))
    with fn.loop():
        entry = entries + i.get() * layout.PAGES_ENTRY
        key = entry.get(0)
        with fn.if_(key.eq(host) | key.eq(0)):
            fn.ret(entry)
        i.set((i.get() + 1) & fn.i64(-1).lshr(shift))
    return fn.null()  # not reached


@native
def code_page(fn: Function, host: Value) -> Value:
    """The page of records for a host page; 0 when the arena is full."""
    entry = page_entry(fn, host)
    page = entry.get(8)
    with fn.if_(page.ne(0)):
        fn.ret(page)
    table = stage2(fn)
    fresh = table.get(layout.S2_ARENA_NEXT)
    after = fresh + layout.PAGE_STRIDE
    with fn.if_(after.ugt(table.get(layout.S2_ARENA_END))):
        fn.ret(0)
    table.put(layout.S2_ARENA_NEXT, after)
    at = fn.pointer(fresh)
    at.put(layout.META_CODE, host)
    at.put(layout.META_WORDS, fresh + layout.PAGE_WORDS)
    _reset_records(fn, at)
    entry.put(0, host)
    entry.put(8, fresh)
    return fresh


def _reset_records(fn: Function, page: Pointer) -> None:
    """All records of a page undecoded, and its sentinel."""
    with fn.range(1024) as i:
        (page + (i << layout.RECORD_SHIFT)).store_pointer(undecoded)
    (page + 1024 * layout.RECORD).store_pointer(page_end)
    page.put(layout.META_LIVE, 0)


@native
def make_live(fn: Function, page: Pointer) -> None:
    """The page of records is about to decode: from now on no CPU writes its memory unseen."""
    with fn.unless(page.get(layout.META_LIVE).eq(0)):
        fn.ret()
    page.put(layout.META_LIVE, 1)
    purge_writes(fn, page)
    memory = fn.pointer(page.get(layout.META_CODE))
    copy_bytes(fn, page + layout.PAGE_WORDS, memory, fn.i64(4096))


@native
def purge_writes(fn: Function, page: Pointer) -> None:
    """No TLB of the VM has a write entry for the memory of a page of records."""
    host = page.get(layout.META_CODE)
    table = stage2(fn)
    cpus = table + layout.S2_CPU_LIST
    with fn.range(table.get(layout.S2_NCPUS)) as n:
        other = fn.pointer((cpus + (n << 3)).get(0))
        other.put(layout.OFFSET["ic_host"], 0)
        entries = other + layout.DTLB_EL1
        with fn.range(layout.DTLB_ENTRIES * (1 + layout.CONTEXTS)) as i:
            entry = entries + i * layout.DTLB_ENTRY
            tag = entry.get(8)
            with fn.if_((tag + entry.get(16)).eq(host)):
                entry.put(8, layout.NO_TAG)


def copy_bytes(fn: Function, to: Pointer, source: Pointer, n: Value) -> None:
    """memmove of n bytes."""
    fn.intrinsic("llvm.memmove.p0.p0.i64", "void", to, source, n, False)


@native
def drop_page(fn: Function, host: Value) -> None:
    """Forget what was decoded of a host page: its code is about to change, or has changed."""
    page = page_entry(fn, host).get(8)
    with fn.if_(page.ne(0)):
        drop_records(fn, page)


@native
def drop_records(fn: Function, page: Value) -> None:
    """Forget what a page of records has decoded."""
    records = fn.pointer(page)
    with fn.if_(records.get(layout.META_LIVE).ne(0)):
        _reset_records(fn, records)


@exported
def drop_range(fn: Function, host: Value, size: Value) -> None:
    """drop_page for whole pages of host memory; all of it is 0 and -1.

    By the pages asked for or by those that have records, whichever are fewer.
    """
    table = stage2(fn)
    first = table.get(layout.S2_ARENA)
    used = table.get(layout.S2_ARENA_NEXT) - first
    with fn.if_(size.lshr(12).ult(used.udiv(layout.PAGE_STRIDE))):
        with fn.range(size.lshr(12)) as i:
            drop_page(fn, host + (i << 12))
        fn.ret()
    at = fn.var("i64", 0)
    with fn.loop() as loop:
        loop.break_if(at.get().uge(used))
        page = first + at.get()
        code = fn.pointer(page).get(layout.META_CODE)
        with fn.if_((code - host).ult(size)):
            drop_records(fn, page)
        at.set(at.get() + layout.PAGE_STRIDE)


@routine
def ic_iallu(fn: Code) -> None:
    """IC IALLU and IC IALLUIS."""
    drop_range(fn, fn.i64(0), fn.i64(-1))
