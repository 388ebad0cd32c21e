"""armkvm dis: words, files and ELF files, through the project's own disassembler."""

import struct
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.cli.main import main

NOP, RET, BRANCH = 0xD503201F, 0xD65F03C0, 0x14000002


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dis", "--base", "0x40080000", "d503201f", "0xd65f03c0", "0"]) == 0
    assert lines(capsys) == [
        ["40080000:", "d503201f", "nop"],
        ["40080004:", "d65f03c0", "ret"],
        ["40080008:", "00000000", ".inst 0x00000000"],
    ]


def test_branches_are_shown_where_they_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dis", "--base", "0x1000", f"{BRANCH:08x}"]) == 0
    assert "1008" in lines(capsys)[0][2]


def test_flat_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.bin"
    path.write_bytes(struct.pack("<2I", NOP, RET) + b"\x12")
    assert main(["dis", str(path), f"{NOP:x}"]) == 0
    assert [line[:2] for line in lines(capsys)] == [
        ["0:", "d503201f"],
        ["4:", "d65f03c0"],
        ["8:", "00000012"],
        ["c:", "d503201f"],
    ]


def test_elf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<2HI3QI6H", 2, 183, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    data = struct.pack("<2I6Q", 1, 6, 176, 0x9000, 0, 4, 4, 4)  # not executable
    code = struct.pack("<2I6Q", 1, 5, 176, 0x8000, 0, 4, 4, 4)
    path = tmp_path / "program"
    path.write_bytes(header + data + code + struct.pack("<I", RET))
    assert main(["dis", str(path)]) == 0
    assert lines(capsys) == [["8000:", "d65f03c0", "ret"]]
    path.write_bytes(header[:40])
    assert main(["dis", str(path)]) == Code.USAGE
    assert "damaged ELF file" in capsys.readouterr().err


def test_neither_a_file_nor_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dis", "nosuchfile"]) == Code.USAGE
    assert "'nosuchfile' is neither a file nor a 32-bit word" in capsys.readouterr().err
