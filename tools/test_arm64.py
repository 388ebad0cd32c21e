"""armkvm on an arm64 host: a boot, conformance, the tests of isa and engine, under qemu-user.

``make test-arm64`` runs it. Debian's Python for arm64 comes through this machine's apt and the
wheels of requirements-test.txt for aarch64 through pip; both, and the compiled engine, stay in
.arm64 for the next run (``make clean`` removes them). Nothing is installed and no root is needed:
qemu-aarch64 runs the one Python, from that folder. What that Python starts as a process of its own
is this machine's (binutils, dtc) or, by sys.executable, the same Python again.

First the default guest boots here and there. Instructions, exits, time, console and memory must be
the same; one that differs ends it, as everything behind it would only say so at length. Then
conformance against the truth of both kinds of host, then the tests, then a part of them on host
pages of 64 KiB. What is not run is in LEFT_OUT, with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from armkvm.vmm.guest.apt import Apt
from armkvm.vmm.guest.debian import cache_folder

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / ".arm64"
PYTHON = HERE / "python"  # a script: sys.executable of the arm64 Python
WHEELS = ROOT / "requirements-test.txt"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
PACKAGES = ("python3", "libstdc++6")
SAME = ("instructions", "exits", "guest_seconds", "console_digest", "memory_digest")
TRUTHS = {"nvhe-gicv2": "612-gic2-a57.txt", "vhe-gicv3": "612-gic3-a76.txt"}
TESTS = ("tests/isa", "tests/engine", "tests/kvm/io/test_coalesced_mmio.py")
LARGE_PAGES = (
    "tests/engine/test_cpu.py",
    "tests/engine/native/test_memory.py",
    "tests/kvm/io/test_coalesced_mmio.py",
)
_MREMAP = "qemu-user knows no mremap(2) of length 0, by which vCPUs share the ring"
# The start of a test's id, and why it is not run.
LEFT_OUT = {
    "tests/kvm/io/test_coalesced_mmio.py::test_every_vcpu_shows_the_same_ring": _MREMAP,
    "tests/kvm/io/test_coalesced_mmio.py::test_the_ring_is_in_the_second_page": _MREMAP,
}
# Translating a translator's code again and again costs more than it tells: fewer samples.
SAMPLES = "40"
SCRIPT = """\
#!/bin/sh
# The arm64 Python of tools/test_arm64.py. PYTHONHOME: its own path is not where its library is.
PYTHONHOME={root}/usr exec qemu-aarch64 {options} -L {root} -0 "$0" {root}/usr/bin/{python} "$@"
"""


def main() -> int:
    """Set up what is missing and run; 0 if all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=STEPS, action="append", help="only this step")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest instead of the default")
    args = parser.parse_args()
    if platform.machine() == "aarch64":
        print("this machine is an arm64 host: make test tests it")
        return 2
    if shutil.which("qemu-aarch64") is None:
        print("make test-arm64 needs qemu-aarch64 (Debian: apt install qemu-user)")
        return 2
    set_up()
    begin = time.monotonic()
    for name in args.only or STEPS:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        if not STEPS[name](args.pytest):
            print(f"== {name} failed", flush=True)
            return 1
        print(f"== {name}: {time.monotonic() - started:.0f} s", flush=True)
    print(f"== all: {(time.monotonic() - begin) / 60:.0f} min")
    return 0


