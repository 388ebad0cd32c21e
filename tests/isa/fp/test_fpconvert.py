"""Floating-point conversions (Arm ARM, shared pseudocode FPToFixed(), FPConvert(), ...)."""

from __future__ import annotations

import math

import pytest
from tests.isa.bench import Bench
from tests.isa.fp.fp_bench import AHP, DN, FZ, IDC, IOC, IXC, OFC, RM, RP, RZ, UFC, Fp, d, s
from tests.isa.simd.simd_bench import lanes

INF, NAN = float("inf"), 0x7FF8000000000000
MAX64, MIN64, ONES = (1 << 63) - 1, 1 << 63, (1 << 64) - 1


@pytest.fixture
def run(bench: Bench) -> Fp:
    return Fp(bench)


# -- to integers ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "signed", "unsigned"),
    [
        (d(1.5), (1, IXC), (1, IXC)),
        (d(-1.5), (ONES, IXC), (0, IOC)),
        (d(-0.75), (0, IXC), (0, IXC)),
        (d(2.0**63), (MAX64, IOC), (1 << 63, 0)),
        (d(-(2.0**63)), (MIN64, 0), (0, IOC)),
        (d(-(2.0**63)) + 1, (MIN64, IOC), (0, IOC)),
        (d(2.0**64), (MAX64, IOC), (ONES, IOC)),
        (d(INF), (MAX64, IOC), (ONES, IOC)),
        (d(-INF), (MIN64, IOC), (0, IOC)),
        (NAN, (0, IOC), (0, IOC)),
    ],
)
def test_saturation(run: Fp, a: int, signed: tuple[int, int], unsigned: tuple[int, int]) -> None:
    """FPToFixed(): "if overflow then FPProcessException(FPExc_InvalidOp, fpcr); elsif error != 0.0
    then FPProcessException(FPExc_Inexact, fpcr)": never both."""
    out = run(0x9E780020, "fcvtzs x0, d1", v1=a)
    assert (out.w, out.flags) == signed
    out = run(0x9E790020, "fcvtzu x0, d1", v1=a)
    assert (out.w, out.flags) == unsigned
    out = run(0x4EE1B820, "fcvtzs v0.2d, v1.2d", v1=a)
    assert (out.r, out.flags) == signed
    out = run(0x7EE1B820, "fcvtzu d0, d1", v1=a)
    assert (out.r, out.flags) == unsigned


def test_saturation_to_32_bits_is_not_inexact(run: Fp) -> None:
    """A fraction beyond the limits raises Invalid Operation alone; inside them Inexact alone."""
    for a, result, flags in (
        (2147483647.5, 0x7FFFFFFF, IXC),
        (2147483648.5, 0x7FFFFFFF, IOC),
        (-2147483648.5, 0x80000000, IXC),
        (-2147483649.5, 0x80000000, IOC),
    ):
        out = run(0x1E780020, "fcvtzs w0, d1", v1=d(a))
        assert (out.w, out.flags) == (result, flags)
    for a, result, flags in (
        (2147483647.25, 0x7FFFFFFF, IXC),
        (2147483647.5, 0x7FFFFFFF, IOC),  # the tie goes to the even 2**31
        (-2147483648.5, 0x80000000, IXC),
        (-2147483648.75, 0x80000000, IOC),
    ):
        out = run(0x1E600020, "fcvtns w0, d1", v1=d(a))
        assert (out.w, out.flags) == (result, flags)


def test_the_rounding_in_the_name(run: Fp) -> None:
    for word, results in (
        ((0x9E600020, "fcvtns x0, d1"), (2, 2, -2, 0)),
        ((0x9E640020, "fcvtas x0, d1"), (2, 3, -3, 1)),
        ((0x9E680020, "fcvtps x0, d1"), (2, 3, -2, 1)),
        ((0x9E700020, "fcvtms x0, d1"), (1, 2, -3, 0)),
    ):
        for a, result in zip((1.5, 2.5, -2.5, 0.5), results, strict=True):
            for fpcr in (0, RP, RM, RZ):
                out = run(*word, v1=d(a), fpcr=fpcr)
                assert (out.w, out.flags) == (result & ONES, IXC)
    # Just below a half: adding a half would round up.
    assert run(0x9E640020, "fcvtas x0, d1", v1=d(0.5) - 1).w == 0


def test_small_negative_numbers_to_unsigned(run: Fp) -> None:
    for a, flags in ((-0.25, IXC), (-0.5, IXC), (-0.75, IOC)):
        assert run(0x9E610020, "fcvtnu x0, d1", v1=d(a)).flags == flags
    assert run(0x9E710020, "fcvtmu x0, d1", v1=d(-0.25)).flags == IOC
    assert run(0x1E250020, "fcvtau w0, s1", v1=s(-0.5)).flags == IOC


