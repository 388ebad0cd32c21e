"""Guests for whole boots: Debian's kernels, fetched once into the user's cache, and a runner."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from armkvm.vmm.guest.debian import Flavour, Guest, cached, fetch

PARAMS = "console=ttyAMA0 panic=-1"
BOOT_SECONDS = 240


@dataclass
class Boot:
    """What one run of `armkvm run` left behind."""

    code: int
    console: str
    errors: str
    stats: dict[str, Any]

    def interrupts(self, name: str) -> list[int]:
        """The counts that /proc/interrupts showed for a line, print by print, CPUs summed."""
        rows = re.findall(rf"^\s*\d+:((?:\s+\d+)+) +\S.*\b{name}\s*$", self.console, re.MULTILINE)
        return [sum(int(n) for n in row.split()) for row in rows]


Runner = Callable[..., Boot]


@pytest.fixture(scope="session")
def boot() -> Runner:
    """Run the command in a process of its own, with nothing on standard input."""

    def run(*args: str) -> Boot:
        command = [sys.executable, "-m", "armkvm", "run", "--time", "virtual", "--stats", *args]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BOOT_SECONDS,
            env=os.environ | {"PYTHONWARNINGS": "error"},
            check=False,
        )
        errors = done.stderr.decode()
        last = errors.strip().splitlines()[-1] if errors.strip() else "{}"
        stats = json.loads(last) if last.startswith("{") else {}
        return Boot(done.returncode, done.stdout.decode(errors="replace"), errors, stats)

    return run


@pytest.fixture(scope="session")
def debian() -> Callable[..., Guest]:
    """A Debian guest from the cache, or fetched now through apt."""

    def find(suite: str | None = None, flavour: Flavour = "cloud") -> Guest:
        return cached(suite, flavour) or fetch(suite, flavour)

    return find


@pytest.fixture
def initrd(tmp_path: Path, debian: Callable[..., Guest]) -> Callable[[str], str]:
    """Write the default initramfs with other shell lines to run; gives its path."""
    from armkvm.vmm.guest.initramfs import default_initramfs

    def write(batch: str) -> str:
        path = tmp_path / "initrd"
        path.write_bytes(default_initramfs(debian().busybox.read_bytes(), batch))
        return str(path)

    return write
