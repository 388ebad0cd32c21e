"""Control flow that leaves a page of op records, and the run loop around all guest code.

`lookup` takes a guest virtual address to a record through the instruction TLB; `fetch_miss` walks,
makes the page of records, or takes the abort. `run` stops at an exact instruction: it runs freely
to within 1024 instructions of the next deadline (no path inside a page is longer without a check),
then steps: one instruction is decoded into a page of its own, with branches that go by address and
a sentinel behind it.
"""

from __future__ import annotations

from armkvm.arch import esr as e
from armkvm.arch.esr import syndrome
from armkvm.engine import layout
from armkvm.engine.exits import ARENA_FULL, CHECK, Exit
from armkvm.engine.llvm.code import Code, Routine, enter_code, routine, routine_as
from armkvm.engine.llvm.ir import RAM, UNLIKELY, Function, Pointer, bit
from armkvm.engine.llvm.native import Native, declared, exported, native
from armkvm.engine.native.exception import SYNC, deliver, derive, pending_interrupt, same_el
from armkvm.engine.native.fpenv import fp_enter, fp_harvest, host_fp, set_host_fp
from armkvm.engine.native.gic import ich_maintenance
from armkvm.engine.native.icache import code_page, make_live
from armkvm.engine.native.memory import note_entry
from armkvm.engine.native.timer import deadline, now_ns, timer_output
from armkvm.engine.native.tlb import flush_all, set_context, tlbi, tlbi_shared
from armkvm.engine.native.walk import WALK_EL0, WALK_FETCH, host_of, segment, walk
from armkvm.isa.value import Value

_FREE_RUN = 1026  # instructions between two limit checks at the most, page end included
_LOOK_AGAIN = 1 << 34  # instructions after which deadlines too far away to count are computed again


# -- from an address to a record --------------------------------------------------------------


def _itlb_entry(fn: Function, target: Value) -> Pointer:
    index = (target.lshr(12) & (layout.ITLB_ENTRIES - 1)) * layout.ITLB_ENTRY
    return fn.field("itlb").load_pointer() + index


@routine
def lookup(fn: Code) -> None:
    """op: the target address, acc: 32 * instructions retired."""
    target = fn.op.address()
    page = target & layout.PAGE_MASK
    entry = _itlb_entry(fn, target)
    # Bits [1:0] stay in the comparison: a misaligned PC never hits.
    with fn.if_(entry.get(0).ne(target & (layout.PAGE_MASK | 3)), UNLIKELY):
        fn.tail(fetch_miss)
    records = entry.get(8)
    fn.put("pc_base", page - records.lshr(3))
    op = fn.pointer(records + ((target & 0xFFC) << 3))
    acc = fn.acc - op.address()
    with fn.if_(fn.acc.sge(fn.get("limit32")), UNLIKELY):
        fn.tail(limit_reached, op, acc)
    fn.dispatch(op, acc)


@routine
def limit_reached(fn: Code) -> None:
    """Enough instructions: the run loop looks."""
    fn.leave(CHECK)


def _leave_at(fn: Code, code: int, target: Value) -> None:
    """Leave with no record: PC and count are written directly."""
    fn.put("pc", target)
    fn.put("count", fn.acc.lshr(5))
    fn.put("exit_code", code)
    fn.put("exit_op", 0)
    fn.ret()


