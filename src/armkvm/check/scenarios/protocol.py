"""Scenarios without end: the protocol by which user space learns a timer's level.

The guest does at each step what it likes: it moves its virtual timer's deadline, starts, masks or
stops the timer, masks interrupts, accesses a device, sleeps, or the host's tick takes its CPU away.
Its handler reads IAR, then masks, stops or moves the timer, and writes EOI. Nothing is counted, so
that what comes again is the same state and the exploration ends.

That is also what bench/spin/ut.pml says in Promela. `shared` is what the two have in common, as a
number; `armkvm bench check` compares the sets of these numbers.
"""

from __future__ import annotations

from typing import Any

from armkvm.arch.gic import INTID_SPURIOUS
from armkvm.arch.timer import CTL_ENABLE, CTL_IMASK, NEVER
from armkvm.check.execution.actors import Actor
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import CheckCpu, Memory
from armkvm.check.world.properties import registers
from armkvm.check.world.user import EOI, IAR, VALUE, Vmm
from armkvm.check.world.world import World
from armkvm.host.scripted import PSTATE_I, Load, Mask, Native, Op, Store, Wfi
from armkvm.kvm import Vcpu
from armkvm.kvm.kvm_host import kvm_get_running_vcpu

AHEAD = 4_000  # ticks to the next deadline
IDLE = 2  # no vCPU is loaded
TICK = Native("x5", 0)  # what the guest does when the host's tick comes


class Free:
    """One vCPU's guest."""

    def __init__(self, world: World, deadlines: int) -> None:
        self.world = world
        self.deadlines = [AHEAD * (n + 1) for n in range(deadlines)]
        self.vcpu: Any = None

    def script(self, _memory: Memory) -> Ops:
        """For ever."""
        while True:
            yield self.step()

    def handler(self, _memory: Memory) -> Ops:
        """IAR, silence the timer, EOI."""
        intid = yield Load(IAR)
        if intid == INTID_SPURIOUS:
            return
        yield self.silence()
        yield Store(EOI, intid)

    def step(self) -> Op:
        """The next instruction."""
        ctl = self.vcpu.state.cntv_ctl
        masked = self.vcpu.cpu.pstate & PSTATE_I
        ops: list[tuple[str, Op]] = [
            *(("move", self.move(ticks)) for ticks in self.deadlines),
            ("start", Native("cntv_ctl", CTL_ENABLE)),
            ("stop", Native("cntv_ctl", ctl & ~CTL_ENABLE)),
            ("PSTATE.I", Mask(not masked)),
            ("device", Store(VALUE, g.VTIMER)),
            ("tick", TICK),
        ]
        if ctl & CTL_ENABLE:
            ops.append(("IMASK", Native("cntv_ctl", ctl ^ CTL_IMASK)))
            if not ctl & CTL_IMASK:
                ops.append(("WFI", Wfi()))
        op = self.choose(ops)
        if op is TICK:
            self.tick()
        return op

    def silence(self) -> Op:
        """What a handler does to the timer."""
        ctl = self.vcpu.state.cntv_ctl
        ops: list[tuple[str, Op]] = [
            ("IMASK", Native("cntv_ctl", ctl | CTL_IMASK)),
            ("stop", Native("cntv_ctl", ctl & ~CTL_ENABLE)),
            *(("move", self.move(ticks)) for ticks in self.deadlines),
        ]
        return self.choose(ops)

    def choose(self, ops: list[tuple[str, Op]]) -> Op:
        """One of them, by the explorer."""
        return ops[self.world.execution.choose([name for name, _op in ops])][1]

    def move(self, ticks: int) -> Op:
        """A deadline in the future."""
        return Native("cntv_cval", self.world.ticks - self.vcpu.state.cntvoff + ticks)

    def tick(self) -> None:
        """The host's tick: this vCPU's slice is over."""
        actor = self.world.execution.current
        assert actor is not None
        self.world.turn.resched.add(actor)
        self.vcpu.cpu.kick()


