"""Guest memory accesses off the fast path.

`mem_access` is what a slow handler calls: it checks alignment, walks, applies stage 2, refills the
software TLB and gives a host pointer. An access that crosses a page goes through a 64-byte bounce
buffer that `mem_commit` writes back. A page that holds decoded records never has a write entry in
any TLB: a write to it comes here and drops the records first (icache.py). Device memory, and
everything while SCTLR_EL1.A is set, never gets an entry either: alignment is checked here. Nor does
a page what is watched of it: watchpoints (debug.py) are compared here, behind all faults of the
access and before anything comes of it (D1.3, Prioritization of Synchronous exceptions).
"""

from __future__ import annotations

from armkvm.arch.debug import LSC_LOAD, LSC_STORE
from armkvm.arch.esr import DABT_CM, DABT_WNR, FSC_ALIGNMENT, FSC_DEBUG, FSC_MASK
from armkvm.arch.sysreg import DCZID_BS
from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function, Pointer, bit, flag
from armkvm.engine.llvm.native import native
from armkvm.engine.native.debug import watched_page, watchpoint_match
from armkvm.engine.native.icache import copy_bytes, drop_page
from armkvm.engine.native.walk import WALK_EL0, WALK_WRITE, host_of, segment, walk
from armkvm.isa.value import Value

# What an access is, beside its size in the lowest byte; ZERO is DC ZVA.
ACCESS_WRITE, ACCESS_UNPRIV, ACCESS_CACHE, ACCESS_ZERO = 1 << 8, 1 << 9, 1 << 10, 1 << 11
ACCESS_ICACHE = 1 << 12  # with CACHE: what was fetched from there is dropped
ACCESS_ATOMIC = 1 << 13  # a read-modify-write
ALIGN_SHIFT, ELEMENT_SHIFT = 16, 24  # required alignment; element size, for Device and SCTLR.A

NO_FAULT, STAGE1, STAGE2, WATCHPOINT = 0, 1, 2, 3  # fault_kind

ZERO_BLOCK = 4 << DCZID_BS  # bytes that DC ZVA clears; DC IVAC has a line, as many (CTR_EL0)


@native
def translate_page(fn: Function, va: Value, flags: Value) -> Value:
    """The host address of va for an access that stays in its page; 0 and fault_* on a fault."""
    write = (flags & ACCESS_WRITE).ne(0)
    el0 = fn.get("el").eq(0) | (flags & ACCESS_UNPRIV).ne(0)
    how = write.zext("i64") * WALK_WRITE | el0.zext("i64") * WALK_EL0
    status = walk(fn, va, how)
    fn.put("fault_va", va)
    with fn.if_(status.ne(0)):
        fn.put("fault_kind", STAGE1)
        fn.put("fault_status", status & FSC_MASK)
        fn.ret(0)
    device = fn.get("walk_attr").ne(0)
    cache = (flags & ACCESS_CACHE).ne(0)
    checked = device | bit(fn.get("sctlr_el1"), 1).ne(0)
    misaligned = (va & (flags.lshr(ELEMENT_SHIFT) - 1)).ne(0)
    with fn.if_(device & (misaligned | (flags & ACCESS_ZERO).ne(0))):
        fn.put("fault_kind", STAGE1)
        fn.put("fault_status", FSC_ALIGNMENT)
        fn.ret(0)
    ipa = fn.get("walk_ipa")
    seg = segment(fn, ipa)
    absent = seg.is_null()
    with fn.if_(absent & cache):
        fn.ret((fn.cpu + layout.BOUNCE).address())
    with fn.if_(absent):
        _stage2_fault(fn, ipa, va)
    seg_flags = seg.get(layout.SEG_FLAGS)
    write = write & ~cache  # DC IVAC wants the permission and leaves the data alone
    with fn.if_(write & (seg_flags & layout.SEG_READONLY).ne(0)):
        _stage2_fault(fn, ipa, va)
    watched = fn.var("i64", 0)
    with fn.if_(fn.get("watching").ne(0)):
        watched.set(watched_page(fn, va, el0.zext("i64")))
        with fn.if_(watched.get().ne(0)):
            with fn.if_(check_watchpoints(fn, va, flags).ne(0)):
                fn.ret(0)
    host = host_of(seg, ipa)
    code = (flags & ACCESS_ICACHE).ne(0)
    with fn.if_(write | code):
        drop_page(fn, host)
    with fn.if_(code):
        fn.put("ic_host", host)
    with fn.if_(write):
        offset = ipa - seg.get(layout.SEG_IPA)
        with fn.if_((seg_flags & layout.SEG_LOGGED).ne(0)):
            log = fn.pointer(seg.get(layout.SEG_LOG) + offset.lshr(15))
            mask = fn.const("i8", 1) << (offset.lshr(12) & 7).trunc("i8")
            log.store(log.load("i8") | mask)
    # A store that is watched leaves loads their entry; an atomic access looks at the tag for
    # writes alone, so where loads are watched there is none.
    fast = ~flag(watched.get(), LSC_LOAD)
    with fn.if_(~checked & ~cache & fast):
        _refill(fn, va, host, write & ~flag(watched.get(), LSC_STORE), el0)
    return host | (va & 4095)


