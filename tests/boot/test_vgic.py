"""Debian's kernel with the interrupt controller in the kernel."""

from collections.abc import Callable

import pytest
from tests.boot.conftest import Runner

from armkvm.vmm.guest.debian import Guest


@pytest.mark.parametrize("irqchip", ["kernel-gicv2", "kernel-gicv3"])
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
    assert f"GIC{'v3' if irqchip.endswith('3') else '-0'}" in one.console


@pytest.mark.parametrize("irqchip", ["kernel-gicv2", "kernel-gicv3"])
def test_four_cpus_boot_the_same_every_time(
    boot: Runner, debian: Callable[..., Guest], irqchip: str
) -> None:
    debian()
    runs = [boot("--irqchip", irqchip, "--cpus", "4").stats for _ in range(2)]
    for stats in runs:
        del stats["wall_seconds"]
    assert runs[0] == runs[1]
