"""Single Advanced SIMD instructions on a Bench: lanes in, lanes out, and the QC flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.isa.bench import Bench

from armkvm.isa.disasm import disassemble

QC = 1 << 27
HIGH = 0xFEDC_BA98_7654_3210 << 64  # what an upper half holds before it is cleared or kept


def lanes(size: int, *values: int) -> int:
    """Lanes of `size` bits, lane 0 first; negative numbers in two's complement."""
    mask = (1 << size) - 1
    return sum((v & mask) << size * i for i, v in enumerate(values))


def split(size: int, value: int, total: int = 128) -> list[int]:
    """The lanes of a register, unsigned."""
    return [value >> at & (1 << size) - 1 for at in range(0, total, size)]


def signed(size: int, values: Sequence[int]) -> list[int]:
    """Lanes read as signed numbers."""
    return [v - (v >> size - 1 << size) for v in values]


@dataclass
class Result:
    """All registers afterwards; `d` is V0, where the tests put their results."""

    v: list[int]
    x: list[int]
    ec: int | None
    qc: bool

    @property
    def d(self) -> int:
        return self.v[0]


class Simd:
    """Runs a word that must be the given text, from the registers v0=..., x1=..."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def __call__(self, word: int, text: str, *, fpsr: int = 0, **registers: int) -> Result:
        assert disassemble(word) == text
        self.bench.cpu.fpsr = fpsr
        out = self.bench.run(
            word,
            x={int(n[1:]): value for n, value in registers.items() if n[0] == "x"},
            v={int(n[1:]): value for n, value in registers.items() if n[0] == "v"},
        )
        after = self.bench.cpu.fpsr
        assert after & ~QC == fpsr & ~QC
        return Result(out.v, out.x, out.ec, bool(after & QC))
