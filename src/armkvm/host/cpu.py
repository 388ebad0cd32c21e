"""What the hypervisor asks of a CPU that executes guest code: the interface of engine/cpu.py.

A protocol, so that the same hypervisor runs on the engine, on a scripted CPU (host/scripted.py) and
on whatever a checker puts in their place. What host and kvm use of a CPU's registers is GuestState,
so that no field can be used that is not there. Left out: how instructions are executed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from armkvm.arch.debug import Watchpoint
from armkvm.engine.stage2 import Backing

# Why run() returned, as hypervisor code names it (ARM_EXCEPTION_IRQ, ARM_EXCEPTION_TRAP); LIMIT is
# ours.
EXIT_IRQ: Final = 0
EXIT_TRAP: Final = 2
EXIT_LIMIT: Final = 4


if TYPE_CHECKING:
    # To mypy a ctypes.Structure has every attribute that it is asked for: this has not.
    class _Structure:
        def __buffer__(self, flags: int, /) -> memoryview: ...

else:
    _Structure = ctypes.Structure


class GuestState(_Structure):
    """The registers and the engine's own words that host and kvm reach, 64 bits each.

    A backend's structure has these fields, `x` as an array of 31 words, in any order and with
    others between them. A field that hypervisor code uses has to be here: mypy sees that.
    """

    x: ctypes.Array[ctypes.c_uint64]
    pc: int
    el: int  # 0 or 1, as PSTATE.EL
    # Instructions retired; run() ends with EXIT_LIMIT at `limit`. At EL0: el0_count, and if it is
    # there, what has been retired since mode_count.
    count: int
    limit: int
    el0_count: int
    mode_count: int
    # Guest time: ns_base + ((count - ns_count) * ns_mult >> 16).
    ns_base: int
    ns_count: int
    ns_mult: int
    hyp_deadline_ns: int  # the host's own timer
    # The generic timer; `masked`: its output does not interrupt the host's CPU.
    cntvoff: int
    cntpoff: int
    cntv_ctl: int
    cntv_cval: int
    cntp_ctl: int
    cntp_cval: int
    cntv_masked: int
    cntp_masked: int
    cnthctl: int
    # The virtual CPU interface, and the frame of a GICv2's.
    ich_hcr: int
    ich_vmcr: int
    ich_ap0r: int
    ich_ap1r: int
    ich_lr0: int
    ich_lr1: int
    ich_lr2: int
    ich_lr3: int
    icc_sre: int
    gicv_base: int
    gicv_size: int
    phys_deactivated: int
    ich_counted_id: int  # whose end ICH_HCR_EL2.EOIcount has counted last
    # HCR_EL2.VI, VF, VSE (which taking the SError clears) and TWE, MDCR_EL2.TDE
    hcr_vi: int
    hcr_vf: int
    hcr_vse: int
    vsesr_el2: int  # the syndrome of the virtual SError
    twe: int
    tde: int
    excl_addr: int  # of the local monitor; all ones: open
    # Syndromes of EL2, and what KVM writes itself of EL1.
    esr_el2: int
    far_el2: int
    hpfar_el2: int
    esr_el1: int
    far_el1: int
    elr_el1: int
    spsr_el1: int
    mpidr_el1: int
    fpcr: int


STATE_FIELDS: Final = tuple(name for name in GuestState.__annotations__ if name != "x")


class GuestCpu(Protocol):
    """One CPU of a guest."""

    state: GuestState
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
    def fetches(self) -> bool: ...
    def set_watchpoints(self, watchpoints: Sequence[Watchpoint], /) -> None: ...
    def take_exception(self, esr: int, far: int = 0, kind: str = "sync") -> None: ...


class GuestMemory(Protocol):
    """The stage-2 translation of one VM (engine/stage2.py)."""

    def replace(self, gone: Sequence[int], new: Sequence[Backing]) -> None: ...
    def written(self, ipa: int, size: int) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


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


def word(state: GuestState, field: str) -> ctypes.c_uint64:
    """A view of one field, so that code written once serves several registers.

    The caller keeps `state` alive.
    """
    structure: Any = state
    offset: int = getattr(type(structure), field).offset
    return ctypes.c_uint64.from_address(ctypes.addressof(structure) + offset)
