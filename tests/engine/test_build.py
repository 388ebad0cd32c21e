"""The compiled engine on disk: found again, checked, made anew, refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from armkvm.engine import build
from armkvm.engine.build import Artefact, artefact, key
from armkvm.engine.errors import CacheError
from armkvm.isa.all import announced

# An object file of one section, which is empty, and some code.
OBJECT = b"\x7fELF\2\1\1".ljust(40, b"\0") + struct.pack("<Q10x3H", 64, 64, 1, 0) + bytes(64)
MADE = Artefact(OBJECT + bytes(range(256)) * 100, {"id_aa64isar0_el1": 2 << 20})


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
    return Path(os.environ["XDG_CACHE_HOME"]) / "armkvm" / "engine" / key()


def test_round_trip(compiled: list[int]) -> None:
    assert artefact() == MADE
    assert artefact() == MADE
    assert len(compiled) == 1
    assert [p.name for p in path().parent.iterdir()] == [key()]  # no temporary file is left


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

    monkeypatch.setattr(os, "fsync", replace)
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


def with_digest(body: bytes) -> bytes:
    return b"armkvm engine 1\n" + hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(
    "head",
    [
        b"{}", b"[]", b"7", b"null", b"\xff", b"[" * 100_000,
        b'{"announced": 7}', b'{"announced": {"x": "7"}}',
    ],
)  # fmt: skip
def test_a_head_that_makes_no_sense_is_a_miss(compiled: list[int], head: bytes) -> None:
    """It was a KeyError or TypeError, an internal error for the user."""
    path().parent.mkdir(parents=True, mode=0o700)
    path().write_bytes(with_digest(len(head).to_bytes(4, "little") + head + MADE.object))
    path().chmod(0o600)
    assert artefact() == MADE
    assert len(compiled) == 1


def cut(made: bytes, size: int) -> bytes:
    head = json.dumps({"announced": {}}).encode()
    return with_digest(len(head).to_bytes(4, "little") + head + made[:size])


@pytest.mark.parametrize("size", [0, 3, 63, 64, 127])
def test_a_truncated_object_with_a_right_digest_is_a_miss(compiled: list[int], size: int) -> None:
    path().parent.mkdir(parents=True, mode=0o700)
    path().write_bytes(cut(MADE.object, size))
    path().chmod(0o600)
    assert artefact() == MADE
    assert len(compiled) == 1


def test_half_an_engine_is_not_run(
    engine: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLVM reads sections that are not there: SIGSEGV."""
    del engine
    whole = build.artefact().object
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path().parent.mkdir(parents=True, mode=0o700)
    for part in (2, 10):
        path().write_bytes(cut(whole, len(whole) - len(whole) // part))
        path().chmod(0o600)
        program = (
            "from armkvm.engine import build\n"
            "build._compile = lambda progress: (_ for _ in ()).throw(SystemExit(77))\n"
            "build.Loaded(build.artefact())\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True)
        assert done.returncode == 77, done.stderr


def test_a_fifo_in_its_place_is_a_miss(compiled: list[int]) -> None:
    """Opening it waited for a writer, for ever."""
    path().parent.mkdir(parents=True, mode=0o700)
    os.mkfifo(path())
    signal.alarm(20)
    assert artefact() == MADE
    signal.alarm(0)
    assert artefact() == MADE
    assert len(compiled) == 1


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_file_that_others_can_write_is_not_loaded(compiled: list[int], mode: int) -> None:
    artefact()
    path().chmod(mode)
    assert artefact() == MADE
    assert artefact() == MADE
    assert len(compiled) == 2


@pytest.mark.parametrize("where", ["", "armkvm", "armkvm/engine"])
def test_a_directory_that_others_can_write_is_told(
    compiled: list[int], cache_home: Path, where: str
) -> None:
    """Nothing was looked at: whoever could write there had code of his run."""
    artefact()
    (cache_home / where).chmod(0o777)
    with pytest.raises(CacheError) as e:
        artefact()
    one_line(e.value, cache_home / where)
    assert "can be written by others" in str(e.value)
    assert len(compiled) == 1


def test_a_writer_that_is_killed_leaves_nothing_for_long(cache_home: Path) -> None:
    """SIGKILL while the engine is stored: a file of 20 MB stayed for ever."""
    program = (
        "import os, signal, tempfile\n"
        "from armkvm.engine import build\n"
        f"build._compile = lambda progress: build.Artefact(bytes.fromhex({OBJECT.hex()!r}), {{}})\n"
        "def die(*_a, **_k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "if {kill}: os.fsync = os.replace = die\n"
        "build.artefact()\n"
    )
    for kill, code in ((True, -signal.SIGKILL), (False, 0)):
        command = [sys.executable, "-c", program.replace("{kill}", str(kill))]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == code, done.stderr
    assert [p.name for p in path().parent.iterdir()] == [key()]
    del cache_home


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
    assert loaded.announced == announced()
    assert loaded.object[:4] == b"\x7fELF"
