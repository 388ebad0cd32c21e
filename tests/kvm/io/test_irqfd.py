"""KVM_IRQFD: an eventfd of user space that is an interrupt of the vgic."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.kvm.io.test_eventfd import Descriptors
from tests.kvm.rig import fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmIrqfd
from armkvm.kvm import System, Vm
from armkvm.kvm.io.irqfd import FLAG_DEASSIGN, FLAG_RESAMPLE


@pytest.fixture
def vm() -> Iterator[Vm]:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with System() as system, system.create_vm() as machine:
        machine.create_vcpu(0).arm_vcpu_init()
        yield machine
        for vcpu in machine.vcpus:
            vcpu.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def vgic(vm: Vm) -> None:
    device = vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V2)
    assert device is not None
    device.set_device_attr(4, 0)
    device.close()


def irqfd(vm: Vm, fd: int, gsi: int, flags: int = 0, resample: int = 0) -> None:
    arg = KvmIrqfd(fd=fd, gsi=gsi, flags=flags, resamplefd=resample)
    vm.ioctl(nr.KVM_IRQFD, 0, arg, Descriptors())


def soon(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    return condition()


def test_errnos(vm: Vm) -> None:
    event = os.eventfd(0)
    fails(errno.EAGAIN, lambda: irqfd(vm, event, 8))
    vgic(vm)
    fails(errno.EINVAL, lambda: irqfd(vm, event, 8, 4))
    fails(errno.EBADF, lambda: irqfd(vm, 9999, 8))
    irqfd(vm, event, 8)
    fails(errno.EBUSY, lambda: irqfd(vm, event, 9))
    irqfd(vm, event, 8, FLAG_DEASSIGN)
    irqfd(vm, event, 8, FLAG_DEASSIGN)
    irqfd(vm, event, 9)
    os.close(event)


def test_an_edge(vm: Vm) -> None:
    vgic(vm)
    event = os.eventfd(0)
    irqfd(vm, event, 8)
    irq = vm.vgic.irq(vm.vcpus[0], 40)
    irq.level_config = False
    os.eventfd_write(event, 1)
    assert soon(lambda: irq.pending_latch)
    assert not select.select([event], [], [], 0)[0]  # taken
    os.close(event)


def test_routes(vm: Vm) -> None:
    vgic(vm)
    vm.set_gsi_routing([(5, 1, 0, 9)])
    event = os.eventfd(0)
    irqfd(vm, event, 5)
    irq = vm.vgic.irq(vm.vcpus[0], 41)
    irq.level_config = False
    os.eventfd_write(event, 1)
    assert soon(lambda: irq.pending_latch)
    os.close(event)


def test_resample(vm: Vm) -> None:
    """The line stays high until the guest ends the interrupt; then user space is asked again."""
    vgic(vm)
    event, again = os.eventfd(0), os.eventfd(0)
    irqfd(vm, event, 8, FLAG_RESAMPLE, again)
    irq = vm.vgic.irq(vm.vcpus[0], 40)
    os.eventfd_write(event, 1)
    assert soon(lambda: irq.line_level)
    for notify in vm.vgic.ack_notifiers:
        notify(8)
    assert not irq.line_level
    assert os.eventfd_read(again) == 1
    os.close(event)
    os.close(again)