@routine
def fetch_miss(fn: Code) -> None:
    """`lookup` of an address that the instruction TLB does not have."""
    target, retired = fn.op.address(), fn.acc
    tagged = branch_address(fn, target)
    with fn.if_(tagged.ne(target)):
        fn.jump(tagged, retired)
    # A fetch may fault, so it belongs to the next instruction: nothing of it before a limit.
    # It is also where a guest whose vectors cannot be fetched is stopped.
    with fn.if_(retired.sge(fn.get("limit32")) & fn.get("stepping").eq(0)):
        _leave_at(fn, CHECK, target)
    faulted = retired + layout.RECORD
    with fn.if_((target & 3).ne(0)):
        _take_at(fn, syndrome(e.EC_PC_ALIGN), target, faulted)
    el0 = fn.get("el").eq(0)
    status = walk(fn, target, el0.zext("i64") * WALK_EL0 | WALK_FETCH)
    with fn.if_(status.ne(0)):
        ec = same_el(fn) + e.EC_IABT_LOW << e.EC_SHIFT
        _take_at(fn, ec | status & e.FSC_MASK | e.IL, target, faulted)
    ipa = fn.get("walk_ipa")
    seg = segment(fn, ipa)
    with fn.if_(seg.is_null()):
        fn.put("esr_el2", syndrome(e.EC_IABT_LOW, e.FSC_TRANSLATION_L3))
        fn.put("far_el2", target)
        fn.put("hpfar_el2", ipa.lshr(12) << 4)
        _leave_at(fn, Exit.TRAP, target)
    page = code_page(fn, host_of(seg, ipa))
    with fn.if_(page.eq(0)):
        _leave_at(fn, ARENA_FULL, target)
    entry = _itlb_entry(fn, target)
    entry.put(0, target & layout.PAGE_MASK)
    entry.put(8, page)
    shift = fn.get("walk_shift")
    entry.put(24, shift)
    note_entry(fn, target, el0, shift)
    fn.tail(lookup)


def branch_address(fn: Function, target: Value) -> Value:
    """AArch64.BranchAddr: where TBI ignores the top byte, the PC gets copies of bit 55 instead."""
    tcr = fn.get("tcr_el1")
    ignored = fn.select(bit(target, 55).ne(0), bit(tcr, 38), bit(tcr, 37)).ne(0)
    return fn.select(ignored, (target << 8).ashr(8), target)


def _take_at(fn: Code, esr: Value | int, target: Value, retired: Value) -> None:
    fn.put("esr_el1", esr)
    fn.put("far_el1", target)
    fn.put("stepping", 0)
    fn.put("count", retired.lshr(5))
    fn.jump(deliver(fn, target, fn.i64(SYNC)), retired)


# -- ends of a page and of a block ------------------------------------------------------------


@routine
def page_end(fn: Code) -> None:
    """The sentinel behind a page's records: not an instruction."""
    fn.jump(fn.pc(), fn.op.address() + fn.acc)


@routine
def check(fn: Code) -> None:
    """The deadlines may have moved: let the run loop look at once."""
    fn.leave(CHECK, fn.op + layout.RECORD)


def _fetch_next(fn: Code) -> None:
    """Fetch the next instruction anew.

    After a write that changes what is fetched it is done at once, as if an ISB had come: otherwise
    it would depend on where a run was split.
    """
    fn.jump(fn.pc() + 4, fn.retired())


@routine
def resync(fn: Code) -> None:
    """ISB."""
    _fetch_next(fn)


def _wrote(register: str, *follow: Native[[], None]) -> Routine:
    @routine_as(f"wrote_{register}")
    def wrote(fn: Code) -> None:
        for call in follow:
            call(fn)
        _fetch_next(fn)

    return wrote


WRITES = [
    _wrote("sctlr", flush_all, derive),
    _wrote("tcr", flush_all, set_context),
    _wrote("ttbr", set_context),
    _wrote("cpacr", derive),
]


def _maintains(name: str, follow: Native[[Value, Value], None]) -> Routine:
    @routine_as(name)
    def maintenance(fn: Code) -> None:
        follow(fn, fn.get("arg0"), fn.get("arg1"))
        _fetch_next(fn)

    return maintenance


TLB_MAINTENANCE = [
    _maintains("tlb_maintenance", tlbi),
    _maintains("tlb_maintenance_is", tlbi_shared),
]


# -- kicks ------------------------------------------------------------------------------------


def publish_limit(fn: Function, limit: Value) -> None:
    """Set limit32 for a free run, unless somebody has kicked.

    Here: limit32 is stored, then kick is read. There, in `kick`: kick is stored, then limit32. In
    whatever order the two stores to limit32 come, either the kick is seen here or its store is the
    one that stays; a full barrier in the middle of both is what that takes (the litmus test R), on
    x86-64 too, where a load may pass a store that comes before it.
    """
    fn.store_atomic("limit32", limit, "monotonic")
    fn.fence()
    with fn.if_(fn.load_atomic("kick", "acquire").ne(0)):
        fn.store_atomic("limit32", fn.i64(0), "monotonic")


