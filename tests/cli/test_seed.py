"""What the guest's random numbers begin with: an input in virtual time, else another every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.vmm import programs as p

from armkvm.cli.codes import Code
from armkvm.cli.main import main


def tree(tmp_path: Path, *options: str) -> bytes:
    """The device tree that a run has given to its guest."""
    guest, dtb = tmp_path / "guest.bin", tmp_path / "dtb"
    guest.write_bytes(p.flat(p.OFF))
    command = ["run", "-k", str(guest), "-m", "8M", "--dump-dtb", str(dtb), *options]
    assert main(command) == Code.OK
    return dtb.read_bytes()


def test_virtual_time_has_a_fixed_default(tmp_path: Path) -> None:
    first = tree(tmp_path, "--time", "virtual")
    assert b"rng-seed" in first
    assert first == tree(tmp_path, "--time", "virtual")
    assert first == tree(tmp_path, "--time", "virtual", "--seed", "0")
    assert first != tree(tmp_path, "--time", "virtual", "--seed", "1")


@pytest.mark.parametrize("time", ["paced", "realtime"])
def test_other_times_are_random_unless_asked(tmp_path: Path, time: str) -> None:
    assert tree(tmp_path, "--time", time) != tree(tmp_path, "--time", time)
    asked = ("--time", time, "--seed", "0x10")
    assert tree(tmp_path, *asked) == tree(tmp_path, *asked)
