"""The Distributor against ARM IHI 0048B: the life of an interrupt, SGIs, targets."""

from collections.abc import Callable

import pytest
from tests.vmm.irqchip.gicv2_rig import SPI0, Rig

from armkvm.vmm.irqchip import gicv2_cpu_interface as c
from armkvm.vmm.irqchip import gicv2_distributor as d

# The life of an interrupt


def test_a_timer_tick() -> None:
    rig = Rig()
    rig.gic.set_ppi(0, 27, True)
    assert rig.edges == [("irq", 0, True)]
    assert rig.ack() == 27
    assert rig.edges == [("irq", 0, True), ("irq", 0, False)]
    assert rig.cpu_read(c.RPR) == 0xA0
    assert rig.bit(d.ISACTIVER, 27)
    assert rig.bit(d.ISPENDR, 27)  # the level is still high: active and pending
    assert rig.ack() == 1023
    rig.gic.set_ppi(0, 27, False)
    assert not rig.bit(d.ISPENDR, 27)
    rig.eoi(27)
    assert not rig.bit(d.ISACTIVER, 27)
    assert rig.cpu_read(c.RPR) == 0xFF
    assert len(rig.edges) == 2
    assert rig.odd.count == 0


def test_a_level_that_stays_high_comes_again_after_its_end() -> None:
    rig = Rig()
    rig.gic.set_spi(3, True)
    assert rig.ack() == SPI0 + 3
    rig.eoi(SPI0 + 3)
    assert rig.irq == [True]
    assert rig.ack() == SPI0 + 3


def test_a_level_that_falls_before_acknowledge_is_gone() -> None:
    rig = Rig()
    rig.gic.set_spi(3, True)
    rig.gic.set_spi(3, False)
    assert rig.irq == [False]
    assert rig.ack() == 1023


def test_an_edge_is_remembered_and_not_repeated() -> None:
    rig = Rig()
    rig.edge(SPI0)
    rig.gic.set_spi(0, True)
    rig.gic.set_spi(0, False)
    assert rig.ack() == SPI0
    rig.eoi(SPI0)
    assert rig.ack() == 1023
    rig.gic.set_spi(0, True)
    rig.gic.set_spi(0, True)  # no edge
    assert rig.ack() == SPI0
    assert not rig.bit(d.ISPENDR, SPI0)
    # An edge while active makes it active and pending; it is not signalled before its end.
    rig.gic.set_spi(0, False)
    rig.gic.set_spi(0, True)
    assert rig.bit(d.ISPENDR, SPI0)
    assert rig.irq == [False]
    rig.eoi(SPI0)
    assert rig.irq == [True]


def test_the_latch_of_a_level_interrupt_is_beside_its_line() -> None:
    # Section 4.3.7, figure 4-10.
    rig = Rig()
    rig.set_bit(d.ISPENDR, SPI0)
    assert rig.irq == [True]
    rig.gic.set_spi(0, True)
    rig.gic.set_spi(0, False)
    assert rig.bit(d.ISPENDR, SPI0)  # the latch holds it
    rig.gic.set_spi(0, True)
    rig.set_bit(d.ICPENDR, SPI0)
    assert rig.bit(d.ISPENDR, SPI0)  # the line holds it
    rig.gic.set_spi(0, False)
    assert not rig.bit(d.ISPENDR, SPI0)
    assert rig.irq == [False]
    rig.set_bit(d.ISPENDR, SPI0)
    assert rig.ack() == SPI0  # becoming active clears the latch
    assert not rig.bit(d.ISPENDR, SPI0)


def test_icpendr_removes_an_edge() -> None:
    rig = Rig()
    rig.edge(SPI0)
    rig.gic.set_spi(0, True)
    rig.set_bit(d.ICPENDR, SPI0)
    assert (rig.irq, rig.ack()) == ([False], 1023)


@pytest.mark.parametrize(
    ("off", "on"),
    [
        (lambda r: r.dist(d.CTLR, 2), lambda r: r.dist(d.CTLR, 3)),
        (lambda r: r.cpu(c.CTLR, 2), lambda r: r.cpu(c.CTLR, 1)),
        (lambda r: r.set_bit(d.ICENABLER, SPI0), lambda r: r.set_bit(d.ISENABLER, SPI0)),
        (lambda r: r.cpu(c.PMR, 0xA0), lambda r: r.cpu(c.PMR, 0xA8)),
        (lambda r: r.priority(SPI0, 0xF0), lambda r: r.priority(SPI0, 0xE8)),
        (lambda r: r.set_bit(d.ISACTIVER, SPI0), lambda r: r.set_bit(d.ICACTIVER, SPI0)),
        (lambda r: r.cpu(c.APR, 1 << 20), lambda r: r.cpu(c.APR, 1 << 21)),
    ],
    ids=["group", "interface", "enable", "mask", "priority", "active", "running"],
)
def test_everything_between_interrupt_and_cpu_can_hold_it(
    off: Callable[[Rig], None], on: Callable[[Rig], None]
) -> None:
    rig = Rig()
    rig.gic.set_spi(0, True)
    off(rig)
    assert (rig.irq, rig.ack(), rig.bit(d.ISPENDR, SPI0)) == ([False], 1023, True)
    on(rig)
    assert rig.irq == [True]
    assert rig.ack() == SPI0


# SGIs


@pytest.mark.parametrize(
    ("value", "reached"),
    [(0b0101 << 16, [0, 2]), (0xF0 << 16, []), (1 << 24, [0, 2, 3]), (2 << 24, [1])],
)
def test_sgir_target_filters(value: int, reached: list[int]) -> None:
    rig = Rig(4)
    rig.dist(d.SGIR, value | 9, cpu=1)
    assert [cpu for cpu in range(4) if rig.irq[cpu]] == reached
    for cpu in reached:
        assert rig.ack(cpu) == 1 << 10 | 9
    assert rig.odd.count == 0
    rig.dist(d.SGIR, 3 << 24 | 9)
    assert rig.odd.count == 1


