"""A scripted guest CPU whose every step is one of the explorer's.

After host/scripted.py, with three differences. Before each operation there is a point, so that time
can pass, a kick can come and another thread can act between any two. Instructions take no time:
time passes when the explorer says so. And the virtual CPU interface of a GICv2 is there, as far as
a guest needs it to take and end an interrupt: GICC_CTLR, PMR, IAR and EOIR in the frame that KVM
maps for it. Where ICC_SRE_EL1 says so, the same four are system registers, as a GICv3 has them.

Left out: priorities beyond the mask, groups, maintenance interrupts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from armkvm.abi.structs import KvmRun
from armkvm.arch import gic as g
from armkvm.arch.sysreg import BY_NAME
from armkvm.check.execution.place import instruction, simple
from armkvm.host.cpu import EXIT_IRQ, EXIT_TRAP, GuestMemory
from armkvm.host.scripted import (
    PSTATE_I,
    Load,
    Mask,
    Mrs,
    Msr,
    Native,
    NoMemory,
    Op,
    ScriptedCpu,
    Store,
)

if TYPE_CHECKING:
    from armkvm.check.world.world import World
    from armkvm.kvm import Vcpu

ICC_PMR, ICC_IAR1, ICC_EOIR1, ICC_IGRPEN1 = (
    BY_NAME[f"ICC_{name}_EL1"].enc for name in ("PMR", "IAR1", "EOIR1", "IGRPEN1")
)
# In kvm_run: what an exit of its kind says.
RUN_UNION, RUN_REGS = KvmRun.mmio.offset, KvmRun.kvm_valid_regs.offset

_LRS = ("ich_lr0", "ich_lr1", "ich_lr2", "ich_lr3")
_MASKS = {g.PPI_VIRTUAL_TIMER: "cntv_masked", g.PPI_PHYSICAL_TIMER: "cntp_masked"}
_VMCR_ENABLE = g.ICH_VMCR_ENG0 | g.ICH_VMCR_ENG1


class Memory:
    """What a guest's scripts remember: its memory."""

    __slots__ = ("irqs", "log")

    def __init__(self) -> None:
        self.irqs = 0  # interrupts taken
        self.log: tuple[int, ...] = ()


Guest = Callable[[Memory], Generator[Op, int, None]]


