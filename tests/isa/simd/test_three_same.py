"""Three same: saturation and QC, halving without overflow, pairs, products (Arm ARM, C7.2)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import HIGH, QC, Simd, lanes, signed, split


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


def test_one_saturating_lane_sets_QC(run: Simd) -> None:
    a, b = lanes(8, *range(15), 0x7F), lanes(8, *[1] * 16)
    out = run(0x4E220C20, "sqadd v0.16b, v1.16b, v2.16b", v1=a, v2=b)
    assert split(8, out.d) == [*range(1, 16), 0x7F]
    assert out.qc
    assert not run(0x4E220C20, "sqadd v0.16b, v1.16b, v2.16b", v1=a & ~(1 << 120), v2=b).qc


def test_QC_is_sticky_and_leaves_other_flags(run: Simd) -> None:
    """FPSR.QC stays set until software clears it; the cumulative exception bits are not touched."""
    out = run(0x4EA20C20, "sqadd v0.4s, v1.4s, v2.4s", v1=0, v2=0, fpsr=QC | 0x1F)
    assert out.qc
    assert not run(0x4EA20C20, "sqadd v0.4s, v1.4s, v2.4s", v1=0, v2=0, fpsr=0x9F).qc


def test_lanes_outside_the_arrangement_do_not_saturate(run: Simd) -> None:
    """The upper half of a 64-bit arrangement takes no part and is cleared."""
    most = lanes(16, *[0x7FFF] * 4) << 64
    out = run(0x0E620C20, "sqadd v0.4h, v1.4h, v2.4h", v0=HIGH, v1=most, v2=most)
    assert out.d == 0
    assert not out.qc
    out = run(0x5E620C20, "sqadd h0, h1, h2", v0=HIGH, v1=most | 0x7FFF_0001, v2=most | 0x7FFF_0002)
    assert out.d == 3
    assert not out.qc


@pytest.mark.parametrize(
    ("word", "text", "want", "qc"),
    [
        (0x7EE20C20, "uqadd d0, d1, d2", (1 << 64) - 1, True),
        (0x5EE20C20, "sqadd d0, d1, d2", 2, False),
        (0x7EE22C20, "uqsub d0, d1, d2", (1 << 64) - 6, False),
        (0x7EE12C40, "uqsub d0, d2, d1", 0, True),
        (0x5EE12C40, "sqsub d0, d2, d1", 6, False),
    ],
)  # fmt: skip
def test_scalar_saturation(run: Simd, word: int, text: str, want: int, qc: bool) -> None:
    out = run(word, text, v0=HIGH, v1=HIGH | lanes(64, -2), v2=HIGH | 4)
    assert out.d == want
    assert out.qc == qc


def test_halving_has_no_intermediate_overflow(run: Simd) -> None:
    """SHADD, UHADD: the sum is one bit wider than the lanes; SRHADD rounds up, SHSUB may be -1."""
    a, b = lanes(8, 127, -128, -1, 0, 1, -128), lanes(8, 127, -128, 0, -1, 2, 127)
    sums = signed(8, split(8, run(0x0E220420, "shadd v0.8b, v1.8b, v2.8b", v1=a, v2=b).d, 64))
    assert sums == [127, -128, -1, -1, 1, -1, 0, 0]
    sums = signed(8, split(8, run(0x0E221420, "srhadd v0.8b, v1.8b, v2.8b", v1=a, v2=b).d, 64))
    assert sums == [127, -128, 0, 0, 2, 0, 0, 0]
    sums = signed(8, split(8, run(0x0E222420, "shsub v0.8b, v1.8b, v2.8b", v1=a, v2=b).d, 64))
    assert sums == [0, 0, -1, 0, -1, -128, 0, 0]
    a, b = lanes(16, 0xFFFF, 0, 3), lanes(16, 0xFFFF, 1, 0xFFFF)
    assert split(16, run(0x6E620420, "uhadd v0.8h, v1.8h, v2.8h", v1=a, v2=b).d)[:3] == [
        0xFFFF,
        0,
        0x8001,
    ]
    assert split(16, run(0x6E621420, "urhadd v0.8h, v1.8h, v2.8h", v1=a, v2=b).d)[:3] == [
        0xFFFF, 1, 0x8001,
    ]  # fmt: skip
    assert split(16, run(0x6E622420, "uhsub v0.8h, v1.8h, v2.8h", v1=a, v2=b).d)[:3] == [
        0, 0xFFFF, 0x8002,
    ]  # fmt: skip


def test_absolute_difference_of_extremes(run: Simd) -> None:
    """SABD of -128 and 127 is 255: the difference is taken before the lane's width applies."""
    out = run(0x0E227420, "sabd v0.8b, v1.8b, v2.8b", v1=0x80, v2=0x7F)
    assert out.d == 0xFF
    out = run(0x0E227C20, "saba v0.8b, v1.8b, v2.8b", v0=HIGH | 0x0105, v1=0x80, v2=0x7F)
    assert out.d == 0x0104


