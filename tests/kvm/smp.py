"""The guests of smp.S, and machines that run them.

``python -m tests.kvm.smp`` assembles again; test_smp.py checks that the words are those of the
source where binutils is installed.
"""

from __future__ import annotations

import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

from armkvm.kvm import System
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import load
from armkvm.vmm.machine import Config, Machine, Outcome

HERE = Path(__file__).parent
SOURCE, WORDS = HERE / "smp.S", HERE / "smp.hex"
PREFIX = "aarch64-linux-gnu-"

POWER, COUNT, SGI, TIMERS, TLBI, SPIN, RESET, DEVICE, ABA, NAP = range(10)
SELECTOR = 8  # offset in the program
TIMES, ROUNDS = 20000, 20


def assemble(prefix: str = PREFIX) -> bytes:
    """The program, from its source."""
    with tempfile.TemporaryDirectory() as folder:
        obj, out = Path(folder, "smp.o"), Path(folder, "smp.bin")
        subprocess.run([prefix + "as", "-o", obj, SOURCE], check=True)
        subprocess.run([prefix + "objcopy", "-O", "binary", obj, out], check=True)
        return out.read_bytes()


def program(guest: int) -> bytes:
    """The program, set to one of its guests."""
    code = bytearray(zlib.decompress(bytes.fromhex(WORDS.read_text())))
    code[SELECTOR] = guest
    return bytes(code)


def text(code: bytes) -> str:
    """The contents of smp.hex: deflated, most of it is empty tables."""
    digits = zlib.compress(code, 9).hex()
    return "".join(digits[at : at + 96] + "\n" for at in range(0, len(digits), 96))


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


if __name__ == "__main__":
    WORDS.write_text(text(assemble()))
