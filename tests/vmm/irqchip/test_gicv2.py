"""GICv2 as a whole (ARM IHI 0048B): identification, access widths, snapshot, device tree."""

import subprocess
from collections.abc import Callable

import pytest
from tests.vmm.irqchip.gicv2_rig import SPI0, Rig

from armkvm.vmm.board import GICC, GICD
from armkvm.vmm.fdt import Fdt
from armkvm.vmm.irqchip import gicv2_cpu_interface as c
from armkvm.vmm.irqchip import gicv2_distributor as d

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
