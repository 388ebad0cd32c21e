"""Results at the edge of underflow, and alternative half precision, against unicorn.

tests/isa/test_differential.py rarely meets them: here operands are solved for, so that products,
quotients and fused sums come out within a few units of the smallest normal number.
"""

from __future__ import annotations

import random
import struct
from fractions import Fraction

import pytest
from tests.oracle.differ import Differ
from tests.oracle.samples import CODE, Samples

from armkvm.isa.all import forms
from armkvm.isa.table import Form

SAMPLES = 120  # of each form

_FUSED = ("FMADD", "FMLA", "FMLS")
_NAMES = ("FMUL_", "FMULX", "FNMUL", "FDIV", *_FUSED, "FCVT_", "FCVTN_Q", "FCVTXN")
_HALF = ("FCVT_", "FCVTN_Q", "FCVTL")


@pytest.fixture(scope="module")
def differ() -> Differ:
    return Differ()


class Edges:
    """Operands, as bits, of one format; p is its precision."""

    def __init__(self, rng: random.Random, double: bool) -> None:
        self.rng = rng
        self.size, self.code = (8, "d") if double else (4, "f")
        self.p, self.least = (53, -1022) if double else (24, -126)

    def bits(self, x: Fraction) -> int:
        """The number nearest to x; 1.0 where it would overflow."""
        try:
            packed = struct.pack(f"<{self.code}", x)
        except OverflowError:
            packed = struct.pack(f"<{self.code}", 1.0)
        return int.from_bytes(packed, "little")

    def number(self, bits: int) -> Fraction:
        """The number that bits are."""
        packed = bits.to_bytes(self.size, "little")
        x: float = struct.unpack(f"<{self.code}", packed)[0]
        return Fraction(x)

    def near(self, x: Fraction) -> int:
        """The bits of x, or of a neighbour."""
        bits = self.bits(x)
        other = bits + self.rng.choice((0, 0, 1, -1, 2, -2, self.rng.randint(-9, 9)))
        return other if other >= 0 else bits

    def edge(self) -> Fraction:
        """A number within two units of the smallest normal one, in eighths."""
        eighths = Fraction(self.rng.randint(-16, 16), 8)
        x: Fraction = Fraction(2) ** self.least * (1 + eighths / 2**self.p)
        return x

    def factor(self) -> Fraction:
        """Any normal number from afar to near 1.0, often with few bits."""
        rng = self.rng
        exponent = rng.choice(
            (0, 0, rng.randint(-30, 30), rng.randint(self.least // 2, -self.least))
        )
        fraction = rng.choice((rng.random(), rng.random(), 0.5, 2.0**-10, 0.0))
        return self.number(self.bits(Fraction(1 + fraction) * Fraction(2) ** exponent))

    def addend(self) -> Fraction:
        """What a product has to cancel: up to twice the precision above the edge."""
        rng, p = self.rng, self.p
        shift = rng.choice((0, 1, 2, 10, p - 1, p, p + 1, p + 2, 2 * p))
        fraction = Fraction(rng.getrandbits(p), 2**p) if rng.random() < 0.7 else Fraction(1, 2)
        x = Fraction(2) ** (self.least + shift) * (fraction + Fraction(1, 2))
        return self.number(self.near(x)) * rng.choice((1, -1))

    def operands(self, kind: str) -> tuple[int, int, int]:
        """Rn, Rm and the addend."""
        rng, a, target = self.rng, self.factor(), self.edge()
        if kind == "quotient":
            return self.near(target * a), self.bits(a), 0
        c = self.addend() if kind == "sum" and rng.random() < 0.8 else Fraction(0)
        if kind == "sum" and rng.random() < 0.15:  # the edge, and next to nothing
            c = Fraction(2) ** self.least
            target = c + c * Fraction(2) ** -rng.randint(60, 900) * rng.choice((1, -1))
        b = self.near(abs(target - c) / a)
        negative = (target - c < 0) << (8 * self.size - 1)
        return self.bits(a), b ^ negative, self.bits(c)

    def source(self, result: str) -> int:
        """A number to be converted to a narrower format, at that format's edge."""
        least = {"half": -14, "float": -126}[result]
        drop = self.rng.choice((11, 12, 13, 24, 25, 26, 29, 50))
        x = Fraction(2) ** least * (1 + Fraction(self.rng.randint(-40, 40), 2**drop))
        return self.bits(x)


def _kind(name: str) -> str:
    if name.startswith("FDIV"):
        return "quotient"
    return "sum" if name.startswith(_FUSED) else "product"


def _differences(differ: Differ, form: Form, fpcr: int, *, edges: bool) -> list[str]:
    rng = random.Random(form.name)
    source = Samples(1)
    source.rng.seed(form.name)
    double = "ftype1" in form.name or "sz1" in form.name or form.name.startswith("FCVTXN")
    to_half = "opc3" in form.name or (form.name.startswith("FCVTN_Q") and not double)
    narrow = "half" if to_half else "float"
    made = Edges(rng, double)
    samples = list(source.of(form, SAMPLES))
    code = struct.pack(f"<{len(samples)}I", *(x.word for x in samples))
    differ.subject.place(code)
    differ.peer.place(code)
    found = []
    for i, sample in enumerate(samples):
        at = {n: sample.word >> lo & 31 for n, lo, _, _ in form.insn.layout if n[0] == "R"}
        for lane in range(16 // made.size) if edges else ():
            if form.name.startswith("FCVT"):
                values = {"Rn": made.source(narrow)}
            else:
                a, b, c = made.operands(_kind(form.name))
                values = {"Rd": c, "Ra": c, "Rm": b, "Rn": a}
            for name, value in values.items():
                if name in at:
                    offset = 256 + 16 * at[name] + made.size * lane
                    whole = bytearray(sample.registers)
                    whole[offset : offset + made.size] = value.to_bytes(made.size, "little")
                    sample.registers = whole
        sample.fpcr = rng.getrandbits(2) << 22 | rng.choice((0, 0, 1 << 24, 1 << 25)) | fpcr
        sample.fpsr = 0
        report = differ.compare(form, CODE + 4 * i, sample, memory=False)
        if report is not None:
            found.append(report)
    return found[:1]


def test_the_edge_of_underflow(differ: Differ) -> None:
    chosen = [f for f in forms() if f.name.startswith(_NAMES)]
    assert len(chosen) > 60
    found = [r for f in chosen for r in _differences(differ, f, 0, edges=True)]
    assert found == [], "\n\n".join(found[:5])


@pytest.mark.parametrize("edges", [False, True])
def test_alternative_half_precision(differ: Differ, edges: bool) -> None:
    chosen = [f for f in forms() if f.name.startswith(_HALF)]
    found = [r for f in chosen for r in _differences(differ, f, 1 << 26, edges=edges)]
    assert found == [], "\n\n".join(found[:5])