class CheckCpu(ScriptedCpu):
    """One CPU. Its scripts get the guest's memory."""

    def __init__(self, world: World, script: Guest, irq: Guest | None) -> None:
        self.memory = Memory()
        super().__init__(
            lambda _cpu: script(self.memory),
            None if irq is None else (lambda _cpu: irq(self.memory)),
        )
        self.world = world
        self.vcpu: Any = None
        self.entered = False  # inside run()
        self.wfi = False  # the operation under way is a WFI
        self.stop_pc = 0  # PC at the last exit
        self.entries: dict[int, Guest] = {}  # where else a guest can be started, by PC

    def run(self) -> int:
        """Execute the script until something ends the run."""
        world = self.world
        state = self.state
        begins = self.entries.pop(state.pc, None)
        if begins is not None:
            self.restart(begins)
        entry = True
        # What the last exit left is read by nobody: one state less.
        self.vcpu.pages[RUN_UNION:RUN_REGS] = bytes(RUN_REGS - RUN_UNION)
        state.esr_el2 = state.far_el2 = state.hpfar_el2 = self.vcpu.esr = 0
        while True:
            self.entered = True
            world.execution.point("guest", self.vcpu)
            if self._kicked:
                self._kicked = False
                return self._leave(EXIT_IRQ)
            if world.clock.ns >= state.hyp_deadline_ns or self._output():
                return self._leave(EXIT_IRQ)
            self._complete()
            if self._virq() and not self.pstate & PSTATE_I and self._irq is not None:
                self._enter_irq()
            op = self._fetch()
            if world.recorder is not None:
                world.recorder.instruction(op)
            world.monitor.instruction(self.vcpu, op, entry)
            entry = False
            if isinstance(op, Native):
                self._write(op)
                self._retire()
            elif isinstance(op, Mask):
                self.pstate = self.pstate & ~PSTATE_I | (PSTATE_I if op.masked else 0)
                self._retire()
            elif self._cpu_interface(op):
                self._retire()
            else:
                self._trap(op)
                return self._leave(EXIT_TRAP)

    def _fetch(self) -> Op:
        """The operation at PC; PC says where the script stands, as in a program that loops."""
        new = self._op is None
        op = super()._fetch()
        if new:
            self.state.pc = _address(self._stack)
            self._next_pc = self.state.pc + 4
        return op

    def _finish(self) -> None:
        super()._finish()
        self.state.x[:4] = [0, 0, 0, 0]  # scratch of the operation: the script has its result

    def restart(self, script: Guest) -> None:
        """The guest begins anew, as after a reset."""
        self.memory.irqs = 0
        self._stack, self._saved = [script(self.memory)], []
        self._op = self._result = None

    def adopt(self, other: CheckCpu) -> None:
        """Go on where another CPU's guest was: what migration moves as memory and registers."""
        self._stack, self._saved = other._stack, other._saved
        self._op, self._next_pc, self._result = other._op, other._next_pc, other._result
        self.pstate, self.memory = other.pstate, other.memory

    def _leave(self, code: int) -> int:
        self.entered = False
        self.stop_pc = self.state.pc
        return code

    def key(self) -> tuple[object, ...]:
        """What the future depends on, beyond `state`."""
        stack: list[Any] = self._stack
        frames = tuple(_frame(g) for g in stack)
        return (
            self.pstate, self._kicked, self._op, self._next_pc, self._result,
            self.memory.log, self.memory.irqs, tuple(self.entries),
            tuple(op for op, _left, _result in self._saved), frames,
        )  # fmt: skip

    # time

    def _ns(self) -> int:
        return self.world.clock.ns

    # the virtual CPU interface

    def _virq(self) -> bool:
        return bool(self.state.hcr_vi) or (
            bool(self.state.gicv_base or self.state.icc_sre)
            and self._highest(g.ICH_LR_PENDING) is not None
        )

    def _highest(self, bit: int) -> str | None:
        """The first list register in a state, if the interface lets it through."""
        s = self.state
        if not s.ich_vmcr & _VMCR_ENABLE or not s.ich_vmcr >> g.ICH_VMCR_PMR_SHIFT & 0xFF:
            return None
        for name in _LRS:
            value: int = getattr(s, name)
            if value & bit and not (bit == g.ICH_LR_PENDING and value & g.ICH_LR_ACTIVE):
                return name
        return None

    def _cpu_interface(self, op: Op) -> bool:
        """An access to the virtual CPU interface, in one of its two forms: no exit."""
        if isinstance(op, Load | Store):
            return self._gicc(op)
        return isinstance(op, Mrs | Msr) and bool(self.state.icc_sre) and self._icc(op)

    def _gicc(self, op: Load | Store) -> bool:
        """The frame that KVM maps."""
        s = self.state
        register = op.ipa - s.gicv_base
        if not s.gicv_base or not 0 <= register < s.gicv_size:
            return False
        if isinstance(op, Load):
            s.x[op.rt] = self._acknowledge() if register == g.GICC_IAR else g.INTID_SPURIOUS
        elif register == g.GICC_CTLR:
            s.ich_vmcr = s.ich_vmcr & ~_VMCR_ENABLE | op.value & _VMCR_ENABLE
        elif register == g.GICC_PMR:
            self._set_priority_mask(op.value)
        elif register == g.GICC_EOIR:
            self._end(op.value)
        return True

    def _icc(self, op: Mrs | Msr) -> bool:
        """The system registers, as far as a guest has them to itself."""
        s = self.state
        if isinstance(op, Mrs):
            if op.encoding != ICC_IAR1:
                return False
            s.x[op.rt] = self._acknowledge()
        elif op.encoding == ICC_PMR:
            self._set_priority_mask(op.value)
        elif op.encoding == ICC_IGRPEN1:
            s.ich_vmcr = s.ich_vmcr & ~g.ICH_VMCR_ENG1 | (op.value & 1) * g.ICH_VMCR_ENG1
        elif op.encoding == ICC_EOIR1:
            self._end(op.value)
        else:
            return False
        return True

    def _set_priority_mask(self, value: int) -> None:
        s = self.state
        shift = g.ICH_VMCR_PMR_SHIFT
        s.ich_vmcr = s.ich_vmcr & ~(0xFF << shift) | (value & 0xFF) << shift

    def _acknowledge(self) -> int:
        """The highest pending interrupt becomes active."""
        s = self.state
        name = self._highest(g.ICH_LR_PENDING)
        if name is None:
            return g.INTID_SPURIOUS
        value: int = getattr(s, name)
        setattr(s, name, value & ~g.ICH_LR_PENDING | g.ICH_LR_ACTIVE)
        intid = value & 0x3FF
        self.world.monitor.acknowledged(self.vcpu, intid)
        return intid

    def _end(self, intid: int) -> None:
        """Priority drop and deactivation, of the physical interrupt too."""
        s = self.state
        for name in _LRS:
            value: int = getattr(s, name)
            if value & g.ICH_LR_ACTIVE and value & 0x3FF == intid:
                setattr(s, name, value & ~g.ICH_LR_ACTIVE)
                if value & g.ICH_LR_HW:
                    physical = value >> g.ICH_LR_PHYS_ID_SHIFT & 0x3FF
                    s.phys_deactivated |= 1 << physical
                    setattr(s, _MASKS[physical], 0)  # no longer active: it may interrupt again


def _frame(generator: Any) -> tuple[object, ...] | None:
    """Where a script stands, with its plain values."""
    frame = generator.gi_frame
    if frame is None:
        return None
    return instruction(frame.f_code, frame.f_lasti), *simple(frame.f_locals)


def _address(stack: list[Any]) -> int:
    """A place for each operation: above, the script's number on the stack; below, its position."""
    generator, at = stack[-1], 0
    while generator is not None and generator.gi_frame is not None:
        lasti = instruction(generator.gi_code, generator.gi_frame.f_lasti)
        at = (at << 10) + 2 * lasti
        generator = generator.gi_yieldfrom
    return (len(stack) << 20) + at


def guest_cpu(vcpu: Vcpu) -> CheckCpu:
    """The CPU of a vCPU."""
    assert isinstance(vcpu.cpu, CheckCpu)
    return vcpu.cpu


class CheckBackend:
    """Guest CPUs with the scripts that the scenario names just before it creates a vCPU."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.next: tuple[Guest, Guest | None] | None = None
        self.created: Callable[[CheckCpu], None] | None = None

    def stage2(self) -> GuestMemory:
        """Memory for a VM: scenarios have devices only."""
        return NoMemory()

    def cpu(self, memory: GuestMemory) -> CheckCpu:
        """The next CPU; without a script it stores to a device and is done."""
        del memory
        script, irq = self.next or (_nothing, None)
        self.next = None
        return CheckCpu(self.world, script, irq)


def _nothing(_memory: Memory) -> Generator[Op, int, None]:
    yield from ()
