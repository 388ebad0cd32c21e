"""armkvm guest fetch: what it prints and leaves; the fetching itself is vmm's and tested there."""

import json
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.cli.main import main
from armkvm.vmm.guest import debian
from armkvm.vmm.guest.initramfs import default_initramfs


def test_fetch_of_what_is_there(cache_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = debian.cache_folder() / "trixie-rt"
    folder.mkdir(parents=True)
    files = {"Image": b"kernel", "busybox": b"box"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "packages": {"linux-image-x": "1.2"},
        "files": {name: {"size": len(data)} for name, data in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for _ in range(2):
        assert main(["guest", "fetch", "--suite", "trixie", "--flavour", "rt"]) == 0
        captured = capsys.readouterr()
        assert captured.out.splitlines() == [
            "linux-image-x 1.2",
            f"kernel {folder}/Image",
            f"initrd {folder}/initramfs.cpio",
        ]
        assert captured.err == ""  # no progress in a pipe
        assert (folder / "initramfs.cpio").read_bytes() == default_initramfs(b"box")
        assert len(list(folder.iterdir())) == 4


def test_no_debian_here(
    cache_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["guest", "fetch"]) == Code.HOST
    line = capsys.readouterr().err
    assert line.startswith("armkvm: this machine has no apt-get: run this in a Debian container")
    assert line.count("\n") == 1
