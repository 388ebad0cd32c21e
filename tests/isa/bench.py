"""A CPU at EL1 with a few pages of each kind, for tests of what single instructions do.

Unlike tests/oracle, which compares random states with another CPU, the tests here say what the
manual says: faults and their syndromes, the state after them, and rules with a memory.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from armkvm.engine.cpu import Cpu, Engine, Exit, Stage2

CODE, L1, L2, L3, VECTORS = 0x20_0000, 0x1000, 0x2000, 0x3000, 0x8000
SYNC = VECTORS + 0x200  # from the current EL with SP_ELx
EL1H = 0x3C5  # PSTATE: EL1h, all exceptions masked
_BLOCK, _TABLE, _PAGE = 0x701, 3, 0x703  # AF, inner shareable, attribute 0
_RW_BOTH, _RW_EL1, _RO_BOTH, _NONE = 1 << 6, 0, 3 << 6, None

# Pages behind Bench.data. The gap is what makes accesses fault in their second page.
RW, RW2, GAP, RO, EL1_ONLY = range(5)
_KINDS = (_RW_BOTH, _RW_BOTH, _NONE, _RO_BOTH, _RW_EL1)


@dataclass
class Outcome:
    """What a run of instructions left behind. `ec` is None where no exception was taken."""

    x: list[int]
    v: list[int]
    pc: int
    ec: int | None = None
    iss: int = 0
    far: int = 0

    @property
    def dfsc(self) -> int:
        """The data fault status code of the exception."""
        return self.iss & 0x3F

    @property
    def wnr(self) -> int:
        """1 when the access that faulted was a write."""
        return self.iss >> 6 & 1


class Bench:
    """One CPU and its memory; `data` is the address of the first of the pages named above."""

    data = 0x4000_0000
    page = 4096

    def __init__(self, engine: Engine) -> None:
        self.stage2 = Stage2(engine)
        self._memory: list[mmap.mmap] = []
        self._low = self._map(0, 0x40_0000)
        self._data = self._map(self.data, len(_KINDS) * self.page)
        self._quad(L1, _BLOCK)
        self._quad(L1 + 8, L2 | _TABLE)
        self._quad(L2, L3 | _TABLE)
        for i, kind in enumerate(_KINDS):
            if kind is not None:
                self._quad(L3 + 8 * i, self.data + i * self.page | kind | _PAGE)
        ctypes.memmove(self._low + SYNC, struct.pack("<I", 0x14000000), 4)  # b .
        self.cpu = Cpu(engine, self.stage2)
        s = self.cpu.state
        s.mair_el1, s.tcr_el1 = 0xFF, 25 | 25 << 16 | 1 << 23  # 39 bits by TTBR0
        s.ttbr0_el1, s.vbar_el1, s.cpacr_el1 = L1, VECTORS, 3 << 20
        s.sctlr_el1 = s.sctlr_el1 & ~0x1A | 0x100D  # M, C, I, SA; no A

    def _map(self, address: int, size: int) -> int:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.append(memory)
        host = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.stage2.map(address, host, size)
        return host

    def _quad(self, address: int, value: int) -> None:
        ctypes.memmove(self._low + address, struct.pack("<Q", value), 8)

    def read(self, address: int, size: int) -> bytes:
        """Memory behind a data address, mapped for the guest or not."""
        return ctypes.string_at(self._data + address - self.data, size)

    def write(self, address: int, what: bytes) -> None:
        """Set memory behind a data address."""
        ctypes.memmove(self._data + address - self.data, what, len(what))

    def run(
        self,
        *words: int,
        x: Mapping[int, int] | None = None,
        v: Mapping[int, int] | None = None,
    ) -> Outcome:
        """Run the words, from the given registers (31 is SP; others hold a pattern)."""
        ctypes.memmove(self._low + CODE, struct.pack(f"<{len(words)}I", *words), 4 * len(words))
        self.stage2.written(CODE, 4 * len(words))
        cpu, s = self.cpu, self.cpu.state
        cpu.pstate = EL1H
        for i in range(31):
            s.x[i] = (x or {}).get(i, 0x1111_1111_1111_1111 * (i % 15 + 1))
        cpu.sp_el1 = (x or {}).get(31, self.data + 0x800)
        for i in range(32):
            cpu.set_v(i, (v or {}).get(i, 0x0101_0101_0101_0101_0101_0101_0101_0101 * (i + 1)))
        s.pc, s.esr_el1, s.far_el1 = CODE, 0, 0
        begin = s.count
        s.limit = begin + len(words)
        code = cpu.run()
        assert code in (Exit.LIMIT, Exit.TRAP), code
        out = Outcome([*s.x, cpu.sp_el1], [cpu.get_v(i) for i in range(32)], s.pc - CODE)
        if s.esr_el1:
            out.ec, out.iss, out.far = s.esr_el1 >> 26, s.esr_el1 & 0x1FF_FFFF, s.far_el1
            out.pc = s.elr_el1 - CODE
        return out


def at(page: int, offset: int = 0) -> int:
    """Address of a byte of one of the bench's pages."""
    return Bench.data + page * Bench.page + offset
