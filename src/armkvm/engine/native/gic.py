"""The GIC virtual CPU interface in native code (IHI 0069, GIC architecture specification, chapter
8: ICC_*, ICH_*; IHI 0048 chapter 5: GICV, GICH).

What the hypervisor writes as ICH_HCR, ICH_VMCR, ICH_AP0R, ICH_AP1R and four list registers is state
of the CPU here. The guest acknowledges, ends and deactivates interrupts through ICC_* system
registers (where `icc_sre` is set) or through the GICV window in its physical address space (where
`gicv_size` is set), and no exit results. A list register with HW set deactivates the physical
interrupt too. Five bits of priority, five of preemption, as on QEMU's and Arm's own CPUs.

The one format of list registers is ICH_LR<n>_EL2's; the GICV window sees them as a GICv3 in legacy
operation does: INTID in bits [9:0], the source CPU of an SGI in [12:10]. All of the window's
interrupts share one active-priorities register, as in GICH_APR: AP0R.

Left out: group enable maintenance interrupts (VGrp0EIE and its kin), NMIs, LPIs' missing active
state, trap bits of ICH_HCR, accesses to the window that carry no syndrome.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.exits import CHECK
from armkvm.engine.interp.handler import ACCESS_WRITE
from armkvm.engine.llvm.code import Code
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import bit, native, param, routine
from armkvm.isa.value import Value

LIST_REGISTERS = 4
PRIORITY_BITS = 5
NONE = LIST_REGISTERS  # an index of a list register that is none

# Physical PPIs that a list register may be linked to: the guest timers' (host/pcpu.py).
PHYSICAL_VTIMER, PHYSICAL_PTIMER = 27, 30

# ICH_HCR_EL2
HCR_EN, HCR_UIE, HCR_LRENPIE, HCR_NPIE = 0, 1, 2, 3
HCR_EOICOUNT = 27

# ICH_VMCR_EL2; bits 0 to 4 and 9 are where GICV_CTLR has them
VENG0, VENG1, VACKCTL, VFIQEN, VCBPR, VEOIM = 0, 1, 2, 3, 4, 9
VBPR1, VBPR0, VPMR = 18, 21, 24
_GICV_CTLR = 0x21F

# ICH_LR<n>_EL2
LR_PHYSICAL, LR_EOI, LR_PRIORITY = 32, 41, 48
LR_GROUP, LR_HW, LR_PENDING, LR_ACTIVE = 60, 61, 62, 63

# ICC_CTLR_EL1: PRIbits 4 (five bits), IDbits 1 (24 bits), A3V
_CTLR_FIXED = (PRIORITY_BITS - 1) << 8 | 1 << 11 | 1 << 15

SPURIOUS, WRONG_GROUP = 1023, 1022
IDLE = 0xFF
_STEP = 8 - PRIORITY_BITS  # low priority bits that do not exist
_PRIORITY_MASK = 0xFF << _STEP & 0xFF
_MIN_BPR0, _MIN_BPR1 = _STEP - 1, _STEP

# GICV registers
GICV_SIZE = 0x2000
GICV_CTLR, GICV_PMR, GICV_BPR, GICV_IAR, GICV_EOIR, GICV_RPR, GICV_HPPIR = range(0, 0x1C, 4)
GICV_ABPR, GICV_AIAR, GICV_AEOIR, GICV_AHPPIR = range(0x1C, 0x2C, 4)
GICV_APR, GICV_IIDR, GICV_DIR = 0xD0, 0xFC, 0x1000
_IIDR = 0x0002_043B  # architecture version 2, Arm


def build() -> None:
    """Enter the native functions of this file."""
    _candidate()
    _signals()
    _maintenance()
    _acknowledge()
    _end()
    _system_registers()
    _window()


# -- what is pending, what is active ----------------------------------------------------------


def _lrs(fn: Function) -> list[Value]:
    return [fn.get(f"ich_lr{i}") for i in range(LIST_REGISTERS)]


def _lr_at(fn: Function, index: Value) -> str:
    return fn.gep("%cpu", (index << 3) + layout.OFFSET["ich_lr0"])


def _priority(lr: Value) -> Value:
    return lr.lshr(LR_PRIORITY) & 0xFF


def _bpr(fn: Function, group: int) -> Value:
    """VBPR0 or VBPR1: never below what the number of preemption bits allows."""
    low = _MIN_BPR1 if group else _MIN_BPR0
    v = fn.get("ich_vmcr").lshr(VBPR1 if group else VBPR0) & 7
    return fn.select(v.ult(low), fn.const("i64", low), v)


def _group_mask(fn: Function, group: Value) -> Value:
    """Bits of a priority that take part in preemption: GroupPriority's mask."""
    shared = bit(fn.get("ich_vmcr"), VCBPR).ne(0)
    own = fn.select(group.ne(0) & ~shared, _bpr(fn, 1) - 1, _bpr(fn, 0))
    return fn.const("i64", 0xFF) << (own + 1) & 0xFF


