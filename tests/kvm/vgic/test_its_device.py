"""The attributes of the ITS's file, with the errors of arm-vgic-its.rst."""

from __future__ import annotations

import errno
import threading

import pytest
from tests.kvm.rig import fails
from tests.kvm.vgic.its_rig import ITS, LPI, ItsRig
from tests.kvm.vgic.vgic_rig import VgicRig, nothing

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.abi.caps import Cap
from armkvm.arch import its as g
from armkvm.host.scripted import ScriptedBackend
from armkvm.kvm import System, Vm
from armkvm.kvm.vgic.its_device import VgicIts

ADDR, CTRL, REGS = (
    a.KVM_DEV_ARM_VGIC_GRP_ADDR, a.KVM_DEV_ARM_VGIC_GRP_CTRL, a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS,
)  # fmt: skip
PLACE = a.KVM_VGIC_ITS_ADDR_TYPE


def make(vm: Vm) -> VgicIts:
    device = vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_ITS)
    assert isinstance(device, VgicIts)
    return device


@pytest.fixture
def v3() -> VgicRig:
    return VgicRig(3, cpus=2)


def test_where_it_is(v3: VgicRig) -> None:
    its = make(v3.vm)
    assert its.get_device_attr(ADDR, PLACE) == 2**64 - 1
    fails(errno.EINVAL, lambda: its.set_device_attr(ADDR, PLACE, ITS + 0x1000))
    fails(errno.E2BIG, lambda: its.set_device_attr(ADDR, PLACE, (1 << 40) - 0x1_0000))
    fails(errno.ENODEV, lambda: its.set_device_attr(ADDR, a.KVM_VGIC_V3_ADDR_TYPE_DIST, ITS))
    fails(errno.ENODEV, lambda: its.get_device_attr(ADDR, a.KVM_VGIC_V3_ADDR_TYPE_DIST))
    its.set_device_attr(ADDR, PLACE, ITS)
    fails(errno.EEXIST, lambda: its.set_device_attr(ADDR, PLACE, ITS))
    assert its.get_device_attr(ADDR, PLACE) == ITS
    assert v3.vm.mmio_bus.read(v3.vcpus[0], ITS + g.GITS_IIDR, 4) == 0x4B00_043B


def test_a_full_bus_leaves_it_without_a_place(v3: VgicRig, monkeypatch: pytest.MonkeyPatch) -> None:
    its = make(v3.vm)
    with monkeypatch.context() as patched:
        patched.setattr("armkvm.kvm.io.bus.NR_IOBUS_DEVS", 0)
        fails(errno.ENOSPC, lambda: its.set_device_attr(ADDR, PLACE, ITS))
    its.set_device_attr(ADDR, PLACE, ITS)


def test_what_there_is(v3: VgicRig) -> None:
    its = make(v3.vm)
    its.has_device_attr(ADDR, PLACE)
    for attr in (0, 1, 2, 4):
        its.has_device_attr(CTRL, attr)
    fails(errno.ENXIO, lambda: its.has_device_attr(CTRL, 3))
    fails(errno.ENXIO, lambda: its.has_device_attr(ADDR, a.KVM_VGIC_V3_ADDR_TYPE_DIST))
    fails(errno.ENXIO, lambda: its.has_device_attr(a.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0))


REGISTERS = {
    g.GITS_CTLR: 0, g.GITS_IIDR: 0, g.GITS_TYPER: 0, g.GITS_CBASER: 0, g.GITS_CWRITER: 0,
    g.GITS_CREADR: 0, g.GITS_BASER: 0, g.GITS_BASER + 0x38: 0, g.GITS_PIDR4: 0, g.GITS_CIDR3: 0,
    g.GITS_BASER + 0x40: errno.ENXIO, 0x10: errno.ENXIO, g.GITS_TRANSLATER: errno.ENXIO,
    1 << 40: errno.ENXIO, g.GITS_TYPER + 4: errno.EINVAL, g.GITS_CBASER + 4: errno.EINVAL,
    g.GITS_IIDR + 1: errno.EINVAL, g.GITS_CIDR3 + 2: errno.EINVAL,
}  # fmt: skip


@pytest.mark.parametrize(("offset", "error"), REGISTERS.items())
def test_registers_by_offset(its: ItsRig, offset: int, error: int) -> None:
    if error:
        fails(error, lambda: its.its_device.has_device_attr(REGS, offset))
        fails(error, lambda: its.get(offset))
        fails(error, lambda: its.set(offset, 0))
    else:
        its.its_device.has_device_attr(REGS, offset)
        its.get(offset)


def test_registers_need_a_place(v3: VgicRig) -> None:
    its = make(v3.vm)
    fails(errno.ENXIO, lambda: its.get_device_attr(REGS, g.GITS_CTLR))
    fails(errno.EINVAL, lambda: its.get_device_attr(REGS, g.GITS_TYPER + 4))


