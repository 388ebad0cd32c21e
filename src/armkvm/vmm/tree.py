"""The device tree of a machine: the root, /chosen and /memory; everything else describes itself.

By the Devicetree Specification and Documentation/devicetree/bindings of Linux. What /chosen has for
the guest's random numbers is a function of the machine's seed. Left out: memory reservations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from armkvm import __version__
from armkvm.vmm import board
from armkvm.vmm.cpus import cpus_fdt, pmu_fdt
from armkvm.vmm.devices.platform import Fitted
from armkvm.vmm.fdt import Fdt, u64
from armkvm.vmm.irqchip.irqchip import Irqchip


@dataclass(frozen=True)
class Tree:
    """What is described. `midr` is the CPUs'; `initrd` is its begin and end, in guest memory."""

    params: str
    seed: int
    mem_bytes: int
    initrd: tuple[int, int] | None
    cpus: int
    midr: int
    pmu: bool
    irqchip: Irqchip
    devices: Sequence[Fitted]

    def blob(self) -> bytes:
        """The tree, flattened."""
        fdt = Fdt()
        fdt.prop("#address-cells", 2)
        fdt.prop("#size-cells", 2)
        fdt.prop("compatible", "linux,dummy-virt")
        fdt.prop("model", f"armkvm {__version__}")
        fdt.prop("interrupt-parent", fdt.phandle(board.LABEL_GIC))
        self._chosen(fdt)
        with fdt.node(f"memory@{board.RAM_BASE:x}"):
            fdt.prop("device_type", "memory")
            fdt.reg(board.RAM_BASE, self.mem_bytes)
        cpus_fdt(fdt, self.midr, self.cpus)
        if self.pmu:
            pmu_fdt(fdt, self.irqchip.pmu_cells)
        board.timer_fdt(fdt, self.irqchip.timer_cells)
        board.apb_clock_fdt(fdt)
        self.irqchip.fdt(fdt)
        for fitted in self.devices:
            fitted.device.fdt(fdt, fitted.place, self.irqchip.interrupt)
        return fdt.blob()

    def _chosen(self, fdt: Fdt) -> None:
        with fdt.node("chosen"):
            fdt.prop("bootargs", self.params)
            fdt.prop("kaslr-seed", self._random("kaslr-seed", 8))
            fdt.prop("rng-seed", self._random("rng-seed", 32))
            for fitted in self.devices:
                if fitted.stdout:
                    fdt.prop("stdout-path", f"/{fitted.name}@{fitted.place.base:x}")
            if self.initrd is not None:
                start, end = self.initrd
                fdt.prop("linux,initrd-start", *u64(start))
                fdt.prop("linux,initrd-end", *u64(end))

    def _random(self, purpose: str, size: int) -> bytes:
        """What a boot loader gives the guest to begin with."""
        return hashlib.shake_256(f"armkvm {purpose} {self.seed}".encode()).digest(size)
