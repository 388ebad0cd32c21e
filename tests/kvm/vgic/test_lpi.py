"""LPIs: a redistributor's registers and tables, and their way to the guest."""

from __future__ import annotations

import errno

import pytest
from tests.kvm.rig import fails
from tests.kvm.vgic.its_rig import (
    GICR_CTLR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    LPI,
    PENDING,
    PRIORITY,
    PROPERTIES,
    ItsRig,
    mapc,
    mapd,
    mapti,
)
from tests.kvm.vgic.vgic_rig import VgicRig, state

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.arch import gic
from armkvm.arch import its as g

GICR_TYPER, GICR_INVLPIR, GICR_INVALLR, GICR_SYNCR = 0x008, 0x0A0, 0x0B0, 0x0C0
CES_IR = 3 << 1


def test_without_an_its_there_are_no_lpis() -> None:
    rig = VgicRig(3)
    bus, vcpu = rig.vm.mmio_bus, rig.vcpus[0]
    assert rig.dist(0x4) == 9 << 19 | 7
    assert bus.read(vcpu, 0x080A_0000 + GICR_TYPER, 4) == 1 << 4
    bus.write(vcpu, 0x080A_0000 + GICR_CTLR, 4, 1)
    assert bus.read(vcpu, 0x080A_0000 + GICR_CTLR, 4) == CES_IR
    rig.close()


def test_with_one_distributor_and_redistributor_say_so(bare: ItsRig) -> None:
    assert bare.dist(0x4) == 15 << 19 | 1 << 17 | 7
    assert bare.redist(GICR_TYPER) & 1
    assert bare.redist(GICR_CTLR) == CES_IR
    bare.redist_write(GICR_CTLR, 1)
    assert bare.redist(GICR_CTLR) == CES_IR | 1
    assert bare.redist(GICR_CTLR, 1) == CES_IR
    assert bare.redist(GICR_PROPBASER) == 5 << 7 | 1 << 10


def test_tables_stay_while_lpis_are_on(its: ItsRig) -> None:
    for register in (GICR_PROPBASER, GICR_PENDBASER):
        before = its.redist(register, length=8)
        its.redist_write(register, 0, length=8)
        assert its.redist(register, length=8) == before


def test_pending_table_zero_reads_as_zero(bare: ItsRig) -> None:
    bare.redist_write(GICR_PENDBASER, g.GICR_PENDBASER_PTZ | PENDING, length=8)
    assert bare.redist(GICR_PENDBASER, length=8) == PENDING | 5 << 7


def test_an_lpi_goes_through_a_list_register(its: ItsRig) -> None:
    """Edge-triggered, group 1, never active; the interface has five bits of its priority."""
    its.prop(LPI, 0xA4 | g.LPI_PROP_ENABLED)
    irq = its.mapped()
    its.msi()
    (lr,) = its.enter()
    assert lr & 0xFFFF_FFFF == LPI
    assert lr & gic.ICH_LR_GROUP
    assert not lr & (gic.ICH_LR_EOI | gic.ICH_LR_HW)
    assert lr >> gic.ICH_LR_PRIORITY_SHIFT & 0xFF == 0xA0
    assert state(lr) == "P"
    assert not its.irq(LPI).pending_latch
    its.msi()  # while the guest has the first
    its.leave(lr & ~gic.ICH_LR_STATE)
    assert irq.pending_latch
    assert its.enter() == [lr]
    its.leave(lr)  # not taken yet
    assert irq.pending_latch
    assert its.vgic().ap_list == [irq]


def test_priorities_order_lpis_among_others(its: ItsRig) -> None:
    its.mapped()
    for n, priority in enumerate((0xC0, 0x20, 0x80, 0x60, 0x40), 1):
        its.prop(LPI + n, priority | g.LPI_PROP_ENABLED)
        its.commands(mapti(0, n, LPI + n))
        its.msi(event=n)
    its.enabled(40, 0x30)
    its.line(40, True)
    assert [lr & 0xFFFF for lr in its.enter()] == [LPI + 2, 40, LPI + 5, LPI + 4]


def test_an_lpi_moves_with_its_target(its: ItsRig) -> None:
    """Off the list of the old vCPU at its next exit."""
    irq = its.mapped()
    its.msi()
    (lr,) = its.enter()
    its.commands(mapc(0, 1))
    its.leave(lr)
    assert its.vgic().ap_list == []
    assert its.vgic(1).ap_list == [irq]


def test_switched_off_none_gets_through(its: ItsRig) -> None:
    irq = its.mapped()
    its.msi()
    its.enabled(40)
    its.line(40, True)
    its.redist_write(GICR_CTLR, 0)
    assert its.redist(GICR_CTLR) == CES_IR
    assert [i.intid for i in its.vgic().ap_list] == [40]
    assert irq.vcpu is None
    fails(errno.EBUSY, its.msi)


def test_switched_off_by_another_vcpu_while_the_guest_has_it(its: ItsRig) -> None:
    """Its list register is given back all the same, and what was not taken stays pending."""
    irq = its.mapped()
    its.msi()
    (lr,) = its.enter()
    its.redist_write(GICR_CTLR, 0)
    its.leave(lr)
    assert its.enter() == []
    assert irq.pending_latch


