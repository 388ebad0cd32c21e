"""What the engine takes from the machine under it: one file for each kind of host.

A host has the names of `Host`, and it defines the native functions that engine/native/fpenv.py
declares: they reach its floating-point environment. Nothing else in src knows on what the generated
code runs. The rest is plain LLVM, and for that both hosts promise the same:

- Arithmetic is IEEE 754's, in the guest's rounding mode, with exact flags. A NaN that comes out of
  an operation is any quiet one; a flag that FPCR.FZ, a NaN or a tiny result leads to may be missing
  or too many. isa/fp puts results and flags right from the operands.
- A floating-point number that does not fit the integer it is converted to (a NaN never does)
  raises Invalid and gives either the least integer or what Arm gives.
- Comparisons and conversions raise what LLVM's constrained intrinsics say. A plain `fcmp` of
  vectors raises anything: Arm's FCMGT does for quiet NaNs.
- Guest memory is little-endian, and accesses of any alignment work.
- Memory order: x86-64 is TSO, Arm is not. Where the native code and another thread meet (a kick
  against the limit, a guest's acquire and release), LLVM's atomic accesses and fences say so.
- Host pages may be larger than the guest's 4 KiB: addresses of guest memory are multiples of
  4 KiB, and not more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from armkvm.engine.errors import EngineError
from armkvm.engine.hosts import aarch64, x86_64


class Host(Protocol):
    """A kind of host. A module of this room is one."""

    __name__: str
    TRIPLE: str  # LLVM's name for it
    CPU: str  # LLVM's name for the least CPU
    LEAST: str  # the same for people
    REQUIRED: tuple[str, ...]  # LLVM's names of the CPU features that LEAST stands for


HOSTS: dict[str, Host] = {"x86_64": x86_64, "aarch64": aarch64}


def host_of(triple: str) -> Host:
    """The host that an LLVM triple names. EngineError where it is none of ours."""
    architecture, _, rest = triple.partition("-")
    host = HOSTS.get(architecture)
    if host is None or "linux" not in rest:
        raise EngineError(f"armkvm's engine needs an x86-64 or arm64 Linux host, not {triple}")
    return host


def check(host: Host, has: Mapping[str, bool]) -> None:
    """EngineError where a CPU with these features cannot run the engine's code."""
    missing = [name for name in host.REQUIRED if not has.get(name)]
    if missing:
        raise EngineError(
            f"armkvm's engine needs {host.LEAST}; this CPU lacks {', '.join(missing)}"
        )
