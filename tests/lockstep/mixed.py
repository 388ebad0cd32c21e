"""A guest that mixes kernel and user code: random programs at EL0 under a small kernel (mixed.S).

The programs are words of all forms of the engine's table, with some that are not allocated. What
differs between CPUs for a known reason (tests/oracle/known.py) is left out, as are indirect
branches.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

from tests.oracle.samples import Samples, accesses_memory

from armkvm.arch.sysreg import BY_NAME
from armkvm.client import machine_code
from armkvm.isa.disasm import decode, forms
from armkvm.isa.table import Form
from armkvm.vmm.board import FLAT_BASE
from armkvm.vmm.guest import loader

CODE_FILE = Path(__file__).with_name("mixed.hex")
MEMORY = 8 << 20

LOG, VALUES, TABLES = 0x400D_0000, 0x400E_0000, 0x4010_0000
CODE, CODE_SIZE = 0x4012_0000, 0x1_0000
DATA, DATA_SIZE = 0x4018_0000, 0x2_0000
USER = 0x8000_0000
PROCESSES = 4
CODE_PAGE, RW_PAGE, RO_PAGE, KERNEL_PAGE = 0, 16, 52, 60  # of the 512 pages at USER
TICK = 1500  # of the counter, 16 instructions each

VALID, TABLE, PAGE, AF, INNER = 1, 2, 2, 1 << 10, 3 << 8
EL0, READ_ONLY, NOT_GLOBAL = 1 << 6, 1 << 7, 1 << 11
PXN, UXN = 1 << 53, 1 << 54
DEVICE = 1 << 2  # attribute 1

# Instructions that are compared one by one elsewhere (tests/oracle/known.py says why), that leave
# the program (indirect branches), and loads and stores of structures: one that faults half-way may
# have done its first half. A store across pages may, too, but that is rare.
_APART = {
    "LDAR", "STXR", "STXP", "LDXR", "LDXP", "LDADD", "CAS", "CASP", "BR",
    "LD1", "LD2", "LD1R",
}  # fmt: skip


def _apart(form: Form) -> bool:
    operation, _, register = form.name.partition("_")
    # EL2 traps the performance monitors from EL0, and the second CPU has fewer of them.
    row = BY_NAME.get(register) if operation in ("MRS", "MSR") else None
    return operation in _APART or (row is not None and row.kind == "trapped")


def kernel() -> bytes:
    """The kernel, mixed.S."""
    return bytes(machine_code.program(CODE_FILE))


def image(seed: int, ticks: int) -> loader.Image:
    """The guest for a seed; it ends after `ticks` ticks of its timer."""
    rng = random.Random(seed)
    code = kernel()
    assert FLAT_BASE + len(code) <= LOG - 0x1_0000
    memory = bytearray(DATA + PROCESSES * DATA_SIZE - FLAT_BASE)

    def put(address: int, data: bytes) -> None:
        at = address - FLAT_BASE
        memory[at : at + len(data)] = data

    put(FLAT_BASE, code)
    put(LOG, struct.pack("<6Q", 0, 0, ticks, rng.getrandbits(64), 0, TICK))
    put(VALUES, struct.pack("<64Q", *(_value(rng) for _ in range(64))))
    program = _Program(seed)
    for n in range(PROCESSES):
        put(TABLES + n * 0x4000, _tables(n))
        put(CODE + n * CODE_SIZE, program.words(CODE_SIZE // 4))
        put(DATA + n * DATA_SIZE, rng.randbytes(DATA_SIZE))
    return loader.load(bytes(memory), mem_bytes=MEMORY, flat=True)


def _value(rng: random.Random) -> int:
    """What a register may start with: mostly addresses that work."""
    kind = rng.random()
    middle = USER + (RW_PAGE << 12) + DATA_SIZE // 2
    if kind < 0.6:
        return middle + rng.randrange(-0x8000, 0x8000) & ~(15 if rng.random() < 0.7 else 0)
    if kind < 0.65:
        return USER + (rng.choice((RO_PAGE, KERNEL_PAGE)) << 12) + rng.randrange(4096)
    if kind < 0.9:
        return rng.randrange(0, 256) & 0xF8
    return rng.getrandbits(64)


def _tables(n: int) -> bytes:
    """L1, L2 and L3 of a process: devices and RAM for EL1 in blocks of 1 GiB, pages for EL0."""
    base = TABLES + n * 0x4000
    l1 = [0] * 512
    l1[0] = VALID | DEVICE | AF | UXN | PXN
    l1[1] = 0x4000_0000 | VALID | AF | INNER | UXN
    l1[2] = base + 0x1000 | VALID | TABLE
    l2 = [base + 0x2000 | VALID | TABLE] + [0] * 511
    l3 = [0] * 512
    page = VALID | PAGE | INNER | NOT_GLOBAL | PXN
    for i in range(CODE_SIZE >> 12):
        l3[CODE_PAGE + i] = CODE + n * CODE_SIZE + (i << 12) | page | EL0 | READ_ONLY | AF
    for i in range(DATA_SIZE >> 12):
        l3[RW_PAGE + i] = DATA + n * DATA_SIZE + (i << 12) | page | EL0 | UXN
    for i in range(4):
        l3[RO_PAGE + i] = DATA + n * DATA_SIZE + (i << 12) | page | EL0 | READ_ONLY | UXN | AF
    l3[KERNEL_PAGE] = DATA | page | UXN | AF
    return struct.pack("<1536Q", *l1, *l2, *l3)


class _Program:
    """Random words."""

    def __init__(self, seed: int) -> None:
        self._samples = Samples(seed)
        self._rng = self._samples.rng
        kept = [f for f in forms() if not _apart(f)]
        self._memory = [f for f in kept if accesses_memory(f)]
        self._others = [f for f in kept if not accesses_memory(f)]

    def words(self, count: int) -> bytes:
        return struct.pack(f"<{count}I", *(self._word(i, count) for i in range(count)))

    def _word(self, at: int, count: int) -> int:
        rng = self._rng
        kind = rng.random()
        if kind < 0.01:
            word = rng.getrandbits(32)
            found = decode(word)
            return 0 if found is not None and _apart(found) else word
        form: Form = rng.choice(self._memory if kind < 0.25 else self._others)
        word = self._samples.word(form)
        if form.name.startswith("B") and word >> 26 & 0x1F == 5:  # B, BL: stay in the program
            to = max(0, min(count - 1, at + rng.randint(-8, 200)))
            word = word & 0xFC00_0000 | to - at & 0x3FF_FFFF
        return word
