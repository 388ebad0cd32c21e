"""Exceptions taken to EL1, returns from them, and traps to EL2 (Arm ARM D1.3,
AArch64.TakeException).

A taken exception counts as one instruction, so that a guest whose vectors fault for ever still
reaches its limits.
"""

from __future__ import annotations

from armkvm.arch import esr as e
from armkvm.arch.esr import syndrome
from armkvm.arch.gic import ICH_HCR_EN
from armkvm.engine import layout
from armkvm.engine.exits import Exit
from armkvm.engine.llvm.code import Code, routine
from armkvm.engine.llvm.ir import RAM, UNLIKELY, Function, bit, flag
from armkvm.engine.llvm.native import exported, native
from armkvm.engine.native.gic import ich_signals
from armkvm.engine.native.gic_window import gicv_access
from armkvm.engine.native.memory import (
    ACCESS_ATOMIC,
    ACCESS_CACHE,
    ACCESS_WRITE,
    STAGE1,
    WATCHPOINT,
    check_watchpoints,
)
from armkvm.engine.native.walk import WALK_EL0, segment, walk
from armkvm.isa.value import Value

SYNC, IRQ, FIQ, SERROR = 0x000, 0x080, 0x100, 0x180  # vector offsets

PSTATE_SS, PSTATE_IL = 1 << 21, 1 << 20


# -- PSTATE -----------------------------------------------------------------------------------


@exported
def pstate(fn: Function) -> Value:
    """PSTATE as SPSR_EL1 holds it."""
    z = fn.get("flag_z").eq(0).zext("i64")
    flags = fn.get("flag_n").lshr(63) << 31 | z << 30
    flags = flags | fn.get("flag_c") << 29 | fn.get("flag_v") << 28
    mode = fn.get("el") << 2 | fn.get("spsel") & fn.get("el")
    state = fn.get("ss") << 21 | fn.get("il") << 20 | fn.get("daif") << 6
    return flags | state | mode


@exported
def set_pstate(fn: Function, spsr: Value) -> None:
    """PSTATE from SPSR_EL1."""
    fn.put("flag_n", spsr << 32)
    fn.put("flag_z", bit(spsr, 30) ^ 1)
    fn.put("flag_c", bit(spsr, 29))
    fn.put("flag_v", bit(spsr, 28))
    fn.put("ss", bit(spsr, 21))
    fn.put("il", bit(spsr, 20))
    fn.put("daif", spsr.lshr(6) & 15)
    # PSTATE.SP is 1 at EL0 only in our bookkeeping of "not banked": EL0 always uses SP_EL0.
    set_mode(fn, spsr.lshr(2) & 3, bit(spsr, 0))


@exported
def set_mode(fn: Function, el: Value, spsel: Value) -> None:
    """Change EL and SPSel: bank SP, switch TLBs, recompute what depends on the EL."""
    # What the PMU's filters ask for: instructions retired at EL0. Who changes the EL has
    # brought `count` up to date.
    with fn.if_(fn.get("el").eq(0)):
        fn.put("el0_count", fn.get("el0_count") + fn.get("count") - fn.get("mode_count"))
    fn.put("mode_count", fn.get("count"))
    old1 = (fn.get("spsel") & fn.get("el")).ne(0)
    with fn.if_(old1):
        fn.put("sp_el1_", fn.get("sp"))
    with fn.unless(old1):
        fn.put("sp_el0_", fn.get("sp"))
    fn.put("el", el)
    fn.put("spsel", spsel)
    new1 = (spsel & el).ne(0)
    fn.put("sp", fn.select(new1, fn.get("sp_el1_"), fn.get("sp_el0_")))
    user = el.eq(0)
    data, code = ((fn.cpu + at).address() for at in (layout.DTLB_EL1, layout.ITLB_EL1))
    fn.put("dtlb", fn.select(user, fn.get("dtlb_el0"), data))
    fn.put("itlb", fn.select(user, fn.get("itlb_el0"), code))
    derive(fn)


