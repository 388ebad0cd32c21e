"""An x86-64 host: MXCSR carries FPCR and gathers FPSR.

MXCSR has the rounding mode in another order and flush-to-zero in two halves: DAZ for operands, FTZ
for results. It has no Input Denormal flag as Arm means it, looks at a tiny result after rounding,
and raises Inexact for what FTZ flushes.
"""

from __future__ import annotations

from armkvm.engine.llvm.ir import Function, bit
from armkvm.engine.llvm.native import native
from armkvm.isa.value import Value

TRIPLE = "x86_64-unknown-linux-gnu"
CPU = "x86-64-v3"
LEAST = "an x86-64-v3 CPU"
REQUIRED: tuple[str, ...] = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")

_MASKED = 0x1F80  # all exceptions masked, round to nearest: the default of every host program
_RC, _FTZ, _DAZ = 13, 15, 6  # bits of MXCSR


@native
def host_fp(fn: Function) -> Value:
    """MXCSR."""
    mxcsr = fn.var("i32", None)
    fn.intrinsic("llvm.x86.sse.stmxcsr", "void", mxcsr.at)
    return mxcsr.get().zext("i64")


@native
def set_host_fp(fn: Function, v: Value) -> None:
    """MXCSR."""
    mxcsr = fn.var("i32", v.trunc("i32"))
    fn.intrinsic("llvm.x86.sse.ldmxcsr", "void", mxcsr.at)


@native
def fp_enter(fn: Function) -> None:
    """RMode and FZ in MXCSR's terms."""
    fpcr = fn.get("fpcr")
    rmode = fpcr.lshr(22) & 3
    # Arm: 0 nearest, 1 up, 2 down, 3 zero; MXCSR.RC: 0 nearest, 1 down, 2 up, 3 zero.
    rc = (rmode & 1) << 1 | rmode.lshr(1)
    fz = bit(fpcr, 24)
    set_host_fp(fn, rc << _RC | fz << _FTZ | fz << _DAZ | _MASKED)


@native
def fp_raised(fn: Function) -> Value:
    """IE, DE, ZE, OE, UE, PE: without DE these are IOC, DZC, OFC, UFC, IXC."""
    now = host_fp(fn)
    return (now & 1) | (now.lshr(1) & 0x1E)
