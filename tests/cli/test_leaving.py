"""How `armkvm run` leaves: signals at any moment, output that nobody reads, closed descriptors."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.engine.cpu import Engine

LIMIT = 30
COMMAND = [sys.executable, "-m", "armkvm", "run", "-m", "4M"]
# movz x0, #0x900, lsl #16; movz w1, #'\n'; strb w1, [x0]; b .-4: the PL011 at 0x9000000
SPAM = bytes.fromhex("0020a1d24101805201000039ffffff17")
SPIN = bytes.fromhex("00000014")  # b .


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    """Compiled before anything is timed."""
    Engine.load()


@contextmanager
def started(
    folder: Path,
    *options: str,
    program: bytes = SPAM,
    stdout: int = subprocess.PIPE,
    **more: object,
) -> Iterator[subprocess.Popen[bytes]]:
    """A guest at work; a background job may have inherited "ignore SIGINT"."""
    (folder / "guest.bin").write_bytes(program)
    command = ["env", "--default-signal=INT", *COMMAND, "-k", str(folder / "guest.bin"), *options]
    keywords: dict[str, object] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **more}
    process = subprocess.Popen(command, stdout=stdout, **keywords)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def until_full(fd: int) -> None:
    """The guest can write no more."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while poll.poll(0):
        time.sleep(0.01)


def with_path(folder: Path) -> dict[str, str]:
    """An environment in which the folder's sitecustomize runs first."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def unread() -> Iterator[tuple[int, int]]:
    """A pipe that nobody reads, as small as there are."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("cpus", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_output_that_nobody_reads_stops_no_signal(
    tmp_path: Path, unread: tuple[int, int], number: signal.Signals, cpus: str
) -> None:
    """Three were needed, and the third killed."""
    read, write = unread
    with started(tmp_path, "-c", cpus, stdout=write) as process:
        held = bytearray(4)
        while int.from_bytes(held, "little") < 4096:  # one byte is no room for poll() already
            fcntl.ioctl(read, termios.FIONREAD, held)
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(LIMIT) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_output_that_nobody_reads_stops_no_timeout(
    tmp_path: Path, unread: tuple[int, int], both: bool
) -> None:
    _read, write = unread
    stderr = write if both else subprocess.PIPE
    with started(tmp_path, "--timeout", "0.5", "--stats", stdout=write, stderr=stderr) as process:
        assert process.wait(LIMIT) == Code.TIMEOUT


def test_a_socket_that_nobody_reads(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, started(tmp_path, stdout=theirs.fileno()) as process:
        until_full(theirs.fileno())
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == Code.TERMINATED


def test_a_terminal_that_nobody_reads_is_put_back(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with started(tmp_path, stdin=slave, stdout=slave, stderr=slave) as process:
        until_full(slave)
        assert termios.tcgetattr(slave) != before
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == Code.TERMINATED
        assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


HOOK = """
import os, signal, sys
def hook(event, arguments):
    if event == "import" and arguments[0] == {module!r} and not done:
        done.append(1)
        for number in {numbers}:
            os.kill(os.getpid(), number)
done = []
sys.addaudithook(hook)
"""


@pytest.mark.parametrize(
    "module", ["armkvm.cli.main", "armkvm.cli.progress", "armkvm.vmm.console", "armkvm.vmm.machine"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_modules_are_imported(
    tmp_path: Path, module: str, number: signal.Signals
) -> None:
    """Ctrl-C was a traceback then. A shell sees 128 + number whether it was told or killed."""
    (tmp_path / "sitecustomize.py").write_text(HOOK.format(module=module, numbers=[int(number)]))
    with started(tmp_path, program=SPIN, env=with_path(tmp_path)) as process:
        out, errors = process.communicate(timeout=LIMIT)
    assert (out, errors) == (b"", b"")
    assert process.returncode in (-number, 128 + number)


def test_a_second_signal_while_leaving_ends_it_at_once(tmp_path: Path) -> None:
    """It was a traceback, or a death by default action; the terminal is put back."""
    hook = (
        "import os, signal, sys, threading\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'armkvm.vmm.machine':\n"
        "        import armkvm.vmm.snapshot\n"
        "        from armkvm.kvm.vm import Vm\n"
        "        def slow(self):\n"
        "            os.write(2, b'leaving')\n"
        "            while True: pass\n"
        "        Vm.close = slow\n"
        "sys.addaudithook(hook)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hook)
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with started(tmp_path, stdin=slave, stdout=slave, env=with_path(tmp_path)) as process:
        assert process.stderr is not None
        assert os.read(master, 1) == b"\r"
        process.send_signal(signal.SIGINT)
        seen = process.stderr.read(7)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == Code.TERMINATED
        assert (seen, process.stderr.read()) == (b"leaving", b"")
        assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_is_not_for_a_second_signal_to_spoil(
    tmp_path: Path, number: signal.Signals
) -> None:
    """At the interpreter's exit the second one was a traceback, or death by default action."""
    hook = (
        "import atexit, os, time\n"
        "atexit.register(lambda: (os.write(2, b'leaving'), time.sleep(30)))\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hook)
    with started(tmp_path, env=with_path(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"\n"
        process.send_signal(number)
        if process.stderr.read(7):
            process.send_signal(number)
        process.stdout.close()
        assert process.wait(LIMIT) == 128 + number
        assert process.stderr.read() == b""


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """nohup: SIGHUP ended it all the same."""
    (tmp_path / "guest.bin").write_bytes(SPAM)
    command = ["env", "--ignore-signal=HUP", *COMMAND, "-k", "guest.bin", "--timeout", "3"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\n"
        process.send_signal(signal.SIGHUP)
        process.stdout.read()
        assert process.wait(LIMIT) == Code.TIMEOUT


def closed(*descriptors: int) -> Callable[[], None]:
    def act() -> None:
        for fd in descriptors:
            os.close(fd)

    return act


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)], ids=str)
def test_closed_descriptors_are_no_other_file(tmp_path: Path, which: tuple[int, ...]) -> None:
    """The guest's output was in the trace, or None had no flush()."""
    (tmp_path / "guest.bin").write_bytes(SPAM)
    words = ["-k", "guest.bin", "--max-insns", "9999", "--trace", "trace", "--save", "saved"]
    done = subprocess.run(
        [*COMMAND, *words], cwd=tmp_path, timeout=LIMIT, preexec_fn=closed(*which),
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    assert done.returncode == Code.LIMIT, done.stderr
    trace = (tmp_path / "trace").read_text().splitlines()
    assert all(line.startswith(("#", " ")) for line in trace)
    assert b"internal error" not in done.stderr
    assert (b"stopped" in done.stderr) == (2 not in which)


def test_other_verbs_with_closed_descriptors(tmp_path: Path) -> None:
    for which in ((1,), (2,), (0, 1, 2)):
        done = subprocess.run(
            [sys.executable, "-m", "armkvm", "dis", "d503201f"], cwd=tmp_path,
            preexec_fn=closed(*which), capture_output=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_under_standard_output(tmp_path: Path) -> None:
    """The interpreter tried once more at its end: 120, and a traceback."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "armkvm", "dis", "d503201f"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == Code.HOST
    assert done.stderr == b"armkvm: No space left on device\n"
