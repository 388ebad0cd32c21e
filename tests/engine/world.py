"""A CPU, guest memory and page tables that a test builds as it needs them.

Memory is one segment at IPA 0; tables are taken from its upper part. The page at CODE is what the
CPU runs, mapped for both levels; VECTORS is where exceptions arrive. `Space` writes the tables of
one half of the address space, for any granule.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass

from tests.engine.a64 import hvc

from armkvm.engine.cpu import Cpu, Engine, Stage2

SIZE = 0x80_0000
CODE, DATA, VECTORS, _TABLES = 0x1_0000, 0x2_0000, 0x4_0000, 0x40_0000
MMIO = 0x900_0000  # nothing is there
EL1H, EL1T, EL0 = 0x3C5, 0x3C4, 0x3C0  # all exceptions masked

VALID, TABLE, PAGE = 1, 3, 3
AF, NG = 1 << 10, 1 << 11
USER, RO = 1 << 6, 1 << 7  # AP[1], AP[2]
PXN, UXN = 1 << 53, 1 << 54
DEVICE = 1 << 2  # attribute 1 of MAIR below
NONCACHED = 2 << 2
MAIR = 0x44_04_FF
CODE_FLAGS = AF | USER | RO  # readable and executable everywhere, writable nowhere

M, A, C, SA, SA0, I, WXN = 1, 2, 4, 8, 16, 1 << 12, 1 << 19


@dataclass
class Taken:
    """An exception that was taken to EL1."""

    offset: int  # of the vector
    esr: int
    far: int
    elr: int
    spsr: int

    @property
    def ec(self) -> int:
        """Exception class."""
        return self.esr >> 26

    @property
    def iss(self) -> int:
        """Instruction specific syndrome."""
        return self.esr & 0x1FF_FFFF

    @property
    def fsc(self) -> int:
        """Fault status code."""
        return self.esr & 0x3F

    @property
    def wnr(self) -> int:
        """Write, not read."""
        return self.esr >> 6 & 1


class World:
    """One CPU. The MMU is off until a Space is installed."""

    def __init__(self, engine: Engine, size: int = SIZE, *, arena: int = 1 << 26) -> None:
        self.stage2 = Stage2(engine, arena=arena)
        self._memory: list[mmap.mmap] = []
        self.host = self.map(0, size)
        self._next_table = _TABLES
        self.cpu = Cpu(engine, self.stage2)
        s = self.s = self.cpu.state
        s.vbar_el1, s.mair_el1 = VECTORS, MAIR
        s.sctlr_el1 &= ~(A | SA | SA0)
        s.cpacr_el1 = 3 << 20
        self.cpu.changed()

    def map(self, ipa: int, size: int, *, readonly: bool = False, log: int | None = None) -> int:
        """Add memory; returns its host address."""
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.append(memory)
        host = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.stage2.map(ipa, host, size, readonly=readonly, log=log)
        return host

    def write(self, ipa: int, data: bytes) -> None:
        """Set guest memory, as a debugger would: decoded instructions are dropped."""
        ctypes.memmove(self.host + ipa, data, len(data))
        self.stage2.written(ipa, len(data))

    def read(self, ipa: int, size: int) -> bytes:
        """Guest memory."""
        return ctypes.string_at(self.host + ipa, size)

    def quad(self, ipa: int, value: int) -> None:
        """Set a doubleword, as a device would: nothing is dropped."""
        ctypes.memmove(self.host + ipa, struct.pack("<Q", value), 8)

    def code(self, *words: int, at: int = CODE) -> None:
        """Place instructions."""
        self.write(at, struct.pack(f"<{len(words)}I", *words))

    def table(self, size: int) -> int:
        """A zeroed table of `size` bytes, aligned to it."""
        size = max(size, 64)
        self._next_table = -(-self._next_table // size) * size
        ipa, self._next_table = self._next_table, self._next_table + size
        assert self._next_table <= SIZE
        return ipa

    def start(self, pc: int = CODE, pstate: int = EL1H, **x: int) -> None:
        """Set PC, PSTATE and general registers (x0=..., sp=... for the current SP)."""
        self.cpu.pstate = pstate
        for name, value in x.items():
            if name == "sp":
                self.s.sp = value
            else:
                self.s.x[int(name[1:])] = value
        self.s.pc = pc
        self.s.esr_el1 = self.s.far_el1 = self.s.elr_el1 = self.s.spsr_el1 = 0

    def run(self, instructions: int = 1) -> int:
        """Run so many instructions at the most; returns the Exit."""
        self.s.limit = self.s.count + instructions
        return self.cpu.run()

    def finish(self, limit: int = 1_000_000) -> None:
        """Run freely until an HVC."""
        assert self.run(limit) == 2
        assert self.s.esr_el2 >> 26 == 0x16, hex(self.s.esr_el2)

    def execute(self, *words: int, pstate: int = EL1H, **x: int) -> None:
        """Run words at CODE, and the HVC that is put behind them."""
        self.code(*words, hvc(0))
        self.start(pstate=pstate, **x)
        self.finish()

    def run_at(self, word: int, **x: int) -> int:
        """Run one word at CODE; returns the Exit."""
        self.code(word)
        self.start(**x)
        return self.run()

    def trapped(self, word: int, pstate: int = EL1H, x1: int = MMIO) -> int:
        """Run one word that must leave for the hypervisor without any effect; its ESR_EL2."""
        self.code(word)
        self.start(pstate=pstate, x1=x1, x2=0)
        before = bytes(self.s.x), self.s.count
        assert self.run() == 2
        assert self.s.pc == CODE
        assert (bytes(self.s.x), self.s.count) == before
        return int(self.s.esr_el2)

    def taken(self) -> Taken | None:
        """The exception that the CPU stands in the vector of."""
        s = self.s
        offset = s.pc - s.vbar_el1
        if not 0 <= offset < 0x800 or offset & 0x7F:
            return None
        return Taken(offset, s.esr_el1, s.far_el1, s.elr_el1, s.spsr_el1)

    def fault(self, *words: int, pstate: int = EL1H, **x: int) -> Taken:
        """Run words at CODE until the first exception and give it."""
        self.code(*words)
        self.start(pstate=pstate, **x)
        begin = self.s.count
        for _ in range(len(words)):
            assert self.run() == 4, hex(self.s.esr_el2)
            taken = self.taken()
            if taken is not None:
                assert self.s.count == begin + _ + 1
                return taken
        raise AssertionError("no exception was taken")


class Space:
    """The translation tables of one half of the address space."""

    def __init__(
        self, world: World, *, page_shift: int = 12, tsz: int = 16, high: bool = False
    ) -> None:
        self.world, self.page_shift, self.tsz, self.high = world, page_shift, tsz, high
        self.stride = page_shift - 3
        bits = 64 - tsz
        self.first = 4 - -(-(bits - page_shift) // self.stride)
        top = bits - self.shift(self.first)
        self.root = world.table(8 << top)

    def shift(self, level: int) -> int:
        """log2 of what one descriptor of a level maps."""
        return self.page_shift + (3 - level) * self.stride

    def slot(self, va: int, level: int, tables: int = 0) -> int:
        """IPA of the descriptor of va at a level; makes the tables above it, with these flags."""
        table = self.root
        for at in range(self.first, level + 1):
            width = 64 - self.tsz - self.shift(at) if at == self.first else self.stride
            slot = table + 8 * (va >> self.shift(at) & (1 << width) - 1)
            if at == level:
                return slot
            descriptor = int.from_bytes(self.world.read(slot, 8), "little")
            if not descriptor & VALID:
                descriptor = self.world.table(8 << self.stride) | TABLE
            self.world.quad(slot, descriptor | tables)
            table = descriptor & 0xFFFF_FFFF_F000 & -(1 << self.page_shift)
        raise AssertionError(f"no level {level}")

    def map(self, va: int, pa: int, flags: int, *, level: int = 3, tables: int = 0) -> int:
        """Map one page or block; returns the IPA of its descriptor."""
        slot = self.slot(va, level, tables)
        self.world.quad(slot, pa | flags | (PAGE if level == 3 else VALID))
        return slot

    def identity(self, *pages: int, flags: int = CODE_FLAGS) -> None:
        """Map pages to themselves (in the upper half: to their low 40 bits)."""
        for va in pages:
            self.map(va, va & 0xFF_FFFF_FFFF & -(1 << self.page_shift), flags)

    def tcr(self) -> int:
        """The half of TCR_EL1 that describes these tables, at its place."""
        granule = {12: 2, 14: 1, 16: 3} if self.high else {12: 0, 14: 2, 16: 1}
        return (self.tsz | granule[self.page_shift] << 14) << 16 * self.high

    def install(
        self, other: Space | None = None, *, asid: int = 0, tcr: int = 0, sctlr: int = 0
    ) -> None:
        """Make these the tables of the CPU (the other half: `other` or none). The MMU goes on."""
        s = self.world.s
        spaces = {self.high: self} | ({other.high: other} if other else {})
        s.tcr_el1 = tcr | 5 << 32 | 1 << 36  # 48-bit output (44 are there), 16-bit ASIDs
        for high, epd in ((False, 1 << 7), (True, 1 << 23)):
            if high in spaces:
                s.tcr_el1 |= spaces[high].tcr()
            else:
                s.tcr_el1 |= epd
        if False in spaces:
            s.ttbr0_el1 = spaces[False].root | asid << 48
        if True in spaces:
            s.ttbr1_el1 = spaces[True].root
        s.sctlr_el1 = s.sctlr_el1 & ~(A | SA | SA0 | WXN) | M | C | I | sctlr
        self.world.cpu.changed()
