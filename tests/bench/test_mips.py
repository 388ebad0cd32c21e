"""The bench kernels: the binary is its sources compiled, and computes what mathematics says."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from armkvm.bench import mips

Oracle = Callable[[str], str | None]
MASK = (1 << 64) - 1


def test_parameters_are_written_where_the_program_reads_them() -> None:
    short, long = mips.program(mips.KERNELS[2], 1), mips.program(mips.KERNELS[2], 1 << 40)
    assert struct.unpack_from("<2Q", long, mips.COUNT_OFFSET) == (1 << 40, 3)
    assert short[:8] == long[:8]
    assert short[24:] == long[24:]


def test_the_binary_is_the_sources_compiled(oracle: Oracle, tmp_path: Path) -> None:
    stored = mips.program(mips.NOTHING, 1)
    assert len(stored) % 4 == 0
    if oracle("aarch64-linux-gnu-gcc") is None:
        return
    mips.build(tmp_path / "kernels.bin")
    built = (tmp_path / "kernels.bin").read_bytes()
    # Another release of gcc may choose other instructions; the entry is assembly and stays.
    assert built[:8] == stored[:8]
    assert struct.unpack_from("<2Q", built, mips.COUNT_OFFSET) == (1, 0)


def xorshift(count: int) -> int:
    state, total = 0x9E3779B97F4A7C15, 0
    for _ in range(count):
        state ^= state << 13 & MASK
        state ^= state >> 7
        state ^= state << 17 & MASK
        total += state >> 56
    return state + total & MASK


def quicksort(count: int) -> int:
    seed, value = 2463534242, 0
    for _ in range(count):
        keys = []
        for _ in range(4096):
            seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
            keys.append(seed)
        for key in sorted(keys)[::64]:
            value = value * 31 + key & MASK
    return value


def crc(count: int) -> int:
    message = bytes((i * 7 + (i >> 5)) & 0xFF for i in range(8192))
    return zlib.crc32(message * count)


EXPECTED = {
    "xorshift": (1000, xorshift(1000)),
    "sieve": (3, 3 * 6542),  # primes below 65536
    "fib": (20, 6765),
    "quicksort": (2, quicksort(2)),
    "crc32-table": (3, crc(3)),
    "collatz": (1000, 178),  # 871 takes 178 steps
}


def test_every_kernel_has_an_answer() -> None:
    assert [kernel.name for kernel in mips.KERNELS] == list(EXPECTED)


@pytest.mark.parametrize("kernel", mips.KERNELS, ids=lambda kernel: kernel.name)
def test_kernels_in_qemu(kernel: mips.Kernel, oracle: Oracle, tmp_path: Path) -> None:
    count, answer = EXPECTED[kernel.name]
    path = tmp_path / "kernel.bin"
    path.write_bytes(mips.program(kernel, count))
    assert struct.unpack_from("<Q", path.read_bytes(), mips.COUNT_OFFSET) == (count,)
    qemu = oracle("qemu-system-aarch64")
    if qemu is None:
        return
    run = subprocess.run(
        [qemu, "-M", "virt,gic-version=2", "-cpu", "cortex-a57", "-nographic", "-nic", "none",
         "-kernel", path],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert run.stdout.strip() == b"%016x" % answer
