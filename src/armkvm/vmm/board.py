"""The board: what is there beside the devices, by QEMU's virt machine. They say where they are.

Addresses and interrupt numbers agree with QEMU's hw/arm/virt.c where both have the device, so
that a guest built for that machine finds its console. The GIC's CPU interface is its 8 KiB, not
QEMU's 64 KiB window. Left out: flash, fw_cfg, PCI, GPIO, secure devices.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from armkvm.arch.gic import (
    GICC_SIZE,
    PPI_HYP_TIMER,
    PPI_PHYSICAL_TIMER,
    PPI_PMU,
    PPI_SECURE_PHYSICAL_TIMER,
    PPI_VIRTUAL_TIMER,
)
from armkvm.vmm.fdt import Fdt


class Place(NamedTuple):
    """A device's window and its interrupts: the SPI behind a GIC (counted from 0, as in the device
    tree's second cell), the GPU's interrupt behind a BCM2836."""

    base: int
    size: int
    spi: int | None = None
    gpu_irq: int | None = None


GICD = Place(0x0800_0000, 0x1_0000)
GICC = Place(0x0801_0000, GICC_SIZE)

# SPIs of the interrupt controller. QEMU's virt has 256.
SPIS = 256

RAM_BASE = 0x4000_0000
# A flat binary is loaded where QEMU puts one; a Linux Image needs a 2 MiB boundary
# (Documentation/arch/arm64/booting.rst).
FLAT_BASE = 0x4008_0000
KERNEL_BASE = 0x4020_0000

# First and third cell of an interrupt specifier (bindings/interrupt-controller/arm,gic.yaml).
FDT_SPI = 0
FDT_PPI = 1
IRQ_EDGE_RISING = 1
IRQ_LEVEL_HIGH = 4

# Labels of nodes to which others refer.
LABEL_GIC = "gic"
LABEL_APB_CLOCK = "apb-pclk"

APB_CLOCK_HZ = 24_000_000


# The timers' interrupts behind a GIC: secure, non-secure, virtual, hypervisor.
TIMER_PPIS = tuple(
    cell
    for ppi in (
        PPI_SECURE_PHYSICAL_TIMER, PPI_PHYSICAL_TIMER, PPI_VIRTUAL_TIMER, PPI_HYP_TIMER,
    )
    for cell in (FDT_PPI, ppi - 16, 0x100 | IRQ_LEVEL_HIGH)
)  # fmt: skip

# The PMU's, there.
PMU_PPI = (FDT_PPI, PPI_PMU - 16, 0x100 | IRQ_LEVEL_HIGH)


def timer_fdt(fdt: Fdt, cells: Sequence[int] = TIMER_PPIS) -> None:
    """The architected timers (bindings/timer/arm,arch_timer.yaml)."""
    with fdt.node("timer"):
        fdt.prop("compatible", "arm,armv8-timer")
        fdt.prop("interrupts", *cells)
        fdt.prop("always-on")


def apb_clock_fdt(fdt: Fdt) -> None:
    """The fixed clock that the PrimeCells name as theirs: Linux's amba bus wants one."""
    with fdt.node("apb-pclk"):
        fdt.prop("compatible", "fixed-clock")
        fdt.prop("#clock-cells", 0)
        fdt.prop("clock-frequency", APB_CLOCK_HZ)
        fdt.prop("clock-output-names", "clk24mhz")
        fdt.prop("phandle", fdt.phandle(LABEL_APB_CLOCK))


def spi(place: Place) -> int:
    """The SPI of a device that has one."""
    assert place.spi is not None
    return place.spi


def gpu_irq(place: Place) -> int:
    """The GPU's interrupt of a device that has one."""
    assert place.gpu_irq is not None
    return place.gpu_irq


# How an interrupt controller describes a device's interrupt in the device's node.
Describe = Callable[[Fdt, Place], None]


def interrupt_fdt(fdt: Fdt, place: Place) -> None:
    """The ``interrupts`` property of a device with a level-sensitive SPI of a GIC."""
    if place.spi is not None:
        fdt.prop("interrupts", FDT_SPI, place.spi, IRQ_LEVEL_HIGH)
