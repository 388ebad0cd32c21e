"""Debian's boot, saved at some instruction and continued by another process.

On one CPU the rest of the run is the same to the byte: console with its time stamps, memory, guest
time. On several, whose turn it is begins anew, so that what happens when differs by microseconds:
there the console goes without time stamps.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.boot.conftest import PARAMS, Runner

from armkvm.cli.codes import Code
from armkvm.vmm.guest.debian import Guest

IRQCHIPS = ("gicv2", "kernel-gicv2", "kernel-gicv3")
BATCH = """\
i=0; while [ $i -lt 40 ]; do (echo $((i * i)) > /tmp/p$i) & i=$((i + 1)); done; wait
echo SQUARES $(cat /tmp/p* | awk '{ s += $1 } END { print s }')
sleep 1
echo PIPES $(seq 1 500 | while read a; do echo $a; done | sha256sum)
"""


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_boot_goes_on_elsewhere(
    boot: Runner,
    debian: Callable[..., Guest],
    initrd: Callable[[str], str],
    tmp_path: Path,
    irqchip: str,
    cpus: int,
) -> None:
    params = PARAMS if cpus == 1 else f"{PARAMS} printk.time=0"
    machine = ("--irqchip", irqchip, "-c", str(cpus), "-m", "256M",
               "-k", str(debian().kernel), "-i", initrd(BATCH), "-p", params)  # fmt: skip
    whole = boot(*machine)
    assert whole.code == Code.OK, whole.errors
    assert "SQUARES 20540" in whole.console
    file = str(tmp_path / "saved")
    at = random.Random(f"{irqchip} {cpus}").randrange(whole.stats["instructions"])
    head = boot(*machine, "--max-insns", str(at), "--save", file)
    assert head.code == Code.LIMIT, head.errors
    rest = boot("--restore", file)
    assert rest.code == Code.OK, rest.errors
    assert head.console + rest.console == whole.console
    if cpus == 1:
        for same in ("memory_digest", "guest_seconds"):
            assert rest.stats[same] == whole.stats[same]
        both = head.stats["instructions"] + rest.stats["instructions"]
        assert both == whole.stats["instructions"]
    else:
        assert abs(rest.stats["guest_seconds"] - whole.stats["guest_seconds"]) < 0.1


def test_files_that_are_no_snapshots(boot: Runner, tmp_path: Path) -> None:
    """One line, and the code of a file that cannot be used."""
    from armkvm.vmm.guest import bare

    program = tmp_path / "bare.bin"
    program.write_bytes(bare.program())
    good = tmp_path / "good"
    stopped = boot("-k", str(program), "-m", "64M", "--max-insns", "1000", "--save", str(good))
    assert stopped.code == Code.LIMIT, stopped.errors
    assert f"saved in {good}" in stopped.errors
    data = good.read_bytes()
    bad = tmp_path / "bad"
    for content, why in (
        (b"", "is not a snapshot of armkvm"),
        (b"\x7fELF" + bytes(100), "is not a snapshot of armkvm"),
        (data.replace(b"snapshot 3\n", b"snapshot 2\n"), "another version's format"),
        (data[:-1], "is damaged"),
        (data[:40], "is damaged"),
        (data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], "is damaged"),
    ):
        bad.write_bytes(content)
        got = boot("--restore", str(bad))
        assert got.code == Code.USAGE
        assert why in got.errors
        assert len(got.errors.splitlines()) == 1
    missing = boot("--restore", str(tmp_path / "missing"))
    assert "No such file" in missing.errors
    both = boot("--restore", str(good), "-k", str(program))
    assert both.code == Code.USAGE
    assert "exclude each other" in both.errors
    nowhere = boot("-k", str(program), "--save", str(tmp_path / "no" / "file"))
    assert nowhere.code == Code.USAGE
    assert not list(tmp_path.glob(".good*"))
