"""A guest can do what it likes: no crash, no hang, nothing outside its own memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INSTRUCTIONS = int(os.environ.get("ARMKVM_FUZZ", "10_000_000"))
SEED = int(os.environ.get("ARMKVM_SEED", "1"))


def test_random_guests(engine: object) -> None:
    """Seeds follow one another; a failing run says which it was at with ARMKVM_FUZZ=1."""
    del engine  # compiled, before the clock of the timeout starts
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.engine.fuzz",
         str(SEED), str(INSTRUCTIONS)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
    assert int(done.stdout.split()[0]) >= INSTRUCTIONS
