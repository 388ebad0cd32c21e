"""The shim: shim.bin is shim.c, compiled; wire.h says what wire.py says.

Run as a program (``python -m tests.server.test_shim``), this file renews shim.bin.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.server import clients

import armkvm
from armkvm.isa.disasm import disassemble
from armkvm.server import program, wire

FOLDER = Path(armkvm.__file__).parent / "server" / "shim"
OPTIONS = (
    "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector",
    "-mgeneral-regs-only", "-fPIE", "-fvisibility=hidden", "-fno-tree-loop-distribute-patterns",
    "-mno-outline-atomics", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
    f"-Wl,-T,{FOLDER / 'shim.ld'}",
)  # fmt: skip


def build(folder: Path) -> tuple[bytes, dict[str, int]]:
    """The code, and the sizes of its sections."""
    elf, out = folder / "shim.elf", folder / "shim.bin"
    sources = [FOLDER / "shim.c", FOLDER / "entry.S"]
    subprocess.run([clients.COMPILER, *OPTIONS, "-o", elf, *sources], check=True)
    objcopy = clients.COMPILER.replace("gcc", "objcopy")
    subprocess.run([objcopy, "-O", "binary", "-j", ".text", elf, out], check=True)
    tool = clients.COMPILER.replace("gcc", "size")
    said = subprocess.run([tool, "-A", elf], check=True, capture_output=True, text=True).stdout
    sizes = {name: int(size) for name, size in re.findall(r"^(\.\w+)\s+(\d+)", said, re.MULTILINE)}
    return out.read_bytes(), sizes


def test_the_binary_is_the_source(tmp_path: Path) -> None:
    lacks = clients.missing()
    if lacks:
        pytest.skip(lacks)
    code, sizes = build(tmp_path)
    assert code == (FOLDER / "shim.bin").read_bytes()
    # All its variables are zero at first, and there is room for them; its code is before them.
    assert ".data" not in sizes
    assert sizes[".bss"] <= program._BSS
    assert len(code) <= program._PAGE


def test_both_ends_number_the_packets_alike() -> None:
    header = (FOLDER / "wire.h").read_text()
    named = {name: int(value) for name, value in re.findall(r"([A-Z]+) = (\d+)", header)}
    assert named == {one.name: one.value for kind in (wire.Ask, wire.Want) for one in kind}
    assert f"#define PIECES {wire.PIECES} " in header


def test_both_ends_lay_out_the_packets_alike(tmp_path: Path) -> None:
    lacks = clients.missing()
    if lacks:
        pytest.skip(lacks)
    checks = "\n".join(
        f"_Static_assert(sizeof(struct {name}) == {layout.size}, \"{name}\");"
        for name, layout in (
            ("request", wire.REQUEST), ("answer", wire.ANSWER), ("piece", wire.PIECE),
        )
    )  # fmt: skip
    source = tmp_path / "check.c"
    source.write_text(f'#include "{FOLDER}/wire.h"\n{checks}\n')
    subprocess.run([clients.COMPILER, "-fsyntax-only", source], check=True)


def test_a_stub_counts_x8_down_and_up_again() -> None:
    """By hand, in Python: for every number the way through the stub, and x8 at its end."""
    stubs = program._Stubs(0x50_0000)
    words = struct.unpack(f"<{stubs.size // 4}I", stubs.stub(0, 0x40_1000, 0x60_0000))
    for number in (*range(450), 1 << 40):
        for vm in (0, 1):
            end, x8 = walk(words, number, vm << 8, 0x50_0000)
            assert x8 == number
            hooked = number in program.HOOKED and not (number == program._CLONE and vm)
            assert end == ("shim" if hooked else "svc")


def said(words: tuple[int, ...], at: int, start: int) -> str:
    """The nth word of a stub, disassembled."""
    text = disassemble(words[at], start + 4 * at)
    assert text is not None
    return text


def walk(words: tuple[int, ...], x8: int, x0: int, start: int) -> tuple[str, int]:
    """Follow a stub until it makes a system call or calls the shim."""
    at = 0
    while True:
        text = said(words, at, start)
        operands = re.findall(r"[-#]?\w+", text)
        at += 1
        if operands[0] in ("add", "sub"):
            assert operands[1:3] == ["x8", "x8"]
            change = int(operands[3].lstrip("#"), 0)
            x8 += change if operands[0] == "add" else -change
        elif operands[0] == "svc":
            assert said(words, at, start).split() == ["b", hex(0x40_1004)]
            return "svc", x8
        elif operands[0] == "bl":
            assert int(operands[1], 0) == 0x60_0000
            assert said(words, at + 1, start).split() == ["b", hex(0x40_1004)]
            return "shim", x8
        elif (
            operands[0] == "b"
            or (operands[0] == "cbz" and x8 == 0)
            or (operands[0] == "tbnz" and x0 >> int(operands[2].lstrip("#")) & 1)
        ):
            at = (int(operands[-1], 0) - start) // 4


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        (FOLDER / "shim.bin").write_bytes(build(Path(made))[0])
