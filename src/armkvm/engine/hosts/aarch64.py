"""An arm64 host: its own FPCR and FPSR stand for the guest's.

FPCR.DN and AHP stay clear: the descriptions choose NaNs and convert alternative half precision
themselves, on every host. With FPCR.FZ the host raises IDC too, and the descriptions raise it
again; theirs counts. ARMv8.0 is enough: FP and Advanced SIMD belong to Linux's ABI, and without
LSE LLVM makes loops of exclusives, which is slower and nothing else.
"""

from __future__ import annotations

from armkvm.engine.llvm.module import native, param

TRIPLE = "aarch64-unknown-linux-gnu"
CPU = "generic"
LEAST = "an ARMv8-A CPU"
REQUIRED: tuple[str, ...] = ()

DECLARATIONS = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
declare i64 @llvm.aarch64.get.fpsr()
declare void @llvm.aarch64.set.fpsr(i64)
"""

_RMODE_FZ = 0x01C0_0000
_RAISED = 0x1F  # IOC, DZC, OFC, UFC, IXC


def build() -> None:
    """Enter the native functions of engine/hosts/__init__.py."""
    with native("host_fp", "", ret="i64") as fn:
        fpcr = fn.value("i64", "call i64 @llvm.aarch64.get.fpcr()")
        fpsr = fn.value("i64", "call i64 @llvm.aarch64.get.fpsr()")
        fn.ret(fpsr << 32 | fpcr)
    with native("set_host_fp", "i64 %v") as fn:
        v = param(fn, "v")
        fn.line(f"call void @llvm.aarch64.set.fpcr({v & 0xFFFF_FFFF!r})")
        fn.line(f"call void @llvm.aarch64.set.fpsr({v.lshr(32)!r})")
    with native("fp_enter", "") as fn:
        fn.call("set_host_fp", "void", "ptr %cpu", fn.get("fpcr") & _RMODE_FZ)
    with native("fp_raised", "", ret="i64") as fn:
        fpsr = fn.value("i64", "call i64 @llvm.aarch64.get.fpsr()")
        fn.ret(fpsr & _RAISED)
