"""FCMP, FCCMP, FCSEL (Arm ARM, C7.2; shared pseudocode FPCompare())."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.fp.fp_bench import FZ, IDC, IOC, Fp, d, s

QNAN, SNAN = 0x7FF8000000000001, 0x7FF0000000000001
LESS, EQUAL, GREATER, UNORDERED = 0b1000, 0b0110, 0b0010, 0b0011


@pytest.fixture
def run(bench: Bench) -> Fp:
    return Fp(bench)


def test_the_four_outcomes(run: Fp) -> None:
    """FPCompare(): '0011' unordered, '0110' equal, '1000' less, '0010' greater."""
    for a, b, nzcv in (
        (1.0, 2.0, LESS),
        (2.0, 1.0, GREATER),
        (0.0, -0.0, EQUAL),
        (float("-inf"), float("inf"), LESS),
    ):
        out = run(0x1E622020, "fcmp d1, d2", v1=d(a), v2=d(b))
        assert (out.nzcv, out.flags) == (nzcv, 0)
        out = run(0x1E222030, "fcmpe s1, s2", v1=s(a), v2=s(b))
        assert (out.nzcv, out.flags) == (nzcv, 0)


def test_fcmpe_raises_for_every_nan(run: Fp) -> None:
    """ "If either operand is any type of NaN" (FCMPE), "... is a signaling NaN" (FCMP)."""
    for word, nan, flags in (
        ((0x1E602028, "fcmp d1, #0.0"), QNAN, 0),
        ((0x1E602028, "fcmp d1, #0.0"), SNAN, IOC),
        ((0x1E602038, "fcmpe d1, #0.0"), QNAN, IOC),
        ((0x1E602038, "fcmpe d1, #0.0"), SNAN, IOC),
    ):
        out = run(*word, v1=nan)
        assert (out.nzcv, out.flags) == (UNORDERED, flags)


def test_signalling_nans_are_noticed_with_flush_to_zero_too(run: Fp) -> None:
    out = run(0x1E622020, "fcmp d1, d2", v1=SNAN, v2=1, fpcr=FZ)
    assert (out.nzcv, out.flags) == (UNORDERED, IOC | IDC)
    out = run(0x1E602028, "fcmp d1, #0.0", v1=1, fpcr=FZ)
    assert (out.nzcv, out.flags) == (EQUAL, IDC)
    assert run(0x1E602028, "fcmp d1, #0.0", v1=1).nzcv == GREATER


def test_a_conditional_compare_that_does_not_happen_raises_nothing(run: Fp) -> None:
    """FCCMP: "If the condition does not pass then the PSTATE.{N, Z, C, V} flags are set to the flag
    bit specifier"; the bench starts with all four flags clear."""
    out = run(0x1E620435, "fccmpe d1, d2, #0x5, eq", v1=SNAN, v2=0)
    assert (out.nzcv, out.flags) == (5, 0)
    out = run(0x1E621435, "fccmpe d1, d2, #0x5, ne", v1=SNAN, v2=0)
    assert (out.nzcv, out.flags) == (UNORDERED, IOC)
    assert run(0x1E621425, "fccmp d1, d2, #0x5, ne", v1=d(1.0), v2=d(1.0)).nzcv == EQUAL


def test_selection_copies_bits(run: Fp) -> None:
    out = run(0x1E621C20, "fcsel d0, d1, d2, ne", v1=SNAN | 1 << 100, v2=0)
    assert (out.r, out.flags) == (SNAN, 0)
    assert run(0x1E220C20, "fcsel s0, s1, s2, eq", v1=0, v2=SNAN << 32 | 7).r == 7
