"""A device is one file of src: everything else finds it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import armkvm

SRC = Path(armkvm.__file__).parent

COUNTER = '''
"""A counter that a guest adds to, with an interrupt while it is odd."""

from dataclasses import dataclass, replace

from armkvm.vmm.board import Place
from armkvm.vmm.devices.device import Register, RegisterBlock
from armkvm.vmm.devices.platform import Fitted

PLACE = Place(0x0902_0000, 0x1000, spi=3, gpu_irq=50)


@dataclass
class CounterState:
    count: int = 0x30


class Counter(RegisterBlock):
    REGISTERS = (Register(0, "COUNT", "RW", "1.1"),)
    PERIPHERAL_ID = (0, 0, 0, 0)
    name = "counter"

    def __init__(self, irq, report):
        super().__init__(report)
        self._irq = irq
        self._state = CounterState()

    def _write_count(self, value):
        self._state.count = value
        self._irq(bool(value & 1))

    def state(self):
        return replace(self._state)

    def restore(self, state):
        self._state = replace(state)

    def fdt(self, fdt, place, interrupt):
        with fdt.node(f"counter@{place.base:x}"):
            fdt.prop("compatible", "example,counter")
            fdt.reg(place.base, place.size)
            interrupt(fdt, place)


def fit(platform):
    yield Fitted("counter", PLACE, Counter(platform.line(PLACE), platform.report))
'''

# Add one to the counter, three times; print what it holds; switch off.
ADD = "220040b9 42040011 220000b9"
GUEST = f"4120a1d2 {ADD} {ADD} {ADD} 0320a1d2 220040b9 620000b9 0080b0d2 000180f2 020000d4"


@pytest.mark.parametrize("irqchip", ["gicv2", "bcm2836", "kernel-gicv2", "kernel-gicv3"])
def test_a_device_is_one_file(tmp_path: Path, irqchip: str) -> None:
    """On the bus, wired, in the device tree, in a snapshot: a scratch copy with one file more."""
    copy = tmp_path / "armkvm"
    shutil.copytree(SRC, copy, ignore=shutil.ignore_patterns("__pycache__"))
    new = copy / "vmm" / "devices" / "counter.py"
    new.parent.mkdir(exist_ok=True)
    new.write_text(COUNTER)
    guest, dtb, half = tmp_path / "guest.bin", tmp_path / "dtb", tmp_path / "half"
    guest.write_bytes(bytes.fromhex(GUEST))

    def run(*args: str | Path) -> tuple[int, str, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "armkvm", "run", "--stats", *args],
            env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout, json.loads(done.stderr.splitlines()[-1])

    # KVM does the accesses, so they are not counted: this is in front of the second write.
    machine = ("-k", guest, "--irqchip", irqchip, "--dump-dtb", dtb)
    code, _, stats = run(*machine, "--max-insns", "3", "--save", half)
    assert b"counter@9020000" in dtb.read_bytes()
    assert (code, stats["odd_accesses"]) == (4, 0)
    code, output, stats = run("--restore", half)
    assert (code, output, stats["odd_accesses"]) == (0, "3", 0)
