"""The cache: its place, and whom it belongs to."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from armkvm.process import cache, output


def test_place(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_CACHE_HOME, or ~/.cache when that is unset, empty or relative."""
    assert cache.directory() == cache_home / "armkvm"
    monkeypatch.setenv("HOME", "/somewhere")
    for value in ("", None, "rel", "./rel"):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache.directory() == Path("/somewhere/.cache/armkvm")


@pytest.mark.parametrize("home", [None, "", "here"])
def test_without_a_home_the_password_file_tells(
    home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir="/of/passwd"))
    assert cache.directory() == Path("/of/passwd/.cache/armkvm")

    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(OSError, match="no home directory: set XDG_CACHE_HOME"):
        cache.directory()


def test_what_is_made_is_the_users_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cache.store(tmp_path / "a/b/c", b"x")
    finally:
        os.umask(old)
    for name, mode in (("a", 0o700), ("a/b", 0o700), ("a/b/c", 0o600)):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert cache.load(tmp_path / "a/b/c") == b"x"


def test_whatever_has_the_name_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    os.mkfifo(path)
    cache.store(path, b"one")
    assert cache.load(path) == b"one"
    path.chmod(0o666)
    with pytest.raises(OSError, match="anybody"):
        cache.load(path)
    path.unlink()
    (tmp_path / "target").write_bytes(b"before")
    path.symlink_to("target")
    with pytest.raises(OSError, match="symbolic"):
        cache.load(path)
    cache.store(path, b"two")
    assert cache.load(path) == b"two"
    assert (tmp_path / "target").read_bytes() == b"before"
    path.unlink()
    with path.open("wb") as file:
        file.truncate(cache.LARGEST + 1)
    path.chmod(0o600)
    with pytest.raises(OSError, match="too large"):
        cache.load(path)


def test_an_owner_must_be_this_user_or_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from somebody else's side: chown() is root's."""
    cache.store(tmp_path / "a", b"x")
    real = os.stat

    def others(path: os.PathLike[str]) -> object:
        found = real(path)
        uid = 4321 if Path(path) == tmp_path.parent else found.st_uid
        return SimpleNamespace(st_uid=uid, st_mode=found.st_mode, st_gid=found.st_gid)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", others)
        with pytest.raises(cache.DistrustError, match="belongs to user 4321"):
            cache.load(tmp_path / "a")
        # A user that this namespace does not have.
        patch.setattr(Path, "read_text", lambda self: "         0       1000          1\n")
        assert cache.load(tmp_path / "a") == b"x"


def test_a_group_of_ones_own_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    cache.store(tmp_path / "in/a", b"x")
    real = os.stat

    def shared(path: os.PathLike[str]) -> object:
        found = real(path)
        more = stat.S_IWGRP if Path(path) == tmp_path else 0
        return SimpleNamespace(st_uid=found.st_uid, st_mode=found.st_mode | more, st_gid=55)

    monkeypatch.setattr(os, "stat", shared)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="me", pw_gid=55))
    for members, name, fine in (([], "me", True), (["you"], "me", False), ([], "us", False)):
        group = SimpleNamespace(gr_mem=members, gr_name=name)
        monkeypatch.setattr(grp, "getgrgid", lambda gid, group=group: group)
        if fine:
            assert cache.load(tmp_path / "in/a") == b"x"
        else:
            with pytest.raises(cache.DistrustError, match=f"{tmp_path} can be written by others"):
                cache.load(tmp_path / "in/a")


def test_two_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from armkvm.process import cache\n"
        "sys.stdin.read(1)\n"
        "for n in range(50): cache.store(Path('a/b/c'), bytes(100000))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in both] == [0, 0]
    assert cache.load(tmp_path / "a/b/c") == bytes(100000)
    assert os.listdir(tmp_path / "a/b") == ["c"]


def test_what_goes_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer takes the old file away after it was seen."""
    path = tmp_path / "c"
    path.write_bytes(b"old")
    seen = os.stat(path)
    path.unlink()
    monkeypatch.setattr(output, "_target", lambda _path: (path, seen))
    output.replace(path, [b"new"])
    assert path.read_bytes() == b"new"
