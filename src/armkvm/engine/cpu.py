"""The engine for its users: CPUs, and running them.

`Engine` is the compiled code, once a process. `Stage2` is one VM's guest physical memory with the
decoded instructions that belong to it (engine/stage2.py). `Cpu` is one processing element: its
state is a flat struct (engine/layout.py), `run` executes until something the hypervisor has to see.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from armkvm.arch.debug import WATCHPOINTS, Watchpoint
from armkvm.arch.sysreg import BY_ENCODING, SYSREGS, SysReg
from armkvm.arch.timer import NEVER
from armkvm.engine import layout
from armkvm.engine.build import Loaded, Progress, artefact
from armkvm.engine.exits import ARENA_FULL, Exit
from armkvm.engine.hostmem import HostMemory
from armkvm.engine.stage2 import Backing, Stage2

__all__ = ["Backing", "Cpu", "Engine", "Exit", "Stage2"]

_OFFSETS = {"sync": 0x000, "irq": 0x080, "fiq": 0x100, "serror": 0x180}


class Engine:
    """The native code, loaded."""

    _instance: Engine | None = None

    def __init__(self, loaded: Loaded) -> None:
        u64, nothing = ctypes.c_uint64, None
        self.id_registers = loaded.id_registers
        self._loaded = loaded
        f = loaded.function
        self.run = f("run", u64, u64)
        self.flush_all = f("flush_all", nothing, u64)
        self.set_context = f("set_context", nothing, u64)
        self.derive = f("derive", nothing, u64)
        self.pstate = f("pstate", u64, u64)
        self.set_pstate = f("set_pstate", nothing, u64, u64)
        self.deliver = f("deliver", u64, u64, u64, u64)
        self.drop_range = f("drop_range", nothing, u64, u64, u64)
        self.kick = f("kick", nothing, u64)
        self.fetches = f("fetches", u64, u64, u64)

    @classmethod
    def load(cls, progress: Progress | None = None) -> Engine:
        """The engine of this process: from the cache, or compiled now. Raises EngineError."""
        if cls._instance is None:
            cls._instance = cls(Loaded(artefact(progress)))
        return cls._instance


class _Closed:
    """The native functions, for a CPU that has no TLBs any more."""

    def __getattr__(self, name: str) -> Any:
        return self._refuse

    def _refuse(self, *_: int) -> NoReturn:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class Cpu:
    """One processing element at EL1 and EL0. Not thread-safe but for `kick`."""

    def __init__(self, engine: Engine, stage2: Stage2) -> None:
        self.engine: Any = engine
        self.stage2 = stage2
        self._memory = HostMemory(layout.CPU_SIZE)
        self.address = self._memory.address
        self.state = layout.State.from_address(self.address)
        self._run = engine.run
        s = self.state
        s.stage2 = stage2.address
        s.ns_mult = 1 << 16
        s.limit = s.hyp_deadline_ns = NEVER
        s.excl_addr = (1 << 64) - 1
        s.cnthctl = 3
        for i in range(layout.CONTEXTS):
            s.context_keys[i] = (1 << 64) - 1
        for name, value in engine.id_registers.items():
            setattr(s, name, value)
        engine.flush_all(self.address)
        self.reset()
        stage2.enter(self)

    def reset(self) -> None:
        """Warm reset: system registers and PSTATE (EL1h, everything masked); X and V registers
        zero.
        """
        s = self.state
        for r in SYSREGS:
            if r.kind == "stored":
                setattr(s, r.field, (r.reset or 0) | r.ones)
        ctypes.memset(self.address, 0, 8 * 34)
        ctypes.memset(self.address + layout.V_OFFSET, 0, 512)
        s.sp_el0_ = s.sp_el1_ = s.fpcr = s.fpsr = 0
        s.excl_addr = (1 << 64) - 1
        s.pc = 0
        s.el = s.spsel = 1
        self.pstate = 0x3C5
        self.engine.flush_all(self.address)
        self.engine.set_context(self.address)

    def close(self) -> None:
        """Leave the VM. The CPU must not be running; its registers can still be read."""
        self.stage2.forget(self)
        self.engine = _Closed()
        self._run = self.engine.run
        self._memory.trim(layout.TLB_BASE)

    def run(self) -> int:
        """Execute; returns an Exit. The GIL is released meanwhile."""
        while True:
            code = self._run(self.address)
            if code != ARENA_FULL:
                self.state.kick = 0
                return int(code)
            self.stage2.reset_records()

    def kick(self) -> None:
        """From any thread: leave guest code soon. Holds until the next `run` has returned."""
        self.engine.kick(self.address)

    def set_watchpoints(self, watchpoints: Sequence[Watchpoint]) -> None:
        """The watchpoints from now on, four at the most, for exceptions to EL2.

        A hit ends `run` with TRAP: ESR_EL2 and FAR_EL2 say which, the instruction has not begun.
        """
        s = self.state
        for n in range(WATCHPOINTS):
            of = watchpoints[n] if n < len(watchpoints) else Watchpoint(0, 0)
            s.watchpoints[3 * n : 3 * n + 3] = [*of]
        s.watching = int(bool(watchpoints))
        self.engine.flush_all(self.address)

    def fetches(self) -> bool:
        """Whether the next instruction can be fetched: no fault comes before it."""
        return bool(self.engine.fetches(self.address, self.state.pc))

    # -- PSTATE and registers -------------------------------------------------------------
    @property
    def pstate(self) -> int:
        """PSTATE in the layout of SPSR_EL1."""
        return int(self.engine.pstate(self.address))

    @pstate.setter
    def pstate(self, value: int) -> None:
        self.engine.set_pstate(self.address, value)

    @property
    def sp_el0(self) -> int:
        """SP_EL0, banked or current."""
        s = self.state
        return int(s.sp_el0_ if s.el & s.spsel else s.sp)

    @sp_el0.setter
    def sp_el0(self, value: int) -> None:
        s = self.state
        setattr(s, "sp_el0_" if s.el & s.spsel else "sp", value)

    @property
    def sp_el1(self) -> int:
        """SP_EL1, banked or current."""
        s = self.state
        return int(s.sp if s.el & s.spsel else s.sp_el1_)

    @sp_el1.setter
    def sp_el1(self, value: int) -> None:
        s = self.state
        setattr(s, "sp" if s.el & s.spsel else "sp_el1_", value)

    def get_v(self, i: int) -> int:
        """V[i] as a 128-bit integer."""
        return int(self.state.v[2 * i] | self.state.v[2 * i + 1] << 64)

    def set_v(self, i: int, value: int) -> None:
        """V[i] from a 128-bit integer."""
        self.state.v[2 * i] = value & ((1 << 64) - 1)
        self.state.v[2 * i + 1] = value >> 64

    @property
    def fpsr(self) -> int:
        """FPSR."""
        return int(self.state.fpsr)

    @fpsr.setter
    def fpsr(self, value: int) -> None:
        self.state.fpsr = value

    # -- system registers -----------------------------------------------------------------
    def _stored(self, enc: tuple[int, int, int, int, int]) -> SysReg:
        r = BY_ENCODING[enc]
        if not r.has_field:
            raise KeyError(enc)
        return r

    def get_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
        """A stored system register by encoding. KeyError where there is none."""
        return int(getattr(self.state, self._stored((op0, op1, crn, crm, op2)).field))

    def set_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int, value: int) -> None:
        """Write a stored system register, and do what follows. KeyError where there is none."""
        r = self._stored((op0, op1, crn, crm, op2))
        setattr(self.state, r.field, value & r.mask | r.ones)
        self.changed()

    def changed(self) -> None:
        """System registers were written through `state`: bring everything derived up to date."""
        self.engine.flush_all(self.address)
        self.engine.set_context(self.address)
        self.engine.derive(self.address)

    def take_exception(self, esr: int, far: int = 0, kind: str = "sync") -> None:
        """Take an exception to EL1 as hardware would, from the present PC.

        It counts as an instruction, as those that guest code takes itself.
        """
        s = self.state
        if kind in ("sync", "serror"):
            s.esr_el1 = esr
            s.far_el1 = far
        s.pc = self.engine.deliver(self.address, s.pc, _OFFSETS[kind])
        s.count += 1
