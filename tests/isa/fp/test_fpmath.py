"""Floating-point arithmetic (Arm ARM, shared pseudocode, aarch/functions/float; A1.5)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.fp.fp_bench import DN, DZC, FZ, IDC, IOC, IXC, OFC, RM, RN, RP, RZ, UFC, Fp, d, s
from tests.isa.simd.simd_bench import lanes

QNAN1, QNAN2, SNAN1, SNAN2 = 0x7FC00011, 0xFFC00022, 0x7F800033, 0xFF800044
DEFAULT = 0x7FC00000
QUIET = 1 << 22
INF, MINUS = 0x7F800000, 0x80000000
MIN_NORMAL, LEAST = 0x00800000, 1


@pytest.fixture
def run(bench: Bench) -> Fp:
    return Fp(bench)


# -- NaNs -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "b", "result", "flags"),
    [
        (QNAN1, QNAN2, QNAN1, 0),
        (s(1.0), QNAN2, QNAN2, 0),
        (QNAN1, SNAN2, SNAN2 | QUIET, IOC),
        (SNAN1, SNAN2, SNAN1 | QUIET, IOC),
        (SNAN1, QNAN2, SNAN1 | QUIET, IOC),
        (INF, INF | MINUS, DEFAULT, IOC),
    ],
)
def test_the_first_signalling_nan_then_the_first_quiet_one(
    run: Fp, a: int, b: int, result: int, flags: int
) -> None:
    """FPProcessNaNs(): "if type1 == FPType_SNaN ... elsif type2 == FPType_SNaN" and so on."""
    out = run(0x1E222820, "fadd s0, s1, s2", v1=a, v2=b)
    assert (out.r, out.flags) == (result, flags)
    out = run(0x4E22D420, "fadd v0.4s, v1.4s, v2.4s", v1=lanes(32, 0, a), v2=lanes(32, 0, b))
    assert (out.r >> 32 & 0xFFFF_FFFF, out.flags) == (result, flags)


def test_default_nan_mode(run: Fp) -> None:
    """FPCR.DN: "Any operation involving one or more NaNs returns the Default NaN"."""
    out = run(0x1E222820, "fadd s0, s1, s2", v1=QNAN1, v2=SNAN2, fpcr=DN)
    assert (out.r, out.flags) == (DEFAULT, IOC)
    assert run(0x1E22C020, "fcvt d0, s1", v1=QNAN2, fpcr=DN).r == 0x7FF8000000000000
    assert run(0x1E204020, "fmov s0, s1", v1=QNAN2, fpcr=DN).r == QNAN2
    assert run(0x1E214020, "fneg s0, s1", v1=SNAN1, fpcr=DN).r == SNAN1 | MINUS
    assert run(0x1E20C020, "fabs s0, s1", v1=SNAN2, fpcr=DN).r == SNAN2 ^ MINUS


def test_negations_reach_nans(run: Fp) -> None:
    """FNMUL: "result = FPNeg(result)"; FMSUB: "operand1 = FPNeg(operand1)"; FABD: FPAbs()."""
    assert run(0x1E228820, "fnmul s0, s1, s2", v1=QNAN1, v2=0).r == QNAN1 | MINUS
    assert run(0x1E228820, "fnmul s0, s1, s2", v1=INF, v2=0).r == DEFAULT | MINUS
    assert run(0x1F028C20, "fmsub s0, s1, s2, s3", v1=QNAN1, v2=0, v3=0).r == QNAN1 | MINUS
    assert run(0x1F220C20, "fnmadd s0, s1, s2, s3", v1=QNAN1, v2=0, v3=0).r == QNAN1 | MINUS
    assert run(0x1F220C20, "fnmadd s0, s1, s2, s3", v1=0, v2=0, v3=QNAN1).r == QNAN1 | MINUS
    assert run(0x1F228C20, "fnmsub s0, s1, s2, s3", v1=QNAN1, v2=0, v3=0).r == QNAN1
    assert run(0x7EA2D420, "fabd s0, s1, s2", v1=QNAN2, v2=0).r == QNAN2 ^ MINUS


def test_the_addend_is_the_first_operand_of_a_fused_sum(run: Fp) -> None:
    """FPMulAdd(): FPProcessNaNs3(typeA, type1, type2, ...)."""
    assert run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=QNAN1, v2=0, v3=QNAN2).r == QNAN2
    assert run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=QNAN1, v2=SNAN1, v3=QNAN2).r == SNAN1 | QUIET
    old = lanes(32, QNAN2, 0)
    assert run(0x0E22CC20, "fmla v0.2s, v1.2s, v2.2s", v0=old, v1=QNAN1, v2=0).r == QNAN2


def test_infinity_times_zero_beside_a_quiet_nan_is_invalid(run: Fp) -> None:
    """FPMulAdd(): "if typeA == FPType_QNaN && ((inf1 && zero2) || (zero1 && inf2)) then result =
    FPDefaultNaN(); FPProcessException(FPExc_InvalidOp)"."""
    out = run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=INF, v2=0, v3=QNAN1)
    assert (out.r, out.flags) == (DEFAULT, IOC)
    out = run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=INF, v2=s(1.0), v3=QNAN1)
    assert (out.r, out.flags) == (QNAN1, 0)
    # With FZ a denormal is a zero.
    out = run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=INF, v2=LEAST, v3=QNAN1, fpcr=FZ)
    assert (out.r, out.flags) == (DEFAULT, IOC | IDC)