@native
def check_watchpoints(fn: Function, va: Value, flags: Value) -> Value:
    """1, fault_* if a watchpoint matches what an access touches of the page at va."""
    el0 = (fn.get("el").eq(0) | flag(flags, ACCESS_UNPRIV)).zext("i64")
    write, cache = flag(flags, ACCESS_WRITE), flag(flags, ACCESS_CACHE)
    block = cache | flag(flags, ACCESS_ZERO)
    first = fn.select(block, va & -ZERO_BLOCK, va)
    room = fn.i64(4096) - (va & 4095)
    size = flags & 0xFF
    size = fn.select(block, ZERO_BLOCK, fn.select(size.ult(room), size, room))

    def check(kind: int, iss: Value) -> None:
        with fn.if_(watchpoint_match(fn, first, size, el0, fn.i64(kind)).ne(0)):
            fn.put("fault_kind", WATCHPOINT)
            fn.put("fault_status", iss | FSC_DEBUG)
            fn.ret(1)

    # Of the maintenance of caches only DC IVAC counts, as a store (D2.9.6). An atomic access that a
    # watchpoint for loads matches is reported as one, else as a store.
    with fn.if_((~write | flag(flags, ACCESS_ATOMIC)) & ~cache):
        check(LSC_LOAD, fn.i64(0))
    with fn.if_(write):
        check(LSC_STORE, cache.zext("i64") * DABT_CM | DABT_WNR)
    return fn.i64(0)


def _stage2_fault(fn: Function, ipa: Value, va: Value) -> None:
    fn.put("fault_kind", STAGE2)
    fn.put("fault_ipa", ipa | (va & 4095))
    fn.ret(0)


def _refill(fn: Function, va: Value, host: Value, write: Value, el0: Value) -> None:
    """Enter va -> host in the TLB of the regime. Writes imply reads; reads keep a write tag,
    but never one that an earlier walk gave for another page."""
    tag, addend = va & layout.PAGE_MASK, host - (va & layout.PAGE_MASK)
    tlb = fn.select(el0, fn.get("dtlb_el0"), (fn.cpu + layout.DTLB_EL1).address())
    index = va.lshr(12) & (layout.DTLB_ENTRIES - 1)
    entry = fn.pointer(tlb + index * layout.DTLB_ENTRY)
    same = entry.get(0).eq(tag) & entry.get(16).eq(addend)
    old = fn.select(same, entry.get(8), layout.NO_TAG)
    entry.put(0, tag)
    entry.put(8, fn.select(write, tag, old))
    entry.put(16, addend)
    shift = fn.get("walk_shift")
    entry.put(24, shift)
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


@native
def mem_access(fn: Function, va: Value, flags: Value) -> Pointer:
    """A host pointer for `flags & 0xff` bytes at va (flags: ACCESS_*), or null."""
    fn.put("access", flags)
    # AArch64.CheckAlignment comes before the translation.
    align = (flags.lshr(ALIGN_SHIFT) & 0xFF) - 1
    checked = bit(fn.get("sctlr_el1"), 1).ne(0)
    align = align | fn.select(checked, flags.lshr(ELEMENT_SHIFT) - 1, 0)
    with fn.if_((va & align).ne(0)):
        fn.put("fault_va", va)
        fn.put("fault_kind", STAGE1)
        fn.put("fault_status", FSC_ALIGNMENT)
        fn.ret(fn.null())
    first = translate_page(fn, va, flags)
    room = fn.i64(4096) - (va & 4095)
    size = flags & 0xFF
    with fn.if_(first.eq(0) | size.ule(room)):
        fn.ret(fn.pointer(first))
    second_va = va + room
    second = translate_page(fn, second_va, flags - room)  # the size is what is left
    with fn.if_(second.eq(0)):
        fn.ret(fn.null())
    bounce = fn.cpu + layout.BOUNCE
    copy_bytes(fn, bounce, fn.pointer(first), room)
    copy_bytes(fn, bounce + room, fn.pointer(second), size - room)
    with fn.if_((flags & ACCESS_WRITE).ne(0)):
        fn.put("bounce_host0", first)
        fn.put("bounce_host1", second)
        fn.put("bounce_split", room)
        fn.put("bounce_size", size)
    return bounce


@native
def mem_commit(fn: Function) -> None:
    """End of a written span: a bounced access goes to memory."""
    size = fn.get("bounce_size")
    with fn.if_(size.ne(0)):
        split = fn.get("bounce_split")
        bounce = fn.cpu + layout.BOUNCE
        copy_bytes(fn, fn.pointer(fn.get("bounce_host0")), bounce, split)
        copy_bytes(fn, fn.pointer(fn.get("bounce_host1")), bounce + split, size - split)
        fn.put("bounce_size", 0)
