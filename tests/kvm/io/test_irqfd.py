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
from tests.kvm.vgic.vgic_rig import VgicRig, ended

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmIrqfd, KvmIrqRouting, KvmIrqRoutingEntry
from armkvm.arch import gic as g
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
    while not condition():
        time.sleep(0.001)
    return True


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


@pytest.fixture(params=[2, 3])
def rig(request: pytest.FixtureRequest) -> Iterator[VgicRig]:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    machine = VgicRig(request.param)
    yield machine
    machine.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


@pytest.fixture
def events() -> Iterator[list[int]]:
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    yield fds
    for fd in fds:
        os.close(fd)


def taken(fd: int) -> bool:
    """KVM has read it."""
    return soon(lambda: not select.select([fd], [], [], 0)[0])


def test_a_level_is_raised_and_not_lowered(rig: VgicRig, events: list[int]) -> None:
    irq = rig.enabled(40)
    irqfd(rig.vm, events[0], 8)
    os.eventfd_write(events[0], 1)
    assert taken(events[0])
    irqfd(rig.vm, events[0], 8, FLAG_DEASSIGN)  # nothing is under way any more
    assert irq.line_level
    assert [lr & g.ICH_LR_STATE for lr in rig.enter()] == [g.ICH_LR_PENDING]
    rig.leave()
    rig.line(40, False)
    assert rig.enter() == []


def test_edges_each_count(rig: VgicRig, events: list[int]) -> None:
    irq = rig.enabled(40)
    irq.level_config = False
    irqfd(rig.vm, events[0], 8)
    for _ in range(3):
        os.eventfd_write(events[0], 1)
        assert soon(lambda: irq.pending_latch)
        (lr,) = rig.enter()
        rig.leave(ended(lr))
        assert not irq.pending_latch


def test_an_event_from_before_is_a_pulse(rig: VgicRig, events: list[int]) -> None:
    """kvm_irqfd_assign() hands it to irqfd_inject(), which lowers the line again."""
    edge, level = rig.enabled(40), rig.enabled(41)
    edge.level_config = False
    for fd, gsi in zip(events, (8, 9), strict=False):
        os.eventfd_write(fd, 1)
        irqfd(rig.vm, fd, gsi)
        irqfd(rig.vm, fd, gsi, FLAG_DEASSIGN)
    assert edge.pending_latch
    assert not level.line_level


def test_what_was_written_before_a_deassignment_arrives(rig: VgicRig, events: list[int]) -> None:
    irq = rig.enabled(40)
    for _ in range(50):
        irqfd(rig.vm, events[0], 8)
        os.eventfd_write(events[0], 1)
        irqfd(rig.vm, events[0], 8, FLAG_DEASSIGN)
        assert irq.line_level
        rig.line(40, False)


def test_the_last_resampler_lowers_the_line_when_it_goes(rig: VgicRig, events: list[int]) -> None:
    """Nobody else would: the guest would be interrupted for ever."""
    irq = rig.enabled(40)
    irqfd(rig.vm, events[0], 8, FLAG_RESAMPLE, events[2])
    irqfd(rig.vm, events[1], 8, FLAG_RESAMPLE, events[3])
    os.eventfd_write(events[0], 1)
    assert soon(lambda: irq.line_level)
    irqfd(rig.vm, events[0], 8, FLAG_DEASSIGN)
    assert irq.line_level  # the other one may be the one that wants it high
    irqfd(rig.vm, events[1], 8, FLAG_DEASSIGN)
    assert not rig.irq(40).line_level
    assert rig.enter() == []