def test_pairs_run_through_both_operands(run: Simd) -> None:
    """Pairwise: the lower half of the result comes from Vn, the upper half from Vm."""
    a, b = lanes(32, 1, 2, 30, 40), lanes(32, 500, 600, -1, 1)
    assert split(32, run(0x4EA2BC20, "addp v0.4s, v1.4s, v2.4s", v1=a, v2=b).d) == [3, 70, 1100, 0]
    assert signed(32, split(32, run(0x4EA2AC20, "sminp v0.4s, v1.4s, v2.4s", v1=a, v2=b).d)) == [
        1, 30, 500, -1,
    ]  # fmt: skip
    assert split(32, run(0x2EA2AC20, "uminp v0.2s, v1.2s, v2.2s", v0=HIGH, v1=a, v2=b).d) == [
        1,
        500,
        0,
        0,
    ]


def test_doubling_product_saturates_only_for_the_least_number(run: Simd) -> None:
    """SQDMULH: 2 * -32768 * -32768 is one more than the greatest number."""
    a = lanes(16, -32768, -32768, 32767, 1)
    b = lanes(16, -32768, 32767, 32767, 1)
    out = run(0x0E62B420, "sqdmulh v0.4h, v1.4h, v2.4h", v1=a, v2=b)
    assert signed(16, split(16, out.d, 64)) == [32767, -32767, 32766, 0]
    assert out.qc
    out = run(0x2E62B420, "sqrdmulh v0.4h, v1.4h, v2.4h", v1=a >> 16, v2=b >> 16)
    assert signed(16, split(16, out.d, 64)) == [-32767, 32766, 0, 0]
    assert not out.qc
    out = run(0x7EA2B420, "sqrdmulh s0, s1, s2", v1=HIGH | 1 << 31, v2=HIGH | 1 << 31)
    assert out.d == 0x7FFF_FFFF
    assert out.qc


def test_polynomial_product_has_no_carries(run: Simd) -> None:
    a, b = lanes(8, 3, 0x80, 0xFF), lanes(8, 3, 2, 0xFF)
    assert split(8, run(0x6E229C20, "pmul v0.16b, v1.16b, v2.16b", v1=a, v2=b).d)[:3] == [
        5,
        0,
        0x55,
    ]


def test_operands_may_be_the_destination(run: Simd) -> None:
    v = lanes(32, 5, 6, 7, 8)
    assert split(32, run(0x4EA09400, "mla v0.4s, v0.4s, v0.4s", v0=v).d) == [30, 42, 56, 72]
    assert split(32, run(0x6EA09400, "mls v0.4s, v0.4s, v0.4s", v0=v).d)[0] == 2**32 - 20


def test_comparisons_give_all_ones(run: Simd) -> None:
    ones = (1 << 64) - 1
    assert run(0x7EE23420, "cmhi d0, d1, d2", v1=1 << 63, v2=0, v0=HIGH).d == ones
    assert run(0x5EE23420, "cmgt d0, d1, d2", v1=1 << 63, v2=0, v0=HIGH).d == 0
    assert run(0x4EE28C20, "cmtst v0.2d, v1.2d, v2.2d", v1=6 << 64 | 4, v2=8 << 64 | 4).d == ones