def _candidate() -> None:
    """Index of the list register with the highest-priority pending interrupt of an enabled
    group."""
    with native("ich_candidate", "", ret="i64") as fn:
        best, best_priority = fn.var("i64", NONE), fn.var("i64", 0x100)
        vmcr = fn.get("ich_vmcr")
        for i, lr in enumerate(_lrs(fn)):
            pending = lr.lshr(LR_PENDING).eq(1)
            enabled = bit(vmcr.lshr(bit(lr, LR_GROUP)), VENG0).ne(0)
            better = _priority(lr).ult(best_priority.get())
            with fn.if_(pending & enabled & better):
                best.set(fn.const("i64", i))
                best_priority.set(_priority(lr))
        fn.ret(best.get())
    with native("ich_running", "", ret="i64") as fn:
        # The running priority: of the highest active group priority.
        active = fn.get("ich_ap0r") | fn.get("ich_ap1r")
        with fn.if_(active.eq(0)):
            fn.ret(IDLE)
        fn.ret(fn.intrinsic("llvm.cttz.i64", "i64", active, False) << _STEP)
    with native("ich_preempts", "i64 %lr", ret="i64") as fn:
        # May this pending interrupt be taken now? Mask, then preemption.
        lr = param(fn, "lr")
        on = bit(fn.get("ich_hcr"), HCR_EN).ne(0)
        unmasked = _priority(lr).ult(fn.get("ich_vmcr").lshr(VPMR) & 0xFF)
        running = fn.call("ich_running", "i64", "ptr %cpu")
        mask = _group_mask(fn, bit(lr, LR_GROUP))
        higher = (_priority(lr) & mask).ult(running & mask) | running.eq(IDLE)
        fn.ret((on & unmasked & higher).zext("i64"))


def _signals() -> None:
    """The interface's outputs: bit 0 IRQ, bit 1 FIQ."""
    with native("ich_signals", "", ret="i64") as fn:
        lr0, lr1, lr2, lr3 = _lrs(fn)
        with fn.if_(bit(lr0 | lr1 | lr2 | lr3, LR_PENDING).eq(0)):
            fn.ret(0)
        index = fn.call("ich_candidate", "i64", "ptr %cpu")
        with fn.if_(index.eq(NONE)):
            fn.ret(0)
        lr = fn.load_at(_lr_at(fn, index), "i64")
        with fn.if_(fn.call("ich_preempts", "i64", "ptr %cpu", lr).eq(0)):
            fn.ret(0)
        # With system registers enabled, group 0 is always an FIQ; else as VFIQEn says.
        fiqs = fn.get("icc_sre").ne(0) | bit(fn.get("ich_vmcr"), VFIQEN).ne(0)
        fiq = bit(lr, LR_GROUP).eq(0) & fiqs
        fn.ret(fn.select(fiq, fn.const("i64", 2), 1))


