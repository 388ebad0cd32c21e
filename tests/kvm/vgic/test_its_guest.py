"""A guest that sets up an ITS by itself and takes LPIs: from INT, KVM_SIGNAL_MSI and an eventfd."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.engine import a64
from tests.kvm.native import DEVICE, VECTORS, Native, Words, out

from armkvm.abi import kvm as k
from armkvm.arch import its as g
from armkvm.arch.gic import FIRST_LPI

DIST, ITS, REDIST = 0x0800_0000, 0x0808_0000, 0x080A_0000
TABLES, TABLES_SIZE = 0x5000_0000, 0x10_0000
DEVICES, COLLECTIONS, PROPERTIES, PENDING, QUEUE, ITT = (
    TABLES + n * 0x1_0000 for n in range(6)
)  # fmt: skip
LPI, EVENT, DEVID = FIRST_LPI + 3, 2, 5
IRQ = VECTORS + 0x280
VALID = g.BASER_VALID
PREPARED, WITH_INT = 3 * g.CMD_SIZE, 4 * g.CMD_SIZE


def store(address: int, *values: int) -> list[int]:
    """64-bit words; zeroes are there already."""
    code = a64.mov(1, address)
    for n, value in enumerate(values):
        if value:
            code += [*a64.mov(2, value), a64.str_(2, 1, 8 * n)]
    return code


def store32(address: int, value: int) -> list[int]:
    return [*a64.mov(1, address), *a64.mov(2, value), 0xB900_0022]  # STR W2, [X1]


TBZ_X5_0 = 0x3600_0045  # two words on
SETUP: list[Words | int] = [
    store(REDIST + 0x70, PROPERTIES | 15), store(REDIST + 0x78, PENDING), store32(REDIST, 1),
    store(PROPERTIES, 0xA1 << 24),
    store(ITS + g.GITS_BASER, VALID | DEVICES, VALID | COLLECTIONS),
    store(ITS + g.GITS_CBASER, VALID | QUEUE), store32(ITS, 1),
    store(QUEUE, DEVID << 32 | g.CMD_MAPD, 4, VALID | ITT),
    store(QUEUE + 0x20, g.CMD_MAPC, 0, VALID | 1),
    store(QUEUE + 0x40, DEVID << 32 | g.CMD_MAPTI, LPI << 32 | EVENT, 1),
    store(QUEUE + 0x60, DEVID << 32 | g.CMD_INT, EVENT),
    a64.movz(0, 0xF0), a64.msr("ICC_PMR_EL1", 0), a64.movz(0, 1), a64.msr("ICC_IGRPEN1_EL1", 0),
    a64.ISB, *a64.mov(8, ITS + g.GITS_CWRITER),
]  # fmt: skip
# Ask the device how far the queue goes, say so to the ITS, and sleep if it ends with one more bit.
LOOP = [
    a64.daifclr(2), a64.ldr(5, DEVICE, 0x20), a64.str_(5, 8, 0), TBZ_X5_0, a64.WFI, a64.NOP,
]  # fmt: skip


class Guest:
    def __init__(self) -> None:
        self.m = m = Native(*SETUP, LOOP, a64.b(-len(LOOP)), kind="vhe-gicv3")
        take = [a64.mrs(7, "ICC_IAR1_EL1"), a64.msr("ICC_EOIR1_EL1", 7)]
        m.put(IRQ, [*take, out(7, 0x10), a64.ERET])
        m.vcpu.limit = 100_000
        self.tables = mmap.mmap(-1, TABLES_SIZE)
        m.vm.set_user_memory_region(1, TABLES, TABLES_SIZE, self.tables)
        vgic = m.vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V3)
        its = m.vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_ITS)
        assert vgic is not None
        assert its is not None
        vgic.set_device_attr(0, 2, DIST)
        vgic.set_device_attr(0, 3, REDIST)
        vgic.set_device_attr(4, 0)
        vgic.set_device_attr(1, 0, 2)  # GICD_CTLR
        its.set_device_attr(0, 4, ITS)
        its.set_device_attr(4, 0)
        assert self.event() is None
        self.answer(PREPARED)
        assert self.event() is None

    def event(self) -> int | None:
        """KVM_RUN: the interrupt that was taken, None where the guest asks."""
        m = self.m
        m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_MMIO
        return int(m.struct.mmio.value) if m.struct.mmio.is_write else None

    def answer(self, cwriter: int, *, sleep: bool = False) -> None:
        self.m.struct.mmio.value = cwriter | sleep

    def msi(self) -> int:
        return self.m.vm.signal_msi(
            ITS + g.GITS_TRANSLATER, 0, EVENT, k.KVM_MSI_VALID_DEVID, DEVID
        )


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.m.vm.close()


def test_int(guest: Guest) -> None:
    guest.answer(WITH_INT)
    assert guest.event() == LPI
    guest.answer(WITH_INT)
    assert guest.event() is None


def test_signal_msi(guest: Guest) -> None:
    for _ in range(3):
        assert guest.msi() == 1
        guest.answer(PREPARED)
        assert guest.event() == LPI
        assert guest.event() is None


def by_eventfd(guest: Guest) -> Callable[[], None]:
    address = ITS + g.GITS_TRANSLATER
    route = (9, k.KVM_IRQ_ROUTING_MSI, k.KVM_MSI_VALID_DEVID, address, 0, EVENT, DEVID)
    guest.m.vm.set_gsi_routing([route])
    event = os.eventfd(0)
    guest.m.vm.irqfd(event, 9)
    return lambda: os.eventfd_write(event, 1)


@pytest.mark.parametrize("way", ["eventfd", "ioctl"])
def test_a_sleeping_guest_is_woken(guest: Guest, way: str) -> None:
    """By another thread, while KVM_RUN is in the guest's WFI."""
    send = by_eventfd(guest) if way == "eventfd" else guest.msi
    for _ in range(2):
        timer = threading.Timer(0.05, send)
        timer.start()
        guest.answer(PREPARED, sleep=True)
        assert guest.event() == LPI
        assert guest.event() is None
        timer.join()


def test_the_guest_sees_no_active_lpi(guest: Guest) -> None:
    """Two that come at once are one: edges are not counted, and the first has been taken."""
    guest.msi()
    guest.msi()
    guest.answer(PREPARED)
    assert guest.event() == LPI
    guest.msi()
    assert guest.event() == LPI  # before the loop goes on
    assert guest.event() is None
