"""Files that options name for output: refused before the work, whole afterwards, whose fault."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.engine.cpu import Engine

LIMIT = 30
SPIN = bytes.fromhex("00000014")  # b .


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    """Compiled before anything is limited."""
    Engine.load()


def armkvm(
    folder: Path, *arguments: str, limits: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    (folder / "guest.bin").write_bytes(SPIN)
    return subprocess.run(
        [sys.executable, "-m", "armkvm", *arguments], cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LIMIT, preexec_fn=limits,
    )  # fmt: skip


RUN = ("run", "-k", "guest.bin", "--max-insns", "1000", "-m", "4M")


@pytest.mark.parametrize(
    "words",
    [(*RUN, "--save"), (*RUN, "--trace"), (*RUN, "--dump-dtb"), ("check", "timer-past", "--html")],
    ids=lambda words: words[-1],
)
def test_only_a_new_or_a_regular_file_is_written(tmp_path: Path, words: tuple[str, ...]) -> None:
    """--save replaced a FIFO, a device or a link by a file; --dump-dtb waited for a reader."""
    os.mkfifo(tmp_path / "fifo")
    done = armkvm(tmp_path, *words, "fifo")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert done.returncode == Code.USAGE
    assert done.stderr == "armkvm: cannot write fifo: it is a pipe, not a file\n"

    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    armkvm(tmp_path, *words, "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder/target").stat().st_size > 0
    assert os.listdir(tmp_path / "folder") == ["target"]


@pytest.mark.parametrize("option", ["--save", "--trace", "--dump-dtb"])
def test_no_space_is_the_hosts(tmp_path: Path, option: str) -> None:
    """A full disk was exit code 2; here it is a limit on the size of files."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    (tmp_path / "before").write_bytes(b"old")
    done = armkvm(tmp_path, *RUN, option, "before", limits=small)
    assert done.returncode == Code.HOST
    assert done.stderr.splitlines()[-1] == "armkvm: cannot write before: File too large"
    if option != "--trace":
        assert (tmp_path / "before").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["before", "guest.bin"]


def test_a_bad_name_is_told_before_the_run(tmp_path: Path) -> None:
    for option in ("--save", "--trace", "--dump-dtb"):
        done = armkvm(tmp_path, *RUN, option, "none/there")
        assert done.returncode == Code.USAGE
        assert done.stderr == "armkvm: cannot write none/there: No such file or directory\n"


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    """The device tree would be lost to the trace."""
    done = armkvm(tmp_path, *RUN, "--trace", "a", "--dump-dtb", "./a")
    assert done.returncode == Code.USAGE
    assert done.stderr == "armkvm: a and ./a are the same file\n"


def test_a_save_that_is_killed_leaves_nothing_for_long(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from armkvm.vmm import snapshot, snapshot_file\n"
        "class Memory(list):\n"
        "    looks = 0\n"
        "    def __iter__(self):\n"
        "        self.looks += 1\n"
        "        yield (0, bytes(9000))\n"
        "        if {kill} and self.looks > 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "snapshot_file.write('a', snapshot.Snapshot('h', 'i', 0, 4096, 0, [], memory=Memory()))\n"
    )
    for kill, code in ((True, -signal.SIGKILL), (False, 0)):
        command = [sys.executable, "-c", program.format(kill=kill)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True)
        assert done.returncode == code, done.stderr
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_without_end_is_no_snapshot(tmp_path: Path) -> None:
    """It was read until memory was gone."""

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    done = armkvm(tmp_path, "run", "--restore", "/dev/zero", limits=little)
    assert done.returncode == Code.USAGE
    assert done.stderr == "armkvm: /dev/zero is not a snapshot of armkvm\n"