def _maintenance() -> None:
    """Is the maintenance interrupt asserted (ICH_MISR_EL2 not zero)? It ends the run."""
    with native("ich_maintenance", "", ret="i64") as fn:
        hcr = fn.get("ich_hcr")
        with fn.if_(bit(hcr, HCR_EN).eq(0)):
            fn.ret(0)
        eoi, pending, valid = fn.const("i64", 0), fn.const("i64", 0), fn.const("i64", 0)
        for lr in _lrs(fn):
            state = lr.lshr(LR_PENDING)
            wanted = bit(lr, LR_EOI) & (bit(lr, LR_HW) ^ 1)
            eoi = eoi | (wanted & state.eq(0).zext("i64"))
            pending = pending | bit(state, 0)
            valid = valid + state.ne(0).zext("i64")
        underflow = bit(hcr, HCR_UIE) & valid.ult(2).zext("i64")
        uncounted = bit(hcr, HCR_LRENPIE) & hcr.lshr(HCR_EOICOUNT).ne(0).zext("i64")
        none = bit(hcr, HCR_NPIE) & (pending ^ 1)
        fn.ret(eoi | underflow | uncounted | none)


# -- acknowledge, end, deactivate -------------------------------------------------------------


def _acknowledge() -> None:
    """Take the highest pending interrupt if it is of `group`; %other says what a pending
    interrupt of the other group reads as (for GICV_IAR), 0 to take it all the same."""
    with native("ich_acknowledge", "i64 %group, i64 %other", ret="i64") as fn:
        index = fn.call("ich_candidate", "i64", "ptr %cpu")
        with fn.if_(index.eq(NONE)):
            fn.ret(SPURIOUS)
        at = _lr_at(fn, index)
        lr = fn.load_at(at, "i64")
        with fn.if_(fn.call("ich_preempts", "i64", "ptr %cpu", lr).eq(0)):
            fn.ret(SPURIOUS)
        group, other = bit(lr, LR_GROUP), param(fn, "other")
        with fn.if_(group.ne(param(fn, "group")) & other.ne(0)):
            fn.ret(other)
        fn.store_at(at, lr ^ fn.const("i64", 3) << LR_PENDING)
        level = (_priority(lr) & _group_mask(fn, group)).lshr(_STEP)
        active = fn.const("i64", 1) << level
        second = group.ne(0) & fn.get("icc_sre").ne(0)
        with fn.if_(second):
            fn.put("ich_ap1r", fn.get("ich_ap1r") | active)
        with fn.unless(second):
            fn.put("ich_ap0r", fn.get("ich_ap0r") | active)
        fn.ret(_id(fn, lr))
    with native("ich_highest", "i64 %group, i64 %other", ret="i64") as fn:
        # HPPIR: what is pending, whatever its priority.
        index = fn.call("ich_candidate", "i64", "ptr %cpu")
        with fn.if_(index.eq(NONE)):
            fn.ret(SPURIOUS)
        lr = fn.load_at(_lr_at(fn, index), "i64")
        other = param(fn, "other")
        with fn.if_(bit(lr, LR_GROUP).ne(param(fn, "group")) & other.ne(0)):
            fn.ret(other)
        fn.ret(_id(fn, lr))


def _id(fn: Function, lr: Value) -> Value:
    """INTID as the guest reads it; the window adds the source CPU in [12:10]."""
    return lr & fn.select(fn.get("icc_sre").ne(0), fn.const("i64", 0xFF_FFFF), 0x1FFF)


