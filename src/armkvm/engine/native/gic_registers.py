"""ICC_* at EL1, as MRS and MSR ask for them (IHI 0069, 12.2): the virtual CPU interface of a GICv3.

Five bits of priority, five of preemption, 24-bit interrupt IDs. Left out: ICC_SRE_EL1 and the
registers that send SGIs, which trap to EL2.
"""

from __future__ import annotations

from armkvm.arch import gic as g
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import flag, native, param
from armkvm.engine.native.gic import STEP, bpr
from armkvm.isa.value import Value

_PRIORITY_MASK = 0xFF << STEP & 0xFF
_ID_24_BITS = 1  # ICC_CTLR_EL1.IDbits
_CTLR_FIXED = (
    (g.PRI_BITS - 1) << g.ICC_CTLR_PRI_BITS_SHIFT
    | _ID_24_BITS << g.ICC_CTLR_ID_BITS_SHIFT
    | g.ICC_CTLR_A3V
)


def build() -> None:
    """Enter the native functions of this file."""
    for group in (0, 1):
        _of_group(group)
    _priorities()
    _control()


def set_vmcr(fn: Function, mask: int, v: Value) -> None:
    """Replace the bits of ICH_VMCR that the mask names."""
    fn.put("ich_vmcr", fn.get("ich_vmcr") & ~mask | v & mask)


def write_pmr(fn: Function, v: Value) -> None:
    """The priority mask: bits that no priority has are not stored."""
    set_vmcr(fn, 0xFF << g.ICH_VMCR_PMR_SHIFT, (v & _PRIORITY_MASK) << g.ICH_VMCR_PMR_SHIFT)


def write_bpr(fn: Function, group: int, v: Value) -> None:
    """BPR0 or BPR1, as written: reading minds the minimum."""
    shift = g.ICH_VMCR_BPR1_SHIFT if group else g.ICH_VMCR_BPR0_SHIFT
    set_vmcr(fn, 7 << shift, v << shift)


def read_bpr1(fn: Function) -> Value:
    """BPR1; with CBPR it is BPR0 plus one, saturated."""
    one_more = bpr(fn, 0) + 1
    saturated = fn.select(one_more.ugt(7), fn.const("i64", 7), one_more)
    return fn.select(flag(fn.get("ich_vmcr"), g.ICH_VMCR_CBPR), saturated, bpr(fn, 1))


def _of_group(group: int) -> None:
    with native(f"read_icc_iar{group}_el1", "i64 %count", ret="i64") as fn:
        fn.ret(_asked(fn, "ich_acknowledge", group))
    with native(f"read_icc_hppir{group}_el1", "i64 %count", ret="i64") as fn:
        fn.ret(_asked(fn, "ich_highest", group))
    with native(f"write_icc_eoir{group}_el1", "i64 %count, i64 %v", ret="i64") as fn:
        wanted = param(fn, "v") & 0xFF_FFFF
        fn.call("ich_end", "void", "ptr %cpu", wanted, fn.const("i64", group))
        fn.ret(0)
    with native(f"read_icc_ap{group}r0_el1", "i64 %count", ret="i64") as fn:
        fn.ret(fn.get(f"ich_ap{group}r"))
    with native(f"write_icc_ap{group}r0_el1", "i64 %count, i64 %v", ret="i64") as fn:
        fn.put(f"ich_ap{group}r", param(fn, "v") & 0xFFFF_FFFF)
        fn.ret(0)
    enable = (g.ICH_VMCR_ENG0, g.ICH_VMCR_ENG1)[group]
    with native(f"read_icc_igrpen{group}_el1", "i64 %count", ret="i64") as fn:
        fn.ret(flag(fn.get("ich_vmcr"), enable).zext("i64"))
    with native(f"write_icc_igrpen{group}_el1", "i64 %count, i64 %v", ret="i64") as fn:
        _put_flag(fn, enable, flag(param(fn, "v"), 1))
        fn.ret(0)


def _asked(fn: Function, name: str, group: int) -> Value:
    spurious = fn.const("i64", g.INTID_SPURIOUS)
    return fn.call(name, "i64", "ptr %cpu", fn.const("i64", group), spurious)


def _put_flag(fn: Function, mask: int, on: Value) -> None:
    set_vmcr(fn, mask, fn.select(on, fn.const("i64", mask), 0))


def _priorities() -> None:
    with native("read_icc_rpr_el1", "i64 %count", ret="i64") as fn:
        fn.ret(fn.call("ich_running", "i64", "ptr %cpu"))
    with native("read_icc_pmr_el1", "i64 %count", ret="i64") as fn:
        fn.ret(fn.get("ich_vmcr").lshr(g.ICH_VMCR_PMR_SHIFT) & 0xFF)
    with native("write_icc_pmr_el1", "i64 %count, i64 %v", ret="i64") as fn:
        write_pmr(fn, param(fn, "v"))
        fn.ret(0)
    with native("read_icc_bpr0_el1", "i64 %count", ret="i64") as fn:
        fn.ret(bpr(fn, 0))
    with native("write_icc_bpr0_el1", "i64 %count, i64 %v", ret="i64") as fn:
        write_bpr(fn, 0, param(fn, "v"))
        fn.ret(0)
    with native("read_icc_bpr1_el1", "i64 %count", ret="i64") as fn:
        fn.ret(read_bpr1(fn))
    with native("write_icc_bpr1_el1", "i64 %count, i64 %v", ret="i64") as fn:
        with fn.unless(flag(fn.get("ich_vmcr"), g.ICH_VMCR_CBPR)):
            write_bpr(fn, 1, param(fn, "v"))
        fn.ret(0)


def _control() -> None:
    with native("write_icc_dir_el1", "i64 %count, i64 %v", ret="i64") as fn:
        fn.call("ich_dir", "void", "ptr %cpu", param(fn, "v") & 0xFF_FFFF)
        fn.ret(0)
    kept = ((g.ICC_CTLR_CBPR, g.ICH_VMCR_CBPR), (g.ICC_CTLR_EOIMODE, g.ICH_VMCR_EOIM))
    with native("read_icc_ctlr_el1", "i64 %count", ret="i64") as fn:
        ctlr, vmcr = fn.const("i64", _CTLR_FIXED), fn.get("ich_vmcr")
        for there, here in kept:
            ctlr = ctlr | fn.select(flag(vmcr, here), fn.const("i64", there), 0)
        fn.ret(ctlr)
    with native("write_icc_ctlr_el1", "i64 %count, i64 %v", ret="i64") as fn:
        for there, here in kept:
            _put_flag(fn, here, flag(param(fn, "v"), there))
        fn.ret(0)
