"""GICv2 against its architecture specification (ARM IHI 0048B)."""

import subprocess
from collections.abc import Callable

import pytest

from armkvm.vmm import gicv2_cpu_interface as c
from armkvm.vmm import gicv2_distributor as d
from armkvm.vmm.board import GICC, GICD
from armkvm.vmm.device import OddAccesses
from armkvm.vmm.fdt import Fdt
from armkvm.vmm.gicv2 import GicV2

SPI0 = 32


class Rig:
    """A GIC whose groups, CPU interfaces and interrupts are enabled, at priority 0xA0."""

    def __init__(self, cpus: int = 1, *, enable: bool = True, **options: int) -> None:
        self.levels = {"irq": [False] * cpus, "fiq": [False] * cpus}
        self.edges: list[tuple[str, int, bool]] = []
        self.odd = OddAccesses()
        self.gic = GicV2(cpus, self.set_irq, self.set_fiq, report=self.odd, **options)
        if enable:
            self.dist(d.CTLR, 3)
            for intid in range(16, SPI0 + self.gic.spis):
                for cpu in range(cpus if intid < SPI0 else 1):
                    self.dist(d.ISENABLER + intid // 32 * 4, 1 << intid % 32, cpu)
                    self.priority(intid, 0xA0, cpu)
            for cpu in range(cpus):
                for sgi in range(16):
                    self.priority(sgi, 0xA0, cpu)
                self.cpu(c.PMR, 0xF0, cpu)
                self.cpu(c.CTLR, c.CTLR_ENABLE_GRP0 | c.CTLR_ENABLE_GRP1, cpu)
            self.odd.count = 0

    def set_irq(self, cpu: int, level: bool) -> None:
        self.levels["irq"][cpu] = level
        self.edges.append(("irq", cpu, level))

    def set_fiq(self, cpu: int, level: bool) -> None:
        self.levels["fiq"][cpu] = level
        self.edges.append(("fiq", cpu, level))

    @property
    def irq(self) -> list[bool]:
        return list(self.levels["irq"])

    @property
    def fiq(self) -> list[bool]:
        return list(self.levels["fiq"])

    def dist(self, offset: int, value: int, cpu: int = 0, size: int = 4) -> None:
        self.gic.distributor.write(offset, size, value, cpu)

    def dist_read(self, offset: int, cpu: int = 0, size: int = 4) -> int:
        return self.gic.distributor.read(offset, size, cpu)

    def cpu(self, offset: int, value: int, cpu: int = 0) -> None:
        self.gic.cpu_interface.write(offset, 4, value, cpu)

    def cpu_read(self, offset: int, cpu: int = 0) -> int:
        return self.gic.cpu_interface.read(offset, 4, cpu)

    def priority(self, intid: int, priority: int, cpu: int = 0) -> None:
        self.dist(d.IPRIORITYR + intid, priority, cpu, size=1)

    def bit(self, register: int, intid: int, cpu: int = 0) -> bool:
        return bool(self.dist_read(register + intid // 32 * 4, cpu) >> intid % 32 & 1)

    def set_bit(self, register: int, intid: int, cpu: int = 0) -> None:
        self.dist(register + intid // 32 * 4, 1 << intid % 32, cpu)

    def group1(self, intid: int, cpu: int = 0) -> None:
        offset = d.IGROUPR + intid // 32 * 4
        self.dist(offset, self.dist_read(offset, cpu) | 1 << intid % 32, cpu)

    def edge(self, intid: int) -> None:
        offset = d.ICFGR + intid // 16 * 4
        self.dist(offset, self.dist_read(offset) | 2 << intid % 16 * 2)

    def target(self, intid: int, cpus: int) -> None:
        self.dist(d.ITARGETSR + intid, cpus, size=1)

    def ack(self, cpu: int = 0) -> int:
        return self.cpu_read(c.IAR, cpu)

    def eoi(self, value: int, cpu: int = 0) -> None:
        self.cpu(c.EOIR, value, cpu)


# Identification and reset


def test_identification() -> None:
    rig = Rig(4, spis=100, enable=False)
    assert rig.dist_read(d.TYPER) == 3 << 5 | 4  # 132 interrupts in 5 words
    assert rig.dist_read(d.IIDR) & 0xFFF == 0x43B
    assert rig.cpu_read(c.IIDR) & 0xFF0FFF == 0x02043B  # what Linux tests
    ids = [rig.dist_read(0xFD0 + 4 * i) for i in range(12)]
    assert ids[6] >> 4 == 2  # ICPIDR2.ArchRev
    assert ids[8:] == [0x0D, 0xF0, 0x05, 0xB1]
    assert rig.odd.count == 0


@pytest.mark.parametrize("spis", [0, 1, 32, 96, 988])
def test_implemented_interrupts_are_found_by_writing_ones(spis: int) -> None:
    # Section 3.1.2: write ones to ISENABLER, read them back.
    rig = Rig(spis=spis, enable=False)
    for n in range(32):
        rig.dist(d.ISENABLER + 4 * n, 0xFFFF_FFFF)
    words = [rig.dist_read(d.ISENABLER + 4 * n) for n in range(32)]
    assert sum(word.bit_count() for word in words) == 32 + spis
    assert rig.dist_read(d.TYPER) & 0x1F == (32 + spis + 31) // 32 - 1


def test_reset_state_signals_nothing() -> None:
    rig = Rig(2, enable=False)
    rig.gic.set_ppi(0, 27, True)
    rig.gic.set_spi(1, True)
    assert (rig.cpu_read(c.IAR), rig.cpu_read(c.RPR), rig.cpu_read(c.PMR)) == (1023, 0xFF, 0)
    assert rig.dist_read(d.ICFGR) == 0xAAAA_AAAA
    assert rig.dist_read(d.ISENABLER) == 0xFFFF  # SGIs
    assert rig.edges == []


@pytest.mark.parametrize(
    ("bits", "lowest", "pmr"), [(4, 3, 0xF0), (5, 2, 0xF8), (6, 1, 0xFC), (7, 0, 0xFE), (8, 0, 255)]
)
def test_priority_bits_bound_masks_and_binary_points(bits: int, lowest: int, pmr: int) -> None:
    rig = Rig(priority_bits=bits, enable=False)
    rig.cpu(c.PMR, 0xFF)
    rig.cpu(c.BPR, 0)
    rig.cpu(c.ABPR, 0)
    rig.priority(40, 0xFF)
    assert rig.cpu_read(c.PMR) == pmr == rig.dist_read(d.IPRIORITYR + 40, size=1)
    assert (rig.cpu_read(c.BPR), rig.cpu_read(c.ABPR)) == (lowest, lowest + 1)
    for n in range(4):
        rig.cpu(c.APR + 4 * n, 0xFFFF_FFFF)
    levels = sum(rig.cpu_read(c.APR + 4 * n).bit_count() for n in range(4))
    assert levels == 128 >> lowest


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
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR) | c.CTLR_CBPR)
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
    rig.cpu(c.CTLR, c.CTLR_ENABLE_GRP1)
    assert rig.cpu_read(c.HPPIR) == 1023
    rig.cpu(c.CTLR, c.CTLR_ENABLE_GRP0)
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
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR) | c.CTLR_ACK_CTL)
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
    rig.cpu(c.CTLR, c.CTLR_ENABLE_GRP0 | c.CTLR_ENABLE_GRP1 | c.CTLR_FIQ_EN)
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
    rig.cpu(c.CTLR, c.CTLR_ENABLE_GRP0 | c.CTLR_ENABLE_GRP1 | c.CTLR_FIQ_EN)
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
    rig.cpu(c.CTLR, c.CTLR_ENABLE_GRP1)
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
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR) | c.CTLR_EOIMODE)
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
    rig.cpu(c.CTLR, rig.cpu_read(c.CTLR, 1) | c.CTLR_EOIMODE, 1)
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


