"""The GICV window: the virtual CPU interface as memory, for the guest of a GICv2 (IHI 0048, 5.5).

Registers by offset into the window, 32-bit accesses of one general register; another size reads
zero and writes nothing. `gicv_access` takes what would have been a stage 2 abort.
"""

from __future__ import annotations

from armkvm.arch import esr
from armkvm.arch import gic as g
from armkvm.engine import layout
from armkvm.engine.exits import CHECK
from armkvm.engine.llvm.code import Code, routine
from armkvm.engine.llvm.ir import Function, flag
from armkvm.engine.llvm.native import native
from armkvm.engine.native.gic import (
    EITHER,
    bpr,
    ich_acknowledge,
    ich_dir,
    ich_end,
    ich_highest,
    ich_running,
)
from armkvm.engine.native.gic_registers import read_bpr1, set_vmcr, write_bpr, write_pmr
from armkvm.engine.native.memory import ACCESS_WRITE
from armkvm.isa.value import Value

_IIDR = 0x0002_043B  # architecture version 2, Arm


@native
def gicv_read(fn: Function, offset: Value) -> Value:
    """A 32-bit register of the window."""
    vmcr = fn.get("ich_vmcr")
    # A group 1 interrupt answers to IAR and HPPIR only where AckCtl allows it.
    other = fn.select(flag(vmcr, g.ICH_VMCR_ACK_CTL), fn.i64(0), g.INTID_OTHER_GROUP)
    spurious = fn.i64(g.INTID_SPURIOUS)
    for at, asks, group, wrong in (
        (g.GICC_IAR, ich_acknowledge, 0, other),
        (g.GICC_AIAR, ich_acknowledge, 1, spurious),
        (g.GICC_HPPIR, ich_highest, 0, other),
        (g.GICC_AHPPIR, ich_highest, 1, spurious),
    ):
        with fn.if_(offset.eq(at)):
            fn.ret(asks(fn, fn.i64(group), wrong))
    with fn.if_(offset.eq(g.GICC_RPR)):
        fn.ret(ich_running(fn))
    for at, value in (
        (g.GICC_CTLR, vmcr & g.ICH_VMCR_GICC_CTLR),
        (g.GICC_PMR, vmcr.lshr(g.ICH_VMCR_PMR_SHIFT) & 0xFF),
        (g.GICC_BPR, bpr(fn, 0)),
        (g.GICC_ABPR, read_bpr1(fn)),
        (g.GICC_APR, fn.get("ich_ap0r")),
        (g.GICC_IIDR, fn.i64(_IIDR)),
    ):
        with fn.if_(offset.eq(at)):
            fn.ret(value)
    return fn.i64(0)


@native
def gicv_write(fn: Function, offset: Value, v: Value) -> None:
    """A 32-bit register of the window."""
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
            ich_end(fn, wanted, fn.i64(group))
    with fn.if_(offset.eq(g.GICC_DIR)):
        ich_dir(fn, wanted)


@routine
def gicv_access(fn: Code) -> None:
    """An access of one general register: arg0 is ISS of the stage 2 abort that it would be."""
    iss = fn.get("arg0")
    word_sized = (iss.lshr(esr.DABT_SAS_SHIFT) & 3).eq(2)
    rt = iss.lshr(esr.DABT_SRT_SHIFT) & 31
    offset = fn.get("fault_ipa") - fn.get("gicv_base")
    with fn.if_((fn.get("access") & ACCESS_WRITE).ne(0)):
        slot = fn.select(rt.eq(31), fn.i64(layout.ZERO_SLOT), rt)
        v = (fn.cpu + (slot << 3)).load() & 0xFFFF_FFFF
        with fn.if_(word_sized):
            gicv_write(fn, offset, v)
        _look(fn)
    read = fn.var("i64", 0)
    with fn.if_(word_sized):
        read.set(gicv_read(fn, offset))
    v = read.get()
    v = fn.select(flag(iss, esr.DABT_SSE), v.trunc("i32").sext("i64"), v)
    slot = fn.select(rt.eq(31), fn.i64(layout.DUMP_SLOT), rt)
    (fn.cpu + (slot << 3)).store(v)
    _look(fn)


def _look(fn: Code) -> None:
    """On to the next instruction by way of the run loop: outputs and deadlines have changed."""
    fn.leave(CHECK, fn.op + layout.RECORD)
