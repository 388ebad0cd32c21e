"""Scenarios: what user space does to kvm_run, and an interrupt controller that is late."""

from __future__ import annotations

from armkvm.arch.gic import INTID_SPURIOUS
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import expect_marks, kicker, one
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Memory
from armkvm.check.world.user import END, VALUE, Vmm
from armkvm.check.world.world import World
from armkvm.host.scripted import Load, Store
from armkvm.kvm import Vcpu


def asker(world: World, vmm: Vmm) -> None:
    """A thread that sets immediate_exit at any moment; the vCPU's thread clears it again."""
    (vcpu,) = vmm.vm.vcpus

    def clear(vcpu: Vcpu, ret: int) -> None:
        if ret:
            vcpu.run_struct.immediate_exit = 0

    vmm.on_exit = clear

    def ask() -> None:
        vcpu.run_struct.immediate_exit = 1

    world.execution.add("asker", lambda: world.ioctl("immediate_exit = 1", ask))


def slow_gic(world: World, vmm: Vmm) -> None:
    """The interrupt controller in a thread of its own: the vCPU's line follows some time later."""
    (vcpu,) = vmm.vm.vcpus

    def late() -> None:
        driven = [False]

        def behind() -> bool:
            return (vmm.pending(0) != INTID_SPURIOUS) != driven[0] or bool(vmm.finished)

        def follow() -> None:
            world.irq_line(vcpu, driven[0])

        while True:
            world.execution.block(behind, "looks at its inputs")
            if vmm.finished:
                return
            driven[0] = not driven[0]
            world.ioctl("KVM_IRQ_LINE", follow)

    world.execution.add("gic", late)


@scenario("immediate-exit", "immediate_exit set at every point, device accesses pending", "I4")
def immediate_exit(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.virtual(0)
        yield from g.marks(1)
        value = yield Load(VALUE)
        yield from g.marks(value & 0xFF)
        yield Store(END)

    vmm = one(world, guest)
    asker(world, vmm)
    expect_marks(world, vmm, 1, 0x34)


@scenario("gic-slow", "an interrupt controller in a thread of its own, that is late", "I1", "I6")
def gic_slow(world: World) -> None:
    vmm = one(world, g.one_shot(), slow=True)
    slow_gic(world, vmm)


@scenario("gic-scribbles", "user space writes bits that mean nothing", "I2", "I5")
def gic_scribbles(world: World) -> None:
    vmm = one(world, g.one_shot())

    def scribble(vcpu: Vcpu, _ret: int) -> None:
        vcpu.irq_level.value |= 0x100

    vmm.on_exit = scribble


@scenario("gic-overwrites", "user space clears or sets all bits between two runs", "I1", "I2", "I3")
def gic_overwrites(world: World) -> None:
    vmm = one(world, g.one_shot())
    vmm.left = 2  # so often; each costs one more notification, and no more

    def overwrite(vcpu: Vcpu, _ret: int) -> None:
        if vmm.left:
            which = world.execution.choose(["keeps the bits", "clears them", "sets them"])
            if which:
                vmm.left -= 1
                vcpu.irq_level.value = (0, 0, 7)[which]

    vmm.on_exit = overwrite


@scenario("signals-immediate-exit", "a signal and immediate_exit, each at every point", "I4")
def signals_immediate_exit(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.virtual(0)
        value = yield Load(VALUE)
        yield from g.marks(value & 0xFF)
        yield Store(END)

    vmm = one(world, guest)
    (vcpu,) = world.vcpus
    kicker(world, vcpu)
    asker(world, vmm)
    expect_marks(world, vmm, 0x34)


@scenario("gic-slow-scribbles", "an interrupt controller that is late and writes to the bits",
          "I1", "I5", "I6")  # fmt: skip
def gic_slow_scribbles(world: World) -> None:
    vmm = one(world, g.one_shot(0), slow=True)
    slow_gic(world, vmm)

    def scribble(vcpu: Vcpu, _ret: int) -> None:
        vcpu.irq_level.value |= 0x100

    vmm.on_exit = scribble
