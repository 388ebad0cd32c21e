"""What the suite says of itself while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "workers"])
def test_a_failure_is_named_before_the_run_ends(tmp_path: Path, options: tuple[str, ...]) -> None:
    """So it is known of a run that is killed as well."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import os, time\n"
        "def test_fails(): assert False\n"
        "def test_takes_long():\n"
        "    time.sleep(20)\n"
        "    os.kill(int(os.environ['RUN']), 9)\n"
    )
    program = (
        "import os, pytest, sys\n"
        "os.environ['RUN'] = str(os.getpid())\n"
        "pytest.main(sys.argv[1:])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", *options],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        named = any(b"test_it.py::test_fails" in line for line in run.stdout)
        os.killpg(run.pid, signal.SIGKILL)
    assert named
