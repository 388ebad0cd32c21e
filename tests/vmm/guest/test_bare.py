"""The built-in bare-metal guest: it runs, also on QEMU."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from armkvm.vmm.guest import bare
from armkvm.vmm.guest.loader import load


def test_it_ends_with_its_vectors() -> None:
    program = bare.program()
    # 16 vectors end it, and the table lies on a 2 KiB boundary (VBAR_EL1).
    assert len(program) % 2048 == 0
    assert b"BOOT-OK" in program


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