def test_an_sgi_is_taken_once_for_each_source() -> None:
    rig = Rig(4)
    for source in (3, 1):
        rig.dist(d.SGIR, 1 << 16 | 5, cpu=source)
        rig.dist(d.SGIR, 1 << 16 | 5, cpu=source)  # the same again is the same
    assert rig.dist_read(d.SPENDSGIR + 5, size=1) == 0b1010
    assert rig.cpu_read(c.HPPIR) == 1 << 10 | 5
    assert rig.ack() == 1 << 10 | 5
    assert rig.bit(d.ISPENDR, 5)
    assert not any(rig.irq)
    rig.eoi(1 << 10 | 5)
    assert any(rig.irq)
    assert rig.ack() == 3 << 10 | 5
    assert not rig.bit(d.ISPENDR, 5)
    rig.eoi(3 << 10 | 5)
    assert rig.ack() == 1023
    assert rig.odd.count == 0


def test_sgi_pending_registers_are_by_source() -> None:
    rig = Rig(3)
    rig.dist(d.SPENDSGIR + 4, 0x0003_FF00, cpu=2)  # SGIs 5 and 6
    assert rig.dist_read(d.CPENDSGIR + 4, cpu=2) == 0x0003_0700  # of 3 CPUs
    assert rig.dist_read(d.SPENDSGIR + 4, cpu=0) == 0
    assert rig.irq == [False, False, True]
    rig.dist(d.CPENDSGIR + 5, 7, cpu=2, size=1)
    rig.dist(d.CPENDSGIR + 6, 1, cpu=2, size=1)
    assert rig.ack(2) == 1 << 10 | 6


def test_sgis_cannot_be_disabled_nor_made_pending_by_ispendr() -> None:
    rig = Rig()
    rig.dist(d.ICENABLER, 0xFFFF_FFFF)
    rig.dist(d.ISPENDR, 0xFFFF)
    assert rig.dist_read(d.ISENABLER) == 0xFFFF
    assert rig.dist_read(d.ISPENDR) == 0
    rig.dist(d.SGIR, 2 << 24)
    rig.dist(d.ICPENDR, 0xFFFF)
    assert rig.ack() == 0


# Banking and targets


def test_private_interrupts_are_banked() -> None:
    rig = Rig(2)
    rig.gic.set_ppi(1, 27, True)
    assert rig.irq == [False, True]
    assert not rig.bit(d.ISPENDR, 27, 0)
    assert rig.bit(d.ISPENDR, 27, 1)
    rig.priority(27, 0x10, 1)
    assert rig.dist_read(d.IPRIORITYR + 27, 0, size=1) == 0xA0
    assert rig.ack(1) == 27
    assert rig.cpu_read(c.RPR, 0) == 0xFF
    assert rig.cpu_read(c.RPR, 1) == 0x10


def test_itargetsr_of_private_interrupts_tells_the_cpu_its_bit() -> None:
    rig = Rig(8)
    for cpu in range(8):
        assert rig.dist_read(d.ITARGETSR + 4, cpu) == 0x0101_0101 << cpu
        assert rig.dist_read(d.ITARGETSR + 31, cpu, size=1) == 1 << cpu
    rig.dist(d.ITARGETSR, 0)
    assert rig.odd.count == 1


def test_an_spi_goes_to_its_targets_and_one_of_them_gets_it() -> None:
    rig = Rig(4)
    rig.gic.set_spi(7, True)
    assert rig.irq == [False] * 4  # no target
    rig.target(SPI0 + 7, 0xFE)
    assert rig.dist_read(d.ITARGETSR + SPI0 + 7, size=1) == 0b1110
    assert rig.irq == [False, True, True, True]
    assert rig.ack(2) == SPI0 + 7
    assert rig.irq == [False] * 4
    assert rig.ack(1) == 1023  # section 3.2.3: too late, spurious
    rig.gic.set_spi(7, False)
    rig.eoi(SPI0 + 7, 2)
    assert rig.odd.count == 0


def test_moving_the_targets_of_a_pending_spi_moves_the_line() -> None:
    rig = Rig(2)
    rig.target(SPI0, 1)
    rig.gic.set_spi(0, True)
    rig.target(SPI0, 2)
    assert rig.irq == [False, True]


def test_a_uniprocessor_has_no_targets() -> None:
    # Section 4.3.12: RAZ/WI; all SPIs go to the one processor.
    rig = Rig(1)
    rig.dist(d.ITARGETSR + SPI0, 0xFFFF_FFFF)
    assert rig.dist_read(d.ITARGETSR + SPI0) == rig.dist_read(d.ITARGETSR) == 0
    rig.gic.set_spi(0, True)
    assert rig.irq == [True]
    assert rig.odd.count == 0


def test_icfgr_is_two_bits_an_interrupt_of_which_one_counts() -> None:
    rig = Rig()
    rig.dist(d.ICFGR + 4, 0xFFFF_FFFF)
    rig.dist(d.ICFGR + 12, 0x0000_0008)
    assert rig.dist_read(d.ICFGR + 4) == 0xAAAA_AAAA
    assert rig.dist_read(d.ICFGR + 8) == 0
    assert rig.dist_read(d.ICFGR + 12) == 0x0000_0008
    rig.gic.set_spi(17, True)
    rig.gic.set_spi(17, False)
    assert rig.ack() == SPI0 + 17
