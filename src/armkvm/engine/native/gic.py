"""The GIC virtual CPU interface in native code: its list registers (IHI 0069, GIC architecture
specification, chapter 8: ICH_*; IHI 0048 chapter 5: GICH).

What the hypervisor writes as ICH_HCR, ICH_VMCR, ICH_AP0R, ICH_AP1R and four list registers is state
of the CPU here. The guest acknowledges, ends and deactivates interrupts through ICC_* system
registers (gic_registers.py, where `icc_sre` is set) or through the GICV window in its physical
address space (gic_window.py, where `gicv_size` is set), and no exit results. A list register with
HW set deactivates the physical interrupt too.

The one format of list registers is ICH_LR<n>_EL2's; the GICV window sees them as a GICv3 in legacy
operation does: INTID in bits [9:0], the source CPU of an SGI in [12:10]. All of the window's
interrupts share one active-priorities register, as in GICH_APR: AP0R.

Left out: group enable maintenance interrupts (VGrp0EIE and its kin), NMIs, LPIs' missing active
state, trap bits of ICH_HCR, accesses to the window that carry no syndrome.
"""

from __future__ import annotations

from armkvm.arch import gic as g
from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import bit, flag, native, param
from armkvm.isa.value import Value

NONE = g.NR_LR  # an index of a list register that is none
EITHER = 2  # a group of `ich_end`

STEP = 8 - g.PRI_BITS  # low priority bits that do not exist
_MIN_BPR0, _MIN_BPR1 = STEP - 1, STEP


def build() -> None:
    """Enter the native functions of this file."""
    _candidate()
    _running()
    _preempts()
    _signals()
    _maintenance()
    _acknowledge()
    _highest()
    _active()
    _drop()
    _deactivate()
    _end()
    _dir()


# -- what is pending, what is active ----------------------------------------------------------


def _lrs(fn: Function) -> list[Value]:
    return [fn.get(f"ich_lr{i}") for i in range(g.NR_LR)]


def _lr_at(fn: Function, index: Value) -> str:
    return fn.gep("%cpu", (index << 3) + layout.OFFSET["ich_lr0"])


def _group(lr: Value) -> Value:
    return bit(lr, g.ICH_LR_GROUP_SHIFT)


def _priority(lr: Value) -> Value:
    return lr.lshr(g.ICH_LR_PRIORITY_SHIFT) & 0xFF


def bpr(fn: Function, group: int) -> Value:
    """VBPR0 or VBPR1: never below what the number of preemption bits allows."""
    low = _MIN_BPR1 if group else _MIN_BPR0
    v = fn.get("ich_vmcr").lshr(g.ICH_VMCR_BPR1_SHIFT if group else g.ICH_VMCR_BPR0_SHIFT) & 7
    return fn.select(v.ult(low), fn.const("i64", low), v)


def _group_mask(fn: Function, group: Value) -> Value:
    """Bits of a priority that take part in preemption: GroupPriority's mask."""
    shared = flag(fn.get("ich_vmcr"), g.ICH_VMCR_CBPR)
    own = fn.select(group.ne(0) & ~shared, bpr(fn, 1) - 1, bpr(fn, 0))
    return fn.const("i64", 0xFF) << (own + 1) & 0xFF


def _candidate() -> None:
    """Index of the list register with the highest-priority pending interrupt of an enabled
    group."""
    with native("ich_candidate", "", ret="i64") as fn:
        best, best_priority = fn.var("i64", NONE), fn.var("i64", 0x100)
        vmcr = fn.get("ich_vmcr")
        for i, lr in enumerate(_lrs(fn)):
            pending = (lr & g.ICH_LR_STATE).eq(g.ICH_LR_PENDING)
            enabled = flag(vmcr.lshr(_group(lr)), g.ICH_VMCR_ENG0)
            better = _priority(lr).ult(best_priority.get())
            with fn.if_(pending & enabled & better):
                best.set(fn.const("i64", i))
                best_priority.set(_priority(lr))
        fn.ret(best.get())


def _running() -> None:
    """The running priority: of the highest active group priority."""
    with native("ich_running", "", ret="i64") as fn:
        active = fn.get("ich_ap0r") | fn.get("ich_ap1r")
        with fn.if_(active.eq(0)):
            fn.ret(g.IDLE_PRIORITY)
        fn.ret(fn.intrinsic("llvm.cttz.i64", "i64", active, False) << STEP)


