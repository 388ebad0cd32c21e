"""The GICV window: the virtual CPU interface as memory, for the guest of a GICv2 (IHI 0048, 5.5).

Registers by offset into the window, 32-bit accesses of one general register; another size reads
zero and writes nothing. `gicv_access` takes what would have been a stage 2 abort.
"""

from __future__ import annotations

from armkvm.arch import esr
from armkvm.arch import gic as g
from armkvm.engine import layout
from armkvm.engine.exits import CHECK
from armkvm.engine.interp.handler import ACCESS_WRITE
from armkvm.engine.llvm.code import Code
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import flag, native, param, routine
from armkvm.engine.native.gic import EITHER, bpr
from armkvm.engine.native.gic_registers import read_bpr1, set_vmcr, write_bpr, write_pmr
from armkvm.isa.value import Value

_IIDR = 0x0002_043B  # architecture version 2, Arm


def build() -> None:
    """Enter the native functions of this file."""
    _read()
    _write()
    _access()


def _n(fn: Function, n: int) -> Value:
    return fn.const("i64", n)


def _read() -> None:
    with native("gicv_read", "i64 %offset", ret="i64") as fn:
        offset, vmcr = param(fn, "offset"), fn.get("ich_vmcr")
        # A group 1 interrupt answers to IAR and HPPIR only where AckCtl allows it.
        other = fn.select(flag(vmcr, g.ICH_VMCR_ACK_CTL), _n(fn, 0), g.INTID_OTHER_GROUP)
        spurious = _n(fn, g.INTID_SPURIOUS)
        for at, name, group, wrong in (
            (g.GICC_IAR, "ich_acknowledge", 0, other),
            (g.GICC_AIAR, "ich_acknowledge", 1, spurious),
            (g.GICC_HPPIR, "ich_highest", 0, other),
            (g.GICC_AHPPIR, "ich_highest", 1, spurious),
        ):
            with fn.if_(offset.eq(at)):
                fn.ret(fn.call(name, "i64", "ptr %cpu", _n(fn, group), wrong))
        with fn.if_(offset.eq(g.GICC_RPR)):
            fn.ret(fn.call("ich_running", "i64", "ptr %cpu"))
        for at, value in (
            (g.GICC_CTLR, vmcr & g.ICH_VMCR_GICC_CTLR),
            (g.GICC_PMR, vmcr.lshr(g.ICH_VMCR_PMR_SHIFT) & 0xFF),
            (g.GICC_BPR, bpr(fn, 0)),
            (g.GICC_ABPR, read_bpr1(fn)),
            (g.GICC_APR, fn.get("ich_ap0r")),
            (g.GICC_IIDR, _n(fn, _IIDR)),
        ):
            with fn.if_(offset.eq(at)):
                fn.ret(value)
        fn.ret(0)


def _write() -> None:
    with native("gicv_write", "i64 %offset, i64 %v") as fn:
        offset, v = param(fn, "offset"), param(fn, "v")
        with fn.if_(offset.eq(g.GICC_CTLR)):
            set_vmcr(fn, g.ICH_VMCR_GICC_CTLR, v)
        with fn.if_(offset.eq(g.GICC_PMR)):
            write_pmr(fn, v)
        for at, group in ((g.GICC_BPR, 0), (g.GICC_ABPR, 1)):
            with fn.if_(offset.eq(at)):
                write_bpr(fn, group, v)
        with fn.if_(offset.eq(g.GICC_APR)):
            fn.put("ich_ap0r", v & 0xFFFF_FFFF)
        wanted = v & 0x1FFF
        for at, group in ((g.GICC_EOIR, EITHER), (g.GICC_AEOIR, 1)):
            with fn.if_(offset.eq(at)):
                fn.call("ich_end", "void", "ptr %cpu", wanted, _n(fn, group))
        with fn.if_(offset.eq(g.GICC_DIR)):
            fn.call("ich_dir", "void", "ptr %cpu", wanted)


def _access() -> None:
    """An access of one general register: arg0 is ISS of the stage 2 abort that it would be."""
    with routine("gicv_access") as fn:
        iss = fn.get("arg0")
        word_sized = (iss.lshr(esr.DABT_SAS_SHIFT) & 3).eq(2)
        rt = iss.lshr(esr.DABT_SRT_SHIFT) & 31
        offset = fn.get("fault_ipa") - fn.get("gicv_base")
        with fn.if_((fn.get("access") & ACCESS_WRITE).ne(0)):
            slot = fn.select(rt.eq(31), _n(fn, layout.ZERO_SLOT), rt)
            v = fn.load_at(fn.gep("%cpu", slot << 3), "i64") & 0xFFFF_FFFF
            with fn.if_(word_sized):
                fn.call("gicv_write", "void", "ptr %cpu", offset, v)
            _look(fn)
        read = fn.var("i64", 0)
        with fn.if_(word_sized):
            read.set(fn.call("gicv_read", "i64", "ptr %cpu", offset))
        v = read.get()
        v = fn.select(flag(iss, esr.DABT_SSE), v.trunc("i32").sext("i64"), v)
        slot = fn.select(rt.eq(31), _n(fn, layout.DUMP_SLOT), rt)
        fn.store_at(fn.gep("%cpu", slot << 3), v)
        _look(fn)


def _look(fn: Code) -> None:
    """On to the next instruction by way of the run loop: outputs and deadlines have changed."""
    fn.leave(CHECK, fn.gep("%op", layout.RECORD))
