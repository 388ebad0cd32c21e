"""Reciprocal estimates and steps (Arm ARM, shared pseudocode FPRecipEstimate() and following)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.fp.fp_bench import DZC, FZ, IDC, IOC, IXC, OFC, RM, RP, RZ, UFC, Fp, d, s

INF, MINUS, DEFAULT = 0x7F800000, 0x80000000, 0x7FC00000


@pytest.fixture
def run(bench: Bench) -> Fp:
    return Fp(bench)


def recip_estimate(a: int) -> int:
    """RecipEstimate() as the manual writes it."""
    a = a * 2 + 1
    return ((1 << 19) // a + 1) // 2


def recip_sqrt_estimate(a: int) -> int:
    """RecipSqrtEstimate() as the manual writes it, counting up."""
    a = a * 2 + 1 if a < 256 else ((a >> 1 << 1) + 1) * 2
    b = 512
    while a * (b + 1) * (b + 1) < 1 << 28:
        b += 1
    return (b + 1) // 2


def test_every_entry_of_the_reciprocal_table(run: Fp) -> None:
    for i in range(256):
        out = run(0x5EE1D820, "frecpe d0, d1", v1=d(1.0) | i << 44)
        assert (out.r, out.flags) == (d(0.5) | (recip_estimate(256 + i) & 255) << 44, 0)


def test_every_entry_of_the_root_table(run: Fp) -> None:
    for i in range(256):
        # An even exponent field is 0.5 <= fraction < 1.0 in the manual's fixed point.
        out = run(0x7EE1D820, "frsqrte d0, d1", v1=d(0.5) | i << 44)
        assert (out.r, out.flags) == (d(1.0) | (recip_sqrt_estimate(256 + i) & 255) << 44, 0)
        out = run(0x7EE1D820, "frsqrte d0, d1", v1=d(1.0) | i << 44)
        assert (out.r, out.flags) == (d(0.5) | (recip_sqrt_estimate(128 + i // 2) & 255) << 44, 0)


def test_estimates_at_the_ends_of_the_range(run: Fp) -> None:
    for a, result, flags in (
        (0, INF, DZC),
        (MINUS, INF | MINUS, DZC),
        (INF | MINUS, MINUS, 0),
        (1, INF, OFC | IXC),  # below 2**-128
        (0x00200000, 0x7F7F8000, 0),  # 2**-128
        (0x7E800000, 0x007FC000, 0),  # 2**126: a denormal result
        (0x7F000000, 0x003FE000, 0),
    ):
        out = run(0x5EA1D820, "frecpe s0, s1", v1=a)
        assert (out.r, out.flags) == (result, flags), hex(a)
    for fpcr, result in ((RP, 0xFF7FFFFF), (RM, 0xFF800000), (RZ, 0xFF7FFFFF)):
        assert run(0x5EA1D820, "frecpe s0, s1", v1=1 | MINUS, fpcr=fpcr).r == result
    out = run(0x5EA1D820, "frecpe s0, s1", v1=0x7E800000, fpcr=FZ)
    assert (out.r, out.flags) == (0, UFC)
    out = run(0x5EA1D820, "frecpe s0, s1", v1=1, fpcr=FZ)
    assert (out.r, out.flags) == (INF, IDC | DZC)
    for a, result, flags in (
        (s(-1.0), DEFAULT, IOC),
        (MINUS, INF | MINUS, DZC),
        (INF, 0, 0),
        (1, 0x64B48000, 0),
    ):
        out = run(0x7EA1D820, "frsqrte s0, s1", v1=a)
        assert (out.r, out.flags) == (result, flags), hex(a)


def test_steps_take_infinity_times_zero_as_zero(run: Fp) -> None:
    """FPRecipStepFused(): "if (inf1 && zero2) || (zero1 && inf2) then result = FPTwo('0')";
    FPRSqrtStepFused(): FPOnePointFive('0')."""
    out = run(0x5E22FC20, "frecps s0, s1, s2", v1=INF, v2=0)
    assert (out.r, out.flags) == (s(2.0), 0)
    out = run(0x5EA2FC20, "frsqrts s0, s1, s2", v1=MINUS, v2=INF)
    assert (out.r, out.flags) == (s(1.5), 0)
    out = run(0x5E22FC20, "frecps s0, s1, s2", v1=0x7FC00001, v2=0)
    assert (out.r, out.flags) == (0xFFC00001, 0)  # "op1 = FPNeg(op1)"


def test_the_root_step_is_halved_before_it_is_rounded(run: Fp) -> None:
    """(3 - a * b) / 2: a product of 2**1024 overflows only if it is rounded first."""
    out = run(0x5EE2FC20, "frsqrts d0, d1, d2", v1=d(2.0), v2=d(-(2.0**1023)))
    assert (out.r, out.flags) == (d(2.0**1023), IXC)
    out = run(0x5EE2FC20, "frsqrts d0, d1, d2", v1=d(-(2.0**1023)), v2=d(2.0))
    assert (out.r, out.flags) == (d(2.0**1023), IXC)
    out = run(0x5EE2FC20, "frsqrts d0, d1, d2", v1=1, v2=0)
    assert (out.r, out.flags) == (d(1.5), 0)


def test_frecpx_inverts_the_exponent(run: Fp) -> None:
    assert run(0x5EA1F820, "frecpx s0, s1", v1=s(-1.5)).r == 0xC0000000
    assert run(0x5EA1F820, "frecpx s0, s1", v1=0).r == 0x7F000000
    assert run(0x5EA1F820, "frecpx s0, s1", v1=INF).r == 0
    out = run(0x5EA1F820, "frecpx s0, s1", v1=0x7F800001)
    assert (out.r, out.flags) == (0x7FC00001, IOC)
