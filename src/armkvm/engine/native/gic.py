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

Left out: group enable maintenance interrupts (VGrp0EIE and its kin), NMIs, trap bits of ICH_HCR,
accesses to the window that carry no syndrome.
"""

from __future__ import annotations

from armkvm.arch import gic as g
from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function, Pointer, bit, flag
from armkvm.engine.llvm.native import native
from armkvm.isa.value import Value

NONE = g.NR_LR  # an index of a list register that is none
EITHER = 2  # a group of `ich_end`

STEP = 8 - g.PRI_BITS  # low priority bits that do not exist
_MIN_BPR0, _MIN_BPR1 = STEP - 1, STEP


# -- what is pending, what is active ----------------------------------------------------------


def _lrs(fn: Function) -> list[Value]:
    return [fn.get(f"ich_lr{i}") for i in range(g.NR_LR)]


def _lr_at(fn: Function, index: Value) -> Pointer:
    return fn.cpu + ((index << 3) + layout.OFFSET["ich_lr0"])


def _group(lr: Value) -> Value:
    return bit(lr, g.ICH_LR_GROUP_SHIFT)


def _priority(lr: Value) -> Value:
    return lr.lshr(g.ICH_LR_PRIORITY_SHIFT) & 0xFF


def bpr(fn: Function, group: int) -> Value:
    """VBPR0 or VBPR1: never below what the number of preemption bits allows."""
    low = _MIN_BPR1 if group else _MIN_BPR0
    v = fn.get("ich_vmcr").lshr(g.ICH_VMCR_BPR1_SHIFT if group else g.ICH_VMCR_BPR0_SHIFT) & 7
    return fn.select(v.ult(low), fn.i64(low), v)


def _group_mask(fn: Function, group: Value) -> Value:
    """Bits of a priority that take part in preemption: GroupPriority's mask."""
    shared = flag(fn.get("ich_vmcr"), g.ICH_VMCR_CBPR)
    own = fn.select(group.ne(0) & ~shared, bpr(fn, 1) - 1, bpr(fn, 0))
    return fn.i64(0xFF) << (own + 1) & 0xFF


@native
def ich_candidate(fn: Function) -> Value:
    """Index of the list register with the highest-priority pending interrupt of an enabled
    group."""
    best, best_priority = fn.var("i64", NONE), fn.var("i64", 0x100)
    vmcr = fn.get("ich_vmcr")
    for i, lr in enumerate(_lrs(fn)):
        pending = (lr & g.ICH_LR_STATE).eq(g.ICH_LR_PENDING)
        enabled = flag(vmcr.lshr(_group(lr)), g.ICH_VMCR_ENG0)
        better = _priority(lr).ult(best_priority.get())
        with fn.if_(pending & enabled & better):
            best.set(i)
            best_priority.set(_priority(lr))
    return best.get()


@native
def ich_running(fn: Function) -> Value:
    """The running priority: of the highest active group priority."""
    active = fn.get("ich_ap0r") | fn.get("ich_ap1r")
    with fn.if_(active.eq(0)):
        fn.ret(g.IDLE_PRIORITY)
    return _lowest(fn, active) << STEP


def _lowest(fn: Function, bits: Value) -> Value:
    """The number of the lowest bit that is set; 64 where none is."""
    return fn.intrinsic("llvm.cttz.i64", "i64", bits, False)


@native
def ich_preempts(fn: Function, lr: Value) -> Value:
    """May this pending interrupt be taken now? Mask, then preemption."""
    on = flag(fn.get("ich_hcr"), g.ICH_HCR_EN)
    unmasked = _priority(lr).ult(fn.get("ich_vmcr").lshr(g.ICH_VMCR_PMR_SHIFT) & 0xFF)
    running = ich_running(fn)
    mask = _group_mask(fn, _group(lr))
    higher = (_priority(lr) & mask).ult(running & mask) | running.eq(g.IDLE_PRIORITY)
    return (on & unmasked & higher).zext("i64")


