"""armkvm run: what its options become, with a machine that only records what it was given."""

import contextlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from armkvm.cli.codes import OF_OUTCOME, Code
from armkvm.cli.main import main
from armkvm.vmm.guest import bare, debian
from armkvm.vmm.guest.initramfs import default_initramfs

NOP = bytes.fromhex("1f2003d5")
IMAGE = NOP * 2 + bytes(48) + b"ARM\x64" + bytes(4)


class Recorder:
    """Stands in for vmm.machine: keeps the last configuration, ends as it is told."""

    def __init__(self) -> None:
        self.config: Any = None
        self.reason = "shutdown"
        self.error: BaseException | None = None
        self.closed = 0
        self.loaded = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recorder = self

        class Machine:
            def __init__(self, config: Any) -> None:
                recorder.config = config

            def dtb(self) -> bytes:
                return b"tree"

            def run(self) -> types.SimpleNamespace:
                if recorder.error is not None:
                    raise recorder.error
                message = "it fell over" if recorder.reason == "crash" else ""
                return types.SimpleNamespace(reason=recorder.reason, message=message)

            def stats(self) -> dict[str, Any]:
                return {"instructions": 7}

            def close(self) -> None:
                recorder.closed += 1

        class Engine:
            @classmethod
            def load(cls, progress: Any) -> None:
                recorder.loaded += 1

        class System(contextlib.nullcontext["System"]):
            def __init__(self, host: str, clock: str, *, seed: int | None = None) -> None:
                super().__init__(self)
                self.host, self.clock, self.seed = host, clock, seed

        for name, classes in (
            ("armkvm.vmm.machine", {"Config": types.SimpleNamespace, "Machine": Machine}),
            ("armkvm.engine.cpu", {"Engine": Engine}),
            ("armkvm.kvm.system", {"System": System}),
        ):
            module = types.ModuleType(name)
            module.__dict__.update(classes)
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    recorder.install(monkeypatch)
    return recorder


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    path = tmp_path / "guest.bin"
    path.write_bytes(bare.program())
    return str(path)


