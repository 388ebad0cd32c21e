"""The CPU interface against ARM IHI 0048B: priority, preemption, groups, end of interrupt."""

import pytest
from tests.vmm.irqchip.gicv2_rig import SPI0, Rig

from armkvm.arch import gic as g
from armkvm.vmm.irqchip import gicv2_cpu_interface as c
from armkvm.vmm.irqchip import gicv2_distributor as d

# Priority


def test_the_highest_priority_wins_then_the_lowest_number() -> None:
    rig = Rig()
    for spi, priority in ((1, 0x80), (2, 0x40), (3, 0x40), (4, 0x48)):
        rig.priority(SPI0 + spi, priority)
        rig.gic.set_spi(spi, True)
    rig.priority(30, 0x40)
    rig.gic.set_ppi(0, 30, True)
    order = []
    while (intid := rig.ack()) != 1023:
        order.append(intid)
        rig.eoi(intid)
        rig.set_bit(d.ICENABLER, intid)
    assert order == [30, SPI0 + 2, SPI0 + 3, SPI0 + 4, SPI0 + 1]


def test_preemption_nests_and_the_running_priority_returns() -> None:
    rig = Rig()
    rig.priority(SPI0 + 1, 0x80)
    rig.priority(SPI0 + 2, 0x40)
    rig.gic.set_spi(0, True)
    assert (rig.ack(), rig.irq) == (SPI0, [False])
    rig.gic.set_spi(1, True)
    assert (rig.irq, rig.ack()) == ([True], SPI0 + 1)
    rig.gic.set_spi(2, True)
    assert (rig.irq, rig.ack(), rig.cpu_read(c.RPR)) == ([True], SPI0 + 2, 0x40)
    assert rig.cpu_read(c.APR) == 1 << 8 | 1 << 16 | 1 << 20
    for spi, running in ((2, 0x80), (1, 0xA0), (0, 0xFF)):
        rig.gic.set_spi(spi, False)
        rig.eoi(SPI0 + spi)
        assert rig.cpu_read(c.RPR) == running


def test_an_equal_priority_does_not_preempt() -> None:
    rig = Rig()
    rig.gic.set_spi(5, True)
    rig.ack()
    rig.gic.set_spi(1, True)
    assert (rig.irq, rig.ack()) == ([False], 1023)


@pytest.mark.parametrize(("bpr", "preempts"), [(2, True), (3, True), (4, False), (7, False)])
def test_the_binary_point_hides_subpriorities_from_preemption(bpr: int, preempts: bool) -> None:
    # Table 3-2: binary point 3 leaves bits [7:4] to the group priority, 4 leaves [7:5].
    rig = Rig()
    rig.cpu(c.BPR, bpr)
    rig.priority(SPI0 + 1, 0x90)
    rig.priority(SPI0 + 2, 0x80)
    rig.gic.set_spi(1, True)
    rig.ack()
    rig.gic.set_spi(2, True)
    assert rig.irq == [preempts]
    rig.eoi(SPI0 + 1)
    # Subpriorities still decide the order among pending interrupts.
    assert rig.ack() == SPI0 + 2


def test_group_1_is_grouped_by_abpr_unless_cbpr() -> None:
    # Section 3.3.5: ABPR is one more than a BPR of the same meaning.
    rig = Rig()
    rig.group1(SPI0 + 1)
    rig.group1(SPI0 + 2)
    rig.priority(SPI0 + 1, 0x90)
    rig.priority(SPI0 + 2, 0x80)
    rig.cpu(c.ABPR, 5)
    rig.gic.set_spi(1, True)
    assert rig.cpu_read(c.AIAR) == SPI0 + 1
    assert rig.cpu_read(c.NSAPR) == 1 << (0x80 >> 3)
    rig.gic.set_spi(2, True)
    assert rig.irq == [False]
    rig.cpu(c.ABPR, 4)
    assert rig.irq == [False]  # what runs took its group priority with it
    rig.cpu(c.AEOIR, SPI0 + 1)
    rig.gic.set_spi(2, False)
    assert rig.cpu_read(c.AIAR) == SPI0 + 1
    rig.gic.set_spi(2, True)
    assert rig.irq == [True]
    rig.cpu(c.BPR, 4)
    assert rig.irq == [True]
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR) | g.GICC_CTLR_CBPR)
    assert rig.irq == [True]  # 0x80 against the 0x90 that runs
    rig.cpu(c.BPR, 7)
    assert rig.irq == [True]
    rig.cpu(c.NSAPR, 1 << (0x80 >> 3))
    rig.cpu(c.BPR, 4)
    assert rig.irq == [False]


