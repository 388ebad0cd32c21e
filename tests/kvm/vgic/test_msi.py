"""KVM_SIGNAL_MSI and MSI routes: from a device's message to an LPI."""

from __future__ import annotations

import ctypes
import errno
import os
import time

import pytest
from tests.kvm.rig import fails
from tests.kvm.vgic.its_rig import ITS, LPI, ItsRig, mapc
from tests.kvm.vgic.vgic_rig import VgicRig, nothing

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.arch import its as g
from armkvm.host.scripted import ScriptedBackend
from armkvm.kvm import System

DEVID = k.KVM_MSI_VALID_DEVID
MSI, IRQCHIP = k.KVM_IRQ_ROUTING_MSI, k.KVM_IRQ_ROUTING_IRQCHIP
DOORBELL = ITS + g.GITS_TRANSLATER


def test_without_a_vgic() -> None:
    system = System("vhe-gicv3", backend=ScriptedBackend(nothing))
    with system, system.create_vm() as vm:
        fails(errno.EINVAL, lambda: vm.signal_msi(DOORBELL, 0, 0))


@pytest.mark.parametrize("version", [2, 3])
def test_without_an_its(version: int) -> None:
    rig = VgicRig(version)
    fails(errno.ENODEV, lambda: rig.vm.signal_msi(DOORBELL, 0, 0, DEVID))
    fails(errno.EINVAL, lambda: rig.vm.signal_msi(DOORBELL, 0, 0, DEVID | 2))
    rig.close()


def test_delivered_is_one_and_blocked_is_zero(its: ItsRig) -> None:
    its.mapped()
    assert its.msi(event=1) == 0
    assert its.msi(device=1) == 0
    assert its.msi(device=0xFFFF_FFFF, event=0xFFFF_FFFF) == 0
    assert not its.irq(LPI).pending_latch
    assert its.msi() == 1
    assert its.irq(LPI).pending_latch
    its.commands(mapc(0, valid=False))
    assert its.msi() == 0


def test_a_message_needs_a_device(its: ItsRig) -> None:
    its.mapped()
    fails(errno.EINVAL, lambda: its.vm.signal_msi(DOORBELL, 0, 0, 0, 0))


def test_it_goes_to_an_its(its: ItsRig) -> None:
    """To any address in its frame, as in 6.12."""
    its.mapped()
    for address in (0, 0x0800_0040, 0x080A_0000, ITS - 1, ITS + 0x2_0000):
        with pytest.raises(OSError, match="Invalid argument"):
            its.msi(address=address)
    fails(errno.EINVAL, lambda: its.vm.signal_msi(DOORBELL, 1, 0, DEVID, 0))
    assert its.msi(address=ITS) == 1


def test_switched_off(its: ItsRig) -> None:
    its.mapped()
    its.redist_write(0, 0)
    fails(errno.EBUSY, its.msi)
    its.redist_write(0, 1)
    its.write(g.GITS_CTLR, 0, 4)
    fails(errno.EBUSY, its.msi)


def test_by_the_abi(its: ItsRig) -> None:
    its.mapped()
    msi = st.KvmMsi(address_lo=DOORBELL, data=0, flags=DEVID, devid=0)
    raw = bytearray(bytes(msi))
    assert its.vm.ioctl(nr.KVM_SIGNAL_MSI, data=raw) == 1
    assert its.irq(LPI).pending_latch
    msi.data = 9
    assert its.vm.ioctl(nr.KVM_SIGNAL_MSI, data=bytearray(bytes(msi))) == 0


# routes


def routing(*entries: st.KvmIrqRoutingEntry) -> bytearray:
    head = st.KvmIrqRouting(nr=len(entries))
    return bytearray(bytes(head) + b"".join(bytes(e) for e in entries))


def arrives(its: ItsRig, *, pending: bool = True) -> None:
    """The irqfd thread has seen it; its time is the host's."""
    for _ in range(1000):
        if its.irq(LPI).pending_latch == pending:
            return
        time.sleep(0.01)
    raise AssertionError


@pytest.mark.parametrize("by_abi", [False, True])
def test_an_eventfd_is_an_msi(its: ItsRig, by_abi: bool) -> None:
    its.mapped()
    if by_abi:
        words = (ctypes.c_uint32 * 8)(DOORBELL, 0, 0, 0)
        entry = st.KvmIrqRoutingEntry(gsi=700, type=MSI, flags=DEVID, u=words)
        its.vm.ioctl(nr.KVM_SET_GSI_ROUTING, data=routing(entry))
    else:
        its.vm.set_gsi_routing([(700, MSI, DEVID, DOORBELL, 0, 0, 0)])
    event = os.eventfd(0)
    its.vm.irqfd(event, 700)
    os.eventfd_write(event, 1)
    arrives(its)
    os.close(event)


def test_routes_of_both_kinds_stand_beside_each_other(its: ItsRig) -> None:
    its.mapped()
    its.enabled(40)
    its.vm.set_gsi_routing([(1, IRQCHIP, 0, 8), (2, MSI, DEVID, DOORBELL, 0, 0, 0)])
    its.vm.irqfds.set_irq(2, False)
    assert not its.irq(LPI).pending_latch
    its.vm.irqfds.set_irq(2, True)
    assert its.irq(LPI).pending_latch
    its.vm.irqfds.set_irq(1, True)
    assert its.irq(40).line_level


def test_what_becomes_of_a_routed_msi_nobody_asks(its: ItsRig) -> None:
    its.mapped()
    routes = [(2, MSI, 0, DOORBELL, 0, 0, 0), (3, MSI, DEVID, 0, 1, 0, 0), (4, MSI, DEVID, 0)]
    its.vm.set_gsi_routing(routes)
    for gsi in (2, 3, 4, 5):
        its.vm.irqfds.set_irq(gsi, True)
    assert not its.irq(LPI).pending_latch


def test_routes_that_are_none(its: ItsRig) -> None:
    fails(errno.EINVAL, lambda: its.vm.set_gsi_routing([(2, MSI, 2, DOORBELL, 0, 0, 0)]))
    fails(errno.EINVAL, lambda: its.vm.set_gsi_routing([(2, MSI, DEVID, 0)] * 2))
    fails(errno.EFAULT, lambda: its.vm.set_gsi_routing([(2, MSI, DEVID, 0, 0)]))