def test_fixed_point(run: Fp) -> None:
    out = run(0x1E58E020, "fcvtzs w0, d1, #8", v1=d(1.5 + 2.0**-9))
    assert (out.w, out.flags) == (384, IXC)
    out = run(0x1E588020, "fcvtzs w0, d1, #32", v1=d(0.5))
    assert (out.w, out.flags) == (0x7FFFFFFF, IOC)
    # Scaling must not overflow, with OFC, before it saturates.
    out = run(0x9E190020, "fcvtzu x0, s1, #64", v1=s(2.0**127))
    assert (out.w, out.flags) == (ONES, IOC)
    out = run(0x9E420020, "scvtf d0, x1, #64", x1=MIN64)
    assert (out.r, out.flags) == (d(-0.5), 0)
    out = run(0x2F3FE420, "ucvtf v0.2s, v1.2s, #1", v1=lanes(32, 3, 0xFFFFFFFF))
    assert (out.r, out.flags) == (lanes(32, s(1.5), s(2.0**31)), IXC)


# -- from integers ----------------------------------------------------------------------------
def test_integers_are_rounded_once(run: Fp) -> None:
    """Unsigned numbers with the top bit set, just above a tie, in every rounding mode."""
    x = 0x8000_0080_0000_0001  # 2**63 + half a unit of float + 1
    up, down = 0x5F000001, 0x5F000000
    for fpcr, result in ((0, up), (RP, up), (RM, down), (RZ, down)):
        out = run(0x9E230020, "ucvtf s0, x1", x1=x, fpcr=fpcr)
        assert (out.r, out.flags) == (result, IXC)
    assert run(0x9E230020, "ucvtf s0, x1", x1=x - 1).r == down  # the tie itself
    assert run(0x9E220020, "scvtf s0, x1", x1=x).r == s(-(2.0**63 - 2.0**39))
    assert run(0x1E630020, "ucvtf d0, w1", x1=ONES).r == d(2.0**32 - 1)


# -- to integral ------------------------------------------------------------------------------
def test_only_frintx_is_inexact(run: Fp) -> None:
    """FPRoundInt(): "if error != 0.0 && exact then FPProcessException(FPExc_Inexact)"."""
    out = run(0x1E674020, "frintx d0, d1", v1=d(2.5))
    assert (out.r, out.flags) == (d(2.0), IXC)
    out = run(0x1E67C020, "frinti d0, d1", v1=d(2.5), fpcr=RP)
    assert (out.r, out.flags) == (d(3.0), 0)
    out = run(0x6E618820, "frinta v0.2d, v1.2d", v1=lanes(64, d(2.5), d(-INF)))
    assert (out.r, out.flags) == (lanes(64, d(3.0), d(-INF)), 0)
    out = run(0x1E674020, "frintx d0, d1", v1=d(0.25), fpcr=FZ)
    assert (out.r, out.flags) == (0, IXC)


def test_a_result_of_zero_keeps_its_sign(run: Fp) -> None:
    for word in (
        (0x1E644020, "frintn d0, d1"),
        (0x1E664020, "frinta d0, d1"),
        (0x1E65C020, "frintz d0, d1"),
        (0x1E64C020, "frintp d0, d1"),
        (0x1E674020, "frintx d0, d1"),
    ):
        assert run(*word, v1=d(-0.25)).r == d(-0.0)


# -- between formats --------------------------------------------------------------------------
def test_double_to_half_is_rounded_once(run: Fp) -> None:
    """1 + 2**-11 + 2**-40 is above a tie of half precision; as a float it would be the tie."""
    out = run(0x1E63C020, "fcvt h0, d1", v1=d(1 + 2.0**-11 + 2.0**-40))
    assert (out.r, out.flags) == (0x3C01, IXC)
    assert run(0x1E63C020, "fcvt h0, d1", v1=d(1 + 2.0**-11)).r == 0x3C00
    out = run(0x1E63C020, "fcvt h0, d1", v1=1, fpcr=RP)
    assert (out.r, out.flags) == (1, UFC | IXC)
    out = run(0x1E63C020, "fcvt h0, d1", v1=d(1e300))
    assert (out.r, out.flags) == (0x7C00, OFC | IXC)


def test_half_denormals_are_not_flushed(run: Fp) -> None:
    """FPUnpackCV(), FPRoundCV(): FPCR.FZ concerns denormal singles, not half precision."""
    out = run(0x1EE24020, "fcvt s0, h1", v1=1, fpcr=FZ)
    assert (out.r, out.flags) == (s(2.0**-24), 0)
    out = run(0x1E23C020, "fcvt h0, s1", v1=s(2.0**-24), fpcr=FZ)
    assert (out.r, out.flags) == (1, 0)
    out = run(0x1E23C020, "fcvt h0, s1", v1=1, fpcr=FZ | RP)
    assert (out.r, out.flags) == (0, IDC)
    out = run(0x1E63C020, "fcvt h0, d1", v1=d(2.0**-130), fpcr=FZ | RP)
    assert (out.r, out.flags) == (1, UFC | IXC)


