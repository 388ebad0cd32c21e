"""What the hypervisor asks of a CPU that executes guest code: the interface of engine/cpu.py.

A protocol, so that the same hypervisor runs on the engine, on a scripted CPU (host/scripted.py) and
on whatever a checker puts in their place. The fields of `state` that host and kvm use are named in
STATE_FIELDS; all are unsigned 64-bit words. Left out: how instructions are executed.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final, Protocol

# Why run() returned, as hypervisor code names it (ARM_EXCEPTION_IRQ, ARM_EXCEPTION_TRAP); LIMIT is
# ours.
EXIT_IRQ: Final = 0
EXIT_TRAP: Final = 2
EXIT_LIMIT: Final = 4

NEVER: Final = 2**63 - 1  # a deadline that is off, a limit that is not set

# The generic timer counts at 62.5 MHz: one tick is 16 ns, so that converting is a shift.
NS_PER_TICK_SHIFT: Final = 4

STATE_FIELDS: Final = (
    "pc", "count", "limit", "ns_base", "ns_count", "ns_mult", "cntvoff", "cntpoff",
    "cntv_ctl", "cntv_cval", "cntp_ctl", "cntp_cval", "cntv_masked", "cntp_masked", "cnthctl",
    "ich_hcr", "ich_vmcr", "ich_ap0r", "ich_ap1r", "ich_lr0", "ich_lr1", "ich_lr2", "ich_lr3",
    "icc_sre", "gicv_base", "gicv_size", "phys_deactivated",
    "hyp_deadline_ns", "hcr_vi", "hcr_vf", "twe", "excl_addr", "esr_el2", "far_el2", "hpfar_el2",
)  # fmt: skip


class GuestCpu(Protocol):
    """One CPU of a guest. `state` is a ctypes.Structure with `x` and STATE_FIELDS."""

    state: Any
    pstate: int
    sp_el0: int
    sp_el1: int
    fpsr: int

    def run(self) -> int: ...
    def kick(self) -> None: ...
    def close(self) -> None: ...
    def get_v(self, i: int, /) -> int: ...
    def set_v(self, i: int, value: int, /) -> None: ...
    def get_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int, /) -> int: ...
    def set_sysreg(
        self, op0: int, op1: int, crn: int, crm: int, op2: int, value: int, /
    ) -> None: ...
    def take_exception(self, esr: int, far: int = 0, kind: str = "sync") -> None: ...


class GuestMemory(Protocol):
    """The stage-2 translation of one VM (engine.cpu.Stage2)."""

    def map(
        self, ipa: int, host: int, size: int, *, readonly: bool = False, log: Any = None
    ) -> None: ...
    def unmap(self, ipa: int, size: int) -> None: ...
    def written(self, ipa: int, size: int) -> None: ...
    def flush(self) -> None: ...


class Backend(Protocol):
    """Where guest CPUs come from."""

    def stage2(self) -> GuestMemory: ...
    def cpu(self, memory: GuestMemory) -> GuestCpu: ...


class EngineBackend:
    """Guest CPUs of the engine; its compiled code is loaded on first use."""

    def __init__(self, progress: Any = None) -> None:
        from armkvm.engine import cpu as engine_cpu

        self._module: Any = engine_cpu
        self.engine = self._module.Engine.load(progress=progress)

    def stage2(self) -> GuestMemory:
        memory: GuestMemory = self._module.Stage2(self.engine)
        return memory

    def cpu(self, memory: GuestMemory) -> GuestCpu:
        cpu: GuestCpu = self._module.Cpu(self.engine, memory)
        return cpu


def word(state: Any, field: str) -> ctypes.c_uint64:
    """A view of one field, so that code written once serves several registers.

    The caller keeps `state` alive.
    """
    offset: int = getattr(type(state), field).offset
    return ctypes.c_uint64.from_address(ctypes.addressof(state) + offset)
