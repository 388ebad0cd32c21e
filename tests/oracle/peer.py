"""The oracle: unicorn 2.1.4 (QEMU's Arm front end), driven through its C interface.

Registers travel in two batch calls to and from one buffer: the Python classes would cost more than
the instruction. A linear instruction is run with `until` at the next one; only branches use
count=1, which unicorn answers with a fresh translation every time (200 us).
"""

from __future__ import annotations

import ctypes
from typing import Any

import unicorn
from tests.oracle.samples import CODE, CODE_SIZE, DATA, DATA_SIZE, STATE_BYTES, Sample
from unicorn import arm64_const as regs

_X = [getattr(regs, f"UC_ARM64_REG_X{i}") for i in range(31)] + [regs.UC_ARM64_REG_SP]
_V = [getattr(regs, f"UC_ARM64_REG_Q{i}") for i in range(32)]
_REST = [regs.UC_ARM64_REG_NZCV, regs.UC_ARM64_REG_FPCR, regs.UC_ARM64_REG_FPSR]
_IDS = [*_X, *_V, *_REST, regs.UC_ARM64_REG_PC]
_OFFSETS = [*range(0, 256, 8), *range(256, STATE_BYTES, 16), *range(STATE_BYTES, 800, 8)]

OK, FETCH_UNMAPPED, EXCEPTION = 0, 8, 21
TAKEN = {6, 7, 12, EXCEPTION}  # unmapped for reading, for writing; write-protected; any other
# Branches, immediate and register (C4.1.93).
_BRANCHES = [
    (0x7C000000, 0x14000000),
    (0x7C000000, 0x34000000),
    (0xFE000000, 0x54000000),
    (0xFE000000, 0xD6000000),
]


class Peer:
    """One unicorn CPU at EL1 with the MMU off; `model` is one of unicorn's."""

    def __init__(self, model: int = regs.UC_CPU_ARM64_MAX) -> None:
        api: Any = unicorn  # its annotations are partial
        self.uc = api.Uc(api.UC_ARCH_ARM64, api.UC_MODE_ARM)
        self.uc.ctl_set_cpu_model(model)
        lib = api.unicorn_py3.unicorn.uclib
        self._handle = self.uc._uch
        self._write, self._read = lib.uc_reg_write_batch, lib.uc_reg_read_batch
        self._start: Any = lib.uc_emu_start
        u64 = ctypes.c_uint64
        self._start.argtypes = (ctypes.c_void_p, u64, u64, u64, ctypes.c_size_t)
        self.state = ctypes.create_string_buffer(800)
        base = ctypes.addressof(self.state)
        self._ids = (ctypes.c_int * len(_IDS))(*_IDS)
        self._values = (ctypes.c_void_p * len(_IDS))(*(base + o for o in _OFFSETS))
        self._scalars = (u64 * 4).from_buffer(self.state, STATE_BYTES)
        self._memory: list[Any] = []
        self.code = self._map(0, CODE_SIZE, api.UC_PROT_READ | api.UC_PROT_EXEC) + CODE
        self.data = self._map(DATA, DATA_SIZE, api.UC_PROT_ALL)

    def _map(self, address: int, size: int, rights: int) -> int:
        """Guest memory at `address`; returns the host's address of it."""
        raw = ctypes.create_string_buffer(size + 4096)
        self._memory.append(raw)
        host = (ctypes.addressof(raw) + 4095) & ~4095
        self.uc.mem_map_ptr(address, size, rights, ctypes.c_void_p(host))
        return host

    def place(self, code: bytes) -> None:
        """Put the words under test at CODE."""
        ctypes.memmove(self.code, code, len(code))
        self.uc.ctl_flush_tb()

    def run(self, address: int, sample: Sample, words: int = 1) -> int:
        """Run from address, from the sample's state; unicorn's error number.

        More than one word must be linear code.
        """
        ctypes.memmove(self.state, bytes(sample.registers), STATE_BYTES)
        self._scalars[0] = sample.nzcv << 28
        self._scalars[1], self._scalars[2] = sample.fpcr, sample.fpsr
        self._write(self._handle, self._ids, self._values, len(_IDS) - 1)
        if any(sample.word & mask == value for mask, value in _BRANCHES):
            err: int = self._start(self._handle, address, 1 << 63, 0, 1)
        else:
            err = self._start(self._handle, address, address + 4 * words, 0, 0)
        if err not in TAKEN and err not in (OK, FETCH_UNMAPPED):
            raise AssertionError(f"unicorn: error {err} on {sample.word:#010x}")
        return err

    def step(self, address: int, sample: Sample, words: int = 1) -> tuple[bool, int]:
        """Run from address, from the sample's state: (exception taken, PC)."""
        err = self.run(address, sample, words)
        self._read(self._handle, self._ids, self._values, len(_IDS))
        # A branch to where nothing is mapped has been taken all the same.
        return err in TAKEN, self._scalars[3]

    @property
    def nzcv(self) -> int:
        return self._scalars[0] >> 28

    @property
    def fpcr(self) -> int:
        return self._scalars[1] & 0xFFFF_FFFF

    @property
    def fpsr(self) -> int:
        return self._scalars[2] & 0xFFFF_FFFF

    def registers(self) -> bytes:
        """X[0..30], SP, V[0..31]."""
        return self.state.raw[:STATE_BYTES]
