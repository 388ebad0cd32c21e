"""Debian's generic kernel with the Raspberry Pi's interrupt controller instead of a GIC."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.boot.conftest import PARAMS, Runner

from armkvm.kvm.system import System
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest import loader
from armkvm.vmm.guest.debian import Guest
from armkvm.vmm.guest.initramfs import default_initramfs
from armkvm.vmm.machine import Config, Machine


def ipis(console: str) -> list[int]:
    """Interrupts from CPU to CPU, all kinds and CPUs, print by print."""
    found: list[int] = []
    for line in console.splitlines():
        if match := re.match(r"\s*IPI(\d):((?:\s+\d+)+) ", line):
            if match[1] == "0":
                found.append(0)
            found[-1] += sum(int(n) for n in match[2].split())
    return found


class Typist(BufferConsole):
    """Types one line when it sees the prompt: earlier, the driver throws it away."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self._line = line

    def write(self, data: bytes) -> None:
        super().write(data)
        if self._line and self.output.endswith(b"# "):
            line, self._line = self._line, b""
            self.feed(line)


@pytest.mark.parametrize("cpus", [1, 4])
def test_boots(boot: Runner, debian: Callable[..., Guest], tmp_path: Path, cpus: int) -> None:
    found = debian(None, "generic")
    initrd = tmp_path / "initrd"
    initrd.write_bytes(default_initramfs(found.busybox.read_bytes()))
    command = ("-k", str(found.kernel), "-i", str(initrd), "-p", PARAMS)
    got, again = (boot(*command, "--irqchip", "bcm2836", "-c", str(cpus)) for _ in range(2))
    assert got.code == 0, got.errors + got.console[-3000:]
    assert f"SMP: Total of {cpus} processors activated" in got.console
    assert "GIC" not in got.console
    assert re.search(r"bcm2836-timer +3 .* arch_timer", got.console)
    before, after = got.interrupts("arch_timer")
    assert 0 < before < after
    assert (sum(ipis(got.console)) > 0) == (cpus > 1)
    assert got.stats["odd_accesses"] == 0
    assert got.stats["exits"]["notifications"] > 0
    assert got.stats["console_digest"] == again.stats["console_digest"]
    assert got.stats["memory_digest"] == again.stats["memory_digest"]


def test_the_default_guest_has_the_driver(boot: Runner, debian: Callable[..., Guest]) -> None:
    debian(None, "generic")
    got = boot("--irqchip", "bcm2836", "--timeout", "100")
    assert got.code == 0, got.errors
    assert "BOOT-OK" in got.console
    assert re.search(r"bcm2836-timer +3 .* arch_timer", got.console)


def test_what_is_typed_comes_through_both_levels(debian: Callable[..., Guest]) -> None:
    """The UART interrupts by the second-level controller: reading needs it, printing does not."""
    found = debian(None, "generic")
    image = loader.load(
        found.kernel.read_bytes(), default_initramfs(found.busybox.read_bytes()),
        mem_bytes=512 << 20,
    )  # fmt: skip
    console = Typist(b"echo $((6 * 7)) read; cat /proc/interrupts; poweroff -f\n")
    with System("nvhe-gicv2", "virtual") as system:
        machine = Machine(
            Config(system, image, console, f"{PARAMS} quiet armkvm.mode=shell",
                   irqchip="bcm2836", timeout=60)
        )  # fmt: skip
        try:
            assert machine.run().reason == "shutdown", console.output.decode(errors="replace")
        finally:
            machine.close()
    output = console.output.decode(errors="replace")
    assert "42 read" in output
    match = re.search(r"^\s*\d+:\s+(\d+)\s+ARMCTRL-level +89 .*uart-pl011", output, re.MULTILINE)
    assert match is not None
    assert int(match[1]) > 0
