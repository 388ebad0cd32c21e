"""Debian's kernels boot, their timer ticks through the GIC in user space, and power off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.boot.conftest import PARAMS, Boot, Runner

from armkvm.vmm.guest.debian import Flavour, Guest
from armkvm.vmm.guest.initramfs import default_initramfs


def assert_booted(got: Boot) -> None:
    assert got.code == 0, got.errors + got.console[-3000:]
    assert "BOOT-OK" in got.console
    before, after = got.interrupts("arch_timer")
    assert 0 < before < after
    assert "GICv2" in got.console or "GIC-0" in got.console
    assert "Power down" in got.console
    # Every tick went out to user space and came back: levels are notified, the GIC is MMIO.
    exits = got.stats["exits"]
    assert exits["notifications"] >= after - 1
    assert exits["exit_reasons"]["INTR"] >= exits["notifications"]
    assert exits["exit_reasons"]["MMIO"] > 4 * after  # IAR, EOIR and more for each tick
    assert exits["exit_reasons"]["SYSTEM_EVENT"] == 1


def test_the_default_guest_is_deterministic(boot: Runner, debian: Callable[..., Guest]) -> None:
    debian()  # fetched outside the run: the command would do it itself, with progress
    first, second = boot(), boot()
    assert_booted(first)
    assert first.console == second.console
    same = ("instructions", "exits", "guest_seconds", "console_digest", "memory_digest")
    assert [first.stats[k] for k in same] == [second.stats[k] for k in same]


@pytest.mark.parametrize("memory", ["256M", "2G"])
@pytest.mark.parametrize(
    ("suite", "flavour"), [(None, "cloud"), (None, "generic"), ("trixie", "cloud")]
)
def test_boots(
    boot: Runner,
    debian: Callable[..., Guest],
    tmp_path: Path,
    suite: str | None,
    flavour: Flavour,
    memory: str,
) -> None:
    found = debian(suite, flavour)
    initrd = tmp_path / "initrd"
    initrd.write_bytes(default_initramfs(found.busybox.read_bytes()))
    got = boot("-k", str(found.kernel), "-i", str(initrd), "-m", memory, "-p", PARAMS)
    assert_booted(got)