class FreeVmm(Vmm):
    """User space without an end. Its frames hold nothing of the last round."""

    def loop(self, vcpu: Vcpu) -> None:
        """For ever."""
        self.world.owns(vcpu)
        while True:
            self.turn(vcpu)

    def turn(self, vcpu: Vcpu) -> None:
        """One KVM_RUN and what follows from it."""
        done = self.world.run(vcpu) == 0
        self.mirror(vcpu)
        if done:
            self.exit(vcpu)


def free(world: World, vmm: Vmm, deadlines: int, number: int = 0) -> Vcpu:
    """A vCPU whose guest does what it likes."""
    guest = Free(world, deadlines)
    guest.vcpu = vcpu = world.vcpu(vmm.vm, guest.script, guest.handler, number=number)
    return vcpu


def masked_deadlines(world: World) -> None:
    """Time passes at a masked timer's deadline too: ISTATUS changes, though no output does."""

    def due() -> int:
        now = world.clock.time
        moments = []
        for vcpu in world.vcpus:
            ctl, cval, offset = registers(vcpu, 0)
            if ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE | CTL_IMASK:
                moments.append(cval + offset << 4)
        return min((m for m in moments if m > now), default=NEVER)

    def ahead() -> bool:
        return due() < world.next_deadline()

    def body() -> None:
        while True:
            world.clock.time = due()
            world.execution.block(ahead, "time passes")

    world.execution.add("counter", body, host=True, ready=ahead)


@scenario("protocol", "a guest that does what it likes, for ever", "I1", "I2", "I3", "I6",
          endless=True)  # fmt: skip
def protocol(world: World) -> None:
    vmm = FreeVmm(world, world.vm())
    world.execution.add("vcpu", vmm.thread(free(world, vmm, 1)))
    masked_deadlines(world)


@scenario("protocol-two", "two such guests on one CPU", "I1", "I2", "I3", "I6", endless=True,
          bound=10_000)  # fmt: skip
def protocol_two(world: World) -> None:
    vmm = FreeVmm(world, world.vm())
    for n in range(2):
        vcpu = free(world, vmm, 2, n)
        world.execution.add(f"vcpu{n}", vmm.thread(vcpu))
    masked_deadlines(world)
    # A guest may compute for ever and the host's tick never come: the other one is owed nothing.
    world.monitor.owes_nobody = True


def record(world: World, seen: set[int]) -> None:
    """From now on: what `shared` is at each step."""
    before = world.execution.seen
    assert before is not None

    def look(actor: Actor, what: str) -> None:
        before(actor, what)
        seen.add(shared(world))

    world.execution.seen = look


def shared(world: World) -> int:
    """The variables that mean the same here and in ut.pml. See record() there for the order.

    CVAL is there as whether it has been reached, and that only while the timer is enabled:
    ISTATUS is UNKNOWN otherwise.
    """
    now = world.clock.time
    (vmm,) = world.vmms
    number = 0
    for n, vcpu in enumerate(world.vcpus):
        ctl, cval, offset = registers(vcpu, 0)
        cpu = vcpu.cpu
        assert isinstance(cpu, CheckCpu)
        for bit in (
            ctl & CTL_ENABLE,
            ctl & CTL_IMASK,
            ctl & CTL_ENABLE and cval + offset << 4 <= now,
            vcpu.irq_level.value & 1,
            vmm.inputs.get((n, g.VTIMER)),
            (n, g.VTIMER) in vmm.active,
            vcpu.hcr >> 7 & 1,
            cpu.pstate & PSTATE_I,
            cpu.entered,
        ):
            number = number << 1 | bool(bit)
    (pcpu,) = world.host.pcpus
    running = kvm_get_running_vcpu(pcpu)
    loaded = IDLE if running is None else running.vcpu_id
    return number << 3 | pcpu.vtimer_irq.masked << 2 | loaded
