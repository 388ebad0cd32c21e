"""The console: queue, escape key, pipes, and a real terminal (a pty) that is always put back."""

import hashlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

from armkvm.vmm.console import QUEUE_MAX, BufferConsole, EscapeKey, StdioConsole


def await_input(console: StdioConsole, count: int) -> bytes:
    got = b""
    while len(got) < count:
        assert console.wait(600), f"only {got!r} came"
        got += console.take(4096)
    return got


def test_buffer_console() -> None:
    console = BufferConsole(b"typed")
    woken: list[int] = []
    console.start(lambda: woken.append(1))
    assert console.wait(0)
    assert console.take(2) == b"ty"
    assert console.waiting == 3
    assert console.take(9) == b"ped"
    assert not console.wait(0)
    console.feed(b"more")
    assert woken == [1]
    assert console.take(9) == b"more"
    console.write(b"out")
    console.write(b"put")
    assert console.output == b"output"
    assert console.digest() == hashlib.sha256(b"output").hexdigest()


def test_wait_is_woken_by_feed() -> None:
    console = BufferConsole()
    timer = threading.Timer(0.05, console.feed, [b"x"])
    timer.start()
    assert console.wait(600)
    timer.join()


@pytest.mark.parametrize(
    ("typed", "guest", "leaves", "helps"),
    [
        (b"ls\r", b"ls\r", False, False),
        (b"\x03\x04", b"\x03\x04", False, False),  # Ctrl-C and Ctrl-D are the guest's
        (b"a\x01xb", b"a", True, False),
        (b"\x01\x01x", b"\x01x", False, False),
        (b"a\x01hb", b"ab", False, True),
        (b"a\x01qb", b"ab", False, False),
    ],
)
def test_escape_key(typed: bytes, guest: bytes, leaves: bool, helps: bool) -> None:
    whole = EscapeKey()
    assert whole.filter(typed) == guest
    assert (whole.quit, whole.help) == (leaves, helps)
    # The same when the keys arrive one by one.
    single = EscapeKey()
    out = b"".join(single.filter(bytes([key])) for key in typed if not single.quit)
    assert out == guest
    assert (single.quit, single.help) == (leaves, helps)


def test_pipe_input_and_output() -> None:
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    with StdioConsole(in_read, out_write) as console:
        woken = threading.Event()
        console.start(woken.set)
        os.write(in_write, b"\x01x from a pipe")  # no escape key there
        assert woken.wait(600)
        assert await_input(console, 14) == b"\x01x from a pipe"
        assert not console.quit
        os.close(in_write)
        console.write(b"part ")
        assert select.select([out_read], [], [], 0)[0] == []
        console.write(b"of a line\n")
        assert os.read(out_read, 100) == b"part of a line\n"
        console.write(b"rest")
    assert os.read(out_read, 100) == b"rest"
    for fd in (in_read, out_read, out_write):
        os.close(fd)


def test_a_guest_that_does_not_read_stops_the_pipe() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with StdioConsole(read) as console:
        console.start(lambda: None)
        sent = os.write(write, bytes(3 * QUEUE_MAX))
        assert sent == 3 * QUEUE_MAX
        assert len(await_input(console, sent)) == sent
        assert console.waiting == 0
    os.close(read)
    os.close(write)


def test_null_and_closed_input_give_nothing() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (null, 987):
        with StdioConsole(fd, null) as console:
            console.start(lambda: None)
            assert not console.wait(0.02)
    os.close(null)


def test_broken_output_is_reported_once() -> None:
    read, write = os.pipe()
    os.close(read)
    console = StdioConsole(0, write)
    with pytest.raises(BrokenPipeError):
        console.write(b"line\n")
    console.close()
    os.close(write)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_terminal_is_raw_and_put_back(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    console = StdioConsole(slave, slave)
    console.start(lambda: None)
    assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.write(master, b"\x03a\x01\x01")
    assert await_input(console, 3) == b"\x03a\x01"
    console.write(b"$ ")  # a prompt without a newline
    assert os.read(master, 100) == b"$ "
    os.write(master, b"\x01h")
    assert b"leave armkvm" in os.read(master, 1000)
    os.write(master, b"\x01x")
    assert console.wait(600)
    assert console.quit
    console.close()
    assert termios.tcgetattr(slave) == before
    console.close()


PROGRAM = """
import os, sys
from armkvm.vmm.console import StdioConsole
console = StdioConsole(0, 1)
with console:
    console.start(lambda: None)
    console.write(b"ready")
    {then}
"""


@pytest.mark.parametrize(
    ("then", "number", "code"),
    [
        ("console.wait(30)", signal.SIGTERM, 143),
        ("console.wait(30)", signal.SIGHUP, 129),
        ("console.wait(30)", signal.SIGINT, -signal.SIGINT),
        ("raise ZeroDivisionError", None, 1),
        ("sys.exit(5)", None, 5),
    ],
)
def test_terminal_is_put_back_however_the_process_ends(
    terminal: tuple[int, int], then: str, number: signal.Signals | None, code: int
) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    # A background job may have inherited "ignore SIGINT", which Python would keep.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", PROGRAM.format(then=then)],
        stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert os.read(master, 5) == b"ready"
    if number is not None:
        process.send_signal(number)
    assert process.wait() == code
    assert termios.tcgetattr(slave) == before


def test_a_signal_wakes_the_machine() -> None:
    # The main thread may be inside guest code, where Python runs no signal handler.
    woken = threading.Event()
    old = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    read, write = os.pipe()
    with StdioConsole(read) as console:
        console.start(woken.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert woken.wait(600)
        assert console.take(1) == b""
    signal.signal(signal.SIGUSR1, old)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_while_the_thread_is_being_started(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in start(): close() could not join, and the error hid the interrupt."""
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        if begun:
            start(self)
        raise KeyboardInterrupt

    stdin, stdin_writer = os.pipe()
    stdout_reader, stdout = os.pipe()
    console = StdioConsole(stdin, stdout)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), console:
            console.start(lambda: None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    for fd in (stdin, stdin_writer, stdout_reader, stdout):
        os.close(fd)
