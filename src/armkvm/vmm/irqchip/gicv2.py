"""GICv2, the generic interrupt controller of the board, in user space.

Mirrors the GICv2 architecture specification (ARM IHI 0048B): a Distributor (gicv2_distributor.py),
up to 8 CPU interfaces (gicv2_cpu_interface.py), both interrupt groups, no Security Extensions, up
to 988 SPIs (IDs 32-1019). It looks like a GIC-400 without the virtualization half, and with 5
bits of priority, which is also what KVM's own GICv2 has. Left out: GICH/GICV, legacy bypass,
GICv2m.

This file wires the parts and maps them to two windows of the bus. An access narrower or wider
than the register allows, or not naturally aligned, is RAZ/WI and reported (section 4.1.4).

Threat model: see the parts. Everything a guest can reach through the windows ends in masked
integers of fixed size; the only calls out are the IRQ and FIQ lines, on changes of level.
"""

from collections.abc import Callable
from dataclasses import dataclass

from armkvm.vmm.board import LABEL_GIC, Place
from armkvm.vmm.devices.device import Line, OddAccess, Report, unreported
from armkvm.vmm.fdt import Fdt
from armkvm.vmm.irqchip.gicv2_bank import SGIS, BankState
from armkvm.vmm.irqchip.gicv2_cpu_interface import CpuInterface, CpuInterfaceState
from armkvm.vmm.irqchip.gicv2_distributor import PRIVATE, SPI_LIMIT, Candidate, Distributor

MAX_CPUS = 8

# A CPU's interrupt input: (cpu, level).
CpuLine = Callable[[int, bool], None]


@dataclass(slots=True)
class GicV2State:
    """Everything that a snapshot of the GIC holds."""

    ctlr: int
    private: list[BankState]  # by CPU: SGIs and PPIs
    spi: BankState
    targets: list[int]  # by SPI: the CPUs, as in GICD_ITARGETSR
    interfaces: list[CpuInterfaceState]  # by CPU


class GicV2:
    """``set_irq(cpu, level)`` and ``set_fiq(cpu, level)`` are called on changes of level only.

    ``distributor`` and ``cpu_interface`` are the two regions for the bus.
    """

    def __init__(
        self,
        cpus: int,
        set_irq: CpuLine,
        set_fiq: CpuLine,
        *,
        spis: int = 256,
        priority_bits: int = 5,
        report: Report = unreported,
    ) -> None:
        if not 1 <= cpus <= MAX_CPUS:
            raise ValueError(f"a GICv2 has 1 to {MAX_CPUS} CPU interfaces, not {cpus}")
        if not 0 <= spis <= SPI_LIMIT:
            raise ValueError(f"a GICv2 has at most {SPI_LIMIT} SPIs, not {spis}")
        if not 4 <= priority_bits <= 8:
            raise ValueError(f"a GICv2 has 4 to 8 bits of priority, not {priority_bits}")
        self.cpus, self.spis = cpus, spis
        self._distributor = Distributor(cpus, spis, priority_bits=priority_bits)
        self.distributor = DistributorWindow(self._distributor, report)
        self.cpu_interface = CpuInterfaceWindow(report)
        self._interfaces = self.cpu_interface.interfaces
        for cpu in range(cpus):
            self._interfaces.append(
                CpuInterface(
                    cpu,
                    self._distributor,
                    _bound(set_irq, cpu),
                    _bound(set_fiq, cpu),
                    self.cpu_interface.odd,
                    priority_bits=priority_bits,
                )
            )
        self._distributor.present = self._present

    # Interrupt inputs

    def set_spi(self, spi: int, level: bool) -> None:
        """The level at an SPI's input. SPI n has interrupt ID 32 + n."""
        if not 0 <= spi < self.spis:
            raise ValueError(f"no SPI {spi}")
        self._distributor.set_spi(spi, level)

    def set_ppi(self, cpu: int, ppi: int, level: bool) -> None:
        """The level at a CPU's PPI input, by interrupt ID: 16 to 31."""
        if not SGIS <= ppi < PRIVATE:
            raise ValueError(f"no PPI {ppi}")
        self._distributor.set_private(cpu, ppi, level)

    def spi_line(self, spi: int) -> Line:
        """An SPI's input as a one-method trigger."""
        return lambda level: self.set_spi(spi, level)

    # Outputs

    def irq(self, cpu: int) -> bool:
        """The level of a CPU's IRQ."""
        return self._interfaces[cpu].irq

    def fiq(self, cpu: int) -> bool:
        """The level of a CPU's FIQ."""
        return self._interfaces[cpu].fiq

    def _present(self, cpu: int, candidate: Candidate) -> None:
        self._interfaces[cpu].present(candidate)

    # Snapshot and description

    def state(self) -> GicV2State:
        d = self._distributor
        return GicV2State(
            ctlr=d.ctlr,
            private=[bank.state.copy() for bank in d.private],
            spi=d.spi.state.copy(),
            targets=list(d.targets),
            interfaces=[interface.state.copy() for interface in self._interfaces],
        )

    def restore(self, state: GicV2State) -> None:
        """Take over a snapshot; the outputs are moved to where they belong.

        ValueError when it is of a GIC with other numbers of CPUs or interrupts; the GIC must not
        be used after that.
        """
        d = self._distributor
        if not len(state.private) == len(state.interfaces) == self.cpus:
            raise ValueError("gicv2 snapshot: another number of CPUs")
        if len(state.targets) != self.spis:
            raise ValueError("gicv2 snapshot: another number of SPIs")
        d.ctlr = state.ctlr & 3
        for bank, bank_state in zip(d.private, state.private, strict=True):
            bank.restore(bank_state)
        d.spi.restore(state.spi)
        if self.cpus > 1:
            d.targets = [targets & (1 << self.cpus) - 1 for targets in state.targets]
            d.route()
        for interface, interface_state in zip(self._interfaces, state.interfaces, strict=True):
            interface.restore(interface_state)
        d.refresh_all()

    def fdt(self, fdt: Fdt, distributor: Place, cpu_interface: Place) -> None:
        with fdt.node(f"intc@{distributor.base:x}"):
            fdt.prop("compatible", "arm,cortex-a15-gic")
            fdt.prop("#interrupt-cells", 3)
            fdt.prop("interrupt-controller")
            fdt.prop("#address-cells", 0)
            fdt.reg(distributor.base, distributor.size, cpu_interface.base, cpu_interface.size)
            fdt.prop("phandle", fdt.phandle(LABEL_GIC))


