"""Shifts by immediate: both ends of the amount's range, insertion, saturation (C7.2 SSHR...)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import HIGH, Simd, lanes, signed, split


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


@pytest.mark.parametrize(
    ("word", "text", "want"),
    [
        (0x5F400420, "sshr d0, d1, #64", -1),
        (0x7F400420, "ushr d0, d1, #64", 0),
        (0x5F402420, "srshr d0, d1, #64", 0),
        (0x7F402420, "urshr d0, d1, #64", 1),
        (0x7F7F0420, "ushr d0, d1, #1", 0x4000_0000_0000_0001),
        (0x5F7F5420, "shl d0, d1, #63", 0),
        (0x5F405420, "shl d0, d1, #0", 0x8000_0000_0000_0002),
        (0x5F401420, "ssra d0, d1, #64", 4),
        (0x7F403420, "ursra d0, d1, #64", 6),
        (0x7F404420, "sri d0, d1, #64", 5),
        (0x7F444420, "sri d0, d1, #60", 8),
        (0x7F425420, "sli d0, d1, #2", 9),
        (0x7F405420, "sli d0, d1, #0", 0x8000_0000_0000_0002),
    ],
)  # fmt: skip
def test_doubleword_ends_of_the_range(run: Simd, word: int, text: str, want: int) -> None:
    """A right shift by the width leaves the sign, or what rounding adds; the upper half is zero."""
    out = run(word, text, v0=HIGH | 5, v1=HIGH | 0x8000_0000_0000_0002)
    assert out.d == want & (1 << 64) - 1
    assert not out.qc


def test_byte_lanes_do_not_spill(run: Simd) -> None:
    """Hosts have no byte shifts: bits of one lane must not reach the next."""
    a = lanes(8, *[0x81, 0xFF, 0x7F, 0x80] * 4)
    assert split(8, run(0x4F0F5420, "shl v0.16b, v1.16b, #7", v1=a).d)[:4] == [0x80, 0x80, 0x80, 0]
    assert split(8, run(0x6F080420, "ushr v0.16b, v1.16b, #8", v1=a).d)[:4] == [0, 0, 0, 0]
    assert split(8, run(0x4F080420, "sshr v0.16b, v1.16b, #8", v1=a).d)[:4] == [0xFF, 0xFF, 0, 0xFF]
    assert split(8, run(0x6F082420, "urshr v0.16b, v1.16b, #8", v1=a).d)[:4] == [1, 1, 0, 1]
    assert split(8, run(0x6F0C4420, "sri v0.16b, v1.16b, #4", v0=a, v1=a).d)[:4] == [
        0x88,
        0xFF,
        0x77,
        0x88,
    ]


def test_saturating_left(run: Simd) -> None:
    a = lanes(16, 0x3FFF, 0x4000, -0x4000, -0x4001)
    out = run(0x0F117420, "sqshl v0.4h, v1.4h, #1", v1=a)
    assert signed(16, split(16, out.d, 64)) == [0x7FFE, 0x7FFF, -0x8000, -0x8000]
    assert out.qc
    assert not run(0x0F107420, "sqshl v0.4h, v1.4h, #0", v1=a).qc
    out = run(0x2F106420, "sqshlu v0.4h, v1.4h, #0", v1=a)
    assert split(16, out.d, 64) == [0x3FFF, 0x4000, 0, 0]
    assert out.qc
    out = run(0x7F126420, "sqshlu h0, h1, #2", v1=0x4000)
    assert out.d == 0xFFFF
    assert out.qc
    assert not run(0x7F116420, "sqshlu h0, h1, #1", v1=0x7FFF).qc
    out = run(0x7F0F7420, "uqshl b0, b1, #7", v1=HIGH | 0x01)
    assert (out.d, out.qc) == (0x80, False)
    out = run(0x7F0F7420, "uqshl b0, b1, #7", v1=HIGH | 0x03)
    assert (out.d, out.qc) == (0xFF, True)


def test_narrowing(run: Simd) -> None:
    """The upper-half forms keep the lower half, the others clear the upper one."""
    a = lanes(64, 0x1_7FFF_FFFF, -0x8000_0000_0000)
    assert run(0x0F208420, "shrn v0.2s, v1.2d, #32", v0=HIGH, v1=a).d == lanes(32, 1, -0x8000)
    assert run(0x4F208C20, "rshrn2 v0.4s, v1.2d, #32", v0=7, v1=a).d == lanes(32, 7, 0, 1, -0x8000)
    out = run(0x0F3F9420, "sqshrn v0.2s, v1.2d, #1", v0=HIGH, v1=a)
    assert signed(32, split(32, out.d)) == [0x7FFF_FFFF, -0x8000_0000, 0, 0]
    assert out.qc
    out = run(0x6F208C20, "sqrshrun2 v0.4s, v1.2d, #32", v0=lanes(64, 7, 7), v1=a)
    assert split(32, out.d) == [7, 0, 1, 0]
    assert out.qc
    out = run(0x7F089C20, "uqrshrn b0, h1, #8", v1=HIGH | 0xFF80)
    assert (out.d, out.qc) == (0xFF, True)
    out = run(0x7F089420, "uqshrn b0, h1, #8", v1=HIGH | 0xFF80)
    assert (out.d, out.qc) == (0xFF, False)
    out = run(0x5F089C20, "sqrshrn b0, h1, #8", v1=0x7F80)
    assert (out.d, out.qc) == (0x7F, True)


def test_narrowing_onto_its_own_source(run: Simd) -> None:
    a = lanes(16, *range(0x100, 0x900, 0x100))
    assert split(8, run(0x4F088400, "shrn2 v0.16b, v0.8h, #8", v0=a).d) == [
        0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8,
    ]  # fmt: skip


def test_widening(run: Simd) -> None:
    a = lanes(8, *[-1, 1, 127, -128] * 4)
    assert split(16, run(0x2F0FA420, "ushll v0.8h, v1.8b, #7", v1=a).d)[:4] == [
        0x7F80, 0x80, 0x3F80, 0x4000,
    ]  # fmt: skip
    assert signed(16, split(16, run(0x4F08A420, "sxtl2 v0.8h, v1.16b", v1=a).d))[:4] == [
        -1,
        1,
        127,
        -128,
    ]
