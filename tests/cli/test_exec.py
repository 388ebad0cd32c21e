"""`armkvm exec`: programs that were never written for it, static and dynamic."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server import clients
from tests.server.clients import armkvm

SAYS = {
    "counting": "40 41, 41 in memory, then 100\n",
    "alarmed": "-1 EINTR, handler ran, exit INTR\nand then 0\n",
    "masked": "-1 EINTR, handler ran, not pending\n",
    "forked": (
        "child: -1 EIO, memory 7\nchild: its own /dev/kvm says 12\nparent: 7\n"
    ),
    "discarded": "7, discarded 0, guest 8\n",
    "threaded": "499 499 499 499\n",
    "found": "a device 10:232, access 0, cloexec 0 1\nagain 12\n",
    "in_pieces": "398 399 400\n",
    "signalled": "-1, signalled often\n",
    "masks": "0, masks\n",
}  # fmt: skip


@pytest.fixture(scope="module", params=["-static", "-dynamic"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lacks = clients.missing()
    if lacks:
        pytest.skip(lacks)
    options = [request.param] if request.param == "-static" else []
    return clients.compiled(tmp_path_factory.mktemp("client"), *options)


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    """A socket's name says which process it was; that one is still there."""
    yield
    for pid in re.findall(r"@armkvm-(\d+)-", Path("/proc/net/unix").read_text()):
        assert Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("case", SAYS)
def test_what_a_client_sees(client: Path, case: str) -> None:
    done = armkvm("exec", "--", client, case)
    assert (done.stdout, done.stderr, done.returncode) == (SAYS[case], "", 0)


def test_exit_code_and_input_go_through(client: Path) -> None:
    assert armkvm("exec", "--", client, "exit", "37").returncode == 37
    assert armkvm("exec", "--", client, "cat", stdin="a\nb\n").stdout == "<a><b>"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV])
def test_a_program_that_a_signal_kills(client: Path, number: int) -> None:
    assert armkvm("exec", "--", client, "kill", str(int(number))).returncode == 128 + number


def test_stats_are_a_line_of_json(client: Path) -> None:
    done = armkvm("exec", "--stats", "--", client, "counting")
    assert re.fullmatch(r'\{"exit": 0, "kvm_run": 4, "ioctls": \d+\}\n', done.stderr)


def started(client: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "armkvm", "exec", "--", client, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def child_of(pid: int) -> int:
    """The process that runs the client, when it is there."""
    while True:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == pid and b"qemu-aarch64" in command:
                return int(folder.name)
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_handed_on(client: Path, number: int) -> None:
    with started(client, "cat") as process:
        child_of(process.pid)
        process.send_signal(number)
        assert process.wait() == 128 + number


def test_it_stops_and_goes_on_with_its_program(client: Path) -> None:
    with started(client, "cat") as process:
        child = child_of(process.pid)
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(b"x\n")[0] == b"<x>"


def test_a_program_does_not_outlive_it(client: Path) -> None:
    with started(client, "cat") as process:
        child = child_of(process.pid)
        process.kill()
        process.wait()
        while Path(f"/proc/{child}").exists():
            time.sleep(0.05)


# -- what cannot be started -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("no-such-program", "there is no program 'no-such-program'"),
        (sys.executable, "it is no arm64 program"),
        (__file__, "there is no program"),
    ],
)
def test_one_line_for_what_cannot_be_started(program: str, says: str) -> None:
    done = armkvm("exec", "--", program)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_an_emulator_it_says_what_to_install(
    client: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = armkvm("exec", "--", client, "counting")
    assert "apt install qemu-user): this machine has no apt-get" in done.stderr
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
