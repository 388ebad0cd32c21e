"""Scenarios: WFI in all its forms, lines from other threads, signals, and what user space does."""

from __future__ import annotations

from armkvm.abi import psci
from armkvm.check.guest import Memory
from armkvm.check.scenario import scenario
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import expect_marks, kicker, one, void
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.user import END, SPURIOUS, VALUE
from armkvm.check.world import World
from armkvm.host.scripted import Hvc, Load, Mask, Msr, Native, Store, Wfi
from armkvm.kvm import Vcpu

ICC_SGI1R = (3, 0, 12, 11, 5)


def external(memory: Memory) -> Ops:
    """A handler for a line that is no timer's: the device is told, and lowers it."""
    memory.irqs += 1
    yield Store(VALUE, 1)
    memory.log += (1,)


@scenario("wfi-line", "a line raised by another thread while the guest goes to sleep", "I6")
def wfi_line(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.until(memory, 1)

    vmm = one(world, guest, external, slow=True)
    (vcpu,) = world.vcpus

    def lower(vcpu: Vcpu, ret: int) -> None:
        run = vcpu.run_struct
        if ret == 0 and run.mmio.phys_addr == VALUE:
            world.irq_line(vcpu, False)

    vmm.on_exit = lower
    world.execution.add(
        "device", lambda: void(world.ioctl("KVM_IRQ_LINE", lambda: world.irq_line(vcpu, True)))
    )


@scenario("line-running", "a line raised by another thread while the guest computes", "I6")
def line_running(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield Mask(False)
        for n in range(4):
            yield Native("x5", n)
        yield from g.marks(1)
        yield from g.until(memory, 1)

    vmm = one(world, guest, external, slow=True)
    (vcpu,) = world.vcpus

    def lower(vcpu: Vcpu, ret: int) -> None:
        if ret == 0 and vcpu.run_struct.mmio.phys_addr == VALUE:
            world.irq_line(vcpu, False)

    vmm.on_exit = lower
    world.execution.add(
        "device", lambda: void(world.ioctl("KVM_IRQ_LINE", lambda: world.irq_line(vcpu, True)))
    )


@scenario("wfi-signal", "signals at every point of a sleep for a timer", "I3", "I4", "I6")
def wfi_signal(world: World) -> None:
    one(world, g.one_shot())
    kicker(world, world.vcpus[0], 2)


@scenario("psci-suspend", "CPU_SUSPEND is a WFI by another name", "I6")
def psci_suspend(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield Mask(False)
        while not memory.irqs:
            yield Hvc((psci.PSCI_0_2_FN64_CPU_SUSPEND, 0, 0, 0))
        yield Store(END)

    one(world, guest)


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


@scenario("immediate-exit", "immediate_exit set at every point, device accesses pending", "I4")
def immediate_exit(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.virtual(0)
        yield from g.marks(1)
        value = yield Load(VALUE)
        yield from g.marks(value & 0xFF)
        yield Store(END)

    vmm = one(world, guest)
    (vcpu,) = world.vcpus

    def clear(vcpu: Vcpu, ret: int) -> None:
        if ret:
            vcpu.run_struct.immediate_exit = 0

    vmm.on_exit = clear

    def ask() -> None:
        vcpu.run_struct.immediate_exit = 1

    world.execution.add("asker", lambda: void(world.ioctl("immediate_exit = 1", ask)))
    expect_marks(world, vmm, 1, 0x34)


@scenario("gic-slow", "an interrupt controller in a thread of its own, that is late", "I1", "I6")
def gic_slow(world: World) -> None:
    vmm = one(world, g.one_shot(), slow=True)
    (vcpu,) = world.vcpus

    def late() -> None:
        driven = [False]

        def behind() -> bool:
            return (vmm.pending(0) != SPURIOUS) != driven[0] or bool(vmm.finished)

        def follow() -> None:
            world.irq_line(vcpu, driven[0])

        while True:
            world.execution.block(behind, "looks at its inputs")
            if vmm.finished:
                return
            driven[0] = not driven[0]
            world.ioctl("KVM_IRQ_LINE", follow)

    world.execution.add("gic", late)


@scenario("gic-scribbles", "user space writes bits that mean nothing", "I2", "I5")
def gic_scribbles(world: World) -> None:
    vmm = one(world, g.one_shot())

    def scribble(vcpu: Vcpu, _ret: int) -> None:
        vcpu.irq_level.value |= 0x100

    vmm.on_exit = scribble


@scenario("gic-registers", "a guest without a GICv3 writes ICC_SGI1R_EL1", "I1", kind="vhe-gicv3")
def gic_registers(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield Msr(ICC_SGI1R, 1)
        yield Store(END)

    one(world, guest)


@scenario("wfi-line-fiq", "WFI ended by the FIQ line alone", "I6")
def wfi_line_fiq(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield Wfi()
        yield Store(END)

    one(world, guest, slow=True)
    (vcpu,) = world.vcpus
    world.execution.add(
        "device", lambda: void(world.ioctl("KVM_IRQ_LINE", lambda: world.irq_line(vcpu, True, 1)))
    )
