"""The built-in bare-metal guest: its machine code is its source assembled, and it runs.

Run as a program, this file renews guest.hex from guest.S.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from armkvm.vmm.guest import bare
from armkvm.vmm.guest.loader import load

FOLDER = Path(bare.__file__).parent
PREFIX = "aarch64-linux-gnu-"


def assemble() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        obj, out = Path(folder, "guest.o"), Path(folder, "guest.bin")
        subprocess.run([PREFIX + "as", "-o", obj, FOLDER / "guest.S"], check=True)
        subprocess.run([PREFIX + "objcopy", "-O", "binary", obj, out], check=True)
        return out.read_bytes()


def test_the_words_are_the_source_assembled(oracle: Callable[[str], str | None]) -> None:
    program = bare.program()
    # 16 vectors end it, and the table lies on a 2 KiB boundary (VBAR_EL1).
    assert len(program) % 2048 == 0
    assert b"BOOT-OK" in program
    if oracle(PREFIX + "as"):
        assert program == assemble()


def test_it_loads_into_little_memory() -> None:
    image = load(bare.program(), mem_bytes=8 << 20, flat=True)
    assert image.entry == 0x4008_0000
    # Its stack is in the 64 KiB behind its start.
    assert image.dtb_address >= image.entry + 0x10000


def test_qemu_agrees(oracle: Callable[[str], str | None], tmp_path: Path) -> None:
    expected = [f"CNTV  PPI 27  tick {n}  at {100 * n} ms" for n in range(1, 6)]
    expected += [f"CNTP  PPI 30  tick {n}  at {125 * n} ms" for n in range(1, 6)]
    assert all(part.encode() in bare.program() for part in ("CNTV  PPI 27  tick ", "  at "))
    qemu = oracle("qemu-system-aarch64")
    if qemu is None:
        return
    kernel = tmp_path / "guest.bin"
    kernel.write_bytes(bare.program())
    # -icount: QEMU's clock counts instructions, as ours does, so that no tick is late.
    run = subprocess.run(
        [qemu, "-M", "virt,gic-version=2", "-cpu", "cortex-a57", "-nographic", "-nic", "none",
         "-no-reboot", "-icount", "shift=0,sleep=off", "-kernel", kernel],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0
    lines = run.stdout.decode().splitlines()
    assert sorted(line for line in lines if "PPI" in line) == sorted(expected)
    assert lines[-1].startswith("BOOT-OK")


if __name__ == "__main__":
    if shutil.which(PREFIX + "as") is None:
        raise SystemExit("needs binutils-aarch64-linux-gnu")
    text = assemble().hex()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    (FOLDER / "guest.hex").write_text("\n".join(lines) + "\n")
