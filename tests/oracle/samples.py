"""Random instruction words of a form and random CPU states, with the corners where CPUs go wrong.

Registers that the word names get values from pools: integer extremes for X, and for V lanes of 16,
32 or 64 bits with zeros, infinities, quiet and signalling NaNs, denormals, ties and the edges of
the integer ranges. All other registers hold noise, which must survive. Instructions that access
memory get a base address inside the scratch area and mostly small index registers.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import ldexp

from armkvm.isa.table import Form

CODE, CODE_SIZE = 0x0020_0000, 0x0040_0000  # words under test; the region starts at 0
DATA, DATA_SIZE = 0x4000_0000, 0x0004_0000  # scratch area
STATE_BYTES = 256 + 512  # X[0..30], SP, V[0..31]


def accesses_memory(form: Form) -> bool:
    """True for loads, stores and atomics (literal loads included)."""
    return form.insn.encoding_class.startswith("ldst.")


@dataclass(slots=True)
class Sample:
    """One word, the registers it starts with (as bytes: X[0..30], SP, V[0..31]), and the rest."""

    word: int
    registers: bytes | bytearray
    nzcv: int = 0
    fpcr: int = 0
    fpsr: int = 0


def _lane_corners(exponent: int, mantissa: int) -> list[int]:
    one = (1 << exponent - 1) - 1 << mantissa
    sign = 1 << exponent + mantissa
    inf = (1 << exponent) - 1 << mantissa
    quiet = inf | 1 << mantissa - 1
    positive = [
        0, 1, 2, 3, sign - 1, 0x7F, 0x80, 0xFF,  # integers, and the smallest denormals
        (1 << mantissa) - 1, 1 << mantissa, (1 << mantissa) + 1,  # around the smallest normal
        one, one + 1, one - 1, one - (1 << mantissa), one | 1 << mantissa - 1,  # 1, 0.5, 1.5
        one + (1 << mantissa) | 1 << mantissa - 2,  # 2.5: a tie
        inf - 1, inf, inf + 1, quiet, quiet + 0x123, quiet - 1,  # largest, infinity, NaNs
    ]
    for edge in (7, 8, 15, 16, 23, 24, 31, 32, 52, 53, 63, 64):
        if edge < (1 << exponent - 1) - 1:
            power = one + (edge << mantissa)
            positive += [power, power - 1, power + 1]
    return positive + [v | sign for v in positive]


_FORMATS = {16: (5, 10), 32: (8, 23), 64: (11, 52)}  # exponent and mantissa widths


def _narrowing_corners(size: int) -> list[int]:
    """Numbers of this size around the limits of the format half as wide."""
    exponent, mantissa = _FORMATS[size]
    narrow_exponent, narrow_mantissa = _FORMATS[size // 2]
    bias, narrow_bias = (1 << exponent - 1) - 1, (1 << narrow_exponent - 1) - 1
    half_ulp = 1 << mantissa - narrow_mantissa - 1
    out = []
    for e in (1 - narrow_bias, 1 - narrow_bias - narrow_mantissa, narrow_bias + 1):
        limit = bias + e << mantissa  # smallest normal, smallest denormal, just too large
        out += [limit + d for d in (0, -1, 1, -half_ulp, half_ulp, -half_ulp - 1, -half_ulp // 2)]
    return out


_CORNERS = {size: _lane_corners(*_FORMATS[size]) for size in _FORMATS}
for _size in (32, 64):
    _CORNERS[_size] += _narrowing_corners(_size)
_X_CORNERS = [
    (base + delta) & (1 << 64) - 1
    for base in (0, 1 << 31, 1 << 32, 1 << 63, 1 << 8, 1 << 16, 0xFFFF_FFFF_8000_0000)
    for delta in (-2, -1, 0, 1)
]


class Samples:
    """A reproducible source of samples."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.vectors = [self._vector() for _ in range(2048)]
        self.integers = [*_X_CORNERS, *range(66)]
        self._noise = b""

    def _lane(self, size: int) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.55:
            return rng.choice(_CORNERS[size])
        if kind < 0.75:
            return rng.getrandbits(size)
        # Numbers of similar magnitude: sums cancel, products round, conversions have a fraction.
        exponent, mantissa = _FORMATS[size]
        e = (1 << exponent - 1) - 1 + rng.randint(-12, 12)
        kept = rng.getrandbits(mantissa) & -1 << rng.choice((0, 0, mantissa // 2, mantissa - 4))
        return rng.getrandbits(1) << size - 1 | e << mantissa | kept

    def _vector(self) -> bytes:
        size = self.rng.choice((16, 32, 32, 64, 64))
        out = 0
        for _ in range(128 // size):
            out = out << size | self._lane(size)
        if self.rng.random() < 0.15:
            out &= (1 << 64) - 1
        return out.to_bytes(16, "little")

    def tiny_product(self) -> tuple[bytes, bytes]:
        """Two vectors whose lanes' products are within a few units of the smallest normal number.

        Whether a result is tiny before or after rounding is where architectures part.
        """
        rng = self.rng
        code, emin, lanes = rng.choice((("f", -126, 4), ("d", -1022, 2)))
        count = "I" if code == "f" else "Q"
        pair: list[bytes] = []
        x = [1 + rng.choice((0, rng.random())) for _ in range(lanes)]
        for values in ([ldexp(v, emin // 4) for v in x],
                       [ldexp(1 / v, emin - emin // 4) for v in x]):
            bits = struct.unpack(f"<{lanes}{count}", struct.pack(f"<{lanes}{code}", *values))
            near = [b + rng.randint(-2, 2) for b in bits]
            pair.append(struct.pack(f"<{lanes}{count}", *near))
        return pair[0], pair[1]

    def word(self, form: Form) -> int:
        """A word of this form: operand fields random, often 31, all ones or zero, or equal."""
        rng = self.rng
        operands = [(n, lo, w) for n, lo, w, operand in form.insn.layout if operand]
        for _ in range(1000):
            word = form.value | rng.getrandbits(32) & ~form.mask & 0xFFFF_FFFF
            for name, lo, width in operands:
                if rng.random() < 0.25:
                    ones = (1 << width) - 1
                    top = 1 << width - 1
                    corners = [0, ones, 1, top, top - 1]
                    if name[0] == "R":
                        corners = [31, 0, word >> operands[0][1] & 31]
                    word = word & ~(ones << lo) | (rng.choice(corners) & ones) << lo
            if form.matches(word):
                return word
        raise AssertionError(f"{form.name}: 1000 random words, none of them allocated")

    def of(self, form: Form, count: int) -> Iterator[Sample]:
        """`count` samples of a form."""
        rng = self.rng
        memory = accesses_memory(form)
        for i in range(count):
            if i % 64 == 0:
                self._noise = rng.randbytes(256) + b"".join(rng.choices(self.vectors, k=32))
            word = self.word(form)
            registers = bytearray(self._noise)
            named = {n: word >> lo & 31 for n, lo, w, _ in form.insn.layout if n[0] == "R"}
            for name, r in named.items():
                struct.pack_into("<Q", registers, 8 * r, self._integer(memory, name))
                for j in range(4 if memory else 2):
                    at = 256 + 16 * (r + j & 31)
                    registers[at : at + 16] = rng.choice(self.vectors)
            if form.insn.feature != "base" and not memory and rng.random() < 0.05:
                for name, value in zip(("Rn", "Rm"), self.tiny_product(), strict=True):
                    if name in named:
                        at = 256 + 16 * named[name]
                        registers[at : at + 16] = value
            if memory and "Rn" in named:
                struct.pack_into("<Q", registers, 8 * named["Rn"], self._address())
            fpcr = 0
            if rng.random() < 0.4:  # RMode, FZ, DN
                fpcr = rng.getrandbits(2) << 22 | rng.choice((0, 0, 1 << 24, 1 << 25, 3 << 24))
            fpsr = rng.choice((0, 0, 0, 0x0800_009F & rng.getrandbits(32)))
            yield Sample(word, registers, rng.getrandbits(4), fpcr, fpsr)

    def _integer(self, memory: bool, name: str) -> int:
        rng = self.rng
        if memory and name == "Rm" and rng.random() < 0.9:  # an index
            small = rng.choice((8, -8, 0, 16)) * rng.randint(0, 100) + rng.choice((0, 0, 0, 3))
            high = rng.choice((0, 0, rng.getrandbits(32) << 32))
            return (small + high) & (1 << 64) - 1
        return rng.choice(self.integers) if rng.random() < 0.5 else rng.getrandbits(64)

    def _address(self) -> int:
        rng = self.rng
        offset = rng.choice((0, 0, 64, 4096 - 64, 4096 - 16)) + rng.randint(0, 8) * 16
        if rng.random() < 0.3:
            offset += rng.randint(0, 15)
        if rng.random() < 0.02:
            return rng.getrandbits(64)
        return DATA + DATA_SIZE // 4 + offset