# Widths


@pytest.mark.parametrize("offset", [d.IPRIORITYR + 40, d.ITARGETSR + 40, d.SPENDSGIR + 8])
def test_byte_registers_take_bytes_halfwords_and_words(offset: int) -> None:
    rig = Rig(8)
    rig.dist(offset, 0)
    rig.dist(offset, 0x1008, size=2)
    rig.dist(offset + 3, 0x28, size=1)
    assert rig.dist_read(offset) == 0x2800_1008
    assert rig.dist_read(offset + 2, size=2) == 0x2800
    assert rig.dist_read(offset + 1, size=1) == 0x10
    assert rig.odd.count == 0


@pytest.mark.parametrize(
    ("offset", "size"),
    [(d.ISENABLER + 4, 1), (d.CTLR, 2), (d.ICFGR + 8, 1), (d.IPRIORITYR + 41, 2), (d.CTLR, 8),
     (d.IPRIORITYR + 42, 4), (d.SGIR, 1), (d.TYPER + 1, 4), (0x1000, 4), (0xE00, 4), (0x00C, 4)],
)  # fmt: skip
def test_other_distributor_accesses_are_raz_wi_and_reported(offset: int, size: int) -> None:
    rig = Rig()
    before = rig.gic.state()
    assert rig.dist_read(offset, size=size) == 0
    rig.dist(offset, 0xFF, size=size)
    assert rig.gic.state() == before
    assert sum(n for (device, _), n in rig.odd.by_reason.items() if device == "gicd") == 2


