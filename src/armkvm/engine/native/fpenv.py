"""FPCR and FPSR: the host's floating-point environment while guest code runs.

It carries the guest's rounding mode and flush-to-zero, and gathers the cumulative exception flags;
reading FPSR collects them. How the host does that is engine/hosts, which defines what is declared
here; what every host does otherwise than Arm is put right in isa/fp.
"""

from __future__ import annotations

from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.native import declared, native
from armkvm.isa.value import Value


@declared
def host_fp(fn: Function) -> Value:
    """All of the host's environment, as the thread that called `run` has it."""
    raise NotImplementedError


@declared
def set_host_fp(fn: Function, v: Value) -> None:
    """Put that back."""


@declared
def fp_enter(fn: Function) -> None:
    """FPCR's rounding and flush-to-zero, no flag raised."""


@declared
def fp_raised(fn: Function) -> Value:
    """IOC, DZC, OFC, UFC, IXC, as in FPSR, since fp_enter."""
    raise NotImplementedError


@native
def fp_harvest(fn: Function) -> None:
    """What the host has gathered goes to FPSR."""
    fn.put("fpsr", fn.get("fpsr") | fp_raised(fn))
    fp_enter(fn)  # they count once


@native
def write_fpcr(fn: Function, v: Value) -> None:
    """FPCR."""
    fp_harvest(fn)
    # AHP, DN, FZ, RMode; Stride and Len are RES0 here, trap enables are RAZ/WI (D17.2.44).
    fn.put("fpcr", v & 0x07C0_0000)
    fp_enter(fn)


@native
def write_fpsr(fn: Function, v: Value) -> None:
    """FPSR."""
    fp_enter(fn)  # drops what the host has gathered
    fn.put("fpsr", v & 0xF800_009F)


@native
def read_fpsr(fn: Function) -> Value:
    """FPSR."""
    fp_harvest(fn)
    return fn.get("fpsr")
