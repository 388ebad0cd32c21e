"""The two machines that bench compares, as commands, and how long they take to say something.

Both are processes that are started, watched and ended in the same way: armkvm gets no advantage
from being at hand. QEMU is the reference that the project measures itself against.
"""

import select
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from armkvm.bench import BenchError
from armkvm.host import clock

QEMU = "qemu-system-aarch64"
MEMORY = "512"


@dataclass(frozen=True)
class Boot:
    """What both machines are given."""

    kernel: Path
    initrd: Path | None = None
    params: str = ""

    def armkvm(self) -> list[str]:
        """The command that boots it here, in virtual time."""
        command = [sys.executable, "-m", "armkvm", "run", "--time", "virtual", "--mem", MEMORY]
        return [*command, "--stats", *self._files("--kernel", "--initrd", "--params")]

    def qemu(self) -> list[str]:
        """The command that boots it in QEMU's translator."""
        command = [QEMU, "-M", "virt,gic-version=2", "-cpu", "cortex-a57", "-accel", "tcg"]
        command += ["-m", MEMORY, "-nographic", "-nic", "none", "-no-reboot"]
        return [*command, *self._files("-kernel", "-initrd", "-append")]

    def _files(self, kernel: str, initrd: str, params: str) -> list[str]:
        files = [kernel, str(self.kernel)]
        if self.initrd is not None:
            files += [initrd, str(self.initrd)]
        return [*files, params, self.params] if self.params else files


def have_qemu() -> bool:
    """Whether there is a QEMU to compare with."""
    return shutil.which(QEMU) is not None


@dataclass(frozen=True)
class Run:
    """A finished process: seconds from its start to its end, and what it printed."""

    seconds: float
    output: bytes
    errors: bytes


def whole(command: list[str], limit: float) -> Run:
    """Run to the end; at most ``limit`` seconds."""
    start = clock.monotonic_ns()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{_name(command)} was not done within {limit:g} s") from None
    elapsed = (clock.monotonic_ns() - start) / 1e9
    if done.returncode:
        raise BenchError(f"{_name(command)} ended with {done.returncode}: {_last(done.stderr)}")
    return Run(elapsed, done.stdout, done.stderr)


def until(command: list[str], text: bytes, limit: float) -> float:
    """Seconds from the start of the process until it has printed ``text``; then it is ended."""
    start = clock.monotonic_ns()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = b""
        try:
            while text not in seen:
                left = limit - (clock.monotonic_ns() - start) / 1e9
                if not select.select([process.stdout], [], [], max(left, 0))[0]:
                    raise BenchError(f"{_name(command)} did not print {text!r} in {limit:g} s")
                more = process.stdout.read(65536)
                if not more:
                    error = _last(process.stderr.read())
                    raise BenchError(f"{_name(command)} ended without printing {text!r}: {error}")
                seen = seen[-len(text) :] + more
            return (clock.monotonic_ns() - start) / 1e9
        finally:
            process.kill()


def _name(command: list[str]) -> str:
    return QEMU if command[0] == QEMU else "armkvm"


def _last(errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word of why"
