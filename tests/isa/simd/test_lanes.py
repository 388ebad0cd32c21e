"""Reserved arrangements of Advanced SIMD are UNDEFINED (Arm ARM, C4.1 and C7.2)."""

from __future__ import annotations

import pytest

from armkvm.isa.disasm import decode, disassemble

RESERVED = {
    "add v0.1d": 0x0EE08400,
    "shadd v0.2d": 0x4EE00400,
    "mul v0.2d": 0x4EE09C00,
    "pmul v0.8h": 0x6E609C00,
    "sqdmulh v0.16b": 0x4E20B400,
    "cmgt s0, s0, s0": 0x5EA03400,
    "sqdmlal v0.8h": 0x0E209000,
    "addhn v0.1q": 0x0EE04000,
    "mul v0.16b, v0.16b, v0.b[0]": 0x4F008000,
    "rev64 v0.2d": 0x4EE00800,
    "cnt v0.8h": 0x4E605800,
    "abs v0.1d": 0x0EE0B800,
    "abs s0, s0": 0x5EA0B800,
    "xtn v0.2d": 0x0EE12800,
    "addv s0, v0.2s": 0x0EB1B800,
    "addv d0, v0.2d": 0x4EF1B800,
    "urecpe v0.2d": 0x4EE1C800,
    "dup v0.1d, v0.d[0]": 0x0E080400,
    "dup with imm5 = 0": 0x4E000400,
    "smov w0, v0.s[0]": 0x0E042C00,
    "umov x0, v0.s[0]": 0x4E043C00,
    "umov w0, v0.d[0]": 0x0E083C00,
    "ins with Q = 0": 0x0E011C00,
    "zip1 v0.1d": 0x0EC03800,
    "ext v0.8b, ..., #8": 0x2E004000,
    "sshr v0.1d": 0x0F400400,
    "sshr s0, s0, #1": 0x5F3F0400,
    "shrn with immh = 1xxx": 0x0F408400,
    "sshll with immh = 1xxx": 0x0F40A400,
}


@pytest.mark.parametrize("name", RESERVED)
def test_reserved(name: str) -> None:
    assert decode(RESERVED[name]) is None


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0x4EE08400, "add v0.2d, v0.2d, v0.2d"),
        (0x5EE03400, "cmgt d0, d0, d0"),
        (0x4EB1B800, "addv s0, v0.4s"),
        (0x4F400400, "sshr v0.2d, v0.2d, #64"),
        (0x4E042C00, "smov x0, v0.s[0]"),
        (0x2E003800, "ext v0.8b, v0.8b, v0.8b, #7"),
    ],
)
def test_their_neighbours_are_allocated(word: int, text: str) -> None:
    assert disassemble(word) == text
