"""A guest of random instructions, over random memory, tables and registers.

Most words are of some form of the table, so that they do something; addresses mostly point into
memory, so that loads and stores hit it, page tables and code included. The hypervisor around it is
trivial: a trapped instruction is skipped or made UNDEFINED. All follows from the seed and the
count of instructions, so the same guest can be run in one go or in pieces.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import random
import struct
from collections.abc import Sequence

from tests.engine import a64

from armkvm.arch.debug import Watchpoint
from armkvm.arch.sysreg import STORED
from armkvm.engine.cpu import Cpu, Engine, Exit, Stage2
from armkvm.engine.layout import State
from armkvm.isa.all import forms
from armkvm.isa.table import Form

RAM = 0x8_0000  # bytes at IPA 0: code, data, and tables in the upper part
TABLES = 0x6_0000
ROM_AT, ROM = 0x10_0000, 0x4000  # a read-only segment
EDGE_AT, EDGE = (1 << 44) - 0x1000, 0x1000  # the last page of the physical address space
WORDS = 40_000
VECTORS = TABLES - 0x1000
SLICE = 5_000  # instructions between two looks at the guest; only the last 1026 are single steps
ADR = 0x10000000
EL1H, EL1T, EL0 = 5, 4, 0
_UNKNOWN = 1 << 25  # ESR_EL1 of an UNDEFINED instruction

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def protect(address: int, size: int, access: int) -> None:
    """mprotect(2)."""
    if _libc.mprotect(address, size, access):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(size: int) -> tuple[mmap.mmap, int]:
    """Anonymous memory between two pages that cannot be touched."""
    size = -(-size // 4096) * 4096
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    memory = mmap.mmap(-1, size + 8192, flags=flags)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect(address, 4096, 0)
    protect(address + 4096 + size, 4096, 0)
    return memory, address + 4096


_fenced: list[mmap.mmap] = []


def fenced(size: int) -> int:
    """guarded() in place of hostmem.anonymous(): what it gives is never unmapped as a whole."""
    memory, address = guarded(size)
    _fenced.append(memory)
    return address


# Percent of the words by where they are described; the rest is ADR and anything.
_WEIGHTS = {"ldst.lse": 4, "ldst": 34, "base.branch": 12, "system": 5, "base": 20, "": 14}


def _classes() -> dict[str, list[Form]]:
    out: dict[str, list[Form]] = {}
    for form in forms():
        described = form.insn.encoding_class
        if described in ("base.exceptions", "base.registers", "base.sys_ops"):
            described = "system"
        kind = next(k for k in _WEIGHTS if described.startswith(k))
        out.setdefault(kind, []).append(form)
    return out


def words(rng: random.Random, n: int = WORDS) -> list[int]:
    """Random instruction words."""
    classes = _classes()
    kinds = rng.choices([*_WEIGHTS, "adr", "any"], [*_WEIGHTS.values(), 9, 2], k=n)
    out = []
    for kind in kinds:
        word = rng.getrandbits(32)
        if kind == "adr":
            word = word & 0x6080_7FFF | rng.getrandbits(4) << 15 | ADR
        elif kind != "any":
            form = rng.choice(classes[kind])
            word = word & ~form.mask & 0xFFFF_FFFF | form.value
            if kind == "base.branch" and rng.random() < 0.9:
                word = _near(word)
        out.append(word)
    return out


def _near(word: int) -> int:
    """A direct branch within a page or two."""
    if word >> 26 & 0x1F == 5:  # B, BL
        return word & 0xFC00_07FF | 0x03FF_F800 * (word >> 10 & 1)
    if word >> 25 & 0x3F in (0x1A, 0x2A):  # B.cond, CBZ
        return word & 0xFF00_FFFF | 0x00FF_0000 * (word >> 15 & 1)
    return word


class RandomGuest:
    """Guest memory and CPUs that take turns."""

    def __init__(self, engine: Engine, seed: int, *, cpus: int = 1) -> None:
        self.rng = random.Random(seed)
        self.stage2 = Stage2(engine)
        self._keep: list[mmap.mmap] = []
        self.ram = self._map(0, RAM)
        self.rom = self._map(ROM_AT, ROM, readonly=True)
        self.edge = self._map(EDGE_AT, EDGE)
        code = struct.pack(f"<{WORDS}I", *words(self.rng))
        for base, size in ((self.ram, TABLES), (self.rom, ROM), (self.edge, EDGE)):
            at = self.rng.randrange(len(code)) & ~3
            ctypes.memmove(base, (code * (size // len(code) + 2))[at : at + size], size)
        self._vectors()
        protect(self.rom, ROM, mmap.PROT_READ)
        self._tables()
        self.cpus = [Cpu(engine, self.stage2) for _ in range(cpus)]
        for cpu in self.cpus:
            self.shake(cpu)

    def _map(self, ipa: int, size: int, *, readonly: bool = False) -> int:
        memory, host = guarded(size)
        self._keep.append(memory)
        self.stage2.map(ipa, host, size, readonly=readonly)
        return host

    def _vectors(self) -> None:
        """Handlers that return behind the faulting instruction, in low memory."""
        handler = [
            a64.msr("tpidr_el1", 0), a64.mrs(0, "elr_el1"), a64.add(0, 0, 4),
            0x92404400,  # and x0, x0, #0x3ffff
            a64.msr("elr_el1", 0), a64.mrs(0, "tpidr_el1"), a64.ERET,
        ]  # fmt: skip
        for offset in range(0, 0x800, 0x80):
            ctypes.memmove(self.ram + VECTORS + offset, struct.pack("<7I", *handler), 28)

    def _tables(self) -> None:
        """Tables for 25-bit halves: a level 2 table at TABLES + n * 0x2000, level 3 behind it."""
        rng = self.rng
        for table in range(TABLES, RAM, 0x2000):
            entries = [0] * 1024
            for i in range(16):
                block = rng.choice((0, ROM_AT, EDGE_AT)) & -(1 << 21)
                entries[i] = block | self._flags() | 1
            entries[0] = table + 0x1000 | 3 | rng.choice((0, 0, 0, rng.getrandbits(4) << 59))
            for i in range(512):
                page = rng.choice((i, i, i, rng.randrange(RAM >> 12), ROM_AT >> 12, EDGE_AT >> 12))
                entries[512 + i] = page << 12 | self._flags() | 3
            entries[512 + (VECTORS >> 12)] = VECTORS | 1 << 10 | 1 << 7 | 3
            ctypes.memmove(self.ram + table, struct.pack("<1024Q", *entries), 0x2000)

    def _flags(self) -> int:
        """Descriptor flags: usually Normal memory that may be accessed."""
        rng = self.rng
        # What EL0 may write is never executable at EL1: half of the pages are for both.
        flags = 1 << 10 | rng.choice((0, 0, 1, 1, 3, 3, 3)) << 6 | rng.getrandbits(1) << 11
        if rng.random() < 0.1:
            flags ^= 1 << rng.choice((0, 2, 10, 53, 54))
        return flags

    def pointer(self) -> int:
        """An address that is probably mapped, often beside a page's end."""
        rng = self.rng
        page = rng.randrange((RAM >> 12) + 2)
        if rng.random() < 0.2:
            page = rng.choice(((ROM_AT >> 12) + rng.randrange(4), rng.randrange(0x2000)))
        offset = rng.choice((rng.randrange(4096), -rng.randrange(65), rng.randrange(256) * 16))
        high = rng.choice((0, 0, 0, 0xFFFF_FFFF_FE00_0000, 0xA5 << 56))
        return page * 4096 + offset + high & (1 << 64) - 1

    def entry(self) -> int:
        """An address that probably holds code."""
        at = self.rng.randrange(TABLES)
        return at if self.rng.random() < 0.9 else self.pointer()

    def shake(self, cpu: Cpu) -> None:
        """Random registers and translation regime, as a hypervisor may set them."""
        rng, s = self.rng, cpu.state
        for i in range(31):
            s.x[i] = self.pointer() if rng.random() < 0.8 else rng.getrandbits(64)
        for i in range(64):
            s.v[i] = rng.getrandbits(64)
        s.fpcr = rng.getrandbits(5) << 22
        s.vbar_el1 = VECTORS if rng.random() < 0.8 else self.entry() & ~0x7FF
        s.elr_el1 = self.entry() & ~3
        s.spsr_el1 = rng.choice((EL1H, EL1T, EL0)) | rng.getrandbits(4) << 6
        s.tcr_el1 = 39 | 39 << 16 | 2 << 30 | 4 << 32 | rng.getrandbits(3) << 36
        if rng.random() < 0.1:
            s.tcr_el1 = rng.getrandbits(39)
        for name in ("ttbr0_el1", "ttbr1_el1"):
            table = rng.randrange(TABLES, RAM, 0x2000)
            setattr(s, name, table | rng.getrandbits(2) << 48)
        s.mair_el1 = rng.choice((0xFF, 0x44_00FF))
        s.cpacr_el1 = rng.choice((3, 3, 3, 1, 0)) << 20
        # M mostly; UCI, UCT, DZE, UMA and the alignment checks now and then.
        s.sctlr_el1 = 0x30D0_0980 | (rng.random() < 0.8) | rng.getrandbits(27) & 0x0409_D21A
        if rng.random() < 0.7:
            s.sctlr_el1 &= ~0x1A
        s.cntkctl_el1, s.cnthctl = rng.getrandbits(10), rng.getrandbits(2)
        s.hcr_vi, s.hcr_vf = (int(rng.random() < 0.1) for _ in range(2))
        s.twe, s.tde = int(rng.random() < 0.1), int(rng.random() < 0.1)
        self._virtual_interrupts(cpu)
        self._watch(cpu)
        s.pc = self.entry() & ~3
        s.cntv_masked = s.cntp_masked = 0
        cpu.pstate = rng.getrandbits(4) << 28 | rng.choice((0, 15)) << 6 | rng.choice((0, 0, 4, 5))
        cpu.changed()

    def _virtual_interrupts(self, cpu: Cpu) -> None:
        """Some state of the GIC's virtual CPU interface, its window in the first unbacked pages."""
        rng, s = self.rng, cpu.state
        s.icc_sre, s.ich_hcr = rng.getrandbits(1), rng.getrandbits(1)
        s.ich_vmcr = rng.getrandbits(32)
        s.ich_ap0r, s.ich_ap1r = (rng.getrandbits(32) & rng.getrandbits(32) for _ in range(2))
        for i in range(4):
            lr = rng.getrandbits(64) & 0xF0FF_03FF_0000_03FF
            setattr(s, f"ich_lr{i}", lr if rng.random() < 0.5 else 0)
        s.gicv_base, s.gicv_size = RAM, rng.choice((0, 0x2000))

    def _watch(self, cpu: Cpu) -> None:
        """Watchpoints of any control, now and then; the hypervisor steps over what they stop."""
        rng = self.rng
        masks = rng.choices((0, 7, 13, 16, 19), k=4)
        watches = [Watchpoint(self.pointer(), rng.getrandbits(24) | 1 | m << 24) for m in masks]
        cpu.set_watchpoints(watches if rng.random() < 0.3 else [])

    def remap(self) -> None:
        """The hypervisor takes a segment away and brings it back, elsewhere in its memory."""
        self.stage2.unmap(EDGE_AT, EDGE)
        protect(self.edge, EDGE, 0)
        old, self.edge = self.edge, self._map(EDGE_AT, EDGE)
        protect(old, EDGE, mmap.PROT_READ)
        ctypes.memmove(self.edge, old, EDGE)
        protect(old, EDGE, 0)
        self.stage2.written(EDGE_AT, EDGE)

    def run(self, cpu: Cpu, instructions: int, pieces: Sequence[int] = ()) -> None:
        """Run so many instructions; a trapped one counts too. `pieces`: limits on the way."""
        s = cpu.state
        end = s.count + instructions
        stops = sorted({end, *range(s.count + SLICE, end, SLICE)})
        for stop in stops:
            for limit in [*(p for p in pieces if s.count < p < stop), stop]:
                self._run_to(cpu, limit)
            self._rescue(cpu)

    def _rescue(self, cpu: Cpu) -> None:
        """A guest that only faults in its vectors is sent elsewhere."""
        s = cpu.state
        if 0 <= s.elr_el1 - s.vbar_el1 < 0x800 and 0 <= s.pc - s.vbar_el1 < 0x800:
            s.vbar_el1, s.pc = self.entry() & ~0x7FF, self.entry() & ~3
            cpu.pstate = self.rng.choice((0, 0, 4, 5))

    def _run_to(self, cpu: Cpu, target: int) -> None:
        s = cpu.state
        idle = 0
        while s.count < target:
            idle += 1
            assert idle <= 3 * (target + 10), "exits without progress"
            s.limit = target
            code = cpu.run()
            if code == Exit.TRAP:
                self._trapped(cpu)
            elif code == Exit.IRQ:  # a timer's output, or the maintenance interrupt: quieten it
                s.cntv_masked = s.cntp_masked = 1
                s.ich_hcr &= 1
                for i in range(4):
                    setattr(s, f"ich_lr{i}", getattr(s, f"ich_lr{i}") & ~(1 << 41))
            else:
                assert code == Exit.LIMIT, code
                assert s.count == target

    def _trapped(self, cpu: Cpu) -> None:
        s = cpu.state
        s.count += 1  # or a trap in the vectors would be for ever
        if s.esr_el2 >> 26 == 0x16:  # HVC: PC is behind it
            s.x[0] = s.count
        elif s.esr_el2 >> 26 == 0x20:  # code where there is no memory: for ever, if in the vectors
            s.sctlr_el1 &= ~1
            s.vbar_el1, s.pc = 0x800, s.count * 4 % TABLES
            cpu.changed()
        elif s.count % 4 == 0:
            cpu.take_exception(_UNKNOWN)
        else:
            s.pc += 4

    def check(self) -> None:
        """What no guest may change."""
        for cpu in self.cpus:
            assert cpu.state.zero == 0
            assert cpu.state.stage2 == self.stage2.address
            for name, value in cpu.engine.id_registers.items():
                assert getattr(cpu.state, name) == value

    def digest(self) -> str:
        """Of all that is architecture: registers of every CPU, and memory."""
        h = hashlib.sha256()
        for cpu in self.cpus:
            s = cpu.state
            h.update(bytes(s.x) + bytes(s.v) + struct.pack("<QQ", s.pc, cpu.pstate))
            for name in _ARCHITECTURE:
                h.update(getattr(s, name).to_bytes(8, "little"))
        h.update(ctypes.string_at(self.ram, RAM) + ctypes.string_at(self.edge, EDGE))
        return h.hexdigest()


_ARCHITECTURE = [
    *("sp", "sp_el0_", "sp_el1_", "fpcr", "fpsr", "count"),
    *("excl_addr", "excl_size", "excl_lo", "excl_hi"),
    *("ich_hcr", "ich_vmcr", "ich_ap0r", "ich_ap1r", "phys_deactivated", "el0_count"),
    *("ich_lr0", "ich_lr1", "ich_lr2", "ich_lr3"),
    *("cntv_ctl", "cntv_cval", "cntp_ctl", "cntp_cval", "esr_el2", "far_el2", "hpfar_el2"),
    *(r.field for r in STORED),
]
assert all(hasattr(State, name) for name in _ARCHITECTURE)