class DistributorWindow:
    """GICD on the bus: 64 KiB, of which the first 4 are registers."""

    name = "gicd"
    size = 0x1_0000

    def __init__(self, distributor: Distributor, report: Report) -> None:
        self._distributor = distributor
        self._report = report

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        value = None
        if not offset & (size - 1):
            if size == 4:
                value = self._distributor.read(offset, cpu)
            elif size < 4:
                value = self._distributor.read_bytes(offset, size, cpu)
        if value is None:
            why = "width or alignment" if size != 4 or offset & 3 else "no such register to read"
            self._report(OddAccess(self.name, offset, size, cpu, None, why))
            return 0
        return value

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        done = False
        if not offset & (size - 1):
            if size == 4:
                done = self._distributor.write(offset, value & 0xFFFF_FFFF, cpu)
            elif size < 4:
                done = self._distributor.write_bytes(offset, size, value, cpu)
        if not done:
            why = "width or alignment" if size != 4 or offset & 3 else "no such register to write"
            self._report(OddAccess(self.name, offset, size, cpu, value, why))


class CpuInterfaceWindow:
    """GICC on the bus: 8 KiB; each CPU sees its own."""

    name = "gicc"
    size = 0x2000

    def __init__(self, report: Report) -> None:
        self._report = report
        self.interfaces: list[CpuInterface] = []
        # The access being served: offset, size, cpu, value.
        self._at: tuple[int, int, int, int | None] = (0, 0, 0, None)

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        self._at = (offset, size, cpu, None)
        if size != 4 or offset & 3:
            self.odd("width or alignment")
            return 0
        value = self.interfaces[cpu].read(offset)
        if value is None:
            self.odd("no such register to read")
            return 0
        return value

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        self._at = (offset, size, cpu, value)
        if size != 4 or offset & 3:
            self.odd("width or alignment")
        elif not self.interfaces[cpu].write(offset, value & 0xFFFF_FFFF):
            self.odd("no such register to write")

    def odd(self, why: str) -> None:
        """Report the access being served."""
        offset, size, cpu, value = self._at
        self._report(OddAccess(self.name, offset, size, cpu, value, why))


def _bound(line: CpuLine, cpu: int) -> Line:
    return lambda level: line(cpu, level)
