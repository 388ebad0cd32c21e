"""Output files: whole or not at all, what is refused, and what a killed writer leaves."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from armkvm.process import output


@pytest.fixture(params=["unnamed", "named"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With files that have no name, and on a file system that has none of those."""
    if request.param == "named":
        real = os.open

        def without(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", without)
    return tmp_path


def test_a_file_is_made_and_replaced(folder: Path) -> None:
    for data in (b"one", b"another"):
        output.replace(folder / "a", [data[:2], memoryview(data)[2:]])
        assert (folder / "a").read_bytes() == data
        assert os.listdir(folder) == ["a"]


def test_the_umask_holds_and_an_old_mode_stays(folder: Path) -> None:
    old = os.umask(0o027)
    try:
        output.replace(folder / "a", [b"x"])
        assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o640
        (folder / "a").chmod(0o604)
        output.replace(folder / "a", [b"y"])
        assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o604
        output.replace(folder / "b", [b"y"], mode=0o600)
        assert stat.S_IMODE((folder / "b").stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_nothing_is_seen_before_it_is_complete(folder: Path) -> None:
    (folder / "a").write_bytes(b"old")

    def parts() -> Iterator[bytes]:
        yield b"new"
        assert (folder / "a").read_bytes() == b"old"
        assert not (folder / "b").exists()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("a", "b"):
        with pytest.raises(OSError, match="No space"):
            output.replace(folder / name, parts())
    assert os.listdir(folder) == ["a"]
    assert (folder / "a").read_bytes() == b"old"


def test_a_link_is_followed_and_stays(folder: Path) -> None:
    (folder / "there").mkdir()
    for name in ("old", "new"):
        (folder / name).symlink_to(f"there/{name}")
    (folder / "there/old").write_bytes(b"before")
    for name in ("old", "new"):
        output.replace(folder / name, [b"saved"])
        assert (folder / name).is_symlink()
        assert (folder / "there" / name).read_bytes() == b"saved"
    assert sorted(os.listdir(folder / "there")) == ["new", "old"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = {
        str(tmp_path / "fifo"): "it is a pipe", str(tmp_path / "link"): "it is a pipe",
        str(tmp_path / "dir"): "it is a directory", str(tmp_path / "socket"): "it is a socket",
        "/dev/null": "it is a device", str(tmp_path / "loop"): "symbolic links",
        "": "No such file", str(tmp_path / "none/a"): "No such file",
        f"{tmp_path}/new/": "Is a directory",
    }  # fmt: skip
    for name, why in names.items():
        for act in (output.check, output.stream, lambda path: output.replace(path, [b"x"])):
            with pytest.raises(OSError, match=why):
                act(name)
    assert not stat.S_ISREG(os.stat(tmp_path / "fifo").st_mode)
    assert sorted(os.listdir(tmp_path)) == ["dir", "fifo", "link", "loop", "socket"]


def test_standard_output_is_no_other_file_too(tmp_path: Path) -> None:
    program = (
        "import sys; from armkvm.process import output\n"
        "try: output.check('out')\n"
        "except OSError as error: sys.stderr.write(error.strerror)"
    )
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, stdout=out, stderr=subprocess.PIPE
        )
    assert done.stderr == b"standard output goes there already"


def test_a_stream_empties_the_file_and_grows_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"something longer")
    inode = path.stat().st_ino
    fd = output.stream(path)
    os.write(fd, b"first")
    assert path.read_bytes() == b"first"
    os.close(fd)
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("named", [False, True])
def test_a_writer_that_is_killed_leaves_nothing_for_long(tmp_path: Path, named: bool) -> None:
    program = (
        "import errno, os, signal, sys\n"
        "from armkvm.process import output\n"
        "real = os.open\n"
        "def without(path, flags, mode=0o777, *, dir_fd=None):\n"
        "    if flags & os.O_TMPFILE == os.O_TMPFILE: raise OSError(errno.EOPNOTSUPP, '')\n"
        "    return real(path, flags, mode, dir_fd=dir_fd)\n"
        f"if {named}: os.open = without\n"
        "def parts():\n"
        "    yield bytes(5000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "output.replace('a', parts())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == named
    output.replace(tmp_path / "a", [b"x"])
    assert os.listdir(tmp_path) == ["a"]


def test_a_writer_that_lives_keeps_its_file(tmp_path: Path, folder: Path) -> None:
    """Two at once: neither sweeps the other's, and the last one to be complete is there."""

    def parts() -> Iterator[bytes]:
        yield b"slow "
        output.replace(folder / "a", [b"quick"])
        assert (folder / "a").read_bytes() == b"quick"
        yield b"one"

    output.replace(folder / "a", parts())
    assert (folder / "a").read_bytes() == b"slow one"
    assert os.listdir(folder) == ["a"]
    (folder / f".b.0123abcd{output.SUFFIX}").write_bytes(b"of another file")
    output.replace(folder / "a", [b"x"])
    assert len(os.listdir(folder)) == 2


def test_the_longest_name_there_is(folder: Path) -> None:
    name = "é" * 127
    output.replace(folder / name, [b"x"])
    output.replace(folder / name, [b"y"])
    assert os.listdir(folder) == [name]
