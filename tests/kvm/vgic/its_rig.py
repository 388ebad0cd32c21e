"""A VM with a GICv3, an ITS and guest memory with all that a guest gives an ITS."""

from __future__ import annotations

import mmap

from tests.kvm.vgic.vgic_rig import VgicRig

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.arch import its as g
from armkvm.arch.gic import FIRST_LPI
from armkvm.kvm.vgic.irq import VgicIrq
from armkvm.kvm.vgic.its_device import VgicIts

ITS = 0x0808_0000
RAM, RAM_SIZE = 0x4000_0000, 0x10_0000
DEVICES, COLLECTIONS, SECOND_LEVEL = RAM + 0x1_0000, RAM + 0x2_0000, RAM + 0x3_0000
PROPERTIES, PENDING = RAM + 0x4_0000, RAM + 0x5_0000  # a pending table for each vCPU
QUEUE, ITT = RAM + 0x9_0000, RAM + 0xA_0000
QUEUE_SIZE = 0x1_0000
LPI = FIRST_LPI
GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER = 0x000, 0x070, 0x078
REDIST = 0x080A_0000
PRIORITY = 0xA0


def command(number: int, w0: int = 0, w1: int = 0, w2: int = 0, w3: int = 0) -> bytes:
    words = (number | w0 << 32, w1, w2, w3)
    return b"".join((w & 2**64 - 1).to_bytes(8, "little") for w in words)


def mapd(device: int, itt: int = ITT, bits: int = 5, *, valid: bool = True) -> bytes:
    return command(g.CMD_MAPD, device, bits - 1, valid << 63 | itt)


def mapc(collection: int, target: int = 0, *, valid: bool = True) -> bytes:
    return command(g.CMD_MAPC, 0, 0, valid << 63 | target << 16 | collection)


def mapti(device: int, event: int, intid: int, collection: int = 0) -> bytes:
    return command(g.CMD_MAPTI, device, intid << 32 | event, collection)


def mapi(device: int, event: int, collection: int = 0) -> bytes:
    return command(g.CMD_MAPI, device, event, collection)


def movi(device: int, event: int, collection: int) -> bytes:
    return command(g.CMD_MOVI, device, event, collection)


def of_event(number: int, device: int, event: int) -> bytes:
    """DISCARD, INT, CLEAR, INV."""
    return command(number, device, event)


def invall(collection: int = 0) -> bytes:
    return command(g.CMD_INVALL, 0, 0, collection)


def movall(source: int, target: int) -> bytes:
    return command(g.CMD_MOVALL, 0, 0, source << 16, target << 16)


class ItsRig(VgicRig):
    """Two vCPUs. `bare`: an ITS that has an address, and nothing else."""

    def __init__(self, *, cpus: int = 2, bare: bool = False, indirect: bool = False) -> None:
        super().__init__(3, cpus)
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self.vm.set_user_memory_region(0, RAM, RAM_SIZE, self.memory)
        its = self.vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_ITS)
        assert isinstance(its, VgicIts)
        self.its_device, self.its = its, its.its
        its.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, a.KVM_VGIC_ITS_ADDR_TYPE, ITS)
        if not bare:
            self.set_up(indirect=indirect)

    def set_up(self, *, indirect: bool = False) -> None:
        """As a guest does: tables, queue, then the switches."""
        self.fill(PROPERTIES, bytes([PRIORITY | g.LPI_PROP_ENABLED]) * 0xE000)
        for cpu in range(len(self.vcpus)):
            self.redist_write(GICR_PROPBASER, PROPERTIES | 15, cpu, length=8)
            self.redist_write(GICR_PENDBASER, PENDING + cpu * 0x1_0000, cpu, length=8)
            self.redist_write(GICR_CTLR, 1, cpu)
        first = DEVICES
        if indirect:
            self.fill(DEVICES, (g.BASER_VALID | SECOND_LEVEL).to_bytes(8, "little"))
            first |= g.GITS_BASER_INDIRECT
        self.write(g.GITS_BASER, g.BASER_VALID | first)
        self.write(g.GITS_BASER + 8, g.BASER_VALID | COLLECTIONS)
        self.write(g.GITS_CBASER, g.BASER_VALID | QUEUE | 15)
        self.write(g.GITS_CTLR, g.GITS_CTLR_ENABLE, length=4)

    # the ITS's registers, by the guest and by user space

    def read(self, offset: int, length: int = 8) -> int:
        value = self.vm.mmio_bus.read(self.vcpus[0], ITS + offset, length)
        assert value is not None
        return value

    def write(self, offset: int, value: int, length: int = 8) -> None:
        assert self.vm.mmio_bus.write(self.vcpus[0], ITS + offset, length, value)

    def get(self, offset: int) -> int:
        return self.its_device.get_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset)

    def set(self, offset: int, value: int) -> None:
        self.its_device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS, offset, value)

    def ctrl(self, attr: int) -> None:
        self.its_device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, attr)

    def save(self) -> None:
        """Everything that lies in memory afterwards."""
        self.ctrl(a.KVM_DEV_ARM_ITS_SAVE_TABLES)
        self.device.set_device_attr(
            a.KVM_DEV_ARM_VGIC_GRP_CTRL, a.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES
        )

    def restore(self) -> None:
        self.ctrl(a.KVM_DEV_ARM_ITS_RESTORE_TABLES)

    # a redistributor's, by the guest

    def redist(self, offset: int, cpu: int = 0, length: int = 4) -> int:
        value = self.vm.mmio_bus.read(self.vcpus[0], REDIST + cpu * 0x2_0000 + offset, length)
        assert value is not None
        return value

    def redist_write(self, offset: int, value: int, cpu: int = 0, length: int = 4) -> None:
        at = REDIST + cpu * 0x2_0000 + offset
        assert self.vm.mmio_bus.write(self.vcpus[0], at, length, value)

    # guest memory

    def fill(self, address: int, data: bytes) -> None:
        self.memory[address - RAM : address - RAM + len(data)] = data

    def at(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.memory[address - RAM : address - RAM + size], "little")

    def prop(self, intid: int, value: int) -> None:
        self.fill(PROPERTIES + intid - LPI, bytes([value]))

    # what it does

    def commands(self, *commands: bytes) -> None:
        """Put them into the queue and wait."""
        at = self.read(g.GITS_CWRITER)
        for raw in commands:
            self.fill(QUEUE + at, raw)
            at = (at + g.CMD_SIZE) % QUEUE_SIZE
        self.write(g.GITS_CWRITER, at)
        assert self.read(g.GITS_CREADR) == at

    def mapped(self, intid: int = LPI, target: int = 0) -> VgicIrq:
        """Event 0 of device 0, by way of collection 0."""
        self.commands(mapd(0), mapc(0, target), mapti(0, 0, intid))
        return self.irq(intid)

    def msi(self, device: int = 0, event: int = 0, address: int = ITS + g.GITS_TRANSLATER) -> int:
        return self.vm.signal_msi(address, 0, event, k.KVM_MSI_VALID_DEVID, device)

    def lpis(self) -> dict[int, VgicIrq]:
        return self.vm.vgic.lpis

    def close(self) -> None:
        self.its_device.close()
        super().close()
