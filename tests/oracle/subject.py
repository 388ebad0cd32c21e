"""The CPU under test: armkvm's engine at EL1, MMU on, code and scratch memory mapped flat.

The MMU is on because with it off all memory is Device memory, where unaligned accesses fault; the
peer does not know that rule. Exceptions arrive at a loop: the PC tells that one was taken.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from tests.oracle.samples import CODE, CODE_SIZE, DATA, DATA_SIZE, Sample

from armkvm.engine.cpu import Cpu, Engine, Exit, Stage2

TABLE, VECTORS = 0x1000, 0x8000
SYNC = VECTORS + 0x200  # current EL, SP_ELx
EL1H_MASKED = 0x3C5
_BLOCK = 0x701  # AF, inner shareable, attribute 0, valid block
# ESR_ELx.EC of what the target of a branch can raise: instruction aborts from a lower EL (to EL2)
# and from EL1, PC alignment. The branch itself was taken.
_FETCH = {0x20, 0x21, 0x22}


class Subject:
    """One armkvm CPU."""

    def __init__(self) -> None:
        engine = Engine.load()
        self.stage2 = Stage2(engine)
        self._memory: list[Any] = []
        base = self._map(0, CODE_SIZE)
        self.code = base + CODE
        self.data = self._map(DATA, DATA_SIZE)
        # Two 1 GiB blocks: code to be read and executed by EL1, data for both levels (LDTR needs
        # EL0's permission, and what EL0 may write never executes at EL1).
        tables = (ctypes.c_uint64 * 2).from_address(base + TABLE)
        tables[0], tables[1] = _BLOCK | 1 << 7, DATA | _BLOCK | 1 << 6
        ctypes.c_uint32.from_address(base + SYNC).value = 0x14000000  # b .
        self.cpu = Cpu(engine, self.stage2)
        s = self.state = self.cpu.state
        s.mair_el1 = 0xFF
        s.tcr_el1 = 25 | 25 << 16 | 1 << 23  # 39 bits by TTBR0, no walks by TTBR1
        s.ttbr0_el1 = TABLE
        s.vbar_el1 = VECTORS
        s.cpacr_el1 = 3 << 20
        s.sctlr_el1 = s.sctlr_el1 & ~0x1A | 0x1005  # M, C, I; no alignment checks
        self.cpu.changed()
        self._x = ctypes.addressof(s) + type(s).x.offset
        self._v = ctypes.addressof(s) + type(s).v.offset

    def _map(self, address: int, size: int) -> int:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.append(memory)
        host = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.stage2.map(address, host, size)
        return host

    def place(self, code: bytes) -> None:
        """Put the words under test at CODE."""
        ctypes.memmove(self.code, code, len(code))
        self.stage2.written(CODE, len(code))

    def step(self, address: int, sample: Sample, words: int = 1) -> tuple[bool, int]:
        """Run `words` instructions from address, from the sample's state: (exception taken, PC)."""
        s, cpu = self.state, self.cpu
        registers = bytes(sample.registers)
        ctypes.memmove(self._x, registers, 256)
        ctypes.memmove(self._v, registers[256:], 512)
        cpu.pstate = EL1H_MASKED | sample.nzcv << 28
        s.fpcr = sample.fpcr
        cpu.fpsr = sample.fpsr
        s.pc = address
        s.limit = s.count + words
        code = cpu.run()
        if code == Exit.TRAP:
            return s.esr_el2 >> 26 not in _FETCH, s.pc
        if s.pc != SYNC:
            return False, s.pc
        if s.esr_el1 >> 26 in _FETCH:
            return False, s.elr_el1
        return True, address

    @property
    def nzcv(self) -> int:
        return self.cpu.pstate >> 28 & 15

    @property
    def fpcr(self) -> int:
        return int(self.state.fpcr)

    @property
    def fpsr(self) -> int:
        return self.cpu.fpsr

    def registers(self) -> bytes:
        """X[0..30], SP, V[0..31]."""
        return ctypes.string_at(self._x, 256) + ctypes.string_at(self._v, 512)
