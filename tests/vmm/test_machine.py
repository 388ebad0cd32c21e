"""The machine as its guests see it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.vmm import programs as p

from armkvm.kvm.system import System
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import load
from armkvm.vmm.machine import Config, Machine, Outcome

MEMORY = 8 << 20
GICD, GICC, RTC = 0x0800_0000, 0x0801_0000, 0x0901_0000
ISR_EL1 = (3, 0, 12, 1, 0)


def boot(code: bytes, *, host: str = "nvhe-gicv2", **config: Any) -> tuple[Outcome, bytes, float]:
    """Run a flat binary: how it ended, what it printed, how long it took in guest seconds."""
    console = BufferConsole()
    with System(host, "virtual") as system:
        image = load(code, mem_bytes=MEMORY, flat=True)
        machine = Machine(Config(system, image, console, mem_bytes=MEMORY, timeout=30, **config))
        try:
            outcome = machine.run()
            return outcome, bytes(console.output), machine.stats()["guest_seconds"]
        finally:
            machine.close()


GIC = [
    *p.put(GICD, 1), *p.put(GICD + 0x104, 1 << 2), *p.put(GICD + 0x820, 0x0001_0000),
    *p.put(GICC + 4, 0xFF), *p.put(GICC, 1),
]  # fmt: skip
ARMCTRL = p.put(0x0801_0000 + 0x14, 1 << 52 - 32)


@pytest.mark.parametrize(
    ("irqchip", "setup"), [("gicv2", GIC), ("kernel-gicv2", GIC), ("bcm2836", ARMCTRL)]
)
@pytest.mark.parametrize("asleep", [True, False])
def test_the_clocks_alarm_interrupts(irqchip: str, setup: list[int], asleep: bool) -> None:
    """At its second, to a guest that sleeps for it, and to one that never leaves."""
    code = p.flat(
        setup, p.mov(1, RTC), p.ldr(2, 1), p.add(2, 2, 1), p.put(RTC + 0x10, 1),
        p.mov(1, RTC + 4), p.store(2, 1),  # RTCMR: in a second
        p.WFI if asleep else p.NOP, p.mrs(3, *ISR_EL1), p.cbz(3, -2),
        p.mov(1, RTC + 0x18), p.ldr(4, 1), p.add(4, 4, 0x30), p.show(4), p.OFF,
    )  # fmt: skip
    outcome, output, seconds = boot(code, irqchip=irqchip)
    assert (outcome.reason, output) == ("shutdown", b"1")
    assert 1.0 <= seconds < 1.001