@exported
def derive(fn: Function) -> None:
    """What instructions look at instead of SCTLR_EL1 and CPACR_EL1."""
    user = fn.get("el").eq(0)
    sctlr = fn.get("sctlr_el1")
    checks_sp = fn.select(user, bit(sctlr, 4), bit(sctlr, 3)).ne(0)
    fn.put("sp_mask", fn.select(checks_sp, fn.i64(15), 0))
    # CPACR_EL1.FPEN: 0b11 traps nothing, 0b01 traps EL0, others trap both (D17.2.31).
    fpen = fn.get("cpacr_el1").lshr(20) & 3
    fn.put("fp_trap", fn.select(fpen.eq(3) | (fpen.eq(1) & ~user), fn.i64(0), 1))


@routine
def write_spsel(fn: Code) -> None:
    """MSR SPSel."""
    set_mode(fn, fn.i64(1), fn.get("arg0"))


# -- exceptions to EL1 ------------------------------------------------------------------------


@exported
def deliver(fn: Function, elr: Value, offset: Value) -> Value:
    """Take an exception to EL1; returns the vector's address."""
    fn.put("spsr_el1", pstate(fn))
    fn.put("elr_el1", elr)
    lower = fn.get("el").eq(0)
    spx = fn.select(fn.get("spsel").ne(0), fn.i64(0x200), 0)
    base = fn.select(lower, 0x400, spx)
    fn.put("daif", 15)
    fn.put("il", 0)
    fn.put("ss", 0)
    set_mode(fn, fn.i64(1), fn.i64(1))
    return fn.get("vbar_el1") + base + offset


def take(fn: Code, esr: Value | int, elr: Value, *, retired: Value | None = None) -> None:
    """Take a synchronous exception; ends the block."""
    retired = retired if retired is not None else fn.retired()
    fn.put("esr_el1", esr)
    fn.put("count", retired.lshr(5))
    fn.jump(deliver(fn, elr, fn.i64(SYNC)), retired)


def word(fn: Code) -> Value:
    """The instruction word of the present record."""
    index = fn.pc().lshr(2) & 1023
    page = fn.pointer(fn.op.address() - (index << layout.RECORD_SHIFT))
    code = fn.pointer(page.get(layout.META_WORDS) + (index << 2))
    return code.load("i32", RAM).zext("i64")


def same_el(fn: Function) -> Value:
    """1 where the exception comes from EL1 itself: added to the EC of aborts."""
    return fn.get("el") & 1


@routine
def undefined(fn: Code) -> None:
    """A word that no form describes.

    System registers and instructions that nobody implements are EL2's business when EL1 uses them.
    """
    w = word(fn)
    system = (w & 0xFFC0_0000).eq(0xD500_0000) & (w.lshr(19) & 3).ne(0)
    with fn.if_(system & fn.get("el").ne(0)):
        fn.tail(trap_sys)
    fn.tail(unallocated)


@routine
def unallocated(fn: Code) -> None:
    """An UNDEFINED instruction, for the guest."""
    take(fn, syndrome(e.EC_UNKNOWN), fn.pc())


@routine
def sys_to_el1(fn: Code) -> None:
    """EL0 used a register that SCTLR_EL1 or CNTKCTL_EL1 withholds."""
    take(fn, _sys_iss(word(fn)) | syndrome(e.EC_SYS64), fn.pc())


@routine
def fp_trapped(fn: Code) -> None:
    """CPACR_EL1 withholds SIMD and floating point."""
    take(fn, syndrome(e.EC_FP_ASIMD, e.CV_ALWAYS), fn.pc())


@routine
def sp_alignment_fault(fn: Code) -> None:
    """SP is the base of an access and not a multiple of 16."""
    take(fn, syndrome(e.EC_SP_ALIGN), fn.pc())


@routine
def svc(fn: Code) -> None:
    """SVC."""
    take(fn, fn.get("arg0") | syndrome(e.EC_SVC64), fn.pc() + 4)


@routine
def brk(fn: Code) -> None:
    """BRK, for the guest or for the hypervisor's debugger."""
    with fn.if_(fn.get("tde").ne(0)):  # MDCR_EL2.TDE
        fn.put("esr_el2", fn.get("arg0") | syndrome(e.EC_BRK64))
        fn.leave(Exit.TRAP)
    take(fn, fn.get("arg0") | syndrome(e.EC_BRK64), fn.pc())


