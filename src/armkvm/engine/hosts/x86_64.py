"""An x86-64 host: MXCSR carries FPCR and gathers FPSR.

MXCSR has the rounding mode in another order and flush-to-zero in two halves: DAZ for operands, FTZ
for results. It has no Input Denormal flag as Arm means it, looks at a tiny result after rounding,
and raises Inexact for what FTZ flushes.
"""

from __future__ import annotations

from armkvm.engine.llvm.module import bit, native, param

TRIPLE = "x86_64-unknown-linux-gnu"
CPU = "x86-64-v3"
LEAST = "an x86-64-v3 CPU"
REQUIRED: tuple[str, ...] = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")

DECLARATIONS = """
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
"""

_MASKED = 0x1F80  # all exceptions masked, round to nearest: the default of every host program
_RC, _FTZ, _DAZ = 13, 15, 6  # bits of MXCSR


def build() -> None:
    """Enter the native functions of engine/hosts/__init__.py."""
    with native("host_fp", "", ret="i64") as fn:
        fn.line("%m = alloca i32")
        fn.line("call void @llvm.x86.sse.stmxcsr(ptr %m)")
        fn.ret(fn.value("i32", "load i32, ptr %m").zext("i64"))
    with native("set_host_fp", "i64 %v") as fn:
        fn.line("%m = alloca i32")
        fn.line(f"store {param(fn, 'v').trunc('i32')!r}, ptr %m")
        fn.line("call void @llvm.x86.sse.ldmxcsr(ptr %m)")
    with native("fp_enter", "") as fn:
        fpcr = fn.get("fpcr")
        rmode = fpcr.lshr(22) & 3
        # Arm: 0 nearest, 1 up, 2 down, 3 zero; MXCSR.RC: 0 nearest, 1 down, 2 up, 3 zero.
        rc = (rmode & 1) << 1 | rmode.lshr(1)
        fz = bit(fpcr, 24)
        fn.call("set_host_fp", "void", "ptr %cpu", rc << _RC | fz << _FTZ | fz << _DAZ | _MASKED)
    with native("fp_raised", "", ret="i64") as fn:
        # IE, DE, ZE, OE, UE, PE: without DE these are IOC, DZC, OFC, UFC, IXC.
        now = fn.call("host_fp", "i64", "ptr %cpu")
        fn.ret((now & 1) | (now.lshr(1) & 0x1E))