@exported
def kick(fn: Function) -> None:
    """From another thread: stop a free run, and keep one that begins from going on."""
    fn.store_atomic("kick", fn.i64(1), "release")
    fn.fence()
    fn.store_atomic("limit32", fn.i64(0), "release")


# -- the run loop -----------------------------------------------------------------------------


@declared
def decode_one(fn: Function, rec: Pointer, w: Value, i: Value, near: Value) -> Value:
    """In interp/decoder.py."""
    raise NotImplementedError


@native
def enter(fn: Function) -> None:
    """Run from the saved PC until guest code leaves."""
    target, retired = fn.pointer(fn.get("pc")), fn.get("count") << 5
    enter_code(fn, lookup, target, retired)


@native
def step(fn: Function) -> None:
    """Run one instruction. limit32 is 0, so that everything that goes by address stops at once."""
    fn.put("limit32", 0)
    before = fn.get("count")
    # Reach the record as usual; lookup stops there, or takes the fetch's exception.
    fn.put("stepping", 1)
    enter(fn)
    fn.put("stepping", 0)
    op = fn.get("exit_op")
    at_record = fn.get("exit_code").eq(CHECK) & op.ne(0)
    retired = op + fn.get("exit_acc")
    with fn.unless(at_record & retired.lshr(5).eq(before)):
        fn.ret()
    pc = op.lshr(3) + fn.get("pc_base")
    index = pc.lshr(2) & 1023
    page = fn.pointer(op - (index << layout.RECORD_SHIFT))
    # As in a free run, so that a run in pieces finds the TLBs like one in a go.
    make_live(fn, page)
    words = page.get(layout.META_WORDS)
    word = fn.pointer(words + (index << 2)).load("i32", RAM).zext("i64")
    own = fn.cpu + layout.STEP_PAGE
    own.put(layout.META_WORDS, words)
    record = own + (index << layout.RECORD_SHIFT)
    decode_one(fn, record, word, index, fn.i64(0))
    (record + layout.RECORD).store_pointer(limit_reached)
    at = record.address()
    fn.put("pc_base", pc - at.lshr(3))
    enter_code(fn, record.load_pointer(), record, retired - at)


def _sync(fn: Function) -> None:
    """PC and count from where guest code left."""
    op = fn.get("exit_op")
    with fn.if_(op.ne(0)):
        fn.put("count", (op + fn.get("exit_acc")).lshr(5))
        fn.put("pc", op.lshr(3) + fn.get("pc_base"))


@exported
def run(fn: Function) -> Value:
    """Run until an exit that the hypervisor has to see; returns its code."""
    own = host_fp(fn)
    fp_enter(fn)
    code = fn.var("i64", CHECK)
    with fn.loop() as loop:
        count = fn.get("count")
        kicked = fn.load_atomic("kick", "acquire")
        now = now_ns(fn, count)
        fires = timer_output(fn, count) | ich_maintenance(fn)
        with fn.if_(kicked.ne(0) | now.sge(fn.get("hyp_deadline_ns")) | fires.ne(0)):
            code.set(Exit.IRQ)
            fn.goto(loop.out)
        with fn.if_(count.uge(fn.get("limit"))):
            code.set(Exit.LIMIT)
            fn.goto(loop.out)
        offset = pending_interrupt(fn)
        illegal = fn.get("il").ne(0)
        with fn.if_(offset.ne(0) | illegal):
            # Only at entry: guest code itself takes what it unmasks.
            with fn.if_(offset.eq(0)):
                fn.put("esr_el1", syndrome(e.EC_ILL))
            fn.put("pc", deliver(fn, fn.get("pc"), offset))
            fn.put("count", count + 1)
            fn.goto(loop.head)
        stop = deadline(fn, count)
        near = (count + _FREE_RUN).uge(stop)
        with fn.if_(near):
            step(fn)
        with fn.unless(near):
            free = stop - _FREE_RUN
            cap = count + _LOOK_AGAIN
            publish_limit(fn, fn.select(free.ult(cap), free, cap) << 5)
            enter(fn)
        _sync(fn)
        left = fn.get("exit_code")
        code.set(left)
        loop.break_if(left.ne(CHECK))
    fp_harvest(fn)
    set_host_fp(fn, own)
    return code.get()
