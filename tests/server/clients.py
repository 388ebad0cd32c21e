"""client.c, compiled: static, and dynamic against the cross compiler's libc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import installed

SOURCE = Path(__file__).with_name("client.c")
COMPILER = "aarch64-linux-gnu-gcc"
NEEDS = (COMPILER, "qemu-aarch64", "/usr/aarch64-linux-gnu/lib/libc.a")


def missing() -> str | None:
    """What a machine lacks to compile and run it. `.ci/run` installs all of it."""
    lacks = [name for name in NEEDS if installed(name) is None]
    return f"needs {', '.join(lacks)}" if lacks else None


def compiled(folder: Path, *options: str) -> Path:
    """The client, compiled."""
    out = folder / f"client{''.join(options)}"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", *options]
    subprocess.run([COMPILER, *flags, "-o", out, SOURCE], check=True)
    return out


def armkvm(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "armkvm", *map(str, arguments)],
        input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
