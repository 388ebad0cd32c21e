"""Three different and by element: halves, double saturation, element numbers (Arm ARM, C7.2)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import HIGH, Simd, lanes, signed, split


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


def test_upper_half_forms_read_the_upper_half(run: Simd) -> None:
    a, b = lanes(16, 1, 2, 3, 4, -5, 6, 7, 8), lanes(16, 10, 10, 10, 10, 1, 2, 3, 4)
    assert split(32, run(0x0E62C020, "smull v0.4s, v1.4h, v2.4h", v1=a, v2=b).d) == [10, 20, 30, 40]
    out = run(0x4E62C020, "smull2 v0.4s, v1.8h, v2.8h", v1=a, v2=b)
    assert signed(32, split(32, out.d)) == [-5, 12, 21, 32]
    out = run(0x6E611000, "uaddw2 v0.4s, v0.4s, v1.8h", v0=lanes(32, 1, 2, 3, 4), v1=a)
    assert split(32, out.d) == [0xFFFC, 8, 10, 12]
    out = run(0x4E625020, "sabal2 v0.4s, v1.8h, v2.8h", v0=lanes(32, 1, 1, 1, 1), v1=a, v2=b)
    assert split(32, out.d) == [7, 5, 5, 5]


def test_high_narrowing(run: Simd) -> None:
    """ADDHN drops the low half, RADDHN rounds by it; the carry out of the lane is lost."""
    a, b = lanes(32, 0x7FFF, 0xFFFF_FFFF, 0xFFFF_8000, 1), lanes(32, 1, 1, 0, 0x1_7FFF)
    assert split(16, run(0x0E624020, "addhn v0.4h, v1.4s, v2.4s", v0=HIGH, v1=a, v2=b).d) == [
        0, 0, 0xFFFF, 1, 0, 0, 0, 0,
    ]  # fmt: skip
    out = run(0x6E624020, "raddhn2 v0.8h, v1.4s, v2.4s", v0=HIGH | 9, v1=a, v2=b)
    assert split(16, out.d) == [9, 0, 0, 0, 1, 0, 0, 2]
    assert split(16, run(0x0E616020, "subhn v0.4h, v1.4s, v1.4s", v1=a).d) == [0] * 8


def test_doubling_saturates_before_the_sum_does(run: Simd) -> None:
    """SQDMLAL: the doubled product is limited first, so adding -1 leaves the limit again."""
    least = 1 << 15
    out = run(0x5E629020, "sqdmlal s0, h1, h2", v0=0xFFFF_FFFF, v1=least, v2=least)
    assert (out.d, out.qc) == (0x7FFF_FFFE, True)
    out = run(0x5E629020, "sqdmlal s0, h1, h2", v0=HIGH | 0x7FFF_FFFF, v1=1, v2=1)
    assert (out.d, out.qc) == (0x7FFF_FFFF, True)
    out = run(0x5E62B020, "sqdmlsl s0, h1, h2", v0=HIGH | 1 << 31, v1=1, v2=1)
    assert (out.d, out.qc) == (1 << 31, True)
    out = run(0x5EA2B020, "sqdmlsl d0, s1, s2", v0=HIGH | 5, v1=1, v2=1)
    assert (out.d, out.qc) == (3, False)


def test_polynomial_long(run: Simd) -> None:
    a = lanes(8, 0xFF, 0x80, 3) << 64
    out = run(0x4E22E020, "pmull2 v0.8h, v1.16b, v2.16b", v1=a, v2=a)
    assert split(16, out.d)[:3] == [0x5555, 0x4000, 5]


def test_element_number_of_a_halfword_is_H_L_M(run: Simd) -> None:
    table = lanes(16, *range(100, 108))
    one = lanes(16, *[1] * 8)
    assert (
        split(16, run(0x4F6F8820, "mul v0.8h, v1.8h, v15.h[6]", v1=one, v15=table).d) == [106] * 8
    )
    assert (
        split(16, run(0x4F5F8020, "mul v0.8h, v1.8h, v15.h[1]", v1=one, v15=table).d) == [101] * 8
    )
    assert split(16, run(0x2F700820, "mla v0.4h, v1.4h, v0.h[7]", v0=table, v1=one).d) == [
        207, 208, 209, 210, 0, 0, 0, 0,
    ]  # fmt: skip


def test_element_number_of_a_word_leaves_32_registers(run: Simd) -> None:
    table, one = lanes(32, 5, 6, 7, -8), lanes(32, 1, 2, 3, 4)
    out = run(0x4FBF6820, "smlsl2 v0.2d, v1.4s, v31.s[3]", v0=0, v1=one, v31=table)
    assert signed(64, split(64, out.d)) == [24, 32]
    out = run(0x2FB0A820, "umull v0.2d, v1.2s, v16.s[3]", v1=one, v16=table)
    assert split(64, out.d) == [0xFFFF_FFF8, 0x1_FFFF_FFF0]
    out = run(0x5FB0D820, "sqrdmulh s0, s1, v16.s[3]", v1=1 << 31, v16=1 << 127)
    assert (out.d, out.qc) == (0x7FFF_FFFF, True)
    out = run(0x5F72B820, "sqdmull s0, h1, v2.h[7]", v1=HIGH | 3, v2=0xFFFE << 112)
    assert (out.d, out.qc) == (2**32 - 12, False)