def test_groups_that_there_are_not(its: ItsRig) -> None:
    group = a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
    fails(errno.ENXIO, lambda: its.its_device.set_device_attr(group, 0, 0))
    fails(errno.ENXIO, lambda: its.its_device.get_device_attr(group, 0))
    fails(errno.ENXIO, lambda: its.its_device.get_device_attr(CTRL, 0))


def test_a_value_that_cannot_be_read(its: ItsRig) -> None:
    set_attr = its.its_device.set_device_attr
    fails(errno.EFAULT, lambda: set_attr(ADDR, PLACE, b""))
    fails(errno.EFAULT, lambda: set_attr(REGS, g.GITS_CBASER, b""))


def test_init_has_nothing_to_do(v3: VgicRig) -> None:
    make(v3.vm).set_device_attr(CTRL, a.KVM_DEV_ARM_VGIC_CTRL_INIT)


@pytest.mark.parametrize(
    ("group", "attr"),
    [(CTRL, a.KVM_DEV_ARM_ITS_CTRL_RESET), (CTRL, a.KVM_DEV_ARM_ITS_SAVE_TABLES),
     (CTRL, a.KVM_DEV_ARM_ITS_RESTORE_TABLES), (REGS, g.GITS_CTLR)],
)  # fmt: skip
def test_no_vcpu_may_run(its: ItsRig, group: int, attr: int) -> None:
    with its.vcpus[1].mutex:
        fails(errno.EBUSY, lambda: its.its_device.set_device_attr(group, attr))


def test_reset(its: ItsRig) -> None:
    its.mapped()
    its.ctrl(a.KVM_DEV_ARM_ITS_CTRL_RESET)
    assert its.get(g.GITS_CTLR) == g.GITS_CTLR_QUIESCENT
    assert [its.get(r) for r in (g.GITS_CBASER, g.GITS_CREADR, g.GITS_CWRITER)] == [0] * 3
    assert not (its.get(g.GITS_BASER) | its.get(g.GITS_BASER + 8)) & g.BASER_VALID
    assert (its.lpis(), its.its.devices, its.its.collections) == ({}, {}, {})
    fails(errno.EBUSY, its.msi)
    its.set_up()
    its.mapped()
    assert its.msi() == 1


def test_capabilities_follow_the_devices(v3: VgicRig) -> None:
    assert v3.vm.check_extension(Cap.MSI_DEVID) == 0
    make(v3.vm)
    assert v3.vm.check_extension(Cap.MSI_DEVID) == 1
    assert v3.vm.check_extension(Cap.SIGNAL_MSI) == 1
    fails(errno.EINVAL, lambda: v3.system.check_extension(Cap.MSI_DEVID))


def test_an_its_outlives_its_file(its: ItsRig) -> None:
    its.mapped()
    its.its_device.close()
    fails(errno.EBADF, lambda: its.get(g.GITS_CTLR))
    assert its.msi() == 1


def test_two_of_them(its: ItsRig) -> None:
    """Each has its own switch. Making one resets GICR_PROPBASER, as in 6.12."""
    other = make(its.vm)
    assert its.redist(0x70) == 5 << 7 | 1 << 10
    for cpu in (0, 1):
        its.redist_write(0, 0, cpu)
    its.set_up()
    doorbell = 0x0900_0000 + g.GITS_TRANSLATER
    fails(errno.EINVAL, lambda: its.msi(address=doorbell))
    other.set_device_attr(ADDR, PLACE, 0x0900_0000)
    its.mapped()
    fails(errno.EBUSY, lambda: its.msi(address=doorbell))
    assert its.msi() == 1


def test_before_the_vgic_there_are_registers_and_no_lpis() -> None:
    system = System("vhe-gicv3", backend=ScriptedBackend(nothing))
    with system, system.create_vm() as vm:
        its = make(vm)
        its.set_device_attr(ADDR, PLACE, ITS)
        its.set_device_attr(REGS, g.GITS_CBASER, g.BASER_VALID)
        its.set_device_attr(CTRL, a.KVM_DEV_ARM_ITS_SAVE_TABLES)
        fails(errno.EINVAL, lambda: vm.signal_msi(ITS, 0, 0, k.KVM_MSI_VALID_DEVID))
        vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V3)
        assert vm.vgic.propbaser == 5 << 7 | 1 << 10


def test_a_dead_vms_its_is_dead(its: ItsRig) -> None:
    its.vm.kill()
    fails(errno.EIO, lambda: its.get(g.GITS_CTLR))
    fails(errno.EIO, lambda: its.its_device.has_device_attr(ADDR, PLACE))
    fails(errno.EIO, lambda: its.ctrl(a.KVM_DEV_ARM_ITS_CTRL_RESET))


def test_msis_from_many_threads_meet_commands(its: ItsRig) -> None:
    """its_lock: a device comes and goes while messages of it arrive."""
    its.mapped()
    seen: set[int] = set()
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            seen.add(its.msi())

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        its.mapped()
    done.set()
    for thread in threads:
        thread.join()
    assert seen <= {0, 1}
    assert set(its.lpis()) == {LPI}