def test_switched_on_the_pending_table_is_read(its: ItsRig) -> None:
    irq = its.mapped()
    its.commands(mapc(1, 1), mapti(0, 1, LPI + 1, 1))
    its.redist_write(GICR_CTLR, 0)
    its.fill(PENDING + LPI // 8, b"\x03")
    its.redist_write(GICR_CTLR, 1)
    assert irq.pending_latch
    assert its.vgic().ap_list == [irq]
    assert not its.irq(LPI + 1).pending_latch  # the other redistributor's
    its.fill(PENDING + LPI // 8, b"\x00")
    its.redist_write(GICR_CTLR, 0)
    its.redist_write(GICR_CTLR, 1)
    assert not irq.pending_latch


def test_a_table_that_is_zero_is_not_read(its: ItsRig) -> None:
    irq = its.mapped()
    its.redist_write(GICR_CTLR, 0)
    its.redist_write(GICR_PENDBASER, g.GICR_PENDBASER_PTZ | PENDING, length=8)
    its.fill(PENDING + LPI // 8, b"\x01")
    its.redist_write(GICR_CTLR, 1)
    assert not irq.pending_latch


def test_a_table_that_is_nowhere(its: ItsRig) -> None:
    """LPIs are on all the same; nothing more can be mapped there."""
    its.mapped()
    its.redist_write(GICR_CTLR, 0)
    its.redist_write(GICR_PENDBASER, 0xF_0000_0000_0000, length=8)
    its.redist_write(GICR_CTLR, 1)
    assert its.redist(GICR_CTLR) == CES_IR | 1
    assert its.msi() == 1
    its.commands(mapti(0, 1, LPI + 1))
    assert set(its.lpis()) == {LPI}


@pytest.mark.parametrize("register", [GICR_INVLPIR, GICR_INVALLR])
def test_invalidation_by_the_redistributor(its: ItsRig, register: int) -> None:
    irq = its.mapped()
    its.commands(mapc(1, 1), mapti(0, 1, LPI + 1, 1))
    for intid in (LPI, LPI + 1):
        its.prop(intid, 0x20)
    its.redist_write(register + 4, LPI)  # the half of a vPE
    its.redist_write(register, LPI - 1) if register == GICR_INVLPIR else None
    assert irq.priority == PRIORITY
    its.redist_write(register, LPI, length=8)
    assert (irq.priority, irq.enabled) == (0x20, False)
    assert its.irq(LPI + 1).priority == PRIORITY
    assert its.redist(GICR_SYNCR) == its.redist(register, length=8) == 0


@pytest.mark.parametrize("register", [GICR_INVLPIR, GICR_INVALLR])
def test_no_invalidation_while_lpis_are_off(its: ItsRig, register: int) -> None:
    irq = its.mapped()
    its.prop(LPI, 0x20)
    its.redist_write(GICR_CTLR, 0)
    its.redist_write(register, LPI, length=8)
    assert irq.priority == PRIORITY


@pytest.mark.parametrize("register", [GICR_INVLPIR, GICR_INVALLR])
def test_a_configuration_table_that_went_away(its: ItsRig, register: int) -> None:
    irq = its.mapped()
    its.vm.set_user_memory_region(0, 0, 0)
    its.redist_write(register, LPI, length=8)
    assert (irq.priority, irq.enabled) == (PRIORITY, True)


def test_pending_tables_are_saved(its: ItsRig) -> None:
    its.mapped()
    its.commands(mapc(1, 1), mapti(0, 1, LPI + 1, 1), mapti(0, 2, LPI + 2, 5))
    its.msi(event=1)
    its.fill(PENDING + LPI // 8, b"\xff")  # bits of LPIs that there are not stay
    its.save()
    assert its.at(PENDING + LPI // 8, 1) == 0xFE
    assert its.at(PENDING + 0x1_0000 + LPI // 8, 1) == 2


def test_pending_tables_that_are_nowhere(its: ItsRig) -> None:
    its.mapped()
    its.vm.set_user_memory_region(0, 0, 0)
    attr = a.KVM_DEV_ARM_VGIC_CTRL_INIT + a.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES
    fails(errno.EFAULT, lambda: its.device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, attr))


def test_pending_tables_of_a_vgic_that_is_not_initialised() -> None:
    rig = VgicRig(3, bare=True)
    attr = a.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES
    fails(errno.ENXIO, lambda: rig.device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, attr))
    rig.close()


def test_user_space_may_pulse_an_lpi_by_its_number(its: ItsRig) -> None:
    """KVM_IRQ_LINE's INTID is 16 bits wide, and vgic_get_irq() knows LPIs."""
    word = k.irq_word(k.KVM_ARM_IRQ_TYPE_SPI, 0, LPI)
    fails(errno.EINVAL, lambda: its.vm.irq_line(word, 1))
    irq = its.mapped()
    its.vm.irq_line(word, 1)
    assert irq.pending_latch


def test_ids_of_the_configuration_table_bound_the_lpis(bare: ItsRig) -> None:
    bare.set_up()
    bare.redist_write(GICR_CTLR, 0)
    bare.redist_write(GICR_PROPBASER, PROPERTIES | 13, length=8)  # 14 bits
    bare.commands(mapd(0), mapc(0), mapti(0, 0, (1 << 14) - 1), mapti(0, 1, 1 << 14))
    assert set(bare.lpis()) == {(1 << 14) - 1}