@native
def ich_signals(fn: Function) -> Value:
    """The interface's outputs: bit 0 IRQ, bit 1 FIQ."""
    lr0, lr1, lr2, lr3 = _lrs(fn)
    with fn.unless(flag(lr0 | lr1 | lr2 | lr3, g.ICH_LR_PENDING)):
        fn.ret(0)
    index = ich_candidate(fn)
    with fn.if_(index.eq(NONE)):
        fn.ret(0)
    lr = _lr_at(fn, index).load()
    with fn.if_(ich_preempts(fn, lr).eq(0)):
        fn.ret(0)
    # With system registers enabled, group 0 is always an FIQ; else as VFIQEn says.
    fiqs = fn.get("icc_sre").ne(0) | flag(fn.get("ich_vmcr"), g.ICH_VMCR_FIQ_EN)
    fiq = ~flag(lr, g.ICH_LR_GROUP) & fiqs
    return fn.select(fiq, fn.i64(2), 1)


@native
def ich_maintenance(fn: Function) -> Value:
    """Is the maintenance interrupt asserted (ICH_MISR_EL2 not zero)? It ends the run."""
    hcr = fn.get("ich_hcr")
    with fn.unless(flag(hcr, g.ICH_HCR_EN)):
        fn.ret(0)
    eoi, pending, valid = fn.const("i1", 0), fn.const("i1", 0), fn.i64(0)
    for lr in _lrs(fn):
        eoi = eoi | (lr & (g.ICH_LR_EOI | g.ICH_LR_HW | g.ICH_LR_STATE)).eq(g.ICH_LR_EOI)
        pending = pending | flag(lr, g.ICH_LR_PENDING)
        valid = valid + flag(lr, g.ICH_LR_STATE).zext("i64")
    underflow = flag(hcr, g.ICH_HCR_UIE) & valid.ult(2)
    uncounted = flag(hcr, g.ICH_HCR_LRENPIE) & hcr.lshr(g.ICH_HCR_EOICOUNT_SHIFT).ne(0)
    none = flag(hcr, g.ICH_HCR_NPIE) & ~pending
    return (eoi | underflow | uncounted | none).zext("i64")


# -- acknowledge, end, deactivate -------------------------------------------------------------


@native
def ich_acknowledge(fn: Function, group: Value, other: Value) -> Value:
    """Take the highest pending interrupt if it is of `group`; `other` says what a pending
    interrupt of the other group reads as (for GICV_IAR), 0 to take it all the same."""
    index = ich_candidate(fn)
    with fn.if_(index.eq(NONE)):
        fn.ret(g.INTID_SPURIOUS)
    at = _lr_at(fn, index)
    lr = at.load()
    with fn.if_(ich_preempts(fn, lr).eq(0)):
        fn.ret(g.INTID_SPURIOUS)
    its = _group(lr)
    with fn.if_(its.ne(group) & other.ne(0)):
        fn.ret(other)
    # Pending becomes active; an LPI has no active state, the list register is empty then.
    lpi = _is_lpi(lr & 0xFFFF_FFFF)
    at.store(fn.select(lpi, lr & ~g.ICH_LR_STATE, lr ^ g.ICH_LR_STATE))
    level = (_priority(lr) & _group_mask(fn, its)).lshr(STEP)
    active = fn.i64(1) << level
    second = its.ne(0) & fn.get("icc_sre").ne(0)
    with fn.if_(second):
        fn.put("ich_ap1r", fn.get("ich_ap1r") | active)
    with fn.unless(second):
        fn.put("ich_ap0r", fn.get("ich_ap0r") | active)
    return _id(fn, lr)


@native
def ich_highest(fn: Function, group: Value, other: Value) -> Value:
    """HPPIR: what is pending, whatever its priority."""
    index = ich_candidate(fn)
    with fn.if_(index.eq(NONE)):
        fn.ret(g.INTID_SPURIOUS)
    lr = _lr_at(fn, index).load()
    with fn.if_(_group(lr).ne(group) & other.ne(0)):
        fn.ret(other)
    return _id(fn, lr)


def _id(fn: Function, lr: Value) -> Value:
    """INTID as the guest reads it; the window adds the source CPU in [12:10]."""
    return lr & fn.select(fn.get("icc_sre").ne(0), fn.i64(0xFF_FFFF), 0x1FFF)


