"""The life of a vgic: creation, places, initialisation, first run, and the errors on the way."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest
from tests.kvm.rig import fails
from tests.kvm.vgic.vgic_rig import CPUIF, DIST, HOSTS, KINDS, PSCI, REDIST, VgicRig

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.host.scripted import Run, ScriptedBackend
from armkvm.kvm import System

ADDR, NR_IRQS, CTRL = (
    a.KVM_DEV_ARM_VGIC_GRP_ADDR, a.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, a.KVM_DEV_ARM_VGIC_GRP_CTRL,
)  # fmt: skip
REGION = a.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION
VERSIONS = pytest.mark.parametrize("version", [2, 3])


def forever(_cpu: object):  # type: ignore[no-untyped-def]
    while True:
        yield Run(1000)


@VERSIONS
def test_made_once_and_before_any_run(version: int) -> None:
    rig = VgicRig(version, bare=True)
    fails(errno.EEXIST, lambda: rig.vm.create_device(KINDS[version]))
    assert rig.vm.create_device(KINDS[version], k.KVM_CREATE_DEVICE_TEST) is None
    fails(errno.ENODEV, lambda: rig.vm.create_device(KINDS[5 - version]))
    rig.close()


def test_a_vcpu_in_an_ioctl_keeps_it_from_being_made() -> None:
    system = System("nvhe-gicv2", backend=ScriptedBackend(forever))
    vm = system.create_vm()
    vcpu = vm.create_vcpu(0)
    with vcpu.mutex:
        fails(errno.EBUSY, vm.create_irqchip)
    vm.create_irqchip()
    # EBUSY comes before EEXIST, ENODEV before both.
    with vcpu.mutex:
        fails(errno.EBUSY, vm.create_irqchip)
    fails(errno.EEXIST, vm.create_irqchip)


def test_more_vcpus_than_a_gicv2_has() -> None:
    rig = VgicRig(2, cpus=8)
    assert rig.vm.max_vcpus == 8
    fails(errno.EINVAL, lambda: rig.vm.create_vcpu(8))
    rig.close()


@VERSIONS
def test_no_vcpu_after_initialisation(version: int) -> None:
    rig = VgicRig(version, bare=True)
    rig.vm.create_vcpu(1)
    rig.init()
    fails(errno.EBUSY, lambda: rig.vm.create_vcpu(2))
    assert len(rig.vm.vcpus) == 2
    rig.close()


@VERSIONS
def test_vcpus_made_after_the_vgic_have_their_private_interrupts(version: int) -> None:
    system = System(HOSTS[version], backend=ScriptedBackend(forever))
    vm = system.create_vm()
    vm.create_device(KINDS[version])
    vcpu = vm.create_vcpu(3)
    assert vcpu.vgic_cpu is not None
    assert [irq.intid for irq in vcpu.vgic_cpu.private_irqs] == list(range(32))
    assert all(irq.enabled != irq.level_config for irq in vcpu.vgic_cpu.private_irqs)


@pytest.mark.parametrize(
    ("value", "code"),
    [(63, "EINVAL"), (32, "EINVAL"), (65, "EINVAL"), (1024, "EINVAL"), (1 << 32, "EINVAL"),
     (64, ""), (992, "")],
)  # fmt: skip
def test_nr_irqs(value: int, code: str) -> None:
    rig = VgicRig(2, bare=True)

    def act() -> None:
        rig.device.set_device_attr(NR_IRQS, 0, value)

    if code:
        fails(getattr(errno, code), act)
    else:
        act()
        assert rig.device.get_device_attr(NR_IRQS, 0) == value
        fails(errno.EBUSY, act)
    rig.close()


def test_nr_irqs_is_256_when_nobody_says() -> None:
    rig = VgicRig(2, bare=True)
    assert rig.device.get_device_attr(NR_IRQS, 0) == 32
    rig.init()
    assert rig.device.get_device_attr(NR_IRQS, 0) == 256
    fails(errno.EBUSY, lambda: rig.device.set_device_attr(NR_IRQS, 0, 64))
    rig.close()


def test_addresses_of_a_gicv2() -> None:
    rig = VgicRig(2, bare=True)

    def place(kind: int, at: int) -> Callable[[], None]:
        return lambda: rig.device.set_device_attr(ADDR, kind, at)

    assert rig.device.get_device_attr(ADDR, 0) == (1 << 64) - 1
    fails(errno.EINVAL, place(0, DIST + 0x800))
    fails(errno.E2BIG, place(0, 1 << 40))
    fails(errno.E2BIG, place(1, (1 << 40) - 0x1000))
    fails(errno.ENXIO, place(a.KVM_VGIC_V3_ADDR_TYPE_DIST, DIST))
    fails(errno.ENXIO, place(99, DIST))
    place(0, DIST)()
    fails(errno.EEXIST, place(0, DIST))
    assert rig.device.get_device_attr(ADDR, 0) == DIST
    fails(errno.EEXIST, lambda: rig.vm.arm_set_device_addr(0, DIST))
    rig.vm.arm_set_device_addr(1, CPUIF)
    assert rig.device.get_device_attr(ADDR, 1) == CPUIF
    fails(errno.ENODEV, lambda: rig.vm.arm_set_device_addr(2, DIST))
    fails(errno.ENODEV, lambda: rig.vm.arm_set_device_addr(1 << 16, DIST))
    rig.close()


def test_redistributor_regions() -> None:
    rig = VgicRig(3, cpus=4, bare=True)
    size = a.KVM_VGIC_V3_REDIST_SIZE

    def region(index: int, base: int, count: int, flags: int = 0) -> Callable[[], None]:
        value = count << 52 | base | flags << 12 | index
        return lambda: rig.device.set_device_attr(ADDR, REGION, value)

    fails(errno.EINVAL, region(0, REDIST, 0))
    fails(errno.EINVAL, region(0, REDIST, 3, flags=1))
    fails(errno.EINVAL, region(1, REDIST, 3))
    region(0, REDIST, 3)()
    fails(errno.EINVAL, region(0, REDIST + 16 * size, 1))
    fails(errno.EINVAL, region(1, REDIST + 2 * size, 1))  # overlap
    old_way = a.KVM_VGIC_V3_ADDR_TYPE_REDIST
    fails(errno.EINVAL, lambda: rig.device.set_device_attr(ADDR, old_way, REDIST + 32 * size))
    region(1, REDIST + 3 * size, 5)()
    assert rig.device.get_device_attr(ADDR, REGION, 1) == 5 << 52 | REDIST + 3 * size | 1
    fails(errno.ENOENT, lambda: rig.device.get_device_attr(ADDR, REGION, 2))
    bases = [vcpu.vgic_cpu and vcpu.vgic_cpu.rd_iodev for vcpu in rig.vcpus]
    assert [d and d.base for d in bases] == [REDIST + n * size for n in range(4)]
    rig.close()


def test_one_region_for_all() -> None:
    rig = VgicRig(3, cpus=2, bare=True)
    old_way = a.KVM_VGIC_V3_ADDR_TYPE_REDIST
    fails(errno.EINVAL, lambda: rig.device.set_device_attr(ADDR, old_way, REDIST + 0x1000))
    rig.device.set_device_attr(ADDR, old_way, REDIST)
    fails(errno.EEXIST, lambda: rig.device.set_device_attr(ADDR, old_way, REDIST))
    assert rig.device.get_device_attr(ADDR, old_way) == REDIST
    # The distributor in the middle of it is found at the first run.
    rig.device.set_device_attr(ADDR, a.KVM_VGIC_V3_ADDR_TYPE_DIST, REDIST + 0x1_0000)
    rig.init()
    assert rig.vcpus[0].run_raw() == -errno.EINVAL
    assert rig.vm.vm_dead
    rig.close()


def test_frames_of_a_gicv2_may_not_overlap() -> None:
    rig = VgicRig(2, bare=True)
    rig.device.set_device_attr(ADDR, 0, CPUIF + 0x1000)
    rig.device.set_device_attr(ADDR, 1, CPUIF)
    assert rig.vcpus[0].run_raw() == -errno.EINVAL
    assert rig.vcpus[0].run_raw() == -errno.EIO
    fails(errno.EIO, lambda: rig.vcpus[0].get_one_reg(0x6030000000100040))
    fails(errno.EIO, lambda: rig.vm.irq_line(0, 1))
    fails(errno.EIO, lambda: rig.device.get_device_attr(NR_IRQS, 0))
    rig.close()


@VERSIONS
def test_attributes_that_are_there(version: int) -> None:
    rig = VgicRig(version, bare=True)
    groups = {
        ADDR: [0, 1] if version == 2 else [2, 3, 5],
        NR_IRQS: [0],
        CTRL: [0] if version == 2 else [0, 3],
    }
    for group, attrs in groups.items():
        for attr in attrs:
            rig.device.has_device_attr(group, attr)
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(ADDR, 4))
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(CTRL, 1))
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(99, 0))
    fails(errno.ENXIO, lambda: rig.device.set_device_attr(99, 0))
    fails(errno.ENXIO, lambda: rig.device.get_device_attr(99, 0))
    fails(errno.ENXIO, lambda: rig.device.set_device_attr(CTRL, 77))
    regs = a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
    rig.device.has_device_attr(regs, 0x100)
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(regs, 0x102))
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(regs, 0x020))
    rig.close()


def test_registers_of_a_gicv3_want_initialisation_and_rest() -> None:
    rig = VgicRig(3, bare=True)
    fails(errno.EBUSY, lambda: rig.dist(0))
    rig.init()
    assert rig.dist(4) & 0x1F == 256 // 32 - 1
    with rig.vcpus[0].mutex:
        fails(errno.EBUSY, lambda: rig.dist(0))
    fails(errno.EINVAL, lambda: rig.device.get_device_attr(
        a.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 9 << 32))  # fmt: skip
    rig.close()


def test_registers_of_a_gicv2_initialise_it() -> None:
    rig = VgicRig(2, bare=True)
    fails(errno.EINVAL, lambda: rig.dist(0, cpu=1))
    dist = rig.vm.vgic
    before = dist.initialized
    assert rig.dist(4) == 7
    assert (before, dist.initialized) == (False, True)
    rig.close()


def test_timer_ppis() -> None:
    rig = VgicRig(2, cpus=2)
    one, two = rig.vcpus
    timers, v, p = k.KVM_ARM_VCPU_TIMER_CTRL, 0, 1
    fails(errno.EINVAL, lambda: one.set_device_attr(timers, v, 15))
    fails(errno.EINVAL, lambda: one.set_device_attr(timers, v, 32))
    fails(errno.ENXIO, lambda: one.set_device_attr(timers, 9, 20))
    one.set_device_attr(timers, p, 27)
    assert two.get_device_attr(timers, p) == 27
    # Both timers on one PPI: the first run says so.
    assert one.run_raw() == -errno.EINVAL
    # PPI 27 has found its owner, so both have to move.
    one.set_device_attr(timers, v, 20)
    assert one.run_raw() == -errno.EINVAL
    one.set_device_attr(timers, p, 21)
    one.kick()
    assert one.run_raw() == -errno.EINTR
    fails(errno.EBUSY, lambda: two.set_device_attr(timers, v, 22))
    assert one.arch_timer.vtimer.irq == 20
    rig.close()


def test_a_v3_cpu_shows_its_gic() -> None:
    """ID_AA64PFR0_EL1.GIC: on a GICv3 host until the first run, then with a GICv3 only."""
    pfr0 = 3, 0, 0, 4, 0

    def gic(vcpu: object) -> int:
        return vcpu.cpu.get_sysreg(*pfr0) >> 24 & 0xF  # type: ignore[attr-defined,no-any-return]

    with_gic = VgicRig(3).vcpus[0]
    system = System("vhe-gicv3", backend=ScriptedBackend(forever))
    without = system.create_vm().create_vcpu(0)
    without.arm_vcpu_init(features=PSCI)
    old = VgicRig(2).vcpus[0]
    assert [gic(x) for x in (with_gic, without, old)] == [1, 1, 0]
    for vcpu in (with_gic, without, old):
        vcpu.run_struct.immediate_exit = 1
        assert vcpu.run_raw() == -errno.EINTR
    assert [gic(x) for x in (with_gic, without, old)] == [1, 0, 0]


def test_creations_that_race_make_one() -> None:
    system = System("nvhe-gicv2", backend=ScriptedBackend(forever))
    vm = system.create_vm()
    results: list[int] = []

    def make() -> None:
        try:
            vm.create_irqchip()
            results.append(0)
        except OSError as error:
            results.append(error.errno or -1)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0] + [errno.EEXIST] * 7


def test_a_first_run_that_fails_at_the_pmu_leaves_the_timer_to_be_mapped() -> None:
    """The way in that 6.12 leaves open: the run does not count, and the timer stayed enabled."""
    system = System("nvhe-gicv2", backend=ScriptedBackend(forever))
    vm = system.create_vm()
    vcpu = vm.create_vcpu(0)
    vcpu.arm_vcpu_init(features=PSCI | 1 << k.KVM_ARM_VCPU_PMU_V3)
    fails(errno.EINVAL, vcpu.run)  # its PMU is not initialised
    vm.create_irqchip()
    assert not vcpu.arch_timer.enabled
    vm.arm_set_device_addr(0, DIST)
    vm.arm_set_device_addr(1, CPUIF)
    vm.irq_line(k.KVM_ARM_IRQ_TYPE_SPI << k.KVM_ARM_IRQ_TYPE_SHIFT | 32, 0)  # initialises it
    vcpu.set_device_attr(k.KVM_ARM_VCPU_PMU_V3_CTRL, k.KVM_ARM_VCPU_PMU_V3_IRQ, 23)
    vcpu.set_device_attr(k.KVM_ARM_VCPU_PMU_V3_CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
    vcpu.limit = 100
    fails(errno.EINTR, vcpu.run)
    assert vm.vgic.irq(vcpu, 27).hw
    vcpu.close()
    vm.close()


def test_a_region_that_cannot_be_registered_leaves_the_others() -> None:
    rig = VgicRig(3, cpus=2, bare=True)
    rig.device.set_device_attr(ADDR, a.KVM_VGIC_V3_ADDR_TYPE_DIST, DIST)

    def region(index: int, base: int, count: int) -> None:
        rig.device.set_device_attr(ADDR, REGION, count << 52 | base | index)

    region(0, REDIST, 1)
    first = rig.vgic(0).rd_iodev
    assert first is not None
    fails(errno.EINVAL, lambda: region(1, DIST, 1))  # where the distributor is
    assert rig.vgic(0).rd_iodev is first
    region(1, REDIST + 0x2_0000, 1)
    # Every vCPU has its redistributor: what is missing is the initialisation.
    fails(errno.EBUSY, rig.vcpus[0].run)
    rig.close()
