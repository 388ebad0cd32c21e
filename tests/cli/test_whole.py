"""The command as a process: built-in guests from start to end, signals, pipes, a terminal.

Debian's kernels have tests of their own; what is here needs nothing from outside.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from armkvm.bench import mips
from armkvm.cli.codes import Code
from armkvm.engine.cpu import Engine
from armkvm.vmm.guest import bare

LIMIT = 120
COMMAND = [sys.executable, "-m", "armkvm", "run"]
SPIN = bytes.fromhex("00000014")  # b .


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    """Compile once, before anything here is timed."""
    Engine.load()


def kernel(folder: Path, program: bytes) -> str:
    path = folder / "guest.bin"
    path.write_bytes(program)
    return str(path)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, cwd=cwd,
    )  # fmt: skip


def test_bare_guest_ticks_to_the_instruction(tmp_path: Path) -> None:
    path = kernel(tmp_path, bare.program())
    first, second = (run("-k", path, "--stats") for _ in range(2))
    assert first.returncode == 0
    lines = first.stdout.decode().splitlines()
    ticks = sorted(line for line in lines if "PPI" in line)
    expected = [f"CNTV  PPI 27  tick {n}  at {100 * n} ms" for n in range(1, 6)]
    expected += [f"CNTP  PPI 30  tick {n}  at {125 * n} ms" for n in range(1, 6)]
    assert ticks == sorted(expected)
    assert lines[-1].startswith("BOOT-OK")
    # Virtual time: a run is a function of its inputs.
    one, other = (json.loads(done.stderr.splitlines()[-1]) for done in (first, second))
    for key in ("instructions", "exits", "console_digest", "memory_digest"):
        assert one[key] == other[key]
    assert one["wall_seconds"] > 0
    # Ten ticks, each announced when its line rises; and the GIC is in user space.
    assert one["exits"]["exit_reasons"]["INTR"] >= 10
    assert one["exits"]["exit_reasons"]["MMIO"] > 20


@pytest.mark.parametrize("program", mips.KERNELS, ids=lambda program: program.name)
def test_bench_kernels_agree_with_qemu(program: mips.Kernel, tmp_path: Path) -> None:
    # What QEMU answers with count 1; tests/bench/test_mips.py checks the programs themselves.
    answers = {
        "xorshift": "dc1b77ae0bf34e89",
        "sieve": "000000000000198e",
        "fib": "0000000000000001",
        "quicksort": "081a18a97e751bc8",
        "crc32-table": "000000001332889b",
        "collatz": "0000000000000000",
    }
    done = run("-k", kernel(tmp_path, mips.program(program, 1)))
    assert (done.returncode, done.stdout.decode().strip()) == (0, answers[program.name])


def test_limits(tmp_path: Path) -> None:
    path = kernel(tmp_path, SPIN)
    done = run("-k", path, "--max-insns", "12345", "--stats")
    assert done.returncode == Code.LIMIT
    assert json.loads(done.stderr.splitlines()[-1])["instructions"] == 12345
    assert run("-k", path, "--timeout", "0.2").returncode == Code.TIMEOUT


def test_dump_dtb(tmp_path: Path) -> None:
    path = kernel(tmp_path, SPIN)
    done = run("-k", path, "--max-insns", "1", "--dump-dtb", "tree", cwd=tmp_path)
    assert done.returncode == Code.LIMIT
    assert (tmp_path / "tree").read_bytes()[:4] == b"\xd0\x0d\xfe\xed"
    done = run("-k", path, "--dump-dtb", "/nosuch/tree")
    assert done.returncode == Code.USAGE
    assert done.stderr == b"armkvm: cannot write /nosuch/tree: No such file or directory\n"


def test_parameters_are_bytes(tmp_path: Path) -> None:
    """What is no UTF-8 was an internal error; the guest gets it as it is."""
    words = [*COMMAND, "-k", kernel(tmp_path, SPIN), "--max-insns", "1", "--dump-dtb", "tree"]
    done = subprocess.run(
        [*map(os.fsencode, words), b"-p", b"a=\xff\xfe"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == Code.LIMIT, done.stderr
    assert b"a=\xff\xfe\0" in (tmp_path / "tree").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_the_midst_of_guest_code(
    number: signal.Signals, tmp_path: Path
) -> None:
    # The guest says that it runs, and then spins without an exit.
    program = mips.program(mips.NOTHING, 1).replace(bytes.fromhex("020000d4"), SPIN)
    # A background job may have inherited "ignore SIGINT", which Python would keep.
    command = ["env", "--default-signal=INT", *COMMAND, "-k", kernel(tmp_path, program)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        # "+" has no newline and is shown at the end. The console's thread starts with the guest.
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1:
            assert process.poll() is None
        process.send_signal(number)
        out, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + number
    assert errors == b""
    assert out in (b"", b"+")


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "-k", kernel(tmp_path, bare.program())],
        stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, timeout=LIMIT,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (Code.PIPE, b"")


def test_the_escape_key_leaves_and_the_terminal_is_put_back(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    program = mips.program(mips.NOTHING, 1).replace(bytes.fromhex("020000d4"), SPIN)
    with subprocess.Popen(
        [*COMMAND, "-k", kernel(tmp_path, program)], stdin=slave, stdout=slave, stderr=slave
    ) as process:
        assert os.read(master, 1) == b"+"
        assert termios.tcgetattr(slave) != before
        os.write(master, b"\x03\x01x")
        assert process.wait(LIMIT) == 0
    assert termios.tcgetattr(slave) == before
    assert os.read(master, 100) == b"\r\r\n"
    os.close(master)
    os.close(slave)
