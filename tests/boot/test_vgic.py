"""Debian's kernel with the interrupt controller in the kernel."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.boot.conftest import Runner

from armkvm.cli.codes import Code
from armkvm.kvm import System, Vm
from armkvm.vmm import snapshot, snapshot_file
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.debian import Guest
from armkvm.vmm.machine import Config, Machine


@pytest.mark.parametrize("irqchip", ["kernel-gicv2", "kernel-gicv3", "kernel-gicv3-its"])
@pytest.mark.parametrize("cpus", [1, 4])
def test_boots(boot: Runner, debian: Callable[..., Guest], irqchip: str, cpus: int) -> None:
    """To the shell's script and to power-off; the timer's interrupts never leave the kernel."""
    debian()
    one = boot("--irqchip", irqchip, "--cpus", str(cpus))
    assert one.code == 0, one.errors
    assert "BOOT-OK" in one.console
    first, second = one.interrupts("arch_timer")
    assert second > first > 0
    exits = one.stats["exits"]
    assert exits["notifications"] == 0
    assert exits["mmio_exit_kernel"] > 0
    assert f"GIC{'v3' if 'v3' in irqchip else '-0'}" in one.console


@pytest.mark.parametrize("irqchip", ["kernel-gicv2", "kernel-gicv3"])
def test_four_cpus_boot_the_same_every_time(
    boot: Runner, debian: Callable[..., Guest], irqchip: str
) -> None:
    debian()
    runs = [boot("--irqchip", irqchip, "--cpus", "4").stats for _ in range(2)]
    for stats in runs:
        del stats["wall_seconds"]
    assert runs[0] == runs[1]


FOUND = (
    "ITS [mem 0x08080000-0x0809ffff]",
    "allocated 8192 Devices @",
    "allocated 8192 Interrupt Collections @",
    "GICv3: using LPI property table @",
    "GICv3: CPU0: using allocated LPI pending table @",
    "GICv3: CPU1: using allocated LPI pending table @",
    "/intc@8000000/its@8080000 domain created",
)


def collections(saved: str) -> dict[int, int | None]:
    """What a machine has that goes on with a snapshot: collections and their targets."""
    found = snapshot_file.read(saved)
    with System("vhe-gicv3", "virtual") as system:
        sizes = Config(system, None, BufferConsole(), mem_bytes=found.mem_bytes, cpus=found.cpus)
        machine = Machine(replace(sizes, irqchip=found.irqchip))
        snapshot.restore(machine, found)
        assert isinstance(machine.vm, Vm)
        (its,) = machine.vm.its
        assert its.enabled
        machine.close()
    return {collection.id: collection.target for collection in its.collections.values()}


def test_linux_finds_the_its(boot: Runner, debian: Callable[..., Guest], tmp_path: Path) -> None:
    """Its driver gives it tables and a queue, maps a collection for each CPU, and sees it answer.

    A snapshot has all of that in guest memory: another process goes on.
    """
    debian()
    machine = ("--irqchip", "kernel-gicv3-its", "--cpus", "2")
    one = boot(*machine)
    assert one.code == 0, one.errors
    for line in FOUND:
        assert line in one.console, line
    assert "ITS queue timeout" not in one.console
    saved = str(tmp_path / "saved")
    head = boot(*machine, "--max-insns", str(one.stats["instructions"] // 2), "--save", saved)
    assert head.code == Code.LIMIT, head.errors
    assert collections(saved) == {0: 0, 1: 1}
    rest = boot("--restore", saved)
    assert rest.code == 0, rest.errors
    assert "BOOT-OK" in rest.console
