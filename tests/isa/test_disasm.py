"""Assembly text, against the manual's examples and against binutils."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tests.conftest import Oracle
from tests.oracle.binutils import disassembled

from armkvm.isa.all import forms
from armkvm.isa.asm import Operand
from armkvm.isa.disasm import disassemble, text

# Encoding classes whose text is binutils' to the letter.
EXACT = ("base.imm.", "base.reg.", "base.branch.", "base.crc32.", "ldst.")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x91000421, "add x1, x1, #0x1"),
        (0x910003FD, "mov x29, sp"),
        (0xF100043F, "cmp x1, #0x1"),
        (0xAA0203E1, "mov x1, x2"),
        (0x52800020, "mov w0, #0x1"),
        (0x92800000, "mov x0, #0xffffffffffffffff"),
        (0xB24003E0, "orr x0, xzr, #0x1"),  # MOVZ makes #1 too (MoveWidePreferred)
        (0x53047C20, "lsr w0, w1, #4"),
        (0x9A9F17E0, "cset x0, eq"),
        (0x9B027C20, "mul x0, x1, x2"),
        (0x9AC24020, None),  # CRC32B has no 64-bit form
        (0x54FFFFE1, "b.ne 0xffc"),
        (0x97FFFFFF, "bl 0xffc"),
        (0x10000000, "adr x0, 0x1000"),
        (0xB0000001, "adrp x1, 0x2000"),
        (0x36180041, "tbz w1, #3, 0x1008"),
        (0xD65F03C0, "ret"),
        (0x00000000, None),
    ],
)
def test_text(word: int, expected: str | None) -> None:
    assert disassemble(word, 0x1000) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("x", "xzr"), ("wsp", "wsp"), ("r", "wzr"), ("rsp", "wsp"), ("d", "d31"), ("v8h", "v31.8h"),
     ("hex", "0x1f"), ("", "31"), ("signed", "-1"), ("signed*8", "-8"), ("*4", "124"),
     ("label", "0xffc")],
)
def test_format_specs(spec: str, expected: str) -> None:
    assert format(Operand(31, width=5, sf=0, pc=0x1000), spec) == expected


def test_an_unknown_spec_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown format spec 'y'"):
        format(Operand(1, width=5, sf=0, pc=0), "y")


def _numbers(shown: str) -> str:
    """Text without comments, hexadecimal and negative numbers in one spelling."""
    shown = re.sub(r"\s*//.*", "", shown).replace("\t", " ").strip()
    shown = re.sub(r"0x[0-9a-f]+", lambda m: str(int(m[0], 16)), shown)
    size = 1 << (64 if re.search(r" x| sp", shown) else 32)
    return re.sub(r"mov(.*)#(-\d+)", lambda m: f"mov{m[1]}#{int(m[2]) % size}", shown)


def test_text_is_that_of_binutils(oracle: Oracle, tmp_path: Path) -> None:
    rng = random.Random(4)
    words = []
    for form in forms():
        if not f"{form.insn.encoding_class}.".startswith(EXACT):
            continue
        ones = sum(1 << i for i in range(32) if not form.mask >> i & 1)
        for _ in range(30):
            word = form.value | rng.getrandbits(32) & ones
            if rng.random() < 0.3:
                word |= rng.choice((0x1F, 0x3E0, 0x1F03E0, 0x7C00)) & ones
            if form.matches(word):
                words.append(word)
                assert text(form, word) != ""
    objdump = oracle("aarch64-linux-gnu-objdump")
    if objdump is not None:
        pairs = [
            (f"{word:#010x}", disassemble(word, 4 * i), _numbers(shown))
            for i, (word, shown) in enumerate(disassembled(objdump, tmp_path, words))
            if "undefined" not in shown
        ]
        wrong = [p for p in pairs if _numbers(p[1] or "none") != p[2]]
        assert wrong == []
