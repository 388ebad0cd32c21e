"""The host's floating-point environment while guest code runs (x86-64: MXCSR).

MXCSR carries the guest's FPCR.RMode and FPCR.FZ, and gathers the cumulative exception flags;
reading FPSR collects them. What the host does differently (NaN selection, saturation, IDC) is in
isa/fp/fpmath.py.
"""

from __future__ import annotations

from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import bit, native, param
from armkvm.isa.value import Value

MASKED = 0x1F80  # all exceptions masked, round to nearest: the default of every host program
_FLAGS = 0x3F


def build() -> None:
    """Enter the native functions of this file."""
    with native("set_mxcsr", "i32 %v") as fn:
        fn.line("%m = alloca i32")
        fn.line("store i32 %v, ptr %m")
        fn.line("call void @llvm.x86.sse.ldmxcsr(ptr %m)")
    with native("get_mxcsr", "", ret="i32") as fn:
        fn.line("%m = alloca i32")
        fn.line("call void @llvm.x86.sse.stmxcsr(ptr %m)")
        fn.line("%v = load i32, ptr %m")
        fn.line("ret i32 %v")
        fn.ended = True
    with native("fp_enter", "") as fn:
        fn.line(f"call void @set_mxcsr(ptr %cpu, i32 {_control(fn).trunc('i32').ref})")
    _harvest()
    with native("write_fpcr", "i64 %v", ret="i64") as fn:
        fn.line("call void @fp_harvest(ptr %cpu)")
        # AHP, DN, FZ, RMode; Stride and Len are RES0 here, trap enables are RAZ/WI (D17.2.44).
        fn.put("fpcr", param(fn, "v") & 0x07C0_0000)
        fn.line("call void @fp_enter(ptr %cpu)")
        fn.ret(0)
    with native("write_fpsr", "i64 %v", ret="i64") as fn:
        fn.line("call void @fp_enter(ptr %cpu)")  # drops what MXCSR has gathered
        fn.put("fpsr", param(fn, "v") & 0xF800_009F)
        fn.ret(0)
    with native("read_fpsr", "", ret="i64") as fn:
        fn.line("call void @fp_harvest(ptr %cpu)")
        fn.ret(fn.get("fpsr"))


def _control(fn: Function) -> Value:
    """MXCSR for the guest's FPCR, flags clear."""
    fpcr = fn.get("fpcr")
    rmode = fpcr.lshr(22) & 3
    # Arm: 0 nearest, 1 up, 2 down, 3 zero; MXCSR.RC: 0 nearest, 1 down, 2 up, 3 zero.
    rc = (rmode & 1) << 1 | rmode.lshr(1)
    fz = bit(fpcr, 24)
    return rc << 13 | fz << 15 | fz << 6 | MASKED


def _harvest() -> None:
    """Move the gathered flags into FPSR: IE, ZE, OE, UE, PE are IOC, DZC, OFC, UFC, IXC."""
    with native("fp_harvest", "") as fn:
        now = fn.value("i32", "call i32 @get_mxcsr(ptr %cpu)").zext("i64")
        ioc, rest = now & 1, now.lshr(1) & 0x1E
        fn.put("fpsr", fn.get("fpsr") | ioc | rest)
        fn.line(f"call void @set_mxcsr(ptr %cpu, i32 {(now & ~_FLAGS).trunc('i32').ref})")