def _end() -> None:
    with native("ich_active", "i64 %id", ret="i64") as fn:
        # Index of the list register in which this interrupt is active.
        wanted = param(fn, "id")
        for i, lr in enumerate(_lrs(fn)):
            with fn.if_(bit(lr, LR_ACTIVE).ne(0) & (lr & 0xFFFF_FFFF).eq(wanted)):
                fn.ret(i)
        fn.ret(NONE)
    with native("ich_drop", "", ret="i64") as fn:
        # Priority drop: clear the highest active priority and return it, IDLE if there is none.
        ap0, ap1 = fn.get("ich_ap0r"), fn.get("ich_ap1r")
        with fn.if_((ap0 | ap1).eq(0)):
            fn.ret(IDLE)
        low0, low1 = (fn.intrinsic("llvm.cttz.i64", "i64", ap, False) for ap in (ap0, ap1))
        first = low0.ult(low1)
        with fn.if_(first):
            fn.put("ich_ap0r", ap0 & (ap0 - 1))
        with fn.unless(first):
            fn.put("ich_ap1r", ap1 & (ap1 - 1))
        fn.ret(fn.select(first, low0, low1) << _STEP)
    with native("ich_deactivate", "i64 %id") as fn:
        index = fn.call("ich_active", "i64", "ptr %cpu", param(fn, "id"))
        with fn.if_(index.eq(NONE)):
            # Not in a list register: the hypervisor is told by the count.
            fn.put("ich_hcr", (fn.get("ich_hcr") + (1 << HCR_EOICOUNT)) & 0xFFFF_FFFF)
            fn.ret()
        at = _lr_at(fn, index)
        lr = fn.load_at(at, "i64")
        fn.store_at(at, lr & ~(1 << LR_ACTIVE))
        with fn.if_(bit(lr, LR_HW).ne(0)):
            physical = lr.lshr(LR_PHYSICAL) & 0x1FFF
            with fn.if_(physical.ult(32)):
                told = fn.get("phys_deactivated") | fn.const("i64", 1) << physical
                fn.put("phys_deactivated", told)
            # Not active any more: a timer that is still high interrupts again.
            with fn.if_(physical.eq(PHYSICAL_VTIMER)):
                fn.put("cntv_masked", 0)
            with fn.if_(physical.eq(PHYSICAL_PTIMER)):
                fn.put("cntp_masked", 0)
    with native("ich_end", "i64 %id, i64 %group") as fn:
        # EOIR. A group of 2 stands for either.
        wanted, group = param(fn, "id"), param(fn, "group")
        with fn.if_((wanted & ~3).eq(1020)):
            fn.ret()
        dropped = fn.call("ich_drop", "i64", "ptr %cpu")
        with fn.if_(dropped.eq(IDLE) | bit(fn.get("ich_vmcr"), VEOIM).ne(0)):
            fn.ret()
        index = fn.call("ich_active", "i64", "ptr %cpu", wanted)
        with fn.if_(index.ne(NONE)):
            # Ended out of order: the priority is dropped, the interrupt stays active.
            lr = fn.load_at(_lr_at(fn, index), "i64")
            its = bit(lr, LR_GROUP)
            level = _priority(lr) & _group_mask(fn, its)
            with fn.if_((its.ne(group) & group.ne(2)) | level.ne(dropped)):
                fn.ret()
        fn.line(f"call void @ich_deactivate(ptr %cpu, i64 {wanted.ref})")
    with native("ich_dir", "i64 %id") as fn:
        wanted = param(fn, "id")
        with fn.if_((wanted & ~3).ne(1020) & bit(fn.get("ich_vmcr"), VEOIM).ne(0)):
            fn.line(f"call void @ich_deactivate(ptr %cpu, i64 {wanted.ref})")


# -- registers --------------------------------------------------------------------------------


def _set_vmcr(fn: Function, shift: int, width: int, v: Value) -> None:
    mask = (1 << width) - 1
    fn.put("ich_vmcr", fn.get("ich_vmcr") & ~(mask << shift) | (v & mask) << shift)


def _write_pmr(fn: Function, v: Value) -> None:
    _set_vmcr(fn, VPMR, 8, v & _PRIORITY_MASK)


def _read_bpr1(fn: Function) -> Value:
    """BPR1; with CBPR it is BPR0 plus one, saturated."""
    shared = bit(fn.get("ich_vmcr"), VCBPR).ne(0)
    one_more = _bpr(fn, 0) + 1
    saturated = fn.select(one_more.ugt(7), fn.const("i64", 7), one_more)
    return fn.select(shared, saturated, _bpr(fn, 1))


