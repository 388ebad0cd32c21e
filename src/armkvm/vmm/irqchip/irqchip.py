"""The machine's interrupt controller, whichever it is: what the rest of the VMM wants of one.

Devices drive lines into it, KVM's own devices report levels to it, it drives the vCPUs' lines, and
it knows how its interrupts are written in a device tree. `make` chooses by the name on the command
line: a GICv2 or a BCM2836 in user space, or one of KVM's (kernel_gic.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from armkvm.abi import kvm as k
from armkvm.arch import gic
from armkvm.vmm import board
from armkvm.vmm.board import Place
from armkvm.vmm.devices.device import Arm, Line, Region, Report
from armkvm.vmm.errors import GuestError
from armkvm.vmm.fdt import Fdt
from armkvm.vmm.irqchip.bcm2836 import CNTPNS, CNTV, CORES, SOURCE_GPU, SOURCE_PMU, Bcm2836
from armkvm.vmm.irqchip.bcm2836_armctrl import Armctrl
from armkvm.vmm.irqchip.gicv2 import MAX_CPUS, GicV2
from armkvm.vmm.irqchip.kernel_gic import MAX_REDISTRIBUTORS, KernelGic

if TYPE_CHECKING:
    from armkvm.client.kvm import KvmVm

# Devices in the kernel whose level a user-space interrupt controller sees, and their PPIs.
DEVICE_PPIS = {
    k.KVM_ARM_DEV_EL1_VTIMER: gic.PPI_VIRTUAL_TIMER,
    k.KVM_ARM_DEV_EL1_PTIMER: gic.PPI_PHYSICAL_TIMER,
    k.KVM_ARM_DEV_PMU: gic.PPI_PMU,
}
# By name on the command line: how many vCPUs it can serve, and what it is called then.
LIMITS = {
    "gicv2": (MAX_CPUS, "a GICv2 has 8 CPU interfaces"),
    "kernel-gicv2": (MAX_CPUS, "a GICv2 has 8 CPU interfaces"),
    "kernel-gicv3": (MAX_REDISTRIBUTORS, f"at most {MAX_REDISTRIBUTORS}"),
    "kernel-gicv3-its": (MAX_REDISTRIBUTORS, f"at most {MAX_REDISTRIBUTORS}"),
    "bcm2836": (CORES, "a BCM2836 has 4 cores"),
}


class Irqchip(Protocol):
    """One interrupt controller."""

    in_kernel: bool
    windows: Sequence[tuple[int, Region]]  # what it has on the bus, by address
    timer_cells: Sequence[int]  # the timer node's interrupts: secure, non-secure, virtual, hyp
    pmu_cells: Sequence[int]  # the PMU's interrupt

    def line(self, place: Place) -> Line:
        """The input that a device drives."""

    def set_device(self, cpu: int, device: int, level: bool) -> None:
        """A KVM_ARM_DEV_* of a vCPU is at another level in device_irq_level."""

    def tick(self) -> None:
        """Guest time may have passed."""

    def parts(self) -> dict[str, Any]:
        """What has a state in user space, by name: objects with state() and restore(state)."""

    def fdt(self, fdt: Fdt) -> None:
        """Its nodes. The one that board.LABEL_GIC names is the whole tree's interrupt-parent."""

    def interrupt(self, fdt: Fdt, place: Place) -> None:
        """The interrupt properties of a device's node."""

    def close(self) -> None:
        """Give everything back."""


def make(
    name: str, vm: KvmVm, cpus: int, now: Callable[[], int], arm: Arm, report: Report
) -> Irqchip:
    """The interrupt controller of that name, for a VM whose vCPUs exist. GuestError.

    `now` tells guest time in ns; `arm` sets the timer after which it is ticked.
    """
    limit, why = LIMITS[name]
    if cpus > limit:
        raise GuestError(f"{cpus} CPUs are too many: {why}")
    if name == "bcm2836":
        return RaspberryPi(vm, cpus, now, arm, report)
    if name == "gicv2":
        return UserGic(vm, cpus, report)
    version = 2 if name == "kernel-gicv2" else 3
    return KernelGic(vm, cpus, version, its=name == "kernel-gicv3-its")


class _CpuLines:
    """The vCPUs' IRQ and FIQ inputs, by KVM_IRQ_LINE."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm

    def irq(self, cpu: int, level: bool) -> None:
        """Drive a vCPU's IRQ."""
        self._vm.irq_line(k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, cpu, k.KVM_ARM_IRQ_CPU_IRQ), level)

    def fiq(self, cpu: int, level: bool) -> None:
        """Drive a vCPU's FIQ."""
        self._vm.irq_line(k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, cpu, k.KVM_ARM_IRQ_CPU_FIQ), level)


