"""A GICv2 with its wires in reach, for the tests of its parts."""

from armkvm.arch import gic as g
from armkvm.vmm.devices.device import OddAccesses
from armkvm.vmm.irqchip import gicv2_cpu_interface as c
from armkvm.vmm.irqchip import gicv2_distributor as d
from armkvm.vmm.irqchip.gicv2 import GicV2

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
                self.cpu(c.CTLR, g.GICC_CTLR_ENABLE_GRP0 | g.GICC_CTLR_ENABLE_GRP1, cpu)
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