def _preempts() -> None:
    """May this pending interrupt be taken now? Mask, then preemption."""
    with native("ich_preempts", "i64 %lr", ret="i64") as fn:
        lr = param(fn, "lr")
        on = flag(fn.get("ich_hcr"), g.ICH_HCR_EN)
        unmasked = _priority(lr).ult(fn.get("ich_vmcr").lshr(g.ICH_VMCR_PMR_SHIFT) & 0xFF)
        running = fn.call("ich_running", "i64", "ptr %cpu")
        mask = _group_mask(fn, _group(lr))
        higher = (_priority(lr) & mask).ult(running & mask) | running.eq(g.IDLE_PRIORITY)
        fn.ret((on & unmasked & higher).zext("i64"))


def _signals() -> None:
    """The interface's outputs: bit 0 IRQ, bit 1 FIQ."""
    with native("ich_signals", "", ret="i64") as fn:
        lr0, lr1, lr2, lr3 = _lrs(fn)
        with fn.unless(flag(lr0 | lr1 | lr2 | lr3, g.ICH_LR_PENDING)):
            fn.ret(0)
        index = fn.call("ich_candidate", "i64", "ptr %cpu")
        with fn.if_(index.eq(NONE)):
            fn.ret(0)
        lr = fn.load_at(_lr_at(fn, index), "i64")
        with fn.if_(fn.call("ich_preempts", "i64", "ptr %cpu", lr).eq(0)):
            fn.ret(0)
        # With system registers enabled, group 0 is always an FIQ; else as VFIQEn says.
        fiqs = fn.get("icc_sre").ne(0) | flag(fn.get("ich_vmcr"), g.ICH_VMCR_FIQ_EN)
        fiq = ~flag(lr, g.ICH_LR_GROUP) & fiqs
        fn.ret(fn.select(fiq, fn.const("i64", 2), 1))


def _maintenance() -> None:
    """Is the maintenance interrupt asserted (ICH_MISR_EL2 not zero)? It ends the run."""
    with native("ich_maintenance", "", ret="i64") as fn:
        hcr = fn.get("ich_hcr")
        with fn.unless(flag(hcr, g.ICH_HCR_EN)):
            fn.ret(0)
        eoi, pending, valid = fn.const("i1", 0), fn.const("i1", 0), fn.const("i64", 0)
        for lr in _lrs(fn):
            eoi = eoi | (lr & (g.ICH_LR_EOI | g.ICH_LR_HW | g.ICH_LR_STATE)).eq(g.ICH_LR_EOI)
            pending = pending | flag(lr, g.ICH_LR_PENDING)
            valid = valid + flag(lr, g.ICH_LR_STATE).zext("i64")
        underflow = flag(hcr, g.ICH_HCR_UIE) & valid.ult(2)
        uncounted = flag(hcr, g.ICH_HCR_LRENPIE) & hcr.lshr(g.ICH_HCR_EOICOUNT_SHIFT).ne(0)
        none = flag(hcr, g.ICH_HCR_NPIE) & ~pending
        fn.ret((eoi | underflow | uncounted | none).zext("i64"))


# -- acknowledge, end, deactivate -------------------------------------------------------------


def _acknowledge() -> None:
    """Take the highest pending interrupt if it is of `group`; %other says what a pending
    interrupt of the other group reads as (for GICV_IAR), 0 to take it all the same."""
    with native("ich_acknowledge", "i64 %group, i64 %other", ret="i64") as fn:
        index = fn.call("ich_candidate", "i64", "ptr %cpu")
        with fn.if_(index.eq(NONE)):
            fn.ret(g.INTID_SPURIOUS)
        at = _lr_at(fn, index)
        lr = fn.load_at(at, "i64")
        with fn.if_(fn.call("ich_preempts", "i64", "ptr %cpu", lr).eq(0)):
            fn.ret(g.INTID_SPURIOUS)
        group, other = _group(lr), param(fn, "other")
        with fn.if_(group.ne(param(fn, "group")) & other.ne(0)):
            fn.ret(other)
        fn.store_at(at, lr ^ g.ICH_LR_STATE)  # pending becomes active
        level = (_priority(lr) & _group_mask(fn, group)).lshr(STEP)
        active = fn.const("i64", 1) << level
        second = group.ne(0) & fn.get("icc_sre").ne(0)
        with fn.if_(second):
            fn.put("ich_ap1r", fn.get("ich_ap1r") | active)
        with fn.unless(second):
            fn.put("ich_ap0r", fn.get("ich_ap0r") | active)
        fn.ret(_id(fn, lr))


def _highest() -> None:
    """HPPIR: what is pending, whatever its priority."""
    with native("ich_highest", "i64 %group, i64 %other", ret="i64") as fn:
        index = fn.call("ich_candidate", "i64", "ptr %cpu")
        with fn.if_(index.eq(NONE)):
            fn.ret(g.INTID_SPURIOUS)
        lr = fn.load_at(_lr_at(fn, index), "i64")
        other = param(fn, "other")
        with fn.if_(_group(lr).ne(param(fn, "group")) & other.ne(0)):
            fn.ret(other)
        fn.ret(_id(fn, lr))


