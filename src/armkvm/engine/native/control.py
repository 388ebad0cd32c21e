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
from armkvm.engine.llvm.code import CC, Code
from armkvm.engine.llvm.ir import CPU, RAM, UNLIKELY, Function
from armkvm.engine.llvm.module import bit, field_at, native, routine, set_field_at
from armkvm.engine.native.exception import SYNC, same_el
from armkvm.engine.native.memory import host_of, note_entry
from armkvm.engine.native.walk import WALK_EL0, WALK_FETCH
from armkvm.isa.value import Value

_FREE_RUN = 1026  # instructions between two limit checks at the most, page end included
_LOOK_AGAIN = 1 << 34  # instructions after which deadlines too far away to count are computed again


def build() -> None:
    """Enter the native functions of this file."""
    _lookup()
    _fetch_miss()
    with routine("limit_reached") as fn:
        fn.leave(CHECK)
    with routine("page_end") as fn:  # sentinel: not an instruction
        fn.jump(fn.pc(), fn.op_address() + Value(fn, "i64", "%acc"))
    with routine("check") as fn:  # the deadlines may have moved: let the run loop look at once
        fn.leave(CHECK, fn.gep("%op", layout.RECORD))
    with routine("resync") as fn:  # ISB: fetch the next instruction anew
        fn.jump(fn.pc() + 4, fn.retired())
    for name, calls in (
        ("wrote_sctlr", ("flush_all", "derive")),
        ("wrote_tcr", ("flush_all", "set_context")),
        ("wrote_ttbr", ("set_context",)),
        ("wrote_cpacr", ("derive",)),
    ):
        with routine(name) as fn:
            for called in calls:
                fn.line(f"call void @{called}(ptr %cpu)")
            # What follows is fetched anew without waiting for an ISB: otherwise it would
            # depend on where a run was split.
            fn.jump(fn.pc() + 4, fn.retired())
    for name, called in (("tlb_maintenance", "tlbi"), ("tlb_maintenance_is", "tlbi_shared")):
        with routine(name) as fn:
            kind, xt = fn.get("arg0"), fn.get("arg1")
            fn.line(f"call void @{called}(ptr %cpu, i64 {kind.ref}, i64 {xt.ref})")
            fn.jump(fn.pc() + 4, fn.retired())
    with native("kick", "", public=True) as fn:
        send_kick(fn)
    _enter()
    _step()
    _run()


def _itlb_entry(fn: Function, target: Value) -> str:
    index = (target.lshr(12) & (layout.ITLB_ENTRIES - 1)) * layout.ITLB_ENTRY
    base = fn.emit(f"load ptr, ptr {fn.gep('%cpu', layout.OFFSET['itlb'])}, align 8, {CPU}")
    return fn.gep(base, index)


def _lookup() -> None:
    """op: the target address, acc: 32 * instructions retired."""
    with routine("lookup") as fn:
        target = fn.op_address()
        page = target & layout.PAGE_MASK
        entry = _itlb_entry(fn, target)
        # Bits [1:0] stay in the comparison: a misaligned PC never hits.
        with fn.if_(field_at(fn, entry, 0).ne(target & (layout.PAGE_MASK | 3)), UNLIKELY):
            fn.tail("fetch_miss")
        records = field_at(fn, entry, 8)
        fn.put("pc_base", page - records.lshr(3))
        op = fn.pointer(records + ((target & 0xFFC) << 3))
        acc = Value(fn, "i64", "%acc") - fn.address(op)
        with fn.if_(Value(fn, "i64", "%acc").sge(fn.get("limit32")), UNLIKELY):
            fn.tail("limit_reached", op, acc.ref)
        fn.dispatch(op, acc.ref)


def _leave_at(fn: Code, code: int, target: Value) -> None:
    """Leave with no record: PC and count are written directly."""
    fn.put("pc", target)
    fn.put("count", Value(fn, "i64", "%acc").lshr(5))
    fn.put("exit_code", code)
    fn.put("exit_op", 0)
    fn.ret()


def _fetch_miss() -> None:
    with routine("fetch_miss") as fn:
        target, retired = fn.op_address(), Value(fn, "i64", "%acc")
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
        how = el0.zext("i64") * WALK_EL0 | WALK_FETCH
        status = fn.call("walk", "i64", "ptr %cpu", target, how)
        with fn.if_(status.ne(0)):
            ec = same_el(fn) + e.EC_IABT_LOW << e.EC_SHIFT
            _take_at(fn, ec | status & e.FSC_MASK | e.IL, target, faulted)
        ipa = fn.get("walk_ipa")
        seg = fn.call("segment", "ptr", "ptr %cpu", ipa)
        with fn.if_(fn.value("i1", f"icmp eq ptr {seg.ref}, null")):
            fn.put("esr_el2", syndrome(e.EC_IABT_LOW, e.FSC_TRANSLATION_L3))
            fn.put("far_el2", target)
            fn.put("hpfar_el2", ipa.lshr(12) << 4)
            _leave_at(fn, Exit.TRAP, target)
        page = fn.call("code_page", "i64", "ptr %cpu", host_of(fn, seg.ref, ipa))
        with fn.if_(page.eq(0)):
            _leave_at(fn, ARENA_FULL, target)
        entry = _itlb_entry(fn, target)
        set_field_at(fn, entry, 0, target & layout.PAGE_MASK)
        set_field_at(fn, entry, 8, page)
        shift = fn.get("walk_shift")
        set_field_at(fn, entry, 24, shift)
        note_entry(fn, target, el0, shift)
        fn.tail("lookup")


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
    vector = fn.call("deliver", "i64", "ptr %cpu", target, fn.const("i64", SYNC))
    fn.jump(vector, retired)


