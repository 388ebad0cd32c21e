"""Single floating-point instructions on a Bench: numbers in, a number and the flags out."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.isa.bench import Bench

from armkvm.isa.disasm import disassemble

IOC, DZC, OFC, UFC, IXC, IDC = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 7
RN, RP, RM, RZ = (mode << 22 for mode in range(4))
FZ, DN, AHP = 1 << 24, 1 << 25, 1 << 26
ONES = (1 << 64) - 1


def s(x: float) -> int:
    """The bits of a single."""
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


def d(x: float) -> int:
    """The bits of a double."""
    return int(struct.unpack("<Q", struct.pack("<d", x))[0])


@dataclass
class Result:
    """Registers afterwards; `r` is V0, where the tests put their results, `w` X0."""

    v: list[int]
    x: list[int]
    flags: int
    nzcv: int

    @property
    def r(self) -> int:
        return self.v[0]

    @property
    def w(self) -> int:
        return self.x[0]


class Fp:
    """Runs a word that must be the given text, from the registers v0=..., x1=... and FPCR."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def __call__(
        self, word: int, text: str, *, fpcr: int = 0, fpsr: int = 0, **registers: int
    ) -> Result:
        assert disassemble(word) == text
        cpu = self.bench.cpu
        cpu.state.fpcr, cpu.fpsr = fpcr, fpsr
        out = self.bench.run(
            word,
            x={int(n[1:]): value for n, value in registers.items() if n[0] == "x"},
            v={int(n[1:]): value for n, value in registers.items() if n[0] == "v"},
        )
        assert out.ec is None
        return Result(out.v, out.x, cpu.fpsr, cpu.pstate >> 28)
