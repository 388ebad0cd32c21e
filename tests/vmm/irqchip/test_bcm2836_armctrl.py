"""The second-level controller against "BCM2835 ARM Peripherals", section 7.5."""

from __future__ import annotations

import pytest

from armkvm.vmm.devices.device import OddAccesses
from armkvm.vmm.irqchip.bcm2836_armctrl import FIQ_CONTROL, PENDING_BASIC, SHORTCUTS, Armctrl

PENDING = (0x04, 0x08)
ENABLE = (0x10, 0x14, 0x18)
DISABLE = (0x1C, 0x20, 0x24)
UART = 57


class Rig:
    """The controller and its two outputs."""

    def __init__(self) -> None:
        self.irq = self.fiq = False
        self.odd = OddAccesses()
        self.chip = Armctrl(self._irq, self._fiq, report=self.odd)

    def _irq(self, level: bool) -> None:
        assert self.irq != level
        self.irq = level

    def _fiq(self, level: bool) -> None:
        assert self.fiq != level
        self.fiq = level

    def lines(self) -> tuple[bool, bool]:
        """IRQ and FIQ."""
        return self.irq, self.fiq

    def enable(self, number: int) -> None:
        self.chip.write(ENABLE[number >> 5], 4, 1 << (number & 31))


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("number", range(64))
def test_every_gpu_interrupt(rig: Rig, number: int) -> None:
    bank, bit = number >> 5, 1 << (number & 31)
    rig.chip.set_gpu(number, True)
    assert not any(rig.lines())
    assert rig.chip.read(PENDING[bank], 4) == 0  # pending means enabled as well
    rig.enable(number)
    assert rig.lines() == (True, False)
    assert rig.chip.read(PENDING[bank], 4) == bit
    assert rig.chip.read(PENDING[1 - bank], 4) == 0
    # Table "Basic pending": its own bit, or the one that says where to look.
    digest = 1 << 10 + SHORTCUTS.index(number) if number in SHORTCUTS else 1 << 8 + bank
    assert rig.chip.read(PENDING_BASIC, 4) == digest
    rig.chip.write(DISABLE[bank], 4, bit)
    assert not any(rig.lines())
    assert rig.chip.read(ENABLE[bank], 4) == 0


def test_a_level_is_pending_until_the_device_lowers_it(rig: Rig) -> None:
    rig.enable(UART)
    rig.chip.set_gpu(UART, True)
    rig.chip.write(PENDING[1], 4, 0xFFFF_FFFF)  # read-only
    assert rig.lines() == (True, False)
    assert rig.odd.count == 1
    rig.chip.set_gpu(UART, False)
    assert not any(rig.lines())


def test_one_interrupt_can_be_the_fiq(rig: Rig) -> None:
    rig.chip.set_gpu(UART, True)
    rig.chip.write(FIQ_CONTROL, 4, 0x80 | UART)
    assert rig.lines() == (False, True)  # it needs no other enable
    rig.enable(UART)
    assert rig.lines() == (False, True)
    rig.chip.write(FIQ_CONTROL, 4, UART)
    assert rig.lines() == (True, False)
    rig.chip.write(FIQ_CONTROL, 4, 0xFF)  # a source that does not exist
    assert rig.lines() == (True, False)
    assert rig.chip.read(FIQ_CONTROL, 4) == 0xFF


def test_the_arm_bank_has_eight_enables(rig: Rig) -> None:
    rig.chip.write(ENABLE[2], 4, 0xFFFF_FFFF)
    assert rig.chip.read(DISABLE[2], 4) == 0xFF
    rig.chip.write(DISABLE[2], 4, 0xF0)
    assert rig.chip.read(ENABLE[2], 4) == 0x0F


@pytest.mark.parametrize(
    ("offset", "size"), [(0x28, 4), (0x00, 8), (0x10, 1), (0x11, 4), (0x1FC, 4)]
)
def test_odd_accesses_are_reported(rig: Rig, offset: int, size: int) -> None:
    assert rig.chip.read(offset, size) == 0
    rig.chip.write(offset, size, 0xFF)
    assert rig.odd.count == 2


def test_a_snapshot_moves_the_outputs(rig: Rig) -> None:
    rig.enable(UART)
    rig.chip.set_gpu(UART, True)
    other = Rig()
    other.chip.restore(rig.chip.state())
    assert other.lines() == (True, False)
    other.chip.set_gpu(UART, False)
    assert rig.lines() == (True, False)  # the copy is independent
    with pytest.raises(ValueError, match="no GPU interrupt 64"):
        rig.chip.set_gpu(64, True)