def _enter() -> None:
    """Run from the saved PC until guest code leaves."""
    with native("enter", "") as fn:
        target, retired = fn.pointer(fn.get("pc")), fn.get("count") << 5
        fn.line(f"call {CC} void @lookup(ptr %cpu, ptr {target}, i64 {retired.ref})")


def _step() -> None:
    """Run one instruction. limit32 is 0, so that everything that goes by address stops at once."""
    with native("step", "") as fn:
        fn.put("limit32", 0)
        before = fn.get("count")
        # Reach the record as usual; lookup stops there, or takes the fetch's exception.
        fn.put("stepping", 1)
        fn.line("call void @enter(ptr %cpu)")
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
        fn.line(f"call void @make_live(ptr %cpu, ptr {page})")
        words = field_at(fn, page, layout.META_WORDS)
        word = fn.load_at(fn.pointer(words + (index << 2)), "i32", RAM).zext("i64")
        own = fn.gep("%cpu", layout.STEP_PAGE)
        set_field_at(fn, own, layout.META_WORDS, words)
        record = fn.gep(own, index << layout.RECORD_SHIFT)
        fn.call("decode_one", "i64", f"ptr {record}", word, index, "i64 0")
        stop = fn.gep(record, layout.RECORD)
        fn.line(f"store ptr @limit_reached, ptr {stop}, align 8")
        at = fn.address(record)
        fn.put("pc_base", pc - at.lshr(3))
        acc = retired - at
        handler = fn.emit(f"load ptr, ptr {record}, align 8")
        fn.line(f"call {CC} void {handler}(ptr %cpu, ptr {record}, i64 {acc.ref})")


def _sync(fn: Function) -> None:
    """PC and count from where guest code left."""
    op = fn.get("exit_op")
    with fn.if_(op.ne(0)):
        fn.put("count", (op + fn.get("exit_acc")).lshr(5))
        fn.put("pc", op.lshr(3) + fn.get("pc_base"))


def publish_limit(fn: Function, limit: Value) -> None:
    """Set limit32 for a free run, unless somebody has kicked.

    Here: limit32 is stored, then kick is read. There, in `kick`: kick is stored, then limit32. In
    whatever order the two stores to limit32 come, either the kick is seen here or its store is the
    one that stays; a full barrier in the middle of both is what that takes (the litmus test R), on
    x86-64 too, where a load may pass a store that comes before it.
    """
    fn.store_atomic("limit32", limit, "monotonic")
    fn.line("fence seq_cst")
    with fn.if_(fn.load_atomic("kick", "acquire").ne(0)):
        fn.store_atomic("limit32", fn.const("i64", 0), "monotonic")


def send_kick(fn: Function) -> None:
    """From another thread: stop a free run, and keep one that begins from going on."""
    fn.store_atomic("kick", fn.const("i64", 1), "release")
    fn.line("fence seq_cst")
    fn.store_atomic("limit32", fn.const("i64", 0), "release")


def _run() -> None:
    """Run until an exit that the hypervisor has to see; returns its code."""
    with native("run", "", ret="i64", public=True) as fn:
        own = fn.call("host_fp", "i64", "ptr %cpu")
        fn.line("call void @fp_enter(ptr %cpu)")
        code = fn.var("i64", CHECK)
        with fn.loop() as loop:
            count = fn.get("count")
            kicked = fn.load_atomic("kick", "acquire")
            now = fn.call("now_ns", "i64", "ptr %cpu", count)
            fires = fn.call("timer_output", "i64", "ptr %cpu", count)
            fires = fires | fn.call("ich_maintenance", "i64", "ptr %cpu")
            with fn.if_(kicked.ne(0) | now.sge(fn.get("hyp_deadline_ns")) | fires.ne(0)):
                code.set(Exit.IRQ)
                fn.goto(loop.out)
            with fn.if_(count.uge(fn.get("limit"))):
                code.set(Exit.LIMIT)
                fn.goto(loop.out)
            offset = fn.call("pending_interrupt", "i64", "ptr %cpu")
            illegal = fn.get("il").ne(0)
            with fn.if_(offset.ne(0) | illegal):
                # Only at entry: guest code itself takes what it unmasks.
                with fn.if_(offset.eq(0)):
                    fn.put("esr_el1", syndrome(e.EC_ILL))
                fn.put("pc", fn.call("deliver", "i64", "ptr %cpu", fn.get("pc"), offset))
                fn.put("count", count + 1)
                fn.goto(loop.head)
            stop = fn.call("deadline", "i64", "ptr %cpu", count)
            near = (count + _FREE_RUN).uge(stop)
            with fn.if_(near):
                fn.line("call void @step(ptr %cpu)")
            with fn.unless(near):
                free = stop - _FREE_RUN
                cap = count + _LOOK_AGAIN
                publish_limit(fn, fn.select(free.ult(cap), free, cap) << 5)
                fn.line("call void @enter(ptr %cpu)")
            _sync(fn)
            left = fn.get("exit_code")
            code.set(left)
            loop.break_if(left.ne(CHECK))
        fn.line("call void @fp_harvest(ptr %cpu)")
        fn.call("set_host_fp", "void", "ptr %cpu", own)
        fn.ret(code.get())
