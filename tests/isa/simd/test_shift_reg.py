"""Shifts by register: every amount of -128 to 127, against the manual's definition (C7.2)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import Simd, lanes, signed, split

VALUES = {
    8: [0, 1, -1, 127, -128, 85, -86, 64],
    16: [0, 1, -1, 32767, -32768, 257, -2, 0x4000],
    32: [0, 1, -1, 2**31 - 1, -(2**31), 0x10001, -3, 2**30],
    64: [0, 1, -1, 2**63 - 1, -(2**63), 2**32 + 1, -(2**40), 2**62],
}


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


def shifted(
    value: int, amount: int, size: int, unsigned: bool, rounding: bool, saturating: bool
) -> tuple[int, bool]:
    """The manual's operation on integers without a width: (lane, saturated)."""
    element = value & (1 << size) - 1 if unsigned else value
    round_const = 1 << -amount - 1 if rounding and amount < 0 else 0
    exact = element << amount if amount >= 0 else (element + round_const) >> -amount
    if saturating:
        low, high = (0, (1 << size) - 1) if unsigned else (-1 << size - 1, (1 << size - 1) - 1)
        limited = max(low, min(exact, high))
        return limited & (1 << size) - 1, limited != exact
    return exact & (1 << size) - 1, False


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0x4E224420, "sshl v0.16b, v1.16b, v2.16b"),
        (0x6E224420, "ushl v0.16b, v1.16b, v2.16b"),
        (0x4E625420, "srshl v0.8h, v1.8h, v2.8h"),
        (0x6EA25420, "urshl v0.4s, v1.4s, v2.4s"),
        (0x4E224C20, "sqshl v0.16b, v1.16b, v2.16b"),
        (0x6E624C20, "uqshl v0.8h, v1.8h, v2.8h"),
        (0x4EA25C20, "sqrshl v0.4s, v1.4s, v2.4s"),
        (0x6E225C20, "uqrshl v0.16b, v1.16b, v2.16b"),
        (0x5EE24420, "sshl d0, d1, d2"),
        (0x7EE24420, "ushl d0, d1, d2"),
        (0x5EE25420, "srshl d0, d1, d2"),
        (0x7EE25420, "urshl d0, d1, d2"),
        (0x5EE24C20, "sqshl d0, d1, d2"),
        (0x7E224C20, "uqshl b0, b1, b2"),
        (0x5E625C20, "sqrshl h0, h1, h2"),
        (0x7EA25C20, "uqrshl s0, s1, s2"),
        (0x6EE25C20, "uqrshl v0.2d, v1.2d, v2.2d"),
        (0x4EE25C20, "sqrshl v0.2d, v1.2d, v2.2d"),
    ],
)  # fmt: skip
def test_every_amount(run: Simd, word: int, text: str) -> None:
    name = text.split()[0]
    letter = text.split(",")[0][-1] if "." in text else text.split()[1][0]
    size = {"b": 8, "h": 16, "s": 32, "d": 64}[letter]
    count = 128 // size if "." in text else 1
    kind = (name[0] == "u", "r" in name, "q" in name)
    for amount in range(-128, 128):
        for start in range(0, 8, count):
            values = [VALUES[size][(start + i) % 8] for i in range(count)]
            # Only the low byte is the amount: the rest of the lane must not matter.
            noise = amount & 0xFF | (0x5A5A_5A5A_5A5A_5A00 & (1 << size) - 1)
            want = [shifted(v, amount, size, *kind) for v in values]
            out = run(word, text, v1=lanes(size, *values), v2=lanes(size, *[noise] * count))
            assert split(size, out.d)[:count] == [lane for lane, _ in want], amount
            assert out.qc == any(saturated for _, saturated in want), amount


def test_each_lane_has_its_own_amount(run: Simd) -> None:
    out = run(
        0x4EA24420,
        "sshl v0.4s, v1.4s, v2.4s",
        v1=lanes(32, -8, -8, -8, -8),
        v2=lanes(32, 1, -1, 32, -40),
    )
    assert signed(32, split(32, out.d)) == [-16, -4, 0, -1]
