"""ICC_* at EL1, as MRS and MSR ask for them (IHI 0069, 12.2): the virtual CPU interface of a GICv3.

Five bits of priority, five of preemption, 24-bit interrupt IDs. Left out: ICC_SRE_EL1 and the
registers that send SGIs, which trap to EL2.
"""

from __future__ import annotations

from armkvm.arch import gic as g
from armkvm.engine.llvm.ir import Function, flag
from armkvm.engine.llvm.native import Native, native, native_as
from armkvm.engine.native.gic import (
    STEP,
    bpr,
    ich_acknowledge,
    ich_dir,
    ich_end,
    ich_highest,
    ich_running,
)
from armkvm.isa.value import Value

_PRIORITY_MASK = 0xFF << STEP & 0xFF
_ID_24_BITS = 1  # ICC_CTLR_EL1.IDbits
_CTLR_FIXED = (
    (g.PRI_BITS - 1) << g.ICC_CTLR_PRI_BITS_SHIFT
    | _ID_24_BITS << g.ICC_CTLR_ID_BITS_SHIFT
    | g.ICC_CTLR_A3V
)


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
    saturated = fn.select(one_more.ugt(7), fn.i64(7), one_more)
    return fn.select(flag(fn.get("ich_vmcr"), g.ICH_VMCR_CBPR), saturated, bpr(fn, 1))


def _put_flag(fn: Function, mask: int, on: Value) -> None:
    set_vmcr(fn, mask, fn.select(on, fn.i64(mask), 0))


def _of_group(group: int) -> list[Native[..., Value | None]]:
    """What there is twice: for group 0 and for group 1."""
    enable = (g.ICH_VMCR_ENG0, g.ICH_VMCR_ENG1)[group]

    @native_as(f"read_icc_iar{group}_el1")
    def read_iar(fn: Function, count: Value) -> Value:
        return ich_acknowledge(fn, fn.i64(group), fn.i64(g.INTID_SPURIOUS))

    @native_as(f"read_icc_hppir{group}_el1")
    def read_hppir(fn: Function, count: Value) -> Value:
        return ich_highest(fn, fn.i64(group), fn.i64(g.INTID_SPURIOUS))

    @native_as(f"write_icc_eoir{group}_el1")
    def write_eoir(fn: Function, count: Value, v: Value) -> None:
        ich_end(fn, v & 0xFF_FFFF, fn.i64(group))

    @native_as(f"read_icc_ap{group}r0_el1")
    def read_ap(fn: Function, count: Value) -> Value:
        return fn.get(f"ich_ap{group}r")

    @native_as(f"write_icc_ap{group}r0_el1")
    def write_ap(fn: Function, count: Value, v: Value) -> None:
        fn.put(f"ich_ap{group}r", v & 0xFFFF_FFFF)

    @native_as(f"read_icc_igrpen{group}_el1")
    def read_igrpen(fn: Function, count: Value) -> Value:
        return flag(fn.get("ich_vmcr"), enable).zext("i64")

    @native_as(f"write_icc_igrpen{group}_el1")
    def write_igrpen(fn: Function, count: Value, v: Value) -> None:
        _put_flag(fn, enable, flag(v, 1))

    return [read_iar, read_hppir, write_eoir, read_ap, write_ap, read_igrpen, write_igrpen]


OF_GROUPS = [*_of_group(0), *_of_group(1)]


@native
def read_icc_rpr_el1(fn: Function, count: Value) -> Value:
    """The running priority."""
    return ich_running(fn)


@native
def read_icc_pmr_el1(fn: Function, count: Value) -> Value:
    """The priority mask."""
    return fn.get("ich_vmcr").lshr(g.ICH_VMCR_PMR_SHIFT) & 0xFF


@native
def write_icc_pmr_el1(fn: Function, count: Value, v: Value) -> None:
    """The priority mask."""
    write_pmr(fn, v)


@native
def read_icc_bpr0_el1(fn: Function, count: Value) -> Value:
    """The binary point of group 0."""
    return bpr(fn, 0)


@native
def write_icc_bpr0_el1(fn: Function, count: Value, v: Value) -> None:
    """The binary point of group 0."""
    write_bpr(fn, 0, v)


@native
def read_icc_bpr1_el1(fn: Function, count: Value) -> Value:
    """The binary point of group 1."""
    return read_bpr1(fn)


@native
def write_icc_bpr1_el1(fn: Function, count: Value, v: Value) -> None:
    """The binary point of group 1; with CBPR it ignores writes."""
    with fn.unless(flag(fn.get("ich_vmcr"), g.ICH_VMCR_CBPR)):
        write_bpr(fn, 1, v)


@native
def write_icc_dir_el1(fn: Function, count: Value, v: Value) -> None:
    """Deactivate an interrupt."""
    ich_dir(fn, v & 0xFF_FFFF)


_CTLR = ((g.ICC_CTLR_CBPR, g.ICH_VMCR_CBPR), (g.ICC_CTLR_EOIMODE, g.ICH_VMCR_EOIM))


@native
def read_icc_ctlr_el1(fn: Function, count: Value) -> Value:
    """The control register, put together from ICH_VMCR."""
    ctlr, vmcr = fn.i64(_CTLR_FIXED), fn.get("ich_vmcr")
    for there, here in _CTLR:
        ctlr = ctlr | fn.select(flag(vmcr, here), fn.i64(there), 0)
    return ctlr


@native
def write_icc_ctlr_el1(fn: Function, count: Value, v: Value) -> None:
    """CBPR and EOImode."""
    for there, here in _CTLR:
        _put_flag(fn, here, flag(v, there))