@routine
def wfx_to_el1(fn: Code) -> None:
    """SCTLR_EL1.nTWI or nTWE withholds WFI or WFE from EL0."""
    with fn.if_(_nothing_pending(fn)):
        take(fn, fn.get("arg0") | syndrome(e.EC_WFX, e.CV_ALWAYS), fn.pc())


def _nothing_pending(fn: Code) -> Value:
    """WFI would wait: only then does it trap. A masked interrupt ends the wait as well."""
    return (interrupt_lines(fn) | fn.get("hcr_vse")).eq(0)


def _sys_iss(w: Value) -> Value:
    """ISS of a trapped MSR, MRS or SYS (D17.2.37, EC 0x18)."""
    op0, op2, op1 = w.lshr(19) & 3, w.lshr(5) & 7, w.lshr(16) & 7
    crn, rt, crm = w.lshr(12) & 15, w & 31, w.lshr(8) & 15
    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | bit(w, 21)


@routine
def mem_fault(fn: Code) -> None:
    """A slow access failed: an abort to EL1, a stage 2 abort or a watchpoint for the hypervisor.

    arg0: what its instruction says of it (ISV, SAS, SSE, SRT, SF, AR), 0 for no syndrome.
    """
    isv = fn.get("arg0")
    access = fn.get("access")
    with fn.if_(fn.get("fault_kind").eq(WATCHPOINT)):
        fn.tail(watchpoint)
    cache = (access & ACCESS_CACHE).ne(0)
    write = ((access & ACCESS_WRITE).ne(0) | cache) & ~_reading_fails(fn)
    iss = write.zext("i64") * e.DABT_WNR | cache.zext("i64") * e.DABT_CM
    with fn.if_(fn.get("fault_kind").eq(STAGE1)):
        fn.put("far_el1", fn.get("fault_va"))
        ec = same_el(fn) + e.EC_DABT_LOW << e.EC_SHIFT
        take(fn, ec | iss | fn.get("fault_status") | e.IL, fn.pc())
    in_window = (fn.get("fault_ipa") - fn.get("gicv_base")).ult(fn.get("gicv_size"))
    with fn.if_(in_window & isv.ne(0)):
        # Not a fault: stage 2 maps the GIC's virtual CPU interface there.
        with fn.if_(fn.get("watching").ne(0)):
            with fn.if_(check_watchpoints(fn, fn.get("fault_va"), access).ne(0)):
                fn.tail(watchpoint)
        fn.tail(gicv_access)
    fn.put("esr_el2", iss | isv | syndrome(e.EC_DABT_LOW, e.FSC_TRANSLATION_L3))
    fn.put("far_el2", fn.get("fault_va"))
    fn.put("hpfar_el2", fn.get("fault_ipa").lshr(12) << 4)
    fn.leave(Exit.TRAP)


@routine
def watchpoint(fn: Code) -> None:
    """A Watchpoint exception (MDCR_EL2.TDE): nothing of the access has happened."""
    fn.put("esr_el2", fn.get("fault_status") | syndrome(e.EC_WATCHPT_LOW))
    fn.put("far_el2", fn.get("fault_va"))
    fn.leave(Exit.TRAP)


def _reading_fails(fn: Function) -> Value:
    """True for a read-modify-write whose read alone would have faulted: WnR is 0 then."""
    fails = fn.var("i1", 0)
    with fn.if_(flag(fn.get("access"), ACCESS_ATOMIC)):
        status = walk(fn, fn.get("fault_va"), fn.get("el").eq(0).zext("i64") * WALK_EL0)
        stage1 = fn.get("fault_kind").eq(STAGE1)
        absent = segment(fn, fn.get("fault_ipa")).is_null() & ~stage1
        misaligned = stage1 & fn.get("fault_status").eq(e.FSC_ALIGNMENT)
        fails.set(status.ne(0) | absent | misaligned)
    return fails.get()


# -- traps to EL2 -----------------------------------------------------------------------------


@routine
def trap_sys(fn: Code) -> None:
    """MSR, MRS or SYS."""
    fn.put("esr_el2", _sys_iss(word(fn)) | syndrome(e.EC_SYS64))
    fn.leave(Exit.TRAP)