def test_an_end_lowers_the_line_once_and_then_asks_everybody(
    rig: VgicRig, events: list[int]
) -> None:
    rig.enabled(40)
    first, second, asked, asked_too = events
    irqfd(rig.vm, first, 8, FLAG_RESAMPLE, asked)
    irqfd(rig.vm, second, 8, FLAG_RESAMPLE, asked_too)
    os.eventfd_write(first, 1)
    assert soon(lambda: rig.irq(40).line_level)
    changes: list[tuple[int, bool, int]] = []

    def change(_vcpu: int, intid: int, level: bool) -> None:
        changes.append((intid, level, len(select.select([asked, asked_too], [], [], 0)[0])))

    rig.vm.trace.vgic_update_irq_pending = change
    (lr,) = rig.enter()
    rig.leave(ended(lr))
    assert changes == [(40, False, 0)]
    assert [os.eventfd_read(fd) for fd in (asked, asked_too)] == [1, 1]
    # An end of another interrupt is nobody's business.
    rig.enabled(41)
    rig.line(41, True)
    (lr,) = rig.enter()
    rig.leave(ended(lr))
    assert not select.select([asked, asked_too], [], [], 0)[0]


def test_of_several_gsis_on_a_pin_the_last_is_told_of_its_end(
    rig: VgicRig, events: list[int]
) -> None:
    rig.vm.set_gsi_routing([(5, 1, 0, 8), (6, 1, 0, 8)])
    rig.enabled(40)
    irqfd(rig.vm, events[0], 5, FLAG_RESAMPLE, events[2])
    irqfd(rig.vm, events[1], 6, FLAG_RESAMPLE, events[3])
    os.eventfd_write(events[0], 1)
    assert soon(lambda: rig.irq(40).line_level)
    (lr,) = rig.enter()
    rig.leave(ended(lr))
    assert select.select(events[2:], [], [], 0)[0] == [events[3]]


IRQCHIP, MSI = 1, 2


@pytest.mark.parametrize(
    "routes",
    [
        [(0, IRQCHIP, 0, 988)],
        [(0, IRQCHIP, 0, 0xFFFF_FFFF)],
        [(4, IRQCHIP, 0, 1), (4, IRQCHIP, 0, 2)],
        [(4, IRQCHIP, 0, 1), (4, MSI, 0, 0)],
        [(4, MSI, 0, 0), (4, MSI, 0, 0)],
        [(4, IRQCHIP, 1, 1)],
        [(4, MSI, 2, 1)],
        [(4, 3, 0, 1)],
        [(4096, IRQCHIP, 0, 1)],
    ],
)
def test_routes_that_are_refused_leave_the_old_ones(
    vm: Vm, events: list[int], routes: list[tuple[int, int, int, int]]
) -> None:
    vgic(vm)
    vm.set_gsi_routing([(5, IRQCHIP, 0, 9)])
    fails(errno.EINVAL, lambda: vm.set_gsi_routing([(5, IRQCHIP, 0, 10), *routes]))
    irqfd(vm, events[0], 5)
    irq = vm.vgic.irq(vm.vcpus[0], 41)
    irq.level_config = False
    os.eventfd_write(events[0], 1)
    assert soon(lambda: irq.pending_latch)


def test_the_largest_pin_and_a_second_irqchip(vm: Vm) -> None:
    vgic(vm)
    vm.set_gsi_routing([(4095, IRQCHIP, 0, 987), (1, MSI, 1, 0)])

    def route(irqchip: int, pin: int) -> None:
        entry = KvmIrqRoutingEntry(gsi=4, type=IRQCHIP)
        entry.u[0], entry.u[1] = irqchip, pin
        raw = bytes(KvmIrqRouting(nr=1)) + bytes(entry)
        vm.ioctl(nr.KVM_SET_GSI_ROUTING, 0, bytearray(raw), Descriptors())

    route(0, 987)
    fails(errno.EINVAL, lambda: route(1, 1))
    fails(errno.EINVAL, lambda: route(0, 988))


def test_initialising_the_vgic_sets_the_default_routes(vm: Vm, events: list[int]) -> None:
    """kvm_vgic_setup_default_irq_routing(): what user space set before is lost."""
    vm.set_gsi_routing([(5, IRQCHIP, 0, 9)])
    vgic(vm)
    irqfd(vm, events[0], 5)
    irq = vm.vgic.irq(vm.vcpus[0], 37)
    irq.level_config = False
    os.eventfd_write(events[0], 1)
    assert soon(lambda: irq.pending_latch)