def _system_registers() -> None:
    """ICC_* at EL1, as MRS and MSR ask for them (isa/base/system.py)."""
    for group in (0, 1):
        with native(f"read_icc_iar{group}_el1", "i64 %count", ret="i64") as fn:
            fn.ret(fn.call("ich_acknowledge", "i64", "ptr %cpu", _n(fn, group), _n(fn, SPURIOUS)))
        with native(f"read_icc_hppir{group}_el1", "i64 %count", ret="i64") as fn:
            fn.ret(fn.call("ich_highest", "i64", "ptr %cpu", _n(fn, group), _n(fn, SPURIOUS)))
        with native(f"write_icc_eoir{group}_el1", "i64 %count, i64 %v", ret="i64") as fn:
            wanted = param(fn, "v") & 0xFF_FFFF
            fn.line(f"call void @ich_end(ptr %cpu, i64 {wanted.ref}, i64 {group})")
            fn.ret(0)
        with native(f"read_icc_ap{group}r0_el1", "i64 %count", ret="i64") as fn:
            fn.ret(fn.get(f"ich_ap{group}r"))
        with native(f"write_icc_ap{group}r0_el1", "i64 %count, i64 %v", ret="i64") as fn:
            fn.put(f"ich_ap{group}r", param(fn, "v") & 0xFFFF_FFFF)
            fn.ret(0)
        with native(f"read_icc_igrpen{group}_el1", "i64 %count", ret="i64") as fn:
            fn.ret(bit(fn.get("ich_vmcr"), VENG0 + group))
        with native(f"write_icc_igrpen{group}_el1", "i64 %count, i64 %v", ret="i64") as fn:
            _set_vmcr(fn, VENG0 + group, 1, param(fn, "v"))
            fn.ret(0)
    with native("write_icc_dir_el1", "i64 %count, i64 %v", ret="i64") as fn:
        wanted = param(fn, "v") & 0xFF_FFFF
        fn.line(f"call void @ich_dir(ptr %cpu, i64 {wanted.ref})")
        fn.ret(0)
    with native("read_icc_rpr_el1", "i64 %count", ret="i64") as fn:
        fn.ret(fn.call("ich_running", "i64", "ptr %cpu"))
    with native("read_icc_pmr_el1", "i64 %count", ret="i64") as fn:
        fn.ret(fn.get("ich_vmcr").lshr(VPMR) & 0xFF)
    with native("write_icc_pmr_el1", "i64 %count, i64 %v", ret="i64") as fn:
        _write_pmr(fn, param(fn, "v"))
        fn.ret(0)
    with native("read_icc_bpr0_el1", "i64 %count", ret="i64") as fn:
        fn.ret(_bpr(fn, 0))
    with native("write_icc_bpr0_el1", "i64 %count, i64 %v", ret="i64") as fn:
        _set_vmcr(fn, VBPR0, 3, param(fn, "v"))
        fn.ret(0)
    with native("read_icc_bpr1_el1", "i64 %count", ret="i64") as fn:
        fn.ret(_read_bpr1(fn))
    with native("write_icc_bpr1_el1", "i64 %count, i64 %v", ret="i64") as fn:
        with fn.if_(bit(fn.get("ich_vmcr"), VCBPR).eq(0)):
            _set_vmcr(fn, VBPR1, 3, param(fn, "v"))
        fn.ret(0)
    with native("read_icc_ctlr_el1", "i64 %count", ret="i64") as fn:
        vmcr = fn.get("ich_vmcr")
        fn.ret(bit(vmcr, VCBPR) | bit(vmcr, VEOIM) << 1 | _CTLR_FIXED)
    with native("write_icc_ctlr_el1", "i64 %count, i64 %v", ret="i64") as fn:
        _set_vmcr(fn, VCBPR, 1, param(fn, "v"))
        _set_vmcr(fn, VEOIM, 1, param(fn, "v").lshr(1))
        fn.ret(0)


def _n(fn: Function, n: int) -> Value:
    return fn.const("i64", n)


