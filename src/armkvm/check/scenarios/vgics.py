"""Scenarios: timers through an interrupt controller in the kernel."""

from __future__ import annotations

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import place, vgic_v3_vm, vgic_vm, with_irqchip
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Memory
from armkvm.check.world.user import END, GICD, MARK, Vmm
from armkvm.check.world.world import World
from armkvm.host.scripted import Mask, Msr, Native, Store, Wfi
from armkvm.kvm import Vcpu
from armkvm.kvm.vgic.kvm_device import VgicDevice


@scenario("vgic-timer", "a timer through the vgic", "I5", "I8")
def vgic_timer(world: World) -> None:
    vgic_vm(world)


@scenario("vgic-emulated", "an emulated timer through the vgic", "I5")
def vgic_emulated(world: World) -> None:
    vgic_vm(world, emulated=g.SOON)


@scenario("vgic-emulated-moved", "the handler of an emulated timer moves its deadline", "I5", "I7")
def vgic_emulated_moved(world: World) -> None:
    vgic_vm(world, emulated=g.SOON, irqs=2)


@scenario("vgic-rearmed", "the handler moves the deadline, and the guest sleeps again", "I5", "I7")
def vgic_rearmed(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.vgic_on(g.VTIMER)
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 2)

    with_irqchip(world, guest, g.vgic_handler(move=g.LATER))


@scenario("vgic-exit-in-handler", "user space runs while the timer's interrupt is active", "I7")
def vgic_exit_in_handler(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.vgic_on(g.VTIMER)
        yield from g.virtual(g.SOON)
        yield Mask(False)
        while not memory.irqs:
            yield Wfi()
        yield Store(GICD, 1)  # an exit that stays in the kernel: what is still pending comes now
        yield Native("x5", 0)
        yield Store(END)

    with_irqchip(world, guest, g.vgic_handler(leave=(1,)))


@scenario("vgic-ghost", "an emulated timer fires and is switched off with interrupts masked", "I5",
          "I7")  # fmt: skip
def vgic_ghost(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield from g.vgic_on(g.PTIMER)
        yield from g.physical(0)
        yield from g.marks(1)
        yield Msr(g.CNTP_CTL, 0)
        yield Mask(False)
        yield from g.marks(2)
        world.monitor.seen["I7"] += 1
        yield Store(END)

    with_irqchip(world, guest, g.vgic_handler())


@scenario("vgic-v3", "a timer through a GICv3, VHE host", "I5", "I7", "I8", kind="vhe-gicv3")
def vgic_v3(world: World) -> None:
    vgic_v3_vm(world)


@scenario("vgic-user-writes", "user space writes the vgic's registers while the vCPU is stopped",
          "I7", "I13")  # fmt: skip
def vgic_user_writes(world: World) -> None:
    vm = world.vm()
    device = vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V2)
    assert isinstance(device, VgicDevice)
    place(vm)
    vmm = Vmm(world, vm)

    def guest(memory: Memory) -> Ops:
        yield from g.vgic_on(g.VTIMER)
        yield Store(GICD + 0x180, 1 << g.VTIMER)  # off again: user space has the last word
        yield from g.virtual(g.SOON)
        yield from g.marks(1)
        yield from g.until(memory, 1)

    def enable(vcpu: Vcpu, ret: int) -> None:
        if ret == 0 and vcpu.run_struct.mmio.phys_addr == MARK:
            world.monitor.seen["I13"] += 1
            device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x100, 1 << g.VTIMER)

    vcpu = world.vcpu(vm, guest, g.vgic_handler())
    vmm.on_exit = enable
    world.execution.add("vcpu", vmm.thread(vcpu))
