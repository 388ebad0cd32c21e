"""Progress: silence in a pipe, a display on a terminal that vanishes, nothing set up unasked."""

import os
import pty
import subprocess
import sys

import pytest

from armkvm.cli.progress import shown


def test_silent_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    with shown() as progress:
        progress("working", 1, 2)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


PROGRAM = """
import sys
from armkvm.cli.progress import shown
with shown() as progress:
    for done in range({steps}):
        progress("working", done, 2)
    sys.stdout.write(str("rich" in sys.modules))
"""


@pytest.mark.parametrize("steps", [0, 2])
def test_on_a_terminal(steps: int) -> None:
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(steps=steps)],
        stdout=subprocess.PIPE, stderr=slave, env=environment, timeout=60,
    )  # fmt: skip
    os.write(slave, b"|")
    screen = b""
    while not screen.endswith(b"|"):
        screen += os.read(master, 65536)
    os.close(master)
    os.close(slave)
    assert run.returncode == 0
    assert run.stdout == (b"True" if steps else b"False")
    assert (b"working" in screen) == bool(steps)