@routine
def hvc(fn: Code) -> None:
    """HVC: the preferred return address is the next instruction."""
    fn.put("esr_el2", fn.get("arg0") | syndrome(e.EC_HVC64))
    fn.leave(Exit.TRAP, fn.op + layout.RECORD)


@routine
def smc(fn: Code) -> None:
    """SMC."""
    fn.put("esr_el2", fn.get("arg0") | syndrome(e.EC_SMC64))
    fn.leave(Exit.TRAP)


@routine
def wfe_trap(fn: Code) -> None:
    """WFE."""
    fn.put("esr_el2", syndrome(e.EC_WFX, e.CV_ALWAYS | e.WFX_TI_WFE))
    fn.leave(Exit.TRAP)


@routine
def wfi(fn: Code) -> None:
    """WFI."""
    with fn.if_(_nothing_pending(fn)):
        fn.put("esr_el2", syndrome(e.EC_WFX, e.CV_ALWAYS))
        fn.leave(Exit.TRAP)


# -- returns and interrupts -------------------------------------------------------------------


@routine
def eret(fn: Code) -> None:
    """AArch64.ExceptionReturn. An illegal return keeps the mode and sets PSTATE.IL."""
    spsr, target = fn.get("spsr_el1"), fn.get("elr_el1")
    fn.put("excl_addr", -1)
    mode = spsr & 0x1F
    legal = mode.eq(0) | mode.eq(4) | mode.eq(5)
    kept = fn.get("el") << 2 | fn.get("spsel")
    illegal = (spsr & ~0x1F) | kept | PSTATE_IL
    state = fn.select(legal, spsr, illegal)
    fn.put("count", fn.retired().lshr(5))
    set_pstate(fn, state)
    with fn.if_(fn.get("il").ne(0)):
        take(fn, syndrome(e.EC_ILL), target)
    offset = pending_interrupt(fn)
    with fn.if_(offset.ne(0)):
        fn.jump(deliver(fn, target, offset), fn.retired())
    fn.jump(target, fn.retired())


@routine
def unmasked(fn: Code) -> None:
    """PSTATE.DAIF has changed: a waiting interrupt comes now."""
    offset = pending_interrupt(fn)
    with fn.if_(offset.ne(0)):
        fn.put("count", fn.retired().lshr(5))
        fn.jump(deliver(fn, fn.pc() + 4, offset), fn.retired())


@native
def interrupt_lines(fn: Function) -> Value:
    """Virtual interrupts, bit 0 IRQ, bit 1 FIQ: HCR_EL2's and the GIC's virtual interface's."""
    vi, vf = (fn.get(line).ne(0).zext("i64") for line in ("hcr_vi", "hcr_vf"))
    with fn.if_(flag(fn.get("ich_hcr"), ICH_HCR_EN)):
        fn.ret(vi | vf << 1 | ich_signals(fn))
    return vi | vf << 1


@native
def read_isr_el1(fn: Function, count: Value) -> Value:
    """ISR_EL1."""
    lines = interrupt_lines(fn)
    return fn.get("hcr_vse") << 8 | bit(lines, 0) << 7 | bit(lines, 1) << 6


@native
def pending_interrupt(fn: Function) -> Value:
    """The vector offset of the interrupt to take now, or 0. Who calls takes it.

    Which of several comes first is IMPLEMENTATION DEFINED.
    """
    daif = fn.get("daif")
    with fn.if_(fn.get("hcr_vse").ne(0) & bit(daif, 2).eq(0), UNLIKELY):
        fn.put("hcr_vse", 0)  # by taking it (D1.3.6, Virtual interrupts)
        fn.put("esr_el1", fn.get("vsesr_el2") | syndrome(e.EC_SERROR))
        fn.ret(SERROR)
    with fn.if_((daif & 3).eq(3)):
        fn.ret(0)
    lines = interrupt_lines(fn)
    with fn.if_(bit(lines, 1).ne(0) & bit(daif, 0).eq(0)):
        fn.ret(FIQ)
    with fn.if_(bit(lines, 0).ne(0) & bit(daif, 1).eq(0)):
        fn.ret(IRQ)
    return fn.i64(0)