class UserGic:
    """A GICv2 in user space."""

    in_kernel = False
    timer_cells: Sequence[int] = board.TIMER_PPIS
    pmu_cells: Sequence[int] = board.PMU_PPI

    def __init__(self, vm: KvmVm, cpus: int, report: Report) -> None:
        lines = _CpuLines(vm)
        self.gic = GicV2(cpus, lines.irq, lines.fiq, spis=board.SPIS, report=report)
        self.windows: Sequence[tuple[int, Region]] = (
            (board.GICD.base, self.gic.distributor),
            (board.GICC.base, self.gic.cpu_interface),
        )

    def line(self, place: Place) -> Line:
        return self.gic.spi_line(board.spi(place))

    def set_device(self, cpu: int, device: int, level: bool) -> None:
        self.gic.set_ppi(cpu, DEVICE_PPIS[device], level)

    def tick(self) -> None:
        """It has no timer."""

    def parts(self) -> dict[str, Any]:
        return {"gicv2": self.gic}

    def fdt(self, fdt: Fdt) -> None:
        self.gic.fdt(fdt, board.GICD, board.GICC)

    def interrupt(self, fdt: Fdt, place: Place) -> None:
        board.interrupt_fdt(fdt, place)

    def close(self) -> None:
        """It has nothing to give back."""


class RaspberryPi:
    """The two interrupt controllers of a BCM2836, where the GIC's windows would be.

    The board's devices are the GPU's here, each at the interrupt that its place says.
    """

    in_kernel = False
    LOCAL = Place(0x0800_0000, Bcm2836.size)
    ARMCTRL = Place(0x0801_0000, Armctrl.size)
    LABEL_ARMCTRL = "armctrl"

    # An interrupt's number is its bit in the source register, where the hypervisor's timer comes
    # before the virtual one.
    timer_cells: Sequence[int] = tuple(
        cell for bit in (0, 1, 3, 2) for cell in (bit, board.IRQ_LEVEL_HIGH)
    )
    pmu_cells: Sequence[int] = (SOURCE_PMU, board.IRQ_LEVEL_HIGH)

    def __init__(
        self, vm: KvmVm, cpus: int, now: Callable[[], int], arm: Arm, report: Report
    ) -> None:
        lines = _CpuLines(vm)
        self.local = Bcm2836(cpus, lines.irq, lines.fiq, now, arm, report=report)
        self.armctrl = Armctrl(self.local.set_gpu_irq, self.local.set_gpu_fiq, report=report)
        self.windows: Sequence[tuple[int, Region]] = (
            (self.LOCAL.base, self.local),
            (self.ARMCTRL.base, self.armctrl),
        )

    def line(self, place: Place) -> Line:
        number = board.gpu_irq(place)
        return lambda level: self.armctrl.set_gpu(number, level)

    def set_device(self, cpu: int, device: int, level: bool) -> None:
        match device:
            case k.KVM_ARM_DEV_EL1_VTIMER:
                self.local.set_timer(cpu, CNTV, level)
            case k.KVM_ARM_DEV_EL1_PTIMER:
                self.local.set_timer(cpu, CNTPNS, level)
            case k.KVM_ARM_DEV_PMU:
                self.local.set_pmu(cpu, level)

    def tick(self) -> None:
        self.local.tick()

    def parts(self) -> dict[str, Any]:
        return {"bcm2836": self.local, "armctrl": self.armctrl}

    def fdt(self, fdt: Fdt) -> None:
        """By bindings/interrupt-controller/brcm,bcm2836-l1-intc and brcm,bcm2835-armctrl-ic."""
        for place, chip, label in (
            (self.LOCAL, "brcm,bcm2836-l1-intc", board.LABEL_GIC),
            (self.ARMCTRL, "brcm,bcm2836-armctrl-ic", self.LABEL_ARMCTRL),
        ):
            with fdt.node(f"interrupt-controller@{place.base:x}"):
                fdt.prop("compatible", chip)
                fdt.reg(place.base, place.size)
                fdt.prop("interrupt-controller")
                fdt.prop("#interrupt-cells", 2)
                fdt.prop("#address-cells", 0)
                fdt.prop("phandle", fdt.phandle(label))
                if label == self.LABEL_ARMCTRL:
                    fdt.prop("interrupts", SOURCE_GPU, board.IRQ_LEVEL_HIGH)

    def interrupt(self, fdt: Fdt, place: Place) -> None:
        number = board.gpu_irq(place)
        fdt.prop("interrupt-parent", fdt.phandle(self.LABEL_ARMCTRL))
        fdt.prop("interrupts", 1 + (number >> 5), number & 31)

    def close(self) -> None:
        """It has nothing to give back."""
