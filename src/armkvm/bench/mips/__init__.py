"""The bench kernels: six small guest programs in one flat binary.

``kernels.bin`` is built from the sources beside it by ``build`` (gcc for aarch64); it is kept in
the repository so that nobody needs a cross compiler to measure. tests/bench/test_mips.py runs it.
"""

import struct
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

PREFIX = "aarch64-linux-gnu-"
FLAGS = (
    "-O2", "-ffreestanding", "-nostdlib", "-static", "-mgeneral-regs-only", "-fno-pic",
    "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables",
    "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments",
)  # fmt: skip
COUNT_OFFSET = 8  # in the binary: the count, then the selection


@dataclass(frozen=True)
class Kernel:
    """One program: its number in kernels.c, and a count that takes about a second in QEMU."""

    name: str
    select: int
    count: int


NOTHING = Kernel("start", 0, 1)
KERNELS = (
    Kernel("xorshift", 1, 300_000_000),
    Kernel("sieve", 2, 1_300),
    Kernel("fib", 3, 37),
    Kernel("quicksort", 4, 1_800),
    Kernel("crc32-table", 5, 25_000),
    Kernel("collatz", 6, 2_500_000),
)


def program(kernel: Kernel, count: int) -> bytes:
    """The flat binary that runs ``kernel`` with ``count``."""
    data = bytearray(resources.files(__name__).joinpath("kernels.bin").read_bytes())
    struct.pack_into("<2Q", data, COUNT_OFFSET, count, kernel.select)
    return bytes(data)


def build(target: Path) -> None:
    """Compile the sources to a flat binary."""
    folder = Path(__file__).parent
    elf = target.with_suffix(".elf")
    sources = [folder / "start.S", folder / "kernels.c"]
    subprocess.run(
        [PREFIX + "gcc", *FLAGS, "-T", folder / "link.ld", "-o", elf, *sources], check=True
    )
    subprocess.run([PREFIX + "objcopy", "-O", "binary", elf, target], check=True)
    target.chmod(0o644)
    elf.unlink()