def _window() -> None:
    """GICV registers, by offset into the window; 32-bit accesses."""
    with native("gicv_read", "i64 %offset", ret="i64") as fn:
        offset, vmcr = param(fn, "offset"), fn.get("ich_vmcr")
        # A group 1 interrupt answers to IAR and HPPIR only where AckCtl allows it.
        other = fn.select(bit(vmcr, VACKCTL).ne(0), _n(fn, 0), WRONG_GROUP)
        for at, name, group, wrong in (
            (GICV_IAR, "ich_acknowledge", 0, other),
            (GICV_AIAR, "ich_acknowledge", 1, _n(fn, SPURIOUS)),
            (GICV_HPPIR, "ich_highest", 0, other),
            (GICV_AHPPIR, "ich_highest", 1, _n(fn, SPURIOUS)),
        ):
            with fn.if_(offset.eq(at)):
                fn.ret(fn.call(name, "i64", "ptr %cpu", _n(fn, group), wrong))
        with fn.if_(offset.eq(GICV_RPR)):
            fn.ret(fn.call("ich_running", "i64", "ptr %cpu"))
        for at, value in (
            (GICV_CTLR, vmcr & _GICV_CTLR),
            (GICV_PMR, vmcr.lshr(VPMR) & 0xFF),
            (GICV_BPR, _bpr(fn, 0)),
            (GICV_ABPR, _read_bpr1(fn)),
            (GICV_APR, fn.get("ich_ap0r")),
            (GICV_IIDR, _n(fn, _IIDR)),
        ):
            with fn.if_(offset.eq(at)):
                fn.ret(value)
        fn.ret(0)
    with native("gicv_write", "i64 %offset, i64 %v") as fn:
        offset, v = param(fn, "offset"), param(fn, "v")
        with fn.if_(offset.eq(GICV_CTLR)):
            fn.put("ich_vmcr", fn.get("ich_vmcr") & ~_GICV_CTLR | v & _GICV_CTLR)
        with fn.if_(offset.eq(GICV_PMR)):
            _write_pmr(fn, v)
        with fn.if_(offset.eq(GICV_BPR)):
            _set_vmcr(fn, VBPR0, 3, v)
        with fn.if_(offset.eq(GICV_ABPR)):
            _set_vmcr(fn, VBPR1, 3, v)
        with fn.if_(offset.eq(GICV_APR)):
            fn.put("ich_ap0r", v & 0xFFFF_FFFF)
        wanted = v & 0x1FFF
        with fn.if_(offset.eq(GICV_EOIR)):
            fn.line(f"call void @ich_end(ptr %cpu, i64 {wanted.ref}, i64 2)")
        with fn.if_(offset.eq(GICV_AEOIR)):
            fn.line(f"call void @ich_end(ptr %cpu, i64 {wanted.ref}, i64 1)")
        with fn.if_(offset.eq(GICV_DIR)):
            fn.line(f"call void @ich_dir(ptr %cpu, i64 {wanted.ref})")
    with routine("gicv_access") as fn:
        # An access of one general register: arg0 is ISS of the stage 2 abort that it would be.
        iss = fn.get("arg0")
        word_sized = (iss.lshr(22) & 3).eq(2)
        rt = iss.lshr(16) & 31
        offset = fn.get("fault_ipa") - fn.get("gicv_base")
        with fn.if_((fn.get("access") & ACCESS_WRITE).ne(0)):
            slot = fn.select(rt.eq(31), _n(fn, layout.ZERO_SLOT), rt)
            v = fn.load_at(fn.gep("%cpu", slot << 3), "i64") & 0xFFFF_FFFF
            with fn.if_(word_sized):
                fn.line(f"call void @gicv_write(ptr %cpu, i64 {offset.ref}, i64 {v.ref})")
            _look(fn)
        read = fn.var("i64", 0)
        with fn.if_(word_sized):
            read.set(fn.call("gicv_read", "i64", "ptr %cpu", offset))
        v = read.get()
        v = fn.select(bit(iss, 21).ne(0), v.trunc("i32").sext("i64"), v)
        slot = fn.select(rt.eq(31), _n(fn, layout.DUMP_SLOT), rt)
        fn.store_at(fn.gep("%cpu", slot << 3), v)
        _look(fn)


def _look(fn: Code) -> None:
    """On to the next instruction by way of the run loop: outputs and deadlines have changed."""
    fn.leave(CHECK, fn.gep("%op", layout.RECORD))