def _special(intid: Value) -> Value:
    """1020 to 1023 name no interrupt: nothing to end."""
    return (intid & ~3).eq(1020)


def _is_lpi(intid: Value) -> Value:
    return intid.uge(g.FIRST_LPI)


@native
def ich_active(fn: Function, id: Value) -> Value:
    """Index of the list register in which this interrupt is active."""
    for i, lr in enumerate(_lrs(fn)):
        with fn.if_(flag(lr, g.ICH_LR_ACTIVE) & (lr & 0xFFFF_FFFF).eq(id)):
            fn.ret(i)
    return fn.i64(NONE)


@native
def ich_drop(fn: Function) -> Value:
    """Priority drop: clear the highest active priority and return it, idle if there is none."""
    ap0, ap1 = fn.get("ich_ap0r"), fn.get("ich_ap1r")
    with fn.if_((ap0 | ap1).eq(0)):
        fn.ret(g.IDLE_PRIORITY)
    low0, low1 = _lowest(fn, ap0), _lowest(fn, ap1)
    first = low0.ult(low1)
    with fn.if_(first):
        fn.put("ich_ap0r", ap0 & (ap0 - 1))
    with fn.unless(first):
        fn.put("ich_ap1r", ap1 & (ap1 - 1))
    return fn.select(first, low0, low1) << STEP


@native
def ich_deactivate(fn: Function, id: Value) -> None:
    """Deactivation, of the physical interrupt too where the list register has one."""
    index = ich_active(fn, id)
    with fn.if_(_is_lpi(id)):
        fn.ret()  # there is nothing to deactivate, and EOIcount does not count it
    with fn.if_(index.eq(NONE)):
        # Not in a list register: the hypervisor is told by the count, and whose it was, where
        # hardware would trap the write to ICC_DIR_EL1 (ICH_HCR_EL2.TDIR).
        fn.put("ich_counted_id", id)
        one_more = fn.get("ich_hcr") + (1 << g.ICH_HCR_EOICOUNT_SHIFT)
        fn.put("ich_hcr", one_more & 0xFFFF_FFFF)
        fn.ret()
    at = _lr_at(fn, index)
    lr = at.load()
    at.store(lr & ~g.ICH_LR_ACTIVE)
    with fn.if_(flag(lr, g.ICH_LR_HW)):
        physical = lr.lshr(g.ICH_LR_PHYS_ID_SHIFT) & 0x1FFF
        with fn.if_(physical.ult(32)):
            fn.put("phys_deactivated", fn.get("phys_deactivated") | fn.i64(1) << physical)
        # Not active any more: a timer that is still high interrupts again. The host's timers
        # have the PPIs that the guest's usually have (host/pcpu.py).
        with fn.if_(physical.eq(g.PPI_VIRTUAL_TIMER)):
            fn.put("cntv_masked", 0)
        with fn.if_(physical.eq(g.PPI_PHYSICAL_TIMER)):
            fn.put("cntp_masked", 0)


@native
def ich_end(fn: Function, id: Value, group: Value) -> None:
    """EOIR of a group, or of EITHER."""
    with fn.if_(_special(id)):
        fn.ret()
    dropped = ich_drop(fn)
    with fn.if_(dropped.eq(g.IDLE_PRIORITY) | flag(fn.get("ich_vmcr"), g.ICH_VMCR_EOIM)):
        fn.ret()
    index = ich_active(fn, id)
    with fn.if_(index.ne(NONE)):
        # Ended out of order: the priority is dropped, the interrupt stays active.
        lr = _lr_at(fn, index).load()
        its = _group(lr)
        level = _priority(lr) & _group_mask(fn, its)
        with fn.if_((its.ne(group) & group.ne(EITHER)) | level.ne(dropped)):
            fn.ret()
    ich_deactivate(fn, id)


@native
def ich_dir(fn: Function, id: Value) -> None:
    """DIR: means something only where EOIR does not deactivate."""
    with fn.if_(~_special(id) & flag(fn.get("ich_vmcr"), g.ICH_VMCR_EOIM)):
        ich_deactivate(fn, id)