# -- flags ------------------------------------------------------------------------------------
def test_what_raises_what(run: Fp) -> None:
    assert run(0x1E621820, "fdiv d0, d1, d2", v1=d(1.0), v2=0).flags == DZC
    assert run(0x1E621820, "fdiv d0, d1, d2", v1=d(float("inf")), v2=0).flags == 0
    assert run(0x1E621820, "fdiv d0, d1, d2", v1=0, v2=0).flags == IOC
    assert run(0x1E620820, "fmul d0, d1, d2", v1=d(1e300), v2=d(1e300)).flags == OFC | IXC
    assert run(0x1E620820, "fmul d0, d1, d2", v1=d(1e-300), v2=d(1e-300)).flags == UFC | IXC
    assert run(0x1E622820, "fadd d0, d1, d2", v1=d(1.0), v2=d(1e-30)).flags == IXC
    assert run(0x1E61C020, "fsqrt d0, d1", v1=d(-1.0)).flags == IOC
    assert run(0x1E61C020, "fsqrt d0, d1", v1=d(-0.0)).r == d(-0.0)
    assert run(0x1E622820, "fadd d0, d1, d2", v1=1, v2=2).flags == 0  # denormals, exact


def test_flags_are_cumulative(run: Fp) -> None:
    assert (
        run(0x1E622820, "fadd d0, d1, d2", v1=d(1.0), v2=d(1e-30), fpsr=DZC | IDC).flags
        == DZC | IDC | IXC
    )


def test_unused_lanes_raise_nothing(run: Fp) -> None:
    """The 64-bit forms have no lanes 2 and 3: not 0/0 there, nor what the register holds."""
    junk = lanes(32, s(1.0), s(1.0), 0, SNAN1)
    for out in (
        run(0x2E22FC20, "fdiv v0.2s, v1.2s, v2.2s", v1=junk, v2=junk),
        run(0x0EA1D820, "frecpe v0.2s, v1.2s", v1=junk),
        run(0x2EA1D820, "frsqrte v0.2s, v1.2s", v1=junk),
        run(0x0F829020, "fmul v0.2s, v1.2s, v2.s[0]", v1=junk, v2=junk),
        run(0x2E22D420, "faddp v0.2s, v1.2s, v2.2s", v1=junk, v2=junk),
    ):
        assert out.flags == 0
        assert out.r >> 64 == 0


@pytest.mark.parametrize("mode", [RN, RP, RM, RZ])
def test_rounding_modes(run: Fp, mode: int) -> None:
    third = {RN: 0x3EAAAAAB, RP: 0x3EAAAAAB, RM: 0x3EAAAAAA, RZ: 0x3EAAAAAA}
    assert run(0x1E221820, "fdiv s0, s1, s2", v1=s(1.0), v2=s(3.0), fpcr=mode).r == third[mode]
    # "FPAdd(): ... sign of an exact zero sum is minus only in RM"
    assert run(0x1E223820, "fsub s0, s1, s2", v1=s(1.0), v2=s(1.0), fpcr=mode).r == (
        MINUS if mode == RM else 0
    )
    largest = {RN: INF, RP: INF, RM: INF - 1, RZ: INF - 1}
    assert run(0x1E220820, "fmul s0, s1, s2", v1=INF - 1, v2=s(2.0), fpcr=mode).r == largest[mode]


