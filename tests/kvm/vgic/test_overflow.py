"""More active interrupts than list registers: a guest that deactivates later than it ends."""

from __future__ import annotations

import pytest
from tests.engine import a64
from tests.kvm.native import DEVICE, VECTORS, Native, out

from armkvm.abi import kvm as k

CPUIF, FRAME, SPI, COUNT = 26, 0x0801_0000, 40, 8
GICD_CTLR, GICD_ISENABLER, GICD_ISACTIVER = 0x0, 0x100, 0x300
IRQ = VECTORS + 0x280
DIST_REGS, CTRL_INIT = 1, (4, 0)


def ldrw(rt: int, rn: int, offset: int) -> int:
    return 0xB940_0000 | offset // 4 << 10 | rn << 5 | rt


def strw(rt: int, rn: int, offset: int) -> int:
    return 0xB900_0000 | offset // 4 << 10 | rn << 5 | rt


# How a guest sets EOImode and enables its interface, acknowledges into X7, ends that, deactivates
# X5: by system registers, or in a GICv2's frame.
V3 = (
    [
        a64.movz(0, 0xF0), a64.msr("ICC_PMR_EL1", 0), a64.movz(0, 2), a64.msr("ICC_CTLR_EL1", 0),
        a64.movz(0, 1), a64.msr("ICC_IGRPEN1_EL1", 0), a64.ISB,
    ],
    a64.mrs(7, "ICC_IAR1_EL1"), a64.msr("ICC_EOIR1_EL1", 7), [a64.msr("ICC_DIR_EL1", 5)],
)  # fmt: skip
V2 = (
    [
        *a64.mov(CPUIF, FRAME), a64.movz(0, 0xF0), strw(0, CPUIF, 4),
        a64.movz(0, 0x201), strw(0, CPUIF, 0),
    ],
    ldrw(7, CPUIF, 0xC), strw(7, CPUIF, 0x10), [*a64.mov(6, FRAME + 0x1000), strw(5, 6, 0)],
)  # fmt: skip


class Guest:
    """It reports each interrupt that it takes, and deactivates those that the device names."""

    def __init__(self, version: int, *, level: bool) -> None:
        setup, ack, drop, deactivate = V3 if version == 3 else V2
        read = a64.ldr(5, DEVICE, 0x20)
        loop = [a64.daifclr(2), a64.NOP, read, *deactivate]
        self.m = Native(
            setup, loop, a64.b(-len(loop)), kind=("nvhe-gicv2", "vhe-gicv3")[version - 2]
        )
        m = self.m
        m.put(IRQ, [ack, drop, out(7, 0x10), a64.ERET])
        m.vcpu.limit = 100_000
        kinds = {2: k.KVM_DEV_TYPE_ARM_VGIC_V2, 3: k.KVM_DEV_TYPE_ARM_VGIC_V3}
        device = m.vm.create_device(kinds[version])
        assert device is not None
        self.device = device
        first = 0 if version == 2 else 2
        device.set_device_attr(0, first, 0x0800_0000)
        device.set_device_attr(0, first + 1, FRAME if version == 2 else 0x080A_0000)
        device.set_device_attr(*CTRL_INIT)
        device.set_device_attr(DIST_REGS, GICD_CTLR, version - 1)
        device.set_device_attr(DIST_REGS, GICD_ISENABLER + 4, (1 << COUNT) - 1 << SPI - 32)
        if version == 2:
            for n in range(0, COUNT, 4):  # priorities the same, this CPU the target
                device.set_device_attr(DIST_REGS, 0x800 + SPI + n, 0x0101_0101)
        if not level:
            device.set_device_attr(DIST_REGS, 0xC00 + SPI // 16 * 4, 0xAAAA_0000)  # ICFGR

    def line(self, n: int, level: int) -> None:
        self.m.vm.irq_line(k.irq_word(k.KVM_ARM_IRQ_TYPE_SPI, 0, SPI + n), level)

    def event(self) -> int | None:
        """KVM_RUN: the interrupt that was taken, None where the guest asks what to deactivate."""
        m = self.m
        m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_MMIO
        return m.struct.mmio.value - SPI if m.struct.mmio.is_write else None

    def active(self) -> int:
        """Which of ours are active, as user space sees it."""
        return self.device.get_device_attr(DIST_REGS, GICD_ISACTIVER + 4) >> SPI - 32


@pytest.mark.parametrize("level", [True, False], ids=["level", "edge"])
@pytest.mark.parametrize("version", [2, 3])
def test_all_are_delivered_and_each_is_deactivated(version: int, level: bool) -> None:
    guest = Guest(version, level=level)
    assert guest.event() is None
    for n in range(COUNT):
        guest.line(n, 1)
        guest.m.struct.mmio.value = 1023  # nothing to deactivate
        while (seen := guest.event()) is None:
            guest.m.struct.mmio.value = 1023
        assert seen == n
    guest.m.struct.mmio.value = 0
    assert guest.event() is None
    assert guest.active() == (1 << COUNT) - 1
    # Not in the order in which they came, and each comes again after it.
    left = (1 << COUNT) - 1
    for n in (5, 0, 7, 2, 6, 1, 4, 3):
        if n != 0:
            guest.line(n, 0)
        guest.m.struct.mmio.value = SPI + n
        if n == 0 and level:
            assert guest.event() == 0  # its line is still high
            assert guest.event() is None
        else:
            assert guest.event() is None
            left &= ~(1 << n)
        assert guest.active() == left
    guest.device.close()
