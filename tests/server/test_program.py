"""Programs that take the shim, and files that do not."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as any_of

from armkvm.isa.disasm import disassemble
from armkvm.server import program
from armkvm.server.program import ProgramError, is_dynamic, with_shim

SVC, NOP = 0xD400_0001, 0xD503_201F
HEADER, SEGMENT = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")


def elf(*words: int, bss: int = 0, machine: int = 183, base: int = 0x40_0000) -> bytes:
    """A static program of one segment."""
    code = struct.pack(f"<{len(words)}I", *words)
    start = HEADER.size + SEGMENT.size
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = HEADER.pack(ident, 2, machine, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = start + len(code)
    return head + SEGMENT.pack(1, 5, 0, base, base, size, size + bss, 0x10000) + code


def loads(program: bytes) -> list[tuple[int, int, int, int]]:
    """(offset, address, size in memory, flags) of what is loaded."""
    return [
        (s["p_offset"], s["p_vaddr"], s["p_memsz"], s["p_flags"])
        for s in ELFFile(BytesIO(program)).iter_segments()
        if s["p_type"] == "PT_LOAD"
    ]


def word_at(program: bytes, va: int) -> int:
    """The instruction at an address."""
    for segment in ELFFile(BytesIO(program)).iter_segments():
        at = va - segment["p_vaddr"]
        if segment["p_type"] == "PT_LOAD" and 0 <= at < segment["p_filesz"]:
            (word,) = struct.unpack_from("<I", program, segment["p_offset"] + at)
            return int(word)
    raise AssertionError(hex(va))


@pytest.mark.parametrize("bss", [0, 0x123_4567])
def test_every_system_call_goes_to_a_stub_of_its_own(bss: int) -> None:
    program = with_shim(elf(NOP, SVC, NOP, SVC, bss=bss))
    start = 0x40_0000 + HEADER.size + SEGMENT.size
    targets = []
    for n in (1, 3):
        text = disassemble(word_at(program, start + 4 * n), start + 4 * n)
        assert text is not None
        operation, where = text.split()
        assert operation == "b"
        targets.append(int(where, 0))
    assert word_at(program, start) == word_at(program, start + 8) == NOP
    assert targets[0] < targets[1]
    for target in targets:
        assert word_at(program, target) >> 24 == 0xD1  # sub x8, x8, #imm


def test_nothing_lies_on_anything_else() -> None:
    before, *added = loads(with_shim(elf(SVC, bss=0x5_0000)))
    ends = [va + size for _, va, size, _ in (before, *added)]
    starts = [va for _, va, _, _ in added]
    assert all(start >= end for start, end in zip(starts, ends, strict=False))
    assert [flags & 3 for *_, flags in added] == [1, 2]  # code, variables: never both
    # The program headers are where the kernel looks for them: as far from the first segment in
    # memory as in the file.
    program = with_shim(elf(SVC, bss=0x5_0000))
    assert struct.unpack_from("<Q", program, 32)[0] == added[0][0] == added[0][1] - 0x40_0000


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "no ELF file"),
        (b"#!/bin/sh\n", "no ELF file"),
        (elf(SVC)[:100], "cut off"),
        (elf(SVC, machine=62), "no arm64 program"),
        (elf(SVC, bss=1 << 28), "too large"),
        (elf(SVC)[:16] + b"\1\0" + elf(SVC)[18:], "no executable file"),
    ],
)
def test_what_cannot_take_it(file: bytes, says: str) -> None:
    with pytest.raises(ProgramError, match=says):
        with_shim(file)


@given(at=any_of.integers(0, 119), value=any_of.integers(0, 255))
def test_a_damaged_file_is_told_in_one_way(at: int, value: int) -> None:
    damaged = bytearray(elf(NOP, SVC))
    damaged[at] = value
    try:
        with_shim(bytes(damaged))
        is_dynamic(bytes(damaged))
    except ProgramError:
        pass


def test_what_is_kept_is_known_by_its_stubs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more system call that is hooked: a libc of before must not be used."""
    before = program.fingerprint()
    monkeypatch.setattr(program, "HOOKED", (*program.HOOKED, 440))
    assert program.fingerprint() != before


def test_a_static_one_has_no_interpreter() -> None:
    assert not is_dynamic(elf(SVC))
