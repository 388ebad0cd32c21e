"""An arm64 host: its own FPCR and FPSR stand for the guest's.

FPCR.DN and AHP stay clear: the descriptions choose NaNs and convert alternative half precision
themselves, on every host. With FPCR.FZ the host raises IDC too, and the descriptions raise it
again; theirs counts. ARMv8.0 is enough: FP and Advanced SIMD belong to Linux's ABI, and without
LSE LLVM makes loops of exclusives, which is slower and nothing else.
"""

from __future__ import annotations

from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.native import native
from armkvm.isa.value import Value

TRIPLE = "aarch64-unknown-linux-gnu"
CPU = "generic"
LEAST = "an ARMv8-A CPU"
REQUIRED: tuple[str, ...] = ()

_RMODE_FZ = 0x01C0_0000
_RAISED = 0x1F  # IOC, DZC, OFC, UFC, IXC


def _get(fn: Function, register: str) -> Value:
    return fn.intrinsic(f"llvm.aarch64.get.{register}", "i64")


@native
def host_fp(fn: Function) -> Value:
    """FPSR and FPCR."""
    fpcr, fpsr = _get(fn, "fpcr"), _get(fn, "fpsr")
    return fpsr << 32 | fpcr


@native
def set_host_fp(fn: Function, v: Value) -> None:
    """FPSR and FPCR."""
    fn.intrinsic("llvm.aarch64.set.fpcr", "void", v & 0xFFFF_FFFF)
    fn.intrinsic("llvm.aarch64.set.fpsr", "void", v.lshr(32))


@native
def fp_enter(fn: Function) -> None:
    """The guest's RMode and FZ, as they are."""
    set_host_fp(fn, fn.get("fpcr") & _RMODE_FZ)


@native
def fp_raised(fn: Function) -> Value:
    """The host's flags, as they are."""
    return _get(fn, "fpsr") & _RAISED
