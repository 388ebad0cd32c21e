"""A guest CPU that follows a script instead of instructions.

For tests of the hypervisor and for its checker. It has the engine's interface (host/cpu.py) and
its timing: every operation is one instruction, the timers' outputs and the host's own timer end a
run at the exact count. A script is a generator of operations; `Load` and `Mrs` hand it the
register's value afterwards. With the virtual IRQ line high and interrupts unmasked, the IRQ script
runs first. After a fault that the hypervisor injects, PC is the vector and the script goes on
there, as its handler.

    def guest(cpu):
        yield Native("cntv_cval", 1000)
        yield Native("cntv_ctl", 1)
        yield Wfi()
        level = yield Load(0x0800_0000)

Left out: memory, exceptions taken by the guest itself, EL0, system registers with effects.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from armkvm.arch.debug import Watchpoint
from armkvm.arch.esr import EC_SERROR, EC_SHIFT, IL
from armkvm.arch.timer import NEVER, NS_PER_TICK_SHIFT, armed
from armkvm.arch.word import M64
from armkvm.engine.stage2 import Backing
from armkvm.host.cpu import (
    EXIT_IRQ,
    EXIT_LIMIT,
    EXIT_TRAP,
    STATE_FIELDS,
    GuestMemory,
    GuestState,
)

PSTATE_I, PSTATE_A = 1 << 7, 1 << 8
RESET_PSTATE = 0x3C5

_VBAR_EL1 = (3, 0, 12, 0, 0)
_OFFSETS = {"sync": 0x000, "irq": 0x080, "fiq": 0x100, "serror": 0x180}
_HAVE_SYNDROME = ("sync", "serror")


class State(GuestState):
    """The fields that the hypervisor uses, and no other."""

    _fields_ = [("x", ctypes.c_uint64 * 31), *((name, ctypes.c_uint64) for name in STATE_FIELDS)]


@dataclass(frozen=True)
class Run:
    """`count` instructions that touch nothing."""

    count: int


@dataclass(frozen=True)
class Native:
    """Write a field of the state: what the guest may do without an exit (timers, X registers)."""

    field: str
    value: int


@dataclass(frozen=True)
class Load:
    """A device read of 1, 2, 4 or 8 bytes into X<rt>."""

    ipa: int
    size: int = 4
    rt: int = 0
    signed: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Store:
    """A device write."""

    ipa: int
    value: int = 0
    size: int = 4


@dataclass(frozen=True)
class Wfi:
    """Wait for interrupt."""


@dataclass(frozen=True)
class Wfe:
    """Wait for event: returns at once, or traps."""


@dataclass(frozen=True)
class Hvc:
    """A hypervisor call; X0..X3 from `args`."""

    args: tuple[int, ...]


@dataclass(frozen=True)
class Mrs:
    """Read a register that traps, into X<rt>."""

    encoding: tuple[int, int, int, int, int]
    rt: int = 0


@dataclass(frozen=True)
class Msr:
    """Write a register that traps."""

    encoding: tuple[int, int, int, int, int]
    value: int


@dataclass(frozen=True)
class Mask:
    """Set or clear PSTATE.I, or other masks."""

    masked: bool
    bits: int = PSTATE_I


Op = Run | Native | Load | Store | Wfi | Wfe | Hvc | Mrs | Msr | Mask
Script = Callable[["ScriptedCpu"], Generator[Op, int, None]]


class ScriptedCpu:
    """One CPU. It spins when its script has ended."""

    def __init__(self, script: Script, irq: Script | None = None) -> None:
        self.state: GuestState = State()
        self.state.el = 1
        self.state.ns_mult = 1 << 16
        self.state.limit = self.state.hyp_deadline_ns = NEVER
        self.pstate = RESET_PSTATE
        self.sp_el0 = self.sp_el1 = self.fpsr = 0
        self.injected: list[tuple[str, int, int]] = []  # kind, ESR, FAR
        self.closed = False
        self.ended = False
        self._irq = irq
        self._kicked = False
        self._v = [0] * 32
        self._sysregs: dict[tuple[int, ...], int] = {}
        self._stack = [script(self)]
        self._saved: list[
            tuple[Op | None, int, int | None]
        ] = []  # what interrupts have interrupted
        self._op: Op | None = None  # begun, not retired
        self._next_pc = -1  # where the hypervisor goes when it has emulated it
        self._left = 0  # instructions of a Run still to do
        self._result: int | None = None  # what the script gets for its last operation

    # the interface of host/cpu.py

    def kick(self) -> None:
        """Leave the guest soon, or not enter it."""
        self._kicked = True

    def close(self) -> None:
        """The CPU goes away."""
        self.closed = True

    def get_v(self, i: int, /) -> int:
        """V[i]."""
        return self._v[i]

    def set_v(self, i: int, value: int, /) -> None:
        """V[i] = value."""
        self._v[i] = value

    def get_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int, /) -> int:
        """A stored system register; all exist, as zero."""
        return self._sysregs.get((op0, op1, crn, crm, op2), 0)

    def set_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int, value: int, /) -> None:
        """Write a stored system register."""
        self._sysregs[op0, op1, crn, crm, op2] = value

    def fetches(self) -> bool:
        """A script has no faults."""
        return True

    def set_watchpoints(self, watchpoints: Sequence[Watchpoint], /) -> None:
        """Nothing of it is seen: a script accesses devices alone, and stage 2 faults come first."""

    def take_exception(self, esr: int, far: int = 0, kind: str = "sync") -> None:
        """Recorded; the operation that caused it is over, and what follows is at the vector.

        The masks stay: the script that goes on has no exception return.
        """
        self.injected.append((kind, esr, far))
        self._op = self._result = None
        s = self.state
        s.elr_el1, s.spsr_el1 = s.pc, self.pstate
        if kind in _HAVE_SYNDROME:
            s.esr_el1, s.far_el1 = esr, far
        s.pc = (
            self.get_sysreg(*_VBAR_EL1) + _OFFSETS[kind] + (0x200 if self.pstate & 0xC else 0x400)
        )
        s.count += 1

    def run(self) -> int:
        """Execute the script until something ends the run."""
        state = self.state
        while True:
            if self._kicked:
                self._kicked = False
                return EXIT_IRQ
            if state.count >= state.limit:
                return EXIT_LIMIT
            if self._ns() >= state.hyp_deadline_ns or self._output():
                return EXIT_IRQ
            self._complete()
            if state.hcr_vse and not self.pstate & PSTATE_A:
                state.hcr_vse = 0
                esr = EC_SERROR << EC_SHIFT | IL | state.vsesr_el2
                self.take_exception(esr, state.far_el1, "serror")
            if state.hcr_vi and not self.pstate & PSTATE_I and self._irq is not None:
                self._enter_irq()
            op = self._fetch()
            if isinstance(op, Run):
                self._skip()
            elif isinstance(op, Native):
                self._write(op)
                self._retire()
            elif isinstance(op, Mask):
                self.pstate = self.pstate & ~op.bits | op.bits * op.masked
                self._retire()
            elif isinstance(op, Wfe) and not state.twe:
                self._retire()
            else:
                self._trap(op)
                return EXIT_TRAP

    # the script

    def _complete(self) -> None:
        """The hypervisor has stepped over the last operation: it is emulated."""
        if self._op is not None and self.state.pc == self._next_pc:
            self._finish()

    def _fetch(self) -> Op:
        """The operation at PC: the one under way, or the script's next."""
        while self._op is None:
            try:
                # None starts a generator, and resumes one that waits for nothing.
                self._op = self._stack[-1].send(self._result)  # type: ignore[arg-type]
                self._left = self._op.count if isinstance(self._op, Run) else 0
            except StopIteration:
                self._return()
        self._next_pc = self.state.pc + 4
        return self._op

    def _return(self) -> None:
        """The end of an IRQ script, or of the script."""
        self._stack.pop()
        if self._saved:
            self._op, self._left, self._result = self._saved.pop()
            self.pstate &= ~PSTATE_I
        else:
            self.ended = True
            self._result = None
            self._stack.append(_spin())

    def _finish(self) -> None:
        op, self._op = self._op, None
        self._result = None
        if isinstance(op, Load | Mrs):
            self._result = self.state.x[op.rt] if op.rt != 31 else 0
        elif isinstance(op, Hvc):
            self._result = self.state.x[0]
        self.state.count += 1

    def _retire(self) -> None:
        self.state.pc += 4
        self._finish()

    def _enter_irq(self) -> None:
        assert self._irq is not None
        self._saved.append((self._op, self._left, self._result))
        self._op = None
        self._result = None
        self.pstate |= PSTATE_I
        self._stack.append(self._irq(self))

    # time

    def _ns(self) -> int:
        s = self.state
        return int(s.ns_base + ((s.count - s.ns_count) * s.ns_mult >> 16))

    def _output(self) -> bool:
        """A timer's output that is not masked is high."""
        s = self.state
        ticks = self._ns() >> NS_PER_TICK_SHIFT
        virt = armed(s.cntv_ctl) and s.cntv_cval <= ticks - s.cntvoff & M64
        phys = armed(s.cntp_ctl) and s.cntp_cval <= ticks - s.cntpoff & M64
        return bool((virt and not s.cntv_masked) or (phys and not s.cntp_masked))

    def _skip(self) -> None:
        """Part of a Run: up to the next thing that can happen."""
        s = self.state
        ends = [s.count + self._left, s.limit]
        deadlines = [s.hyp_deadline_ns]
        for ctl, cval, off, masked in (
            (s.cntv_ctl, s.cntv_cval, s.cntvoff, s.cntv_masked),
            (s.cntp_ctl, s.cntp_cval, s.cntpoff, s.cntp_masked),
        ):
            if ctl & 3 == 1 and not masked:
                deadlines.append((cval + off & M64) << NS_PER_TICK_SHIFT)
        for ns in deadlines:
            instructions = -(-((ns - s.ns_base) << 16) // s.ns_mult)
            ends.append(s.ns_count + max(instructions, 0))
        done = max(1, min(ends) - s.count)
        s.count += done
        self._left -= done
        if self._left <= 0:
            s.pc += 4
            self._op = None
            self._result = None

    # traps

    def _write(self, op: Native) -> None:
        if op.field.startswith("x"):
            self.state.x[int(op.field[1:])] = op.value
        else:
            setattr(self.state, op.field, op.value & M64)

    def _trap(self, op: Op) -> None:
        s = self.state
        match op:
            case Load() | Store():
                sas = op.size.bit_length() - 1
                iss = 1 << 24 | sas << 22 | 0x07
                if isinstance(op, Load):
                    iss |= op.rt << 16 | op.signed << 21 | op.wide << 15
                else:
                    s.x[1] = op.value & M64
                    iss |= 1 << 16 | 1 << 6
                s.esr_el2 = 0x24 << 26 | IL | iss
                s.far_el2 = op.ipa
                s.hpfar_el2 = op.ipa >> 12 << 4
            case Wfi():
                s.esr_el2 = 0x01 << 26 | IL
            case Wfe():
                s.esr_el2 = 0x01 << 26 | IL | 1
            case Hvc():
                for i, value in enumerate(op.args):
                    s.x[i] = value & M64
                s.esr_el2 = 0x16 << 26 | IL
                s.pc += 4  # an HVC returns behind itself
            case Mrs() | Msr():
                op0, op1, crn, crm, op2 = op.encoding
                iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
                if isinstance(op, Mrs):
                    iss |= op.rt << 5 | 1
                else:
                    s.x[1] = op.value & M64
                    iss |= 1 << 5
                s.esr_el2 = 0x18 << 26 | IL | iss


def _spin() -> Generator[Op, int, None]:
    while True:
        yield Run(1 << 20)


class NoMemory:
    """Guest memory without contents: remembers what is mapped."""

    def __init__(self) -> None:
        self.mapped: dict[int, tuple[int, bool]] = {}  # by address: size, read-only

    def replace(self, gone: Sequence[int], new: Sequence[Backing]) -> None:
        """Drop mappings and note others."""
        for ipa in gone:
            del self.mapped[ipa]
        self.mapped |= {b.ipa: (b.size, b.readonly) for b in new}

    def flush(self) -> None:
        """There is nothing to forget."""

    def written(self, ipa: int, size: int) -> None:
        """There is nothing that could be stale."""

    def close(self) -> None:
        """There is nothing to give back."""


class ScriptedBackend:
    """Guest CPUs with scripts: one a vCPU, in the order of creation."""

    def __init__(self, *scripts: Script, irq: Script | None = None) -> None:
        self._scripts = list(scripts)
        self._irq = irq
        self.cpus: list[ScriptedCpu] = []

    def stage2(self) -> GuestMemory:
        """Memory for a VM."""
        return NoMemory()

    def cpu(self, memory: GuestMemory) -> ScriptedCpu:
        """The next CPU; beyond the scripts given, one that spins."""
        del memory
        script = self._scripts.pop(0) if self._scripts else (lambda _cpu: _spin())
        cpu = ScriptedCpu(script, self._irq)
        self.cpus.append(cpu)
        return cpu
