"""What scenarios are put together from: VMs with one vCPU, and threads that do one thing."""

from __future__ import annotations

import errno
from typing import Any

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.check.scenarios import scripts as g
from armkvm.check.world.guest import CheckCpu, Guest
from armkvm.check.world.user import GICC, GICD, GICR, Vmm
from armkvm.check.world.world import World
from armkvm.kvm import Vcpu, Vm
from armkvm.kvm.vgic.kvm_device import VgicDevice


def cpu_of(vcpu: Vcpu) -> CheckCpu:
    """A vCPU's scripted CPU."""
    cpu = vcpu.cpu
    assert isinstance(cpu, CheckCpu)
    return cpu


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
    vm.arm_set_device_addr(0, GICD)
    vm.arm_set_device_addr(1, GICC)


def with_irqchip(world: World, guest: Guest, irq: Guest, name: str = "vcpu") -> Vmm:
    """A VM with a GICv2 in the kernel, one vCPU, one thread."""
    vm = world.vm()
    vm.create_irqchip()
    place(vm)
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, guest, irq)
    world.execution.add(name, vmm.thread(vcpu))
    return vmm


def vgic_vm(world: World, name: str = "vcpu", *, emulated: int = 0, irqs: int = 1) -> Vmm:
    """One whose guest takes so many interrupts of a timer."""
    handler = g.vgic_handler(move=g.SOON if irqs > 1 else 0)
    return with_irqchip(world, g.with_vgic(emulated=emulated, irqs=irqs), handler, name)


def vgic_v3_vm(world: World, name: str = "vcpu") -> Vmm:
    """The same with a GICv3, on a host that has one."""
    vm = world.vm()
    device = vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V3)
    assert isinstance(device, VgicDevice)
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, g.with_vgic_v3, g.vgic_v3_handler)
    device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, a.KVM_VGIC_V3_ADDR_TYPE_DIST, GICD)
    device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, a.KVM_VGIC_V3_ADDR_TYPE_REDIST, GICR)
    device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, a.KVM_DEV_ARM_VGIC_CTRL_INIT)
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


def make_vgic(world: World, vm: Vm, allowed: tuple[int, ...], when: str = "") -> int:
    """KVM_CREATE_IRQCHIP, which must answer one of these: 0 or an errno."""
    ret = world.ioctl("KVM_CREATE_IRQCHIP", vm.create_irqchip)
    world.monitor.seen["I9"] += 1
    if ret not in allowed:
        said = errno.errorcode.get(ret, ret)
        world.monitor.fail("I9", f"{when or 'KVM_CREATE_IRQCHIP'}: {said}")
    return ret


def creator(world: World, vmm: Vmm, allowed: tuple[int, ...]) -> None:
    """A thread that makes the vgic at any moment."""
    vm = vmm.vm

    def body() -> None:
        if not make_vgic(world, vm, allowed):
            world.ioctl("KVM_ARM_SET_DEVICE_ADDR", lambda: place(vm))

    world.execution.add("creator", body)
