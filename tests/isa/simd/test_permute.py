"""Permutes, EXT, and table lookups with indices beyond the table (Arm ARM, C7.2)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import HIGH, Simd, lanes, split

A, B = lanes(16, *range(8)), lanes(16, *range(10, 18))


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


@pytest.mark.parametrize(
    ("word", "text", "want"),
    [
        (0x4E423820, "zip1 v0.8h, v1.8h, v2.8h", [0, 10, 1, 11, 2, 12, 3, 13]),
        (0x4E427820, "zip2 v0.8h, v1.8h, v2.8h", [4, 14, 5, 15, 6, 16, 7, 17]),
        (0x4E421820, "uzp1 v0.8h, v1.8h, v2.8h", [0, 2, 4, 6, 10, 12, 14, 16]),
        (0x4E425820, "uzp2 v0.8h, v1.8h, v2.8h", [1, 3, 5, 7, 11, 13, 15, 17]),
        (0x4E422820, "trn1 v0.8h, v1.8h, v2.8h", [0, 10, 2, 12, 4, 14, 6, 16]),
        (0x4E426820, "trn2 v0.8h, v1.8h, v2.8h", [1, 11, 3, 13, 5, 15, 7, 17]),
        (0x0E427820, "zip2 v0.4h, v1.4h, v2.4h", [2, 12, 3, 13, 0, 0, 0, 0]),
    ],
)  # fmt: skip
def test_permutes(run: Simd, word: int, text: str, want: list[int]) -> None:
    assert split(16, run(word, text, v0=HIGH, v1=A, v2=B).d) == want


@pytest.mark.parametrize("position", range(16))
def test_extract(run: Simd, position: int) -> None:
    """Bytes position and up of Vm:Vn."""
    word = 0x6E020020 | position << 11
    text = f"ext v0.16b, v1.16b, v2.16b, #{position}"
    want = (B << 128 | A) >> 8 * position & (1 << 128) - 1
    assert run(word, text, v1=A, v2=B).d == want


def test_extract_of_the_lower_halves(run: Simd) -> None:
    out = run(
        0x2E023820, "ext v0.8b, v1.8b, v2.8b, #7", v0=HIGH, v1=HIGH | 0xAB << 56, v2=HIGH | 0x77
    )
    assert out.d == 0x77AB


TABLE = [0x0F0E0D0C0B0A09080706050403020100 + 0x10101010101010101010101010101010 * i
         for i in range(4)]  # fmt: skip
# Byte n of the table is n; the indices meet both ends of each register and of the byte.
INDICES = lanes(8, 0, 15, 16, 31, 32, 47, 48, 63, 64, 127, 128, 255, 1, 17, 33, 49)


@pytest.mark.parametrize(
    ("count", "word", "text"),
    [
        (1, 0x4E0503C0, "tbl v0.16b, {v30.16b}, v5.16b"),
        (2, 0x4E0523C0, "tbl v0.16b, {v30.16b, v31.16b}, v5.16b"),
        (3, 0x4E054380, "tbl v0.16b, {v28.16b-v30.16b}, v5.16b"),
        (4, 0x4E056380, "tbl v0.16b, {v28.16b-v31.16b}, v5.16b"),
    ],
)
@pytest.mark.parametrize("tbx", [0, 1])
def test_lookup(run: Simd, count: int, word: int, text: str, tbx: int) -> None:
    """TBL gives zero beyond the table, TBX (bit 12) keeps the byte of the destination."""
    first = word >> 5 & 31
    table = {f"v{first + i}": TABLE[i] for i in range(count)}
    old = 0x11 * (2**128 // 255)
    word, text = word | tbx << 12, text.replace("tbl", "tbx") if tbx else text
    want = [i if i < 16 * count else 0x11 * tbx for i in split(8, INDICES)]
    assert split(8, run(word, text, v0=old, v5=INDICES, **table).d) == want
    # The 64-bit form of the same: Q is bit 30.
    text = text.replace("v0.16b", "v0.8b").replace("v5.16b", "v5.8b")
    out = run(word & ~(1 << 30), text, v0=old, v5=INDICES, **table)
    assert split(8, out.d) == want[:8] + [0] * 8


def test_table_wraps_from_V31_to_V0_and_may_be_overwritten(run: Simd) -> None:
    word, text = 0x4E0163C0, "tbl v0.16b, {v30.16b, v31.16b, v0.16b, v1.16b}, v1.16b"
    # V1 is table and indices at once, V0 table and destination.
    indices = lanes(8, 0, 16, 32, 48, 64, *range(32, 43))
    out = run(word, text, v30=TABLE[0], v31=TABLE[1], v0=TABLE[2], v1=indices)
    assert split(8, out.d) == [0, 16, 32, 0, 0, *range(32, 43)]
