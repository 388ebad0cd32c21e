"""Scenarios: lines from other threads, signals at every point, and WFI ended by each of them."""

from __future__ import annotations

from functools import partial

from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import expect_marks, kicker, one
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Guest, Memory
from armkvm.check.world.user import END, VALUE
from armkvm.check.world.world import World
from armkvm.host.scripted import Load, Mask, Native, Store, Wfi
from armkvm.kvm import Vcpu


def external(memory: Memory) -> Ops:
    """A handler for a line that is no timer's: the device is told, and lowers it."""
    memory.irqs += 1
    yield Store(VALUE, 1)
    memory.log += (1,)


def device(world: World, line: int, *levels: bool) -> None:
    """A thread that drives a line of the vCPU, one level after the other at once."""
    (vcpu,) = world.vcpus

    def body() -> None:
        for level in levels:
            world.ioctl("KVM_IRQ_LINE", partial(world.irq_line, vcpu, level, line))

    world.execution.add("device", body)


def listener(world: World, guest: Guest) -> None:
    """A guest that hears of a device by its IRQ line, which falls when the guest has told it."""

    def lower(vcpu: Vcpu, ret: int) -> None:
        if ret == 0 and vcpu.run_struct.mmio.phys_addr == VALUE:
            world.irq_line(vcpu, False)

    one(world, guest, external, slow=True).on_exit = lower
    device(world, 0, True)


@scenario("wfi-line", "a line raised by another thread while the guest goes to sleep", "I6")
def wfi_line(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.until(memory, 1)

    listener(world, guest)


@scenario("line-running", "a line raised by another thread while the guest computes", "I6")
def line_running(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield Mask(False)
        for n in range(4):
            yield Native("x5", n)
        yield from g.marks(1)
        yield from g.until(memory, 1)

    listener(world, guest)


@scenario("wfi-line-fiq", "WFI ended by the FIQ line alone", "I6")
def wfi_line_fiq(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield Wfi()
        yield Store(END)

    one(world, guest, slow=True)
    device(world, 1, True)


@scenario("wfi-signal", "signals at every point of a sleep for a timer", "I3", "I4", "I6")
def wfi_signal(world: World) -> None:
    one(world, g.one_shot())
    kicker(world, world.vcpus[0], 2)


@scenario("signals", "signals at every point, with device reads and writes under way", "I4")
def signals(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.marks(1)
        value = yield Load(VALUE)
        yield from g.marks(value & 0xFF, 3)
        yield Store(END)

    vmm = one(world, guest)
    kicker(world, world.vcpus[0], 2)
    expect_marks(world, vmm, 1, 0x34, 3)


@scenario("line-pulse", "a line raised and lowered quickly by another thread", "I1")
def line_pulse(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield Native("x5", 0)  # its interrupts are masked: it is the line that is looked at
        yield Native("x5", 1)
        yield Store(END)

    one(world, guest, slow=True)
    device(world, 0, True, False)


@scenario("wfi-pulse", "a FIQ line that rises and falls while the guest goes to sleep", "I6")
def wfi_pulse(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield Wfi()
        yield Store(END)

    one(world, guest)
    device(world, 1, True, False)