def put_default_guest(flavour: str = "cloud") -> None:
    folder = debian.cache_folder() / f"host-{flavour}"
    folder.mkdir(parents=True)
    files = {"Image": IMAGE, "busybox": b"box"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sizes = {name: {"size": len(data)} for name, data in files.items()}
    (folder / "manifest.json").write_text(json.dumps({"packages": {}, "files": sizes}))


def test_defaults(machine: Recorder, kernel: str) -> None:
    assert main(["run", "-k", kernel]) == 0
    config = machine.config
    assert config.image.kind == "flat"
    assert config.image.initrd is None
    assert config.params == "console=ttyAMA0 panic=-1"
    assert (config.cpus, config.mem_bytes) == (1, 512 << 20)
    assert (config.system.host, config.system.clock) == ("nvhe-gicv2", "virtual")
    assert (config.max_insns, config.timeout) == (None, None)
    assert (machine.loaded, machine.closed) == (1, 1)


@pytest.mark.parametrize(
    "spelling",
    [
        ["-k", "{k}", "-i", "{i}", "-p", "quiet", "-c", "1", "-m", "256M"],
        ["--kernel", "{k}", "--initrd={i}", "--params", "quiet", "--cpus", "1", "--mem", "256"],
        ["-kernel", "{k}", "-initrd", "{i}", "-append", "quiet", "-smp", "1", "-m", "256",
         "-nographic", "-no-reboot"],
    ],
)  # fmt: skip
def test_spellings(machine: Recorder, kernel: str, tmp_path: Path, spelling: list[str]) -> None:
    (tmp_path / "initrd").write_bytes(b"ramdisk")
    words = [word.format(k=kernel, i=tmp_path / "initrd") for word in spelling]
    assert main(["run", *words]) == 0
    config = machine.config
    assert config.params == "quiet"
    assert config.mem_bytes == 256 << 20
    assert config.image.segments[1].data == b"ramdisk"


def test_the_rest_of_the_options(machine: Recorder, kernel: str, tmp_path: Path) -> None:
    options = ["--time", "realtime", "--max-insns", "1e6", "--timeout", "2.5", "-p", ""]
    assert main(["run", "-k", kernel, "--dump-dtb", str(tmp_path / "dtb"), *options]) == 0
    config = machine.config
    assert config.system.clock == "realtime"
    assert (config.max_insns, config.timeout) == (10**6, 2.5)
    assert config.params == ""
    assert (tmp_path / "dtb").read_bytes() == b"tree"


@pytest.mark.parametrize(
    ("reason", "code", "line"),
    [
        ("shutdown", 0, ""),
        ("quit", 0, ""),
        ("reset", 3, "armkvm: the guest asked for a reset; if it is Linux, give it a root file "
         "system: --initrd FILE\n"),
        ("limit", 4, "armkvm: stopped: --max-insns 5 reached\n"),
        ("timeout", 5, "armkvm: stopped: --timeout 9 reached\n"),
        ("crash", 1, "armkvm: the guest cannot go on: it fell over\n"),
    ],
)
def test_outcomes(
    machine: Recorder,
    kernel: str,
    reason: str,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reason in OF_OUTCOME
    machine.reason = reason
    assert main(["run", "-k", kernel, "--max-insns", "5", "--timeout", "9"]) == code
    assert capsys.readouterr().err == line


def test_stats_are_the_last_line_of_standard_error(
    machine: Recorder, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-k", kernel, "--stats"]) == 0
    assert json.loads(capsys.readouterr().err.splitlines()[-1]) == {"instructions": 7}


def test_the_machine_is_closed_after_an_error(
    machine: Recorder, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.error = KeyboardInterrupt()
    assert main(["run", "-k", kernel]) == Code.INTERRUPTED
    machine.error = OSError(12, "Cannot allocate memory")
    assert main(["run", "-k", kernel]) == Code.HOST
    assert machine.closed == 2
    assert capsys.readouterr().err == "armkvm: Cannot allocate memory\n"


def test_default_guest(machine: Recorder, cache_home: Path) -> None:
    put_default_guest()
    assert main(["run", "-p", "quiet"]) == 0
    config = machine.config
    assert config.params == "console=ttyAMA0 panic=-1 armkvm.mode=batch quiet"
    assert config.image.kind == "Image"
    assert config.image.segments[1].data == default_initramfs(b"box")


def test_bcm2836_takes_the_kernel_that_has_its_driver(
    machine: Recorder, cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    put_default_guest("generic")
    assert main(["run", "--irqchip", "bcm2836"]) == 0
    assert machine.config.image.kind == "Image"


# An apt-get that knows what a hosted runner's does.
UBUNTU = """#!/bin/sh
[ "$1" = indextargets ] || exit 100
for release in noble noble-updates noble-security; do
  printf 'http://m/ubuntu\\t%s\\tmain\\tUbuntu\\n' $release
done
"""


@pytest.fixture
def ubuntu(tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        (tmp_path / name).write_text(UBUNTU)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_debian_source_the_bare_guest_runs(
    machine: Recorder, ubuntu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run"]) == 0
    assert machine.config.image.kind == "flat"
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "armkvm: this machine's apt has no Debian source, so this is the built-in" in line
    for way in ("--kernel Image --initrd FILE", "Debian container", "Debian source to apt"):
        assert way in line


@pytest.mark.parametrize("irqchip", ["bcm2836", "kernel-gicv3"])
def test_the_bare_guest_drives_a_gicv2_only(
    machine: Recorder, ubuntu: None, irqchip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--irqchip", irqchip]) == Code.HOST
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"the built-in guest has no driver for {irqchip}: for Linux give --kernel" in line
    assert machine.config is None


def test_without_apt_the_bare_guest_runs(
    machine: Recorder,
    cache_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run"]) == 0
    assert machine.config.image.segments[0].data == bare.program()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "--kernel Image --initrd FILE" in line


def test_the_content_tells_what_a_kernel_is_not_its_name(
    machine: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [tmp_path / name for name in ("guest", "Image.bin", "tree")]
    for path, data in zip(names, (NOP, IMAGE, b"\xd0\x0d\xfe\xed"), strict=True):
        path.write_bytes(data)
    for path, kind in zip(names, ("flat", "Image"), strict=False):
        assert main(["run", "-k", str(path)]) == 0
        assert machine.config.image.kind == kind
    for path in names:
        assert main(["run", "-k", str(path), "--flat"]) == 0
        assert machine.config.image.kind == "flat"
    assert main(["run", "-k", str(names[2])]) == Code.USAGE
    assert "not an arm64 kernel (--flat loads it all the same)" in capsys.readouterr().err
    assert main(["run", "--flat"]) == Code.USAGE
    assert "--flat needs --kernel" in capsys.readouterr().err


def test_endless_kernels_and_initrds_are_one_line(tmp_path: Path) -> None:
    """In a process of its own, which may have 2 GiB: reading on would end otherwise."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "kernel").write_bytes(IMAGE)
    for words, line in (
        ("-k /dev/zero", "the kernel /dev/zero has more than 64 MiB, which is more than fits"),
        ("-k kernel -i /dev/zero", "the initrd /dev/zero has more than 64 MiB"),
        ("-k fifo", "cannot read the kernel fifo: nobody writes to it"),
        ("-k kernel -i fifo", "cannot read the initrd fifo: nobody writes to it"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"ulimit -v {2 << 20}; exec {sys.executable} -m armkvm run -m 64 {words}"],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (Code.USAGE, ""), done.stderr
        assert done.stderr.startswith(f"armkvm: {line}")
        assert done.stderr.count("\n") == 1


def test_memory_too_small_for_the_kernel(
    machine: Recorder, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-k", kernel, "-m", "1"]) == Code.USAGE
    assert "the memory is too small" in capsys.readouterr().err
    assert machine.config is None
