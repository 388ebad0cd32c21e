"""The BCM2835's interrupt controller, in a BCM2836 the second level: where the devices are.

Mirrors "BCM2835 ARM Peripherals" (Broadcom, 2012), section 7.5: 64 interrupts of the GPU's devices
and 8 of the ARM's, each with an enable, one of them as FIQ. Its two outputs are the BCM2836's GPU
interrupts. The Basic Pending register is a digest: eleven GPU interrupts have a bit of their own
there, and the two bits that say "look into pending 1 or 2" stand for the others only.

Threat model: three masked words and one byte; other accesses are RAZ/WI and reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from armkvm.vmm.devices.device import Line, OddAccess, Report, unreported

GPU_IRQS = 64
ARM_IRQS = 8

PENDING_BASIC, FIQ_CONTROL = 0x00, 0x0C
# Where each bank's registers are: GPU 0-31, GPU 32-63, ARM.
PENDING = {0x04: 0, 0x08: 1}
ENABLE = {0x10: 0, 0x14: 1, 0x18: 2}
DISABLE = {0x1C: 0, 0x20: 1, 0x24: 2}
BANK_BITS = (0xFFFF_FFFF, 0xFFFF_FFFF, 0xFF)

FIQ_ENABLE = 1 << 7
PENDING_1, PENDING_2 = 1 << 8, 1 << 9
# GPU interrupts with a bit of their own in Basic Pending, from bit 10 on.
SHORTCUTS = (7, 9, 10, 18, 19, 53, 54, 55, 56, 57, 62)


@dataclass(slots=True)
class ArmctrlState:
    """Everything that a snapshot holds; one word a bank."""

    levels: list[int] = field(default_factory=lambda: [0, 0, 0])
    enabled: list[int] = field(default_factory=lambda: [0, 0, 0])
    fiq_control: int = 0

    def copy(self) -> ArmctrlState:
        """An independent copy."""
        return replace(self, levels=list(self.levels), enabled=list(self.enabled))


class Armctrl:
    """``set_irq(level)`` and ``set_fiq(level)`` are called on changes of level only."""

    name = "bcm2836-armctrl-ic"
    size = 0x200

    def __init__(self, set_irq: Line, set_fiq: Line, *, report: Report = unreported) -> None:
        self._set_irq, self._set_fiq = set_irq, set_fiq
        self._report = report
        self._state = ArmctrlState()
        self._irq = self._fiq = False

    def set_gpu(self, number: int, level: bool) -> None:
        """The level of a GPU interrupt, 0 to 63."""
        if not 0 <= number < GPU_IRQS:
            raise ValueError(f"no GPU interrupt {number}")
        bank, bit = number >> 5, 1 << (number & 31)
        levels = self._state.levels
        levels[bank] = levels[bank] | bit if level else levels[bank] & ~bit
        self._refresh()

    def _pending(self, bank: int) -> int:
        """Up and enabled, and not the FIQ."""
        s = self._state
        pending = s.levels[bank] & s.enabled[bank]
        source = s.fiq_control & 0x7F
        if s.fiq_control & FIQ_ENABLE and source >> 5 == bank:
            pending &= ~(1 << (source & 31))
        return pending

    def _basic(self) -> int:
        banks = [self._pending(0), self._pending(1)]
        basic = self._pending(2)
        for bit, number in enumerate(SHORTCUTS, 10):
            mask = 1 << (number & 31)
            if banks[number >> 5] & mask:
                basic |= 1 << bit
                banks[number >> 5] &= ~mask
        return basic | (PENDING_1 if banks[0] else 0) | (PENDING_2 if banks[1] else 0)

    def _refresh(self) -> None:
        s = self._state
        irq = any(self._pending(bank) for bank in range(3))
        bank, bit = s.fiq_control >> 5 & 3, s.fiq_control & 31
        fiq = bool(s.fiq_control & FIQ_ENABLE and bank < 3 and s.levels[bank] >> bit & 1)
        if irq != self._irq:
            self._irq = irq
            self._set_irq(irq)
        if fiq != self._fiq:
            self._fiq = fiq
            self._set_fiq(fiq)

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        if size != 4:
            return self._odd(offset, size, cpu, None, "width or alignment")
        s = self._state
        if offset == PENDING_BASIC:
            return self._basic()
        if offset in PENDING:
            return self._pending(PENDING[offset])
        if offset == FIQ_CONTROL:
            return s.fiq_control
        bank = ENABLE.get(offset, DISABLE.get(offset))
        if bank is None:
            return self._odd(offset, size, cpu, None, "no such register to read")
        return s.enabled[bank]

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        s = self._state
        if size != 4:
            self._odd(offset, size, cpu, value, "width or alignment")
        elif offset == FIQ_CONTROL:
            s.fiq_control = value & 0xFF
        elif offset in ENABLE:
            bank = ENABLE[offset]
            s.enabled[bank] |= value & BANK_BITS[bank]
        elif offset in DISABLE:
            s.enabled[DISABLE[offset]] &= ~value
        else:
            self._odd(offset, size, cpu, value, "no such register to write")
            return
        self._refresh()

    def _odd(self, offset: int, size: int, cpu: int, value: int | None, why: str) -> int:
        self._report(OddAccess(self.name, offset, size, cpu, value, why))
        return 0

    def state(self) -> ArmctrlState:
        return self._state.copy()

    def restore(self, state: ArmctrlState) -> None:
        """Take over a snapshot; the outputs are moved to where they belong."""
        self._state = state.copy()
        self._refresh()
