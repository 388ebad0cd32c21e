"""The compiled engine on disk: found again, checked, made anew, refused."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from armkvm.engine import build
from armkvm.engine.build import Artefact, artefact, key
from armkvm.engine.errors import CacheError

MADE = Artefact(bytes(range(256)) * 100, ["base", "fp", "lse"])


@pytest.fixture
def compiled(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A compiler that only counts, and an empty cache."""
    del cache_home
    calls: list[int] = []

    def compile_(progress: object) -> Artefact:
        del progress
        calls.append(1)
        return MADE

    monkeypatch.setattr(build, "_compile", compile_)
    return calls


def path() -> Path:
    return build.cache_dir() / "engine" / key()


def test_round_trip(compiled: list[int]) -> None:
    assert artefact() == MADE
    assert artefact() == MADE
    assert len(compiled) == 1
    assert [p.name for p in path().parent.iterdir()] == [key()]  # no temporary file is left


def test_place(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_CACHE_HOME, or ~/.cache when that is unset or empty."""
    assert build.cache_dir() == cache_home / "armkvm"
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", "/somewhere")
        assert build.cache_dir() == Path("/somewhere/.cache/armkvm")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 40, 48, 51, 52, 60, 100, 10_000, -1])
def test_half_written(compiled: list[int], size: int) -> None:
    artefact()
    path().write_bytes(path().read_bytes()[:size])
    assert artefact() == MADE
    assert artefact() == MADE
    assert len(compiled) == 2


@pytest.mark.parametrize("at", [0, 5, 16, 30, 47, 48, 51, 52, 60, 80, 120, 5000, -1])
def test_damaged(compiled: list[int], at: int) -> None:
    artefact()
    data = bytearray(path().read_bytes())
    data[at] ^= 0x10
    path().write_bytes(data)
    assert artefact() == MADE
    assert len(compiled) == 2


def test_something_else(compiled: list[int]) -> None:
    artefact()
    path().write_bytes(os.urandom(5000))
    assert artefact() == MADE
    path().write_bytes(path().read_bytes() + b"\0")
    assert artefact() == MADE
    assert len(compiled) == 3


def one_line(error: CacheError, where: Path) -> None:
    text = str(error)
    assert "\n" not in text
    assert str(where) in text
    assert "XDG_CACHE_HOME" in text


def test_no_directory_possible(
    compiled: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the cache should be: one line that says what to do."""
    del compiled
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    with pytest.raises(CacheError) as e:
        artefact()
    one_line(e.value, file)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_no_space(compiled: list[int], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The reason is told, and the temporary file is gone."""
    del compiled

    def replace(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CacheError, match=os.strerror(code)) as e:
        artefact()
    one_line(e.value, path().parent)
    assert [*path().parent.iterdir()] == []


def test_a_directory_in_the_way(compiled: list[int]) -> None:
    del compiled
    path().mkdir(parents=True)
    with pytest.raises(CacheError) as e:
        artefact()
    one_line(e.value, path().parent)


def test_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows every source of arch, isa and engine, in rooms too, and nothing else."""
    real = Path(build.__file__).parent.parent
    for folder in ("arch", "isa", "engine"):
        shutil.copytree(real / folder, tmp_path / folder)
    (tmp_path / "kvm").mkdir()
    monkeypatch.setattr(build, "__file__", str(tmp_path / "engine" / "build.py"))
    first = key()
    assert first == key()
    (tmp_path / "kvm" / "vm.py").write_text("x = 1\n")
    assert key() == first
    seen = {first}
    for source in (
        tmp_path / "isa" / "ldst" / "lse.py",
        tmp_path / "engine" / "native" / "walk.py",
        tmp_path / "arch" / "sysreg.py",
    ):
        source.write_bytes(source.read_bytes() + b"\n")
        seen.add(key())
        source.rename(source.with_name("other.py"))
        seen.add(key())
    monkeypatch.setattr("llvmlite.__version__", "9.9.9")
    seen.add(key())
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    seen.add(key())
    assert len(seen) == 9


def test_features_come_from_the_cache(engine: object) -> None:
    """ID registers of a cached engine are those of its object file."""
    del engine
    loaded = build.artefact()
    assert {"base", "fp", "asimd", "crc32", "lse"} <= {*loaded.features}
    assert loaded.object[:4] == b"\x7fELF"
