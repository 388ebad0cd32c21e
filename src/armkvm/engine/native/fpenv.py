"""FPCR and FPSR: the host's floating-point environment while guest code runs.

It carries the guest's rounding mode and flush-to-zero, and gathers the cumulative exception flags;
reading FPSR collects them. How the host does that is engine/hosts; what every host does otherwise
than Arm is put right in isa/fp.
"""

from __future__ import annotations

from armkvm.engine.llvm.module import native, param


def build() -> None:
    """Enter the native functions of this file."""
    with native("fp_harvest", "") as fn:
        fn.put("fpsr", fn.get("fpsr") | fn.call("fp_raised", "i64", "ptr %cpu"))
        fn.call("fp_enter", "void", "ptr %cpu")  # they count once
    with native("write_fpcr", "i64 %v", ret="i64") as fn:
        fn.call("fp_harvest", "void", "ptr %cpu")
        # AHP, DN, FZ, RMode; Stride and Len are RES0 here, trap enables are RAZ/WI (D17.2.44).
        fn.put("fpcr", param(fn, "v") & 0x07C0_0000)
        fn.call("fp_enter", "void", "ptr %cpu")
        fn.ret(0)
    with native("write_fpsr", "i64 %v", ret="i64") as fn:
        fn.call("fp_enter", "void", "ptr %cpu")  # drops what the host has gathered
        fn.put("fpsr", param(fn, "v") & 0xF800_009F)
        fn.ret(0)
    with native("read_fpsr", "", ret="i64") as fn:
        fn.call("fp_harvest", "void", "ptr %cpu")
        fn.ret(fn.get("fpsr"))