def test_no_preemption_with_binary_point_7() -> None:
    rig = Rig()
    rig.cpu(c.BPR, 7)
    rig.gic.set_spi(1, True)
    rig.ack()
    assert rig.cpu_read(c.RPR) == 0
    rig.priority(SPI0 + 2, 0)
    rig.gic.set_spi(2, True)
    assert rig.irq == [False]


def test_hppir_ignores_mask_and_running_priority_but_not_enables() -> None:
    rig = Rig()
    rig.gic.set_spi(1, True)
    rig.cpu(c.PMR, 0)
    assert (rig.cpu_read(c.HPPIR), rig.cpu_read(c.AHPPIR)) == (SPI0 + 1, 1023)
    rig.cpu(c.CTLR, g.GICC_CTLR_ENABLE_GRP1)
    assert rig.cpu_read(c.HPPIR) == 1023
    rig.cpu(c.CTLR, g.GICC_CTLR_ENABLE_GRP0)
    rig.dist(d.CTLR, 2)
    assert rig.cpu_read(c.HPPIR) == 1023
    rig.dist(d.CTLR, 1)
    assert rig.cpu_read(c.HPPIR) == SPI0 + 1
    rig.gic.set_spi(1, False)
    assert rig.cpu_read(c.HPPIR) == 1023


# Groups


def test_group_1_is_read_through_the_alias_or_with_ackctl() -> None:
    rig = Rig()
    rig.group1(SPI0)
    rig.gic.set_spi(0, True)
    assert rig.irq == [True]
    assert (rig.ack(), rig.cpu_read(c.HPPIR)) == (1022, 1022)
    assert rig.cpu_read(c.AHPPIR) == SPI0
    assert not rig.bit(d.ISACTIVER, SPI0)
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR) | g.GICC_CTLR_ACK_CTL)
    assert (rig.cpu_read(c.HPPIR), rig.ack()) == (SPI0, SPI0)
    assert (rig.cpu_read(c.APR), rig.cpu_read(c.NSAPR)) == (0, 1 << 20)
    rig.eoi(SPI0)
    assert rig.cpu_read(c.NSAPR) == 0
    assert not rig.bit(d.ISACTIVER, SPI0)
    assert rig.odd.count == 0


def test_group_0_is_not_read_through_the_alias() -> None:
    rig = Rig()
    rig.gic.set_spi(0, True)
    assert (rig.cpu_read(c.AIAR), rig.cpu_read(c.AHPPIR)) == (1023, 1023)
    assert rig.ack() == SPI0


def test_fiqen_moves_group_0_and_only_that_to_fiq() -> None:
    rig = Rig()
    rig.cpu(c.CTLR, g.GICC_CTLR_ENABLE_GRP0 | g.GICC_CTLR_ENABLE_GRP1 | g.GICC_CTLR_FIQ_EN)
    rig.group1(SPI0)
    rig.gic.set_spi(0, True)
    assert (rig.irq, rig.fiq) == ([True], [False])
    rig.priority(SPI0 + 1, 0x20)
    rig.gic.set_spi(1, True)
    # The interface sees one candidate, so the lines take turns.
    assert (rig.irq, rig.fiq) == ([False], [True])
    assert rig.ack() == SPI0 + 1
    assert (rig.irq, rig.fiq) == ([False], [False])
    rig.gic.set_spi(1, False)
    rig.eoi(SPI0 + 1)
    assert (rig.irq, rig.fiq) == ([True], [False])


def test_regrouping_a_pending_interrupt_moves_its_line() -> None:
    rig = Rig()
    rig.cpu(c.CTLR, g.GICC_CTLR_ENABLE_GRP0 | g.GICC_CTLR_ENABLE_GRP1 | g.GICC_CTLR_FIQ_EN)
    rig.gic.set_spi(0, True)
    assert (rig.irq, rig.fiq) == ([False], [True])
    rig.group1(SPI0)
    assert (rig.irq, rig.fiq) == ([True], [False])