@pytest.mark.parametrize(
    ("offset", "size"), [(c.IAR, 1), (c.IAR, 2), (c.PMR, 1), (c.PMR + 2, 4), (c.CTLR, 8), (0x30, 4)]
)
def test_other_interface_accesses_are_raz_wi_and_reported(offset: int, size: int) -> None:
    rig = Rig()
    rig.gic.set_spi(0, True)
    before = rig.gic.state()
    assert rig.gic.cpu_interface.read(offset, size) == 0
    rig.gic.cpu_interface.write(offset, size, 0)
    assert rig.gic.state() == before
    assert sum(n for (device, _), n in rig.odd.by_reason.items() if device == "gicc") == 2


def test_direction_of_one_way_registers() -> None:
    rig = Rig()
    for offset in (c.EOIR, c.AEOIR, c.DIR):
        assert rig.cpu_read(offset) == 0
    for offset in (c.IAR, c.RPR, c.HPPIR, c.AIAR, c.AHPPIR, c.IIDR):
        rig.cpu(offset, 0)
    assert rig.dist_read(d.SGIR) == 0
    for offset in (d.TYPER, d.IIDR, 0xFE8):
        rig.dist(offset, 0)
    assert rig.odd.count == 13


# Snapshot, construction, description


def test_a_snapshot_carries_everything_and_moves_the_lines() -> None:
    rig = Rig(2)
    rig.target(SPI0, 2)
    rig.priority(SPI0, 0x20)
    rig.gic.set_spi(0, True)
    rig.dist(d.SGIR, 1 << 16 | 3, cpu=1)
    assert rig.ack(0) == 1 << 10 | 3
    saved = rig.gic.state()
    other = Rig(2, enable=False)
    other.gic.restore(saved)
    assert other.edges == [("irq", 1, True)]
    assert other.cpu_read(c.RPR, 0) == 0xA0
    assert other.ack(1) == SPI0
    assert rig.gic.state() == saved  # the copy is independent
    other.eoi(1 << 10 | 3)
    assert other.odd.count == 0


@pytest.mark.parametrize("wrong", [Rig(1), Rig(2, spis=64)])
def test_a_snapshot_of_another_gic_is_refused(wrong: Rig) -> None:
    with pytest.raises(ValueError, match="another number"):
        Rig(2).gic.restore(wrong.gic.state())


def test_a_damaged_snapshot_is_refused() -> None:
    rig = Rig()
    saved = rig.gic.state()
    saved.spi.active = -1
    with pytest.raises(ValueError, match="do not exist"):
        rig.gic.restore(saved)
    saved = rig.gic.state()
    saved.private[0].sources[2] = 256
    with pytest.raises(ValueError, match="not 8 bits"):
        rig.gic.restore(saved)


@pytest.mark.parametrize(
    ("cpus", "spis", "bits"), [(0, 32, 5), (9, 32, 5), (1, 989, 5), (1, 32, 3), (1, 32, 9)]
)
def test_impossible_gics_are_refused(cpus: int, spis: int, bits: int) -> None:
    with pytest.raises(ValueError, match="a GICv2 has"):
        Rig(cpus, enable=False, spis=spis, priority_bits=bits)


def test_wires_that_do_not_exist_are_refused() -> None:
    gic = Rig(spis=4).gic
    for spi in (-1, 4):
        with pytest.raises(ValueError, match="no SPI"):
            gic.set_spi(spi, True)
    for ppi in (11, 32):
        with pytest.raises(ValueError, match="no PPI"):
            gic.set_ppi(0, ppi, True)


def test_its_node_compiles(oracle: Callable[[str], str | None]) -> None:
    fdt = Fdt()
    fdt.prop("#address-cells", 2)
    fdt.prop("#size-cells", 2)
    fdt.prop("interrupt-parent", fdt.phandle("gic"))
    Rig().gic.fdt(fdt, GICD, GICC)
    blob = fdt.blob()
    if dtc := oracle("dtc"):
        text = subprocess.run(
            [dtc, "-q", "-I", "dtb", "-O", "dts"], input=blob, capture_output=True, check=True
        ).stdout.decode()
        assert "intc@8000000" in text
        assert "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x8010000 0x00 0x2000>" in text
