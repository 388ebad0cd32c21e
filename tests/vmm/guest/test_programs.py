"""qemu-aarch64 and a libc from packages, with a stand-in for apt and real .deb files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.conftest import Oracle

from armkvm.process import cache
from armkvm.vmm.errors import FetchError
from armkvm.vmm.guest import apt, programs


def deb(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A package."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    rest = "Version: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(f"Package: {name}\n{rest}")
    for path, data in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    out = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, out], check=True, capture_output=True)
    return out


@pytest.fixture
def packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oracle: Oracle
) -> dict[str, dict[str, bytes]]:
    """Files by package; what is downloaded is noted under ""."""
    if oracle("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    there: dict[str, dict[str, bytes]] = {"": {}}

    class Stand:
        def __init__(self, root: Path, suite: str | None, architecture: str = "arm64") -> None:
            self.root, self.architecture = root, architecture

        def update(self) -> None:
            pass

        def closure(self, names: Sequence[str]) -> list[str]:
            return [*names]

        def download(self, names: list[str], progress: Callable[[int, int], None]) -> list[Path]:
            progress(1, 1)
            there[""].update({name: self.architecture.encode() for name in names})
            return [deb(self.root.parent / name, name, there[name]) for name in names]

    monkeypatch.setattr(apt, "Apt", Stand)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return there


OLD = {"qemu-user-static": {"usr/bin/qemu-aarch64-static": b"old"}, "qemu-user": {}}
NEW = {"qemu-user-static": {"usr/share/doc/x": b""}, "qemu-user": {"usr/bin/qemu-aarch64": b"new"}}


@pytest.mark.parametrize(("release", "content"), [(OLD, b"old"), (NEW, b"new")])
def test_the_static_emulator_of_each_release(
    packages: dict[str, dict[str, bytes]], release: dict[str, dict[str, bytes]], content: bytes
) -> None:
    packages.update(release)
    emulator = programs.emulator()
    assert emulator.read_bytes() == content
    assert emulator.stat().st_mode & 0o111
    # For this machine, not for arm64; and not a second time.
    assert b"arm64" not in packages[""].values()
    packages[""].clear()
    assert programs.emulator() == emulator
    assert packages[""] == {}


def test_a_release_without_one(packages: dict[str, dict[str, bytes]]) -> None:
    packages.update({"qemu-user-static": {"x": b""}, "qemu-user": {"x": b""}})
    with pytest.raises(FetchError, match="hold no qemu-aarch64"):
        programs.emulator()
    assert [p.name for p in (cache.directory() / "programs").iterdir()] == [".lock"]


def test_libraries_make_a_root(packages: dict[str, dict[str, bytes]]) -> None:
    """Debian 13 has all files under /usr: the interpreter is looked for under /lib."""
    packages.update({
        "libc6": {"usr/lib/ld-linux-aarch64.so.1": b"ld"},
        "libgcc-s1": {"usr/lib/libgcc_s.so.1": b"gcc"},
        "libstdc++6": {"usr/lib/libstdc++.so.6": b"c++"},
    })  # fmt: skip
    root = programs.libraries()
    assert (root / "lib" / "ld-linux-aarch64.so.1").read_bytes() == b"ld"
    assert (root / "lib" / "libstdc++.so.6").read_bytes() == b"c++"


def test_what_others_can_write_is_not_run(packages: dict[str, dict[str, bytes]]) -> None:
    packages.update(OLD)
    programs.emulator().parent.chmod(0o777)
    with pytest.raises(FetchError, match="can be written by others"):
        programs.emulator()