# -- underflow --------------------------------------------------------------------------------
def test_underflow_is_judged_before_rounding(run: Fp) -> None:
    """FPRound(): "Underflow occurs if exponent is too small before rounding, and result is
    inexact"."""
    up = run(0x1E220820, "fmul s0, s1, s2", v1=0x3F7FFFFF, v2=MIN_NORMAL)  # (1 - 2**-24) * 2**-126
    assert (up.r, up.flags) == (MIN_NORMAL, UFC | IXC)
    exact = run(0x1E220820, "fmul s0, s1, s2", v1=s(0.5), v2=0x01000000)
    assert (exact.r, exact.flags) == (MIN_NORMAL, 0)
    down = run(0x1E220820, "fmul s0, s1, s2", v1=0x3F000001, v2=0x01000000, fpcr=RZ)
    assert (down.r, down.flags) == (0x00800001, 0)
    down = run(0x1E220820, "fmul s0, s1, s2", v1=0x3F800001, v2=0x00800001, fpcr=RZ)
    assert (down.r, down.flags) == (0x00800002, IXC)
    # The same through division, a fused sum, and a conversion.
    out = run(0x1E221820, "fdiv s0, s1, s2", v1=0x007FFFFF, v2=0x3F7FFFFF, fpcr=RP)
    assert (out.r, out.flags) == (MIN_NORMAL, UFC | IXC)
    out = run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=LEAST | MINUS, v2=s(0.25), v3=MIN_NORMAL)
    assert (out.r, out.flags) == (MIN_NORMAL, UFC | IXC)
    out = run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=LEAST, v2=s(0.25), v3=MIN_NORMAL)
    assert (out.r, out.flags) == (MIN_NORMAL, IXC)
    out = run(0x1E624020, "fcvt s0, d1", v1=d(2.0**-126) - 1)
    assert (out.r, out.flags) == (MIN_NORMAL, UFC | IXC)


def test_an_exact_fused_sum_at_the_edge_raises_nothing(run: Fp) -> None:
    """A sum whose parts differ by 2**25: found by comparing with unicorn."""
    out = run(0x1F020C20, "fmadd s0, s1, s2, s3", v1=0x0CAAAAAB, v2=s(1.5), v3=0x8D000000, fpcr=RP)
    assert (out.r, out.flags) == (MIN_NORMAL, 0)


def test_a_product_too_small_to_be_seen_still_decides(run: Fp) -> None:
    """2**-1022 less 2**-1400 underflows; the product's own scale is out of the host's range."""
    least = d(2.0**-1022)
    out = run(0x1F420C20, "fmadd d0, d1, d2, d3", v1=d(2.0**-700), v2=d(-(2.0**-700)), v3=least)
    assert (out.r, out.flags) == (least, UFC | IXC)
    out = run(0x1F420C20, "fmadd d0, d1, d2, d3", v1=d(2.0**-700), v2=d(2.0**-700), v3=least)
    assert (out.r, out.flags) == (least, IXC)
    out = run(0x1F420C20, "fmadd d0, d1, d2, d3", v1=0, v2=d(-(2.0**-700)), v3=least)
    assert (out.r, out.flags) == (least, 0)


def test_flush_to_zero(run: Fp) -> None:
    """FPUnpack(): "Denormalized input flushed to zero: FPProcessException(FPExc_InputDenorm)";
    FPRound(): "Flush-to-zero never generates a trapped exception: FPSR.UFC = '1'" and no IXC."""
    out = run(0x1E222820, "fadd s0, s1, s2", v1=LEAST | MINUS, v2=MINUS, fpcr=FZ)
    assert (out.r, out.flags) == (MINUS, IDC)
    out = run(0x1E220820, "fmul s0, s1, s2", v1=MIN_NORMAL, v2=0x3F400001, fpcr=FZ)
    assert (out.r, out.flags) == (0, UFC)
    # Before rounding: this would round up to the smallest normal number.
    out = run(0x1E220820, "fmul s0, s1, s2", v1=0x3F7FFFFF, v2=MIN_NORMAL | MINUS, fpcr=FZ)
    assert (out.r, out.flags) == (MINUS, UFC)
    out = run(0x1E223820, "fsub s0, s1, s2", v1=MIN_NORMAL + 1, v2=MIN_NORMAL, fpcr=FZ)
    assert (out.r, out.flags) == (0, UFC)
    out = run(0x1E224820, "fmax s0, s1, s2", v1=LEAST, v2=s(-1.0), fpcr=FZ)
    assert (out.r, out.flags) == (0, IDC)


