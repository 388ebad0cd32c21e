"""The interrupt controller in the kernel, as a VMM sets it up: a GICv2, or a GICv3 with or without
an ITS.

Made after the vCPUs and before the first of them runs, through the device's attributes
(Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst, arm-vgic-its.rst). Devices drive
their SPIs with KVM_IRQ_LINE; timers and the PMU are in the kernel too, so nothing of them is seen
here. No device of this board sends MSIs: the ITS is for who adds one. Addresses are those of QEMU's
virt machine. kernel_gic_state.py saves and restores it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from armkvm.abi import kvm as k
from armkvm.abi import vgic
from armkvm.vmm import board
from armkvm.vmm.devices.device import Line, Region
from armkvm.vmm.errors import GuestError

if TYPE_CHECKING:
    from armkvm.client.kvm import KvmDevice, KvmVm
    from armkvm.vmm.fdt import Fdt

ITS = board.Place(0x0808_0000, vgic.KVM_VGIC_V3_ITS_SIZE)
# The first redistributor, where QEMU's virt machine has it; room for 123 of them.
REDISTRIBUTORS = board.Place(0x080A_0000, 0xF6_0000)
MAX_REDISTRIBUTORS = REDISTRIBUTORS.size // vgic.KVM_VGIC_V3_REDIST_SIZE


class KernelGic:
    """A vgic of a VM, initialised. `version` is 2 or 3; GuestError where the host has none.

    A GICv3 may have an ITS.
    """

    in_kernel = True
    windows: Sequence[tuple[int, Region]] = ()  # they are KVM's
    timer_cells: Sequence[int] = board.TIMER_PPIS
    pmu_cells: Sequence[int] = board.PMU_PPI

    def __init__(
        self, vm: KvmVm, cpus: int, version: int, spis: int = board.SPIS, *, its: bool = False
    ) -> None:
        self.vm = vm
        self.cpus = cpus
        self.version = version
        self.high: set[int] = set()  # INTIDs of the lines that devices hold high
        v2 = version == 2
        kind = k.KVM_DEV_TYPE_ARM_VGIC_V2 if v2 else k.KVM_DEV_TYPE_ARM_VGIC_V3
        self.device = device = _create(vm, kind, f"GICv{version}")
        addresses = (
            (
                (vgic.KVM_VGIC_V2_ADDR_TYPE_DIST, board.GICD.base),
                (vgic.KVM_VGIC_V2_ADDR_TYPE_CPU, board.GICC.base),
            )
            if v2
            else (
                (vgic.KVM_VGIC_V3_ADDR_TYPE_DIST, board.GICD.base),
                (vgic.KVM_VGIC_V3_ADDR_TYPE_REDIST, REDISTRIBUTORS.base),
            )
        )
        device.set_device_attr(vgic.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 32 + spis)
        for kind_of_frame, base in addresses:
            device.set_device_attr(vgic.KVM_DEV_ARM_VGIC_GRP_ADDR, kind_of_frame, base)
        device.set_device_attr(
            vgic.KVM_DEV_ARM_VGIC_GRP_CTRL, vgic.KVM_DEV_ARM_VGIC_CTRL_INIT
        )
        self.its = _make_its(vm) if its else None

    def line(self, place: board.Place) -> Line:
        """An SPI's input as a one-method trigger."""
        intid = 32 + board.spi(place)
        word = k.irq_word(k.KVM_ARM_IRQ_TYPE_SPI, 0, intid)

        def drive(level: bool) -> None:
            (self.high.add if level else self.high.discard)(intid)
            self.vm.irq_line(word, level)

        return drive

    def set_device(self, cpu: int, device: int, level: bool) -> None:
        """The kernel's devices drive their PPIs themselves, and report no levels."""
        raise AssertionError(f"device {device} of CPU {cpu} went to {level} in user space")

    def tick(self) -> None:
        """Its timers are the kernel's."""

    def parts(self) -> dict[str, Any]:
        """Nothing of it is in user space."""
        return {}

    def fdt(self, fdt: Fdt) -> None:
        """The node, by bindings/interrupt-controller/arm,gic.yaml and arm,gic-v3.yaml."""
        v2 = self.version == 2
        second = board.GICC if v2 else REDISTRIBUTORS
        with fdt.node(f"intc@{board.GICD.base:x}"):
            fdt.prop("compatible", "arm,cortex-a15-gic" if v2 else "arm,gic-v3")
            fdt.prop("#interrupt-cells", 3)
            fdt.prop("interrupt-controller")
            fdt.prop("#address-cells", 2 if self.its else 0)
            fdt.reg(board.GICD.base, board.GICD.size, second.base, second.size)
            fdt.prop("phandle", fdt.phandle(board.LABEL_GIC))
            if self.its is not None:
                _its_fdt(fdt)

    def interrupt(self, fdt: Fdt, place: board.Place) -> None:
        """As behind any GIC."""
        board.interrupt_fdt(fdt, place)

    def close(self) -> None:
        """Close the devices' files; the VM keeps the interrupt controller."""
        self.device.close()
        if self.its is not None:
            self.its.close()


def _create(vm: KvmVm, kind: int, name: str) -> KvmDevice:
    """A device of KVM's. GuestError: this KVM has none."""
    try:
        device = vm.create_device(kind)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise GuestError(f"this host's KVM has no {name} for guests") from None
    assert device is not None
    return device


def _make_its(vm: KvmVm) -> KvmDevice:
    its = _create(vm, k.KVM_DEV_TYPE_ARM_VGIC_ITS, "ITS")
    its.set_device_attr(vgic.KVM_DEV_ARM_VGIC_GRP_ADDR, vgic.KVM_VGIC_ITS_ADDR_TYPE, ITS.base)
    its.set_device_attr(vgic.KVM_DEV_ARM_VGIC_GRP_CTRL, vgic.KVM_DEV_ARM_VGIC_CTRL_INIT)
    return its


def _its_fdt(fdt: Fdt) -> None:
    """The ITS is a child of the GIC's node, at an address of its own."""
    fdt.prop("#size-cells", 2)
    fdt.prop("ranges")
    with fdt.node(f"its@{ITS.base:x}"):
        fdt.prop("compatible", "arm,gic-v3-its")
        fdt.prop("msi-controller")
        fdt.prop("#msi-cells", 1)
        fdt.reg(ITS.base, ITS.size)