def _id(fn: Function, lr: Value) -> Value:
    """INTID as the guest reads it; the window adds the source CPU in [12:10]."""
    return lr & fn.select(fn.get("icc_sre").ne(0), fn.const("i64", 0xFF_FFFF), 0x1FFF)


def _special(intid: Value) -> Value:
    """1020 to 1023 name no interrupt: nothing to end."""
    return (intid & ~3).eq(1020)


def _active() -> None:
    """Index of the list register in which this interrupt is active."""
    with native("ich_active", "i64 %id", ret="i64") as fn:
        wanted = param(fn, "id")
        for i, lr in enumerate(_lrs(fn)):
            with fn.if_(flag(lr, g.ICH_LR_ACTIVE) & (lr & 0xFFFF_FFFF).eq(wanted)):
                fn.ret(i)
        fn.ret(NONE)


def _drop() -> None:
    """Priority drop: clear the highest active priority and return it, idle if there is none."""
    with native("ich_drop", "", ret="i64") as fn:
        ap0, ap1 = fn.get("ich_ap0r"), fn.get("ich_ap1r")
        with fn.if_((ap0 | ap1).eq(0)):
            fn.ret(g.IDLE_PRIORITY)
        low0, low1 = (fn.intrinsic("llvm.cttz.i64", "i64", ap, False) for ap in (ap0, ap1))
        first = low0.ult(low1)
        with fn.if_(first):
            fn.put("ich_ap0r", ap0 & (ap0 - 1))
        with fn.unless(first):
            fn.put("ich_ap1r", ap1 & (ap1 - 1))
        fn.ret(fn.select(first, low0, low1) << STEP)


def _deactivate() -> None:
    with native("ich_deactivate", "i64 %id") as fn:
        index = fn.call("ich_active", "i64", "ptr %cpu", param(fn, "id"))
        with fn.if_(index.eq(NONE)):
            # Not in a list register: the hypervisor is told by the count, and whose it was, where
            # hardware would trap the write to ICC_DIR_EL1 (ICH_HCR_EL2.TDIR).
            fn.put("ich_counted_id", param(fn, "id"))
            one_more = fn.get("ich_hcr") + (1 << g.ICH_HCR_EOICOUNT_SHIFT)
            fn.put("ich_hcr", one_more & 0xFFFF_FFFF)
            fn.ret()
        at = _lr_at(fn, index)
        lr = fn.load_at(at, "i64")
        fn.store_at(at, lr & ~g.ICH_LR_ACTIVE)
        with fn.if_(flag(lr, g.ICH_LR_HW)):
            physical = lr.lshr(g.ICH_LR_PHYS_ID_SHIFT) & 0x1FFF
            with fn.if_(physical.ult(32)):
                told = fn.get("phys_deactivated") | fn.const("i64", 1) << physical
                fn.put("phys_deactivated", told)
            # Not active any more: a timer that is still high interrupts again. The host's timers
            # have the PPIs that the guest's usually have (host/pcpu.py).
            with fn.if_(physical.eq(g.PPI_VIRTUAL_TIMER)):
                fn.put("cntv_masked", 0)
            with fn.if_(physical.eq(g.PPI_PHYSICAL_TIMER)):
                fn.put("cntp_masked", 0)


def _end() -> None:
    """EOIR of a group, or of EITHER."""
    with native("ich_end", "i64 %id, i64 %group") as fn:
        wanted, group = param(fn, "id"), param(fn, "group")
        with fn.if_(_special(wanted)):
            fn.ret()
        dropped = fn.call("ich_drop", "i64", "ptr %cpu")
        with fn.if_(dropped.eq(g.IDLE_PRIORITY) | flag(fn.get("ich_vmcr"), g.ICH_VMCR_EOIM)):
            fn.ret()
        index = fn.call("ich_active", "i64", "ptr %cpu", wanted)
        with fn.if_(index.ne(NONE)):
            # Ended out of order: the priority is dropped, the interrupt stays active.
            lr = fn.load_at(_lr_at(fn, index), "i64")
            its = _group(lr)
            level = _priority(lr) & _group_mask(fn, its)
            with fn.if_((its.ne(group) & group.ne(EITHER)) | level.ne(dropped)):
                fn.ret()
        fn.call("ich_deactivate", "void", "ptr %cpu", wanted)


def _dir() -> None:
    """DIR: means something only where EOIR does not deactivate."""
    with native("ich_dir", "i64 %id") as fn:
        wanted = param(fn, "id")
        with fn.if_(~_special(wanted) & flag(fn.get("ich_vmcr"), g.ICH_VMCR_EOIM)):
            fn.call("ich_deactivate", "void", "ptr %cpu", wanted)
