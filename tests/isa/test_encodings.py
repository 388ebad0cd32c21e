"""Which words are instructions: the table against QEMU's decoder (unicorn) and binutils.

Random words, and words of every form with up to three bits flipped: those sit at the borders. The
Cortex-A72 of unicorn is Armv8.0 with CRC32 and the cryptographic extension; its "max" adds LSE.
What neither can tell is listed by encoding.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Oracle
from tests.oracle.binutils import disassembled
from tests.oracle.peer import EXCEPTION, Peer
from tests.oracle.samples import CODE, DATA, DATA_SIZE, Sample
from unicorn import arm64_const as regs

from armkvm.isa.all import forms
from armkvm.isa.disasm import decode, text
from armkvm.isa.table import _TOKEN, Insn

SEED = 20

# Not run: they do more than raise Undefined Instruction or not. binutils judges them below.
SYSTEM = [
    (0xFE000000, 0xD4000000),  # exception generation, hints, barriers, MSR, MRS, SYS (C4.1.93)
    (0xFFC00000, 0xD6800000),  # ERET, DRPS
]
# On unicorn's Cortex-A72, but not in the table.
UNIMPLEMENTED = [
    (0xFF3E0C00, 0x4E280800, "FEAT_AES: AESE, AESD, AESMC, AESIMC"),
    (0xBFE0FC00, 0x0EE0E000, "FEAT_PMULL: PMULL of 64 bits"),
    (0xFF208C00, 0x5E000000, "FEAT_SHA1, FEAT_SHA256: three registers"),
    (0xFF3E0C00, 0x5E280800, "FEAT_SHA1, FEAT_SHA256: two registers"),
]
LSE = [(0x3B200C00, 0x38200000), (0x3FA07C00, 0x08A07C00), (0xBFA07C00, 0x08207C00)]
LDAPR = (0x3FFFFC00, 0x38BFC000)  # FEAT_LRCPC, in LSE's space

REGISTERS = struct.pack("<Q", DATA + DATA_SIZE // 2) * 32 + bytes(512)


def _within(word: int, spaces: list[tuple[int, int]]) -> bool:
    return any(word & mask == value for mask, value in spaces)


def _words(count: int, near: int, rng: random.Random) -> Iterator[int]:
    for _ in range(count):
        yield rng.getrandbits(32)
    for form in forms():
        for _ in range(near):
            word = form.value | rng.getrandbits(32) & ~form.mask
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                word ^= 1 << rng.randrange(32)
            yield word & 0xFFFF_FFFF


def _compare(peer: Peer, words: list[int]) -> list[str]:
    found = []
    for start in range(0, len(words), 4096):
        batch = words[start : start + 4096]
        peer.place(struct.pack(f"<{len(batch)}I", *batch))
        for i, word in enumerate(batch):
            undefined = peer.run(CODE + 4 * i, Sample(word, REGISTERS)) == EXCEPTION
            form = decode(word)
            if undefined != (form is None):
                found.append(f"{word:#010x}: {'none' if form is None else form.name}")
    return found


def test_the_same_words_are_undefined_as_on_a_cortex_a72() -> None:
    rng = random.Random(SEED)
    excluded = [*SYSTEM, *LSE, *((mask, value) for mask, value, _ in UNIMPLEMENTED)]
    words = [w for w in _words(1_000_000, 50, rng) if not _within(w, excluded)]
    found = _compare(Peer(regs.UC_CPU_ARM64_A72), words)
    assert found == [], f"{len(found)} of {len(words)} words, such as {found[:5]}"


def test_the_same_words_are_atomics_as_on_unicorns_max() -> None:
    rng = random.Random(SEED)
    words = []
    for mask, value in LSE * 10_000:
        word = value | rng.getrandbits(32) & ~mask
        if not _within(word, [LDAPR]):
            words.append(word & 0xFFFF_FFFF)
    found = _compare(Peer(), words)
    assert found == [], f"{len(found)} of {len(words)} words, such as {found[:5]}"


def _ignored(entry: Insn) -> int:
    """The bits that a drawing leaves open (x): (0) and (1) in the manual."""
    pos, out = 32, 0
    for token in _TOKEN.finditer(entry.drawing):
        for c in token["bits"] or "-" * int(token["width"] or 1):
            pos -= 1
            out |= (c == "x") << pos
    return out


def _unpredictable(word: int) -> bool:
    """Loads of a pair that binutils rejects: one register twice, or written back into (K1.2.1)."""
    if word & 0x3E400000 != 0x28400000:
        return False
    rt, rn, rt2 = word & 31, word >> 5 & 31, word >> 10 & 31
    return rt == rt2 or (word >> 23 & 1 == 1 and rn in (rt, rt2))


def test_every_form_has_words_and_text_that_binutils_knows(oracle: Oracle, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    words = []
    for form in forms():
        ignored = _ignored(form.insn)  # binutils wants the preferred value, mostly ones
        found = 0
        for _ in range(400):
            word = form.value | ignored | rng.getrandbits(32) & ~form.mask & 0xFFFF_FFFF
            if form.matches(word):
                assert text(form, word) != ""
                words.append(word)
                found += 1
                if found == 40:
                    break
        assert found > 0, form.name
    objdump = oracle("aarch64-linux-gnu-objdump")
    if objdump is not None:
        unknown = [
            f"{word:#010x} {shown}"
            for word, shown in disassembled(objdump, tmp_path, words)
            if "undefined" in shown and not _unpredictable(word)
        ]
        assert unknown == []