# -- the arm64 machine ------------------------------------------------------------------------
def set_up() -> None:
    """The folder with Python, wheels and the script; a part that is there is not made again."""
    root, wheels, cache = HERE / "root", HERE / "wheels", HERE / "cache" / "armkvm"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not root.exists():
        print("== fetching Debian's Python for arm64", flush=True)
        with tempfile.TemporaryDirectory(dir=HERE) as folder:
            apt = Apt(Path(folder) / "apt", None)
            apt.update()
            made = Path(folder) / "root"
            for package in apt.download(apt.closure(PACKAGES), lambda _done, _total: None):
                subprocess.run(["dpkg-deb", "-x", package, made], check=True)
            made.rename(root)
    python = next((root / "usr" / "bin").glob("python3.[0-9]*[0-9]")).name
    for script, options in ((PYTHON, ""), (large_pages(), "-p 65536")):
        script.write_text(
            SCRIPT.format(root=shlex.quote(str(root)), python=python, options=options)
        )
        script.chmod(0o755)
    stamp = wheels / f"{hashlib.sha256(WHEELS.read_bytes()).hexdigest()[:16]}-{python}"
    if not stamp.exists():
        print("== fetching wheels for aarch64", flush=True)
        shutil.rmtree(wheels, ignore_errors=True)
        platforms = [f"--platform={name}" for name in PLATFORMS]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--target", str(wheels), "--implementation=cp", "--only-binary=:all:"]
        pip += [f"--python-version={python.removeprefix('python')}", *platforms]
        subprocess.run([*pip, "--require-hashes", "-r", str(WHEELS)], check=True)
        stamp.touch()
    guests = cache / "guests"  # the same guest on both sides
    guests.unlink(missing_ok=True)
    guests.symlink_to(cache_folder())


def large_pages() -> Path:
    """The same Python, on host pages of 64 KiB."""
    return PYTHON.with_name("python-64k")


def on_arm64(*command: str, python: Path = PYTHON) -> list[str]:
    """A command line of the arm64 Python, with its environment."""
    environment = {
        "PYTHONPATH": f"{HERE / 'wheels'}:{ROOT / 'src'}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",  # .pyc files would be the other Python's
        "XDG_CACHE_HOME": str(HERE / "cache"),
        "ARMKVM_SAMPLES": os.environ.get("ARMKVM_SAMPLES", SAMPLES),
    }
    return ["env", *(f"{k}={v}" for k, v in environment.items()), str(python), *command]


# -- the steps --------------------------------------------------------------------------------
def compile_engine(_: list[str]) -> bool:
    """Compile, or find what an earlier run compiled."""
    code = "from armkvm.engine.cpu import Engine; Engine.load()"
    return subprocess.run(on_arm64("-c", code), cwd=ROOT, check=False).returncode == 0


def boot(_: list[str]) -> bool:
    """The default guest, on both machines."""
    run = ("-m", "armkvm", "run", "--time", "virtual", "--stats")
    here = stats([sys.executable, *run])
    there = stats(on_arm64(*run))
    wrong = [key for key in SAME if here.get(key) is None or here[key] != there.get(key)]
    for key in SAME:
        if key in wrong:
            print(f"  {key}: {here.get(key)} here, {there.get(key)} on arm64")
        else:
            print(f"  {key}: {here[key]}")
    return not wrong


def stats(command: list[str]) -> dict[str, Any]:
    """What a run says of itself in its last line."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, check=False
    )
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        print("\n".join(lines))
        return {}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def conformance(_: list[str]) -> bool:
    """Every section, against the truth of both kinds of host."""
    done = [
        subprocess.run(
            on_arm64(
                "-m", "armkvm", "conformance", "--host", host,
                "--against", str(ROOT / "tests" / "data" / "ground-truth" / truth),
            ),
            cwd=ROOT, check=False,
        ).returncode
        for host, truth in TRUTHS.items()
    ]  # fmt: skip
    return not any(done)


def tests(arguments: list[str]) -> bool:
    """isa and engine."""
    return pytest(PYTHON, arguments or ["-n", "2", *TESTS])


def pages(arguments: list[str]) -> bool:
    """What maps memory, on host pages of 64 KiB."""
    return pytest(large_pages(), arguments or [*LARGE_PAGES])


def pytest(python: Path, arguments: list[str]) -> bool:
    """The suite's tests but those of LEFT_OUT."""
    left_out = [f"--deselect={name}" for name in LEFT_OUT]
    command = on_arm64(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", *left_out, *arguments, python=python
    )
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


STEPS = {
    "compile": compile_engine,
    "boot": boot,
    "conformance": conformance,
    "tests": tests,
    "pages": pages,
}

if __name__ == "__main__":
    sys.exit(main())
