"""What scenarios are put together from: VMs with one vCPU, and threads that do one thing."""

from __future__ import annotations

import errno
from typing import Any

from armkvm.check.guest import Guest
from armkvm.check.scenarios import scripts as g
from armkvm.check.user import Vmm
from armkvm.check.world import World
from armkvm.kvm import Vcpu, Vm


def void(_value: object) -> None:
    """A thread's body returns nothing."""


def one(world: World, guest: Guest, irq: Guest | None = None, **attributes: Any) -> Vmm:
    """A VM with its interrupt controller in user space, one vCPU, one thread."""
    vm = world.vm()
    vmm = Vmm(world, vm)
    for name, value in attributes.items():
        setattr(vmm, name, value)
    vcpu = world.vcpu(vm, guest, irq or g.handler())
    world.execution.add("vcpu", vmm.thread(vcpu))
    return vmm


def place(vm: Vm) -> None:
    """KVM_ARM_SET_DEVICE_ADDR for both frames."""
    vm.arm_set_device_addr(0, g.GICD)
    vm.arm_set_device_addr(1, g.GICC)


def vgic_vm(world: World, name: str = "vcpu", *, emulated: int = 0, irqs: int = 1) -> Vmm:
    """A VM with a GICv2 in the kernel, whose guest takes one interrupt of a timer."""
    vm = world.vm()
    vm.create_irqchip()
    place(vm)
    vmm = Vmm(world, vm)
    handler = g.vgic_handler(move=g.SOON if irqs > 1 else 0)
    vcpu = world.vcpu(vm, g.with_vgic(emulated=emulated, irqs=irqs), handler)
    world.execution.add(name, vmm.thread(vcpu))
    return vmm


def expect_marks(world: World, vmm: Vmm, *marks: int) -> None:
    """At the end: every device write arrived, once and in order."""

    def check() -> None:
        if vmm.marks != marks:
            world.monitor.find("I4", f"the guest wrote {marks}, user space saw {vmm.marks}")

    world.at_end.append(check)


def kicker(world: World, vcpu: Vcpu, times: int = 1) -> None:
    """A thread that sends signals."""

    def body() -> None:
        for _ in range(times):
            world.ioctl("signal", vcpu.kick)

    world.execution.add("signal", body)


def creator(world: World, vmm: Vmm, allowed: tuple[int, ...]) -> None:
    """A thread that makes the vgic at any moment."""
    vm = vmm.vm

    def body() -> None:
        ret = world.ioctl("KVM_CREATE_IRQCHIP", vm.create_irqchip)
        world.monitor.seen["I9"] += 1
        if ret not in allowed:
            world.monitor.fail("I9", f"KVM_CREATE_IRQCHIP: {errno.errorcode.get(ret, ret)}")
        if not ret:
            world.ioctl("KVM_ARM_SET_DEVICE_ADDR", lambda: place(vm))

    world.execution.add("creator", body)
