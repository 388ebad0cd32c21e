"""Scenarios: one timer past, future, masked and moved; both timers; three kinds of host."""

from __future__ import annotations

from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import one
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import CheckCpu, Memory
from armkvm.check.world.user import END
from armkvm.check.world.world import World
from armkvm.host.scripted import Msr, Native, Store


@scenario("timer-past", "a deadline that has passed when it is set", "I1", "I2", "I3", "I4")
def timer_past(world: World) -> None:
    one(world, g.one_shot(0))


@scenario("timer-future", "a deadline that comes at any moment", "I1", "I2", "I3", "I4", "I6")
def timer_future(world: World) -> None:
    one(world, g.one_shot())


@scenario("timer-nogic", "the same where the host's controller has no active state", "I1", "I3",
          "I8", kind="nvhe-nogic")  # fmt: skip
def timer_nogic(world: World) -> None:
    one(world, g.one_shot())


@scenario("timer-rearmed", "the handler moves the deadline: a second interrupt", "I1", "I3", "I6")
def timer_rearmed(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 2)

    one(world, guest, g.handler(move=g.LATER))


@scenario("timer-masked", "IMASK and ENABLE while the deadline passes", "I1", "I2", "I3", "I7")
def timer_masked(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.virtual(g.SOON, 3)
        yield from g.marks(1)
        yield Native("cntv_ctl", 1)
        yield from g.marks(2)
        yield Native("cntv_ctl", 3)
        yield from g.marks(3)
        yield Native("cntv_ctl", 0)
        yield from g.marks(4)
        yield Native("cntv_ctl", 1)
        yield from g.until(memory, 1)

    one(world, guest)


@scenario("timer-moved", "a deadline moved, into the future and into the past", "I1", "I2", "I3")
def timer_moved(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield from g.marks(1)
        yield Native("cntv_cval", g.LATER)
        yield from g.marks(2)
        yield Native("cntv_cval", 0)
        yield from g.until(memory, 1)

    one(world, guest)


@scenario("timer-emulated", "the physical timer, emulated; then once more", "I1", "I2", "I3", "I6")
def timer_emulated(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.SOON)
        yield from g.until(memory, 2)

    one(world, guest, g.handler(move=g.LATER))
    cpu = world.vcpus[0].cpu
    assert isinstance(cpu, CheckCpu)

    def check() -> None:
        if cpu.memory.log != (g.PTIMER, g.PTIMER):
            world.monitor.find("I14", f"the guest was given {cpu.memory.log}")

    world.at_end.append(check)


@scenario("timer-emulated-moved", "an emulated timer that fires is moved away while the guest runs",
          "I1", "I2")  # fmt: skip
def timer_emulated_moved(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.physical(0)
        yield from g.marks(1)
        yield Msr(g.CNTP_CVAL, g.PHYSICAL_ZERO + g.SOON)
        for n in range(3):
            yield Native("x5", n)
        yield from g.marks(2)
        yield Msr(g.CNTP_CTL, 0)
        yield Store(END)

    one(world, guest)


@scenario("timer-direct", "the physical timer where it is the hardware's", "I1", "I2", "I3", "I6",
          kind="vhe-gicv3")  # fmt: skip
def timer_direct(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.SOON, direct=True)
        yield from g.until(memory, 1)

    one(world, guest, g.handler(direct=True))


@scenario("timers-both", "both timers, and interrupts masked for a while", "I1", "I2", "I3", "I6")
def timers_both(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.LATER)
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 2)

    one(world, guest)


@scenario("wfi-told", "WFI with a level that user space knows and keeps from the guest", "I6")
def wfi_told(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield from g.physical(g.LATER)
        yield from g.until(memory, 1)

    one(world, guest, disabled={g.VTIMER})
