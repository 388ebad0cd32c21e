"""A run that ends by itself says why, in one line, and by its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.vmm import programs as p


def run(
    tmp_path: Path, code: bytes, *args: str, stdin: int | None = subprocess.DEVNULL
) -> tuple[int, list[str]]:
    """Exit code and lines on standard error. The timeout is for those who sleep for ever."""
    guest = tmp_path / "guest.bin"
    guest.write_bytes(code)
    done = subprocess.run(
        [sys.executable, "-m", "armkvm", "run", "-k", str(guest), "-m", "8M", "--timeout", "20",
         *args],
        stdin=stdin, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


SLEEPS = p.flat(p.WFI, 0x17FFFFFF)


@pytest.mark.parametrize("time", ["virtual", "paced", "realtime"])
def test_it_sleeps_for_ever(tmp_path: Path, time: str) -> None:
    code, said = run(tmp_path, SLEEPS, "--time", time)
    assert code == 7
    (line,) = said
    assert line.startswith("armkvm: the guest sleeps for ever: all vCPUs sleep")


def test_it_sleeps_and_the_input_ends(tmp_path: Path) -> None:
    """Bytes that it does not read come first."""
    with subprocess.Popen(["echo", "hello"], stdout=subprocess.PIPE) as typing:
        assert typing.stdout is not None
        code, said = run(tmp_path, SLEEPS, stdin=typing.stdout.fileno())
    assert (code, len(said)) == (7, 1)


def test_it_switches_its_only_cpu_off(tmp_path: Path) -> None:
    code, said = run(tmp_path, p.flat(p.psci(0x8400_0002)))
    assert (code, len(said)) == (7, 1)


def test_it_takes_one_exception_for_ever(tmp_path: Path) -> None:
    code, said = run(tmp_path, p.flat(0))
    assert code == 1
    (line,) = said
    assert line.startswith("armkvm: the guest cannot go on: vCPU 0 takes the same exception")
    assert "vector 0x200, ESR_EL1 0x86000010" in line
    assert "ELR_EL1 0x200" in line


def test_it_asks_for_a_reset(tmp_path: Path) -> None:
    """A kernel without a root file system does: the hint is for it."""
    code, said = run(tmp_path, p.flat(p.RESET))
    assert code == 3
    assert said == [
        "armkvm: the guest asked for a reset; "
        "if it is Linux, give it a root file system: --initrd FILE"
    ]


def test_a_panic_is_quoted(tmp_path: Path) -> None:
    text = b"Kernel panic - not syncing: VFS: no root\n"
    printed = [word for byte in text for word in (*p.mov(2, byte), *p.show(2))]
    code, said = run(tmp_path, p.flat(printed, p.RESET))
    assert code == 3
    assert "the guest asked for a reset after a kernel panic (VFS: no root);" in "".join(said)
    code, said = run(tmp_path, p.flat(printed, 0x14000000), "--max-insns", "1000000")
    assert code == 4
    assert said == [
        "armkvm: stopped: --max-insns 1000000 reached after a kernel panic (VFS: no root)"
    ]
