"""Two-register miscellaneous, across lanes, estimates (Arm ARM, C7.2)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import HIGH, Simd, lanes, signed, split


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


def test_least_number_has_no_opposite(run: Simd) -> None:
    a = lanes(8, -128, -127, 1, 0, 127)
    assert signed(8, split(8, run(0x0E20B820, "abs v0.8b, v1.8b", v1=a).d))[:5] == [
        -128,
        127,
        1,
        0,
        127,
    ]
    out = run(0x0E207820, "sqabs v0.8b, v1.8b", v1=a)
    assert signed(8, split(8, out.d))[:5] == [127, 127, 1, 0, 127]
    assert out.qc
    out = run(0x7EE07820, "sqneg d0, d1", v1=1 << 63)
    assert (out.d, out.qc) == ((1 << 63) - 1, True)
    out = run(0x7EE07820, "sqneg d0, d1", v1=HIGH | 1)
    assert (out.d, out.qc) == ((1 << 64) - 1, False)


def test_sums_of_mixed_signs(run: Simd) -> None:
    """SUQADD adds an unsigned number to a signed one, USQADD a signed one to an unsigned one."""
    d, a = lanes(8, 127, -128, -1, -128, 100), lanes(8, 1, 255, 1, 0, 27)
    out = run(0x0E203820, "suqadd v0.8b, v1.8b", v0=d, v1=a)
    assert signed(8, split(8, out.d))[:5] == [127, 127, 0, -128, 127]
    assert out.qc
    assert not run(0x0E203820, "suqadd v0.8b, v1.8b", v0=d >> 8, v1=a >> 8).qc
    d, a = lanes(8, 255, 0, 128, 128, 127), lanes(8, 1, -1, -128, 127, -128)
    out = run(0x2E203820, "usqadd v0.8b, v1.8b", v0=d, v1=a)
    assert split(8, out.d)[:5] == [255, 0, 0, 255, 0]
    assert out.qc
    out = run(0x7E203820, "usqadd b0, b1", v0=HIGH | 0x80, v1=HIGH | 0x80)
    assert (out.d, out.qc) == (0, False)


def test_counts(run: Simd) -> None:
    a = lanes(16, 0, 1, -1, -2, 0x4000, -0x8000)
    assert split(16, run(0x6E604820, "clz v0.8h, v1.8h", v1=a).d)[:6] == [16, 15, 0, 0, 1, 0]
    assert split(16, run(0x4E604820, "cls v0.8h, v1.8h", v1=a).d)[:6] == [15, 14, 15, 14, 0, 0]
    assert split(8, run(0x0E205820, "cnt v0.8b, v1.8b", v0=HIGH, v1=a).d)[:6] == [0, 0, 1, 0, 8, 8]


def test_reversals(run: Simd) -> None:
    a = 0x0F0E0D0C0B0A09080706050403020100
    assert run(0x4EA00820, "rev64 v0.4s, v1.4s", v1=a).d == 0x0B0A09080F0E0D0C0302010007060504
    assert run(0x6E600820, "rev32 v0.8h, v1.8h", v1=a).d == 0x0D0C0F0E09080B0A0504070601000302
    assert run(0x0E201820, "rev16 v0.8b, v1.8b", v0=HIGH, v1=a).d == 0x0607040502030001
    assert run(0x2E605820, "rbit v0.8b, v1.8b", v1=a).d == 0xE060A020C0408000


def test_narrow(run: Simd) -> None:
    a = lanes(16, 255, 256, -1, -128, -129, 127, 128, 0)
    assert split(8, run(0x4E212820, "xtn2 v0.16b, v1.8h", v0=HIGH | 5, v1=a).d) == [
        5, 0, 0, 0, 0, 0, 0, 0, 255, 0, 255, 128, 127, 127, 128, 0,
    ]  # fmt: skip
    out = run(0x0E214820, "sqxtn v0.8b, v1.8h", v0=HIGH, v1=a)
    assert signed(8, split(8, out.d, 64)) == [127, 127, -1, -128, -128, 127, 127, 0]
    out = run(0x2E212820, "sqxtun v0.8b, v1.8h", v0=HIGH, v1=a)
    assert split(8, out.d) == [255, 255, 0, 0, 0, 127, 128, 0, *[0] * 8]
    out = run(0x2E214820, "uqxtn v0.8b, v1.8h", v0=HIGH, v1=a)
    assert split(8, out.d, 64) == [255, 255, 255, 255, 255, 127, 128, 0]
    out = run(0x7EA12820, "sqxtun s0, d1", v1=HIGH | 0x7FFF_FFFF)
    assert (out.d, out.qc) == (0x7FFF_FFFF, False)
    out = run(0x7EA12820, "sqxtun s0, d1", v1=1 << 63)
    assert (out.d, out.qc) == (0, True)


def test_shift_long_by_the_width(run: Simd) -> None:
    assert run(0x2EA13820, "shll v0.2d, v1.2s, #32", v1=lanes(32, 1, -1)).d == lanes(
        32, 0, 1, 0, -1
    )


def test_sums_of_neighbours(run: Simd) -> None:
    a = lanes(8, *[-128, -128, -1, 127] * 4)
    assert signed(16, split(16, run(0x4E202820, "saddlp v0.8h, v1.16b", v1=a).d))[:2] == [-256, 126]
    assert split(16, run(0x6E202820, "uaddlp v0.8h, v1.16b", v1=a).d)[:2] == [256, 382]
    out = run(0x0EA06820, "sadalp v0.1d, v1.2s", v0=HIGH | 5, v1=HIGH | lanes(32, -1, -2))
    assert out.d == 2


def test_across(run: Simd) -> None:
    """The result is a scalar: all other bits of the register become zero."""
    a = lanes(8, *range(1, 16), -100)
    assert run(0x4E31B820, "addv b0, v1.16b", v0=HIGH, v1=a).d == 20
    assert run(0x0E31B820, "addv b0, v1.8b", v0=HIGH, v1=a).d == 36
    assert run(0x4E303820, "saddlv h0, v1.16b", v0=HIGH, v1=a).d == 20
    assert run(0x6E303820, "uaddlv h0, v1.16b", v0=HIGH, v1=a).d == 120 + 156
    assert run(0x4E31A820, "sminv b0, v1.16b", v0=HIGH, v1=a).d == 156
    assert run(0x2E30A820, "umaxv b0, v1.8b", v0=HIGH, v1=a).d == 8
    assert run(0x6EB03820, "uaddlv d0, v1.4s", v1=lanes(32, -1, -1, -1, -1)).d == 4 * (2**32 - 1)
    assert run(0x5EF1B820, "addp d0, v1.2d", v0=HIGH, v1=lanes(64, -1, 3)).d == 2


def recip_sqrt_estimate(a: int) -> int:
    """RecipSqrtEstimate() as the manual writes it."""
    a = a * 2 + 1 if a < 256 else (a >> 1 << 1) * 2 + 2
    b = 512
    while a * (b + 1) * (b + 1) < 1 << 28:
        b += 1
    return (b + 1) // 2


def recip_estimate(a: int) -> int:
    """RecipEstimate() as the manual writes it."""
    return ((1 << 19) // (a * 2 + 1) + 1) // 2


def test_estimates_are_the_manuals(run: Simd) -> None:
    """All 512 values of the nine bits that count; the bits below do not."""
    ones = (1 << 32) - 1
    for a in range(0, 512, 2):
        v = lanes(32, a << 23 | 0x7F_FFFF, a + 1 << 23)
        want = [recip_estimate(b) << 23 if b >= 256 else ones for b in (a, a + 1)]
        assert split(32, run(0x0EA1C820, "urecpe v0.2s, v1.2s", v0=HIGH, v1=v).d) == [*want, 0, 0]
        want = [recip_sqrt_estimate(b) << 23 if b >= 128 else ones for b in (a, a + 1)]
        assert split(32, run(0x6EA1C820, "ursqrte v0.4s, v1.4s", v1=v).d)[:2] == want