def test_alternative_half_precision(run: Fp) -> None:
    """FPConvert(), FPRoundCV() with FPCR.AHP: no infinities and NaNs but InvalidOp."""
    out = run(0x1EE24020, "fcvt s0, h1", v1=0x7C01, fpcr=AHP)
    assert (out.r, out.flags) == (s(65536.0 * (1 + 2.0**-10)), 0)
    out = run(0x1E23C020, "fcvt h0, s1", v1=s(131008.0), fpcr=AHP)
    assert (out.r, out.flags) == (0x7FFF, 0)
    for a, result in ((s(131072.0), 0x7FFF), (s(-INF), 0xFFFF), (0xFFC00001, 0x8000)):
        out = run(0x1E23C020, "fcvt h0, s1", v1=a, fpcr=AHP)
        assert (out.r, out.flags) == (result, IOC)
    out = run(
        0x0E216820, "fcvtn v0.4h, v1.4s", v1=lanes(32, s(65536.0), s(1.0), 0, s(2.0**-25)), fpcr=AHP
    )
    assert (out.r, out.flags) == (lanes(16, 0x7C00, 0x3C00, 0, 0), UFC | IXC)


def test_nans_keep_their_upper_bits(run: Fp) -> None:
    """FPConvertNaN(): the sign and the most significant fraction bits, made quiet."""
    out = run(0x1E63C020, "fcvt h0, d1", v1=0xFFF4_5678_0000_0001)
    assert (out.r, out.flags) == (0xFF15, IOC)
    out = run(0x1EE2C020, "fcvt d0, h1", v1=0x7E01)
    assert (out.r, out.flags) == (0x7FF8_0400_0000_0000, 0)
    assert run(0x1E63C020, "fcvt h0, d1", v1=NAN | 1 << 45, fpcr=DN).r == 0x7E00
    out = run(0x0E217820, "fcvtl v0.4s, v1.4h", v1=lanes(16, 0x7D00, 0, 0xFE01))
    assert (out.r, out.flags) == (lanes(32, 0x7FE00000, 0, 0xFFC02000), IOC)


def test_round_to_odd(run: Fp) -> None:
    """FCVTXN, "Round to Odd": inexact results have a last bit of one; none is an infinity."""
    for a, result, flags in (
        (d(1.0), s(1.0), 0),
        (d(1.0) + 1, s(1.0) + 1, IXC),
        (d(1.0 + 2.0**-23) + 1, s(1.0) + 1, IXC),
        (d(-1e300), 0xFF7FFFFF, OFC | IXC),
        (d(-INF), 0xFF800000, 0),
        (d(2.0**-149), 1, 0),
        (d(2.0**-148) + 1, 3, UFC | IXC),
        (d(2.0**-149) + 1, 1, UFC | IXC),
        (1, 1, UFC | IXC),
        (d(2.0**-126) - 1, 0x007FFFFF, UFC | IXC),
    ):
        out = run(0x7E616820, "fcvtxn s0, d1", v1=a, fpcr=RP)
        assert (out.r, out.flags) == (result, flags), hex(a)
    out = run(0x7E616820, "fcvtxn s0, d1", v1=d(2.0**-149), fpcr=FZ)
    assert (out.r, out.flags) == (0, UFC)
    out = run(0x6E616820, "fcvtxn2 v0.4s, v1.2d", v0=7, v1=lanes(64, d(1.0) + 1, d(2.0)))
    assert (out.r, out.flags) == (lanes(32, 7, 0, s(1.0) + 1, s(2.0)), IXC)


def test_moves_copy_bits(run: Fp) -> None:
    assert run(0x9EAE0020, "fmov x0, v1.d[1]", v1=lanes(64, 1, 2)).w == 2
    assert run(0x9EAF0020, "fmov v0.d[1], x1", v0=7, x1=8).r == lanes(64, 7, 8)
    assert run(0x1E260020, "fmov w0, s1", v1=ONES).w == 0xFFFF_FFFF
    assert run(0x9E670020, "fmov d0, x1", x1=MIN64).r == MIN64
    for imm8 in range(256):
        sign = -1.0 if imm8 & 0x80 else 1.0
        value = sign * math.ldexp(16 + (imm8 & 15), (imm8 >> 4 & 7 ^ 4) - 7)
        assert run(0x1E601000 | imm8 << 13, f"fmov d0, #{value:.8f}").r == d(value)
        assert run(0x1E201000 | imm8 << 13, f"fmov s0, #{value:.8f}").r == s(value)