def test_flags_of_a_flushed_lane_and_of_its_neighbour(run: Fp) -> None:
    tiny, third = lanes(32, MIN_NORMAL, 0), lanes(32, MIN_NORMAL, s(1.0))
    by = lanes(32, s(3.0), s(3.0))
    out = run(0x2E22FC20, "fdiv v0.2s, v1.2s, v2.2s", v1=tiny, v2=by, fpcr=FZ)
    assert (out.r, out.flags) == (0, UFC)
    out = run(0x2E22FC20, "fdiv v0.2s, v1.2s, v2.2s", v1=third, v2=by, fpcr=FZ)
    assert (out.r, out.flags) == (0x3EAAAAAB << 32, UFC | IXC)


def test_flags_before_a_flushed_result_are_kept(run: Fp) -> None:
    """An operation's own flags are dropped when a lane is flushed, but not older ones."""
    words = [(0x1E2200A4, "scvtf s4, w5"), (0x1E220820, "fmul s0, s1, s2")]
    cpu = run.bench.cpu
    cpu.state.fpcr, cpu.fpsr = FZ, 0
    out = run.bench.run(
        *(word for word, _ in words), x={5: 0x01000001}, v={1: MIN_NORMAL, 2: s(0.25)}
    )
    assert (out.v[0], cpu.fpsr) == (0, UFC | IXC)


# -- maximum, minimum, FMULX ------------------------------------------------------------------
def test_zeros_of_both_signs(run: Fp) -> None:
    """FPMax(): "sign = sign1 AND sign2: use most positive sign"; FPMin() the other."""
    for a, b in ((0, MINUS), (MINUS, 0)):
        assert run(0x1E224820, "fmax s0, s1, s2", v1=a, v2=b).r == 0
        assert run(0x1E225820, "fmin s0, s1, s2", v1=a, v2=b).r == MINUS
    assert run(0x6E30F820, "fmaxv s0, v1.4s", v1=lanes(32, MINUS, MINUS, MINUS, MINUS)).r == MINUS


def test_numbers_win_over_quiet_nans_only_in_the_nm_forms(run: Fp) -> None:
    """FPMaxNum(): "treat a single quiet-NaN as -Infinity"."""
    out = run(0x1E226820, "fmaxnm s0, s1, s2", v1=QNAN1, v2=s(-1.0))
    assert (out.r, out.flags) == (s(-1.0), 0)
    out = run(0x1E226820, "fmaxnm s0, s1, s2", v1=SNAN1, v2=s(-1.0))
    assert (out.r, out.flags) == (SNAN1 | QUIET, IOC)
    out = run(0x1E227820, "fminnm s0, s1, s2", v1=QNAN1, v2=QNAN2)
    assert (out.r, out.flags) == (QNAN1, 0)
    out = run(0x1E224820, "fmax s0, s1, s2", v1=QNAN1, v2=s(-1.0))
    assert (out.r, out.flags) == (QNAN1, 0)


def test_fmulx_of_infinity_and_zero(run: Fp) -> None:
    """FPMulX(): "elsif (inf1 && zero2) || (zero1 && inf2) then result = FPTwo(sign1 EOR sign2)"."""
    out = run(0x5E22DC20, "fmulx s0, s1, s2", v1=INF, v2=MINUS)
    assert (out.r, out.flags) == (s(-2.0), 0)
    assert run(0x5E22DC20, "fmulx s0, s1, s2", v1=s(3.0), v2=s(-2.0)).r == s(-6.0)
    out = run(0x1E220820, "fmul s0, s1, s2", v1=INF, v2=MINUS)
    assert (out.r, out.flags) == (DEFAULT, IOC)


# -- comparisons ------------------------------------------------------------------------------
def test_only_signalling_comparisons_mind_quiet_nans(run: Fp) -> None:
    """FPCompareEQ() raises for signalling NaNs, FPCompareGE() and FPCompareGT() for all."""
    assert run(0x5E22E420, "fcmeq s0, s1, s2", v1=QNAN1, v2=0).flags == 0
    assert run(0x5E22E420, "fcmeq s0, s1, s2", v1=SNAN1, v2=0).flags == IOC
    assert run(0x7E22E420, "fcmge s0, s1, s2", v1=QNAN1, v2=0).flags == IOC
    assert (
        run(0x6EA2EC20, "facgt v0.4s, v1.4s, v2.4s", v1=lanes(32, 0, 0, 0, QNAN1), v2=0).flags
        == IOC
    )
    out = run(0x5E22E420, "fcmeq s0, s1, s2", v1=LEAST, v2=0, fpcr=FZ)
    assert (out.r, out.flags) == (0xFFFF_FFFF, IDC)