def test_nested_group_1_interrupts_end_one_by_one() -> None:
    rig = Rig()
    rig.priority(SPI0 + 1, 0x40)
    rig.group1(SPI0)
    rig.group1(SPI0 + 1)
    rig.gic.set_spi(0, True)
    assert rig.cpu_read(c.AIAR) == SPI0
    rig.gic.set_spi(1, True)
    assert rig.cpu_read(c.AIAR) == SPI0 + 1
    rig.cpu(c.AEOIR, SPI0 + 1)
    assert rig.cpu_read(c.RPR) == 0xA0
    rig.gic.set_spi(0, False)
    rig.cpu(c.AEOIR, SPI0)
    assert rig.cpu_read(c.RPR) == 0xFF


def test_a_group_disabled_at_the_interface_hides_what_is_behind_it() -> None:
    # The Distributor forwards its best interrupt; the interface does not look further.
    rig = Rig()
    rig.group1(SPI0)
    rig.priority(SPI0 + 1, 0x20)
    rig.gic.set_spi(0, True)
    rig.gic.set_spi(1, True)
    rig.cpu(c.CTLR, g.GICC_CTLR_ENABLE_GRP1)
    assert (rig.irq, rig.cpu_read(c.AIAR)) == ([False], 1023)
    # Disabled in the Distributor it is not forwarded at all.
    rig.dist(d.CTLR, 2)
    assert (rig.irq, rig.cpu_read(c.AIAR)) == ([True], SPI0)


def test_ends_through_the_wrong_register_are_reported_and_ignored() -> None:
    rig = Rig()
    rig.group1(SPI0 + 1)
    rig.gic.set_spi(0, True)
    assert rig.ack() == SPI0
    rig.cpu(c.AEOIR, SPI0)
    assert rig.bit(d.ISACTIVER, SPI0)
    rig.eoi(SPI0 + 1)
    assert rig.cpu_read(c.RPR) == 0xA0
    assert rig.odd.count == 2


# End of interrupt


def test_eoimode_separates_priority_drop_and_deactivation() -> None:
    rig = Rig(2)
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR) | g.GICC_CTLR_EOIMODE)
    rig.target(SPI0, 1)
    rig.target(SPI0 + 1, 1)
    rig.gic.set_spi(0, True)
    assert rig.ack() == SPI0
    rig.gic.set_spi(1, True)
    assert rig.irq == [False, False]
    rig.eoi(SPI0)
    assert rig.cpu_read(c.RPR) == 0xFF
    assert rig.bit(d.ISACTIVER, SPI0)
    assert rig.irq == [True, False]  # now the other one of equal priority
    assert rig.ack() == SPI0 + 1
    rig.eoi(SPI0 + 1)
    assert rig.irq == [False, False]
    # Section 3.2.2: another CPU may deactivate an SPI.
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR, 1) | g.GICC_CTLR_EOIMODE, 1)
    rig.cpu(c.DIR, SPI0, 1)
    assert not rig.bit(d.ISACTIVER, SPI0)
    assert rig.irq == [True, False]
    assert rig.odd.count == 0


def test_ends_without_meaning_are_reported() -> None:
    rig = Rig()
    rig.eoi(1023)
    rig.eoi(1022)
    assert rig.odd.count == 0  # section 4.4.5: spurious IDs may be written
    rig.eoi(SPI0)
    assert rig.odd.by_reason["gicc", "end of interrupt without an active priority"] == 1
    assert rig.odd.by_reason["gicc", "deactivation of an interrupt that is not active"] == 1
    rig.eoi(1019)
    assert rig.odd.by_reason["gicc", "end of an interrupt that does not exist"] == 1
    rig.set_bit(d.ISACTIVER, SPI0)
    rig.cpu(c.DIR, SPI0)
    assert rig.odd.by_reason["gicc", "write to DIR without EOImode"] == 1
    assert rig.bit(d.ISACTIVER, SPI0)
