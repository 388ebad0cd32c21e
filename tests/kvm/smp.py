"""The guests of smp.S, and machines that run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from armkvm.client import machine_code
from armkvm.kvm import System
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import load
from armkvm.vmm.machine import Config, Machine, Outcome

CODE = Path(__file__).with_name("smp.hex")

POWER, COUNT, SGI, TIMERS, TLBI, SPIN, RESET, DEVICE, ABA, NAP = range(10)
SELECTOR = 8  # offset in the program
TIMES, ROUNDS = 20000, 20


def program(guest: int) -> bytes:
    """The program, set to one of its guests."""
    code = machine_code.program(CODE)
    code[SELECTOR] = guest
    return bytes(code)


class Smp:
    """One machine with one of the guests."""

    def __init__(self, guest: int, cpus: int = 4, *, time: str = "virtual", **config: Any) -> None:
        self.console = BufferConsole()
        self.system = System("nvhe-gicv2", time)
        image = load(program(guest), mem_bytes=8 << 20, flat=True)
        self.machine = Machine(
            Config(self.system, image, self.console, mem_bytes=8 << 20, cpus=cpus, **config)
        )

    def run(self) -> Outcome:
        return self.machine.run()

    def results(self) -> list[int]:
        """Run to power-off; the numbers that the guest printed."""
        try:
            outcome = self.machine.run()
            assert outcome.reason == "shutdown", outcome
            return [int(line, 16) for line in self.console.output.split()]
        finally:
            self.machine.close()
