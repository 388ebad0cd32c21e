"""Inside unicorn 2.1.4: what its API does not give and a second CPU needs.

No interrupt line, exception syndrome, timer or instruction counter is reachable through unicorn's
API, so this module finds QEMU's structures in memory (that wheel and no other: offsets are its
own) and calls functions that the library happens to export. Every guess is checked when a CPU is
made, so that another build fails at once. For tests only.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

import unicorn
from unicorn import arm64_const as regs

VERSION = "2.1.4"

# CPUState: where its Uc is, then a pointer to its class, whose third member is do_interrupt. The
# CPUARMState behind it: W registers, then X[0..31], PC.
_UC, _CLASS, _DO_INTERRUPT, _ENV = 0x81A8, 0x81B0, 16, 0xA350
_X = 64
_PC = _X + 256
_EXCEPTION = 0xBD0  # {u32 syndrome, u32 fsr, u64 vaddress, u32 target_el}
_CP_REGS = 0x31C0
_FLAGS = 0x208  # CF, VF, NF, ZF: four words
# CPUState.interrupt_request and two of its bits
_INTERRUPT_REQUEST = 0x1C
INTERRUPT_HARD, INTERRUPT_FIQ = 0x02, 0x10
# ID registers of unicorn's default CPU, a Cortex-A72: AA64ISAR0, AA64ISAR1, AA64PFR0, AA64PFR1 ...
_ISAR = struct.pack("<4Q", 0x11120, 0, 0x2222, 0)
_ISAR_FIELDS = (
    "id_aa64isar0_el1", "id_aa64isar1_el1", "id_aa64pfr0_el1", "id_aa64pfr1_el1",
    "id_aa64mmfr0_el1", "id_aa64mmfr1_el1", "id_aa64mmfr2_el1",
)  # fmt: skip
_PROBE = 987654  # an instruction count that nothing else in the structure holds

_u64, _void_p = ctypes.c_uint64, ctypes.c_void_p
Read = ctypes.CFUNCTYPE(_u64, _void_p, _void_p)
Write = ctypes.CFUNCTYPE(None, _void_p, _void_p, _u64)
Interrupt = ctypes.CFUNCTYPE(None, _void_p)


def library() -> Any:
    """The shared library that the unicorn package has loaded."""
    api: Any = unicorn
    return api.unicorn_py3.unicorn.uclib


class Reginfo(ctypes.Structure):
    """ARMCPRegInfo: how QEMU describes one system register."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("encoding", ctypes.c_uint8 * 8),
        ("state", ctypes.c_int),
        ("type", ctypes.c_int),
        ("access", ctypes.c_int),
        ("secure", ctypes.c_int),
        ("opaque", _void_p),
        ("resetvalue", _u64),
        ("fieldoffset", ctypes.c_int64),
        ("bank_fieldoffsets", ctypes.c_int64 * 2),
        ("accessfn", _void_p),
        ("readfn", _void_p),
        ("writefn", _void_p),
    ]


class Syndrome(ctypes.Structure):
    """CPUARMState.exception: an exception on its way."""

    _fields_ = [
        ("syndrome", ctypes.c_uint32),
        ("fsr", ctypes.c_uint32),
        ("vaddress", _u64),
        ("target_el", ctypes.c_uint32),
    ]


class Private:
    """QEMU's structures behind one unicorn CPU, as ctypes views of live memory."""

    def __init__(self, uc: Any) -> None:
        api: Any = unicorn
        assert api.__version__ == VERSION, "this file knows one version of unicorn"
        self._lib = lib = library()
        self._memory = os.open("/proc/self/mem", os.O_RDONLY)
        try:
            handle = uc._uch
            self.handle = int(handle if isinstance(handle, int) else handle.value)
            self.cpu, self.env = self._locate(uc)
            self.pc = _u64.from_address(self.env + _PC)
            self.x = self.env + _X
            self.exception = Syndrome.from_address(self.env + _EXCEPTION)
            self.interrupts = ctypes.c_uint32.from_address(self.cpu + _INTERRUPT_REQUEST)
            self.counter, self.stop_at = self._counters(uc)
            at = self._bytes(self.cpu, 0x10000).find(_ISAR)
            assert at >= 0, "ARMCPU.isar is not where it was"
            self._isar = (_u64 * len(_ISAR_FIELDS)).from_address(self.cpu + at)
            kind = _u64.from_address(self.cpu + _CLASS).value
        finally:
            os.close(self._memory)
        self._table = _u64.from_address(self.env + _CP_REGS).value
        self._find = lib.get_arm_cp_reginfo_aarch64
        self._find.restype, self._find.argtypes = _void_p, (_void_p, ctypes.c_uint32)
        for name in ("arm_cpu_do_interrupt", "tlb_flush", "arm_rebuild_hflags"):
            function = getattr(lib, name + "_aarch64")
            function.restype, function.argtypes = None, (_void_p,)
        self._page = lib.arm_cpu_get_phys_page_attrs_debug_aarch64
        self._page.restype, self._page.argtypes = _u64, (_void_p, _u64, _void_p)
        self._keep: list[Any] = []
        self._keep_flags(_u64.from_address(kind + _DO_INTERRUPT))

    def _keep_flags(self, do_interrupt: ctypes.c_uint64) -> None:
        """Taking an exception leaves PSTATE.NZCV alone (AArch64.TakeException); QEMU clears it."""
        take = self._lib.arm_cpu_do_interrupt_aarch64
        assert do_interrupt.value == ctypes.cast(take, _void_p).value
        flags = self.env + _FLAGS
        move, kept = ctypes.memmove, ctypes.create_string_buffer(16)

        def deliver(cpu: int) -> None:
            move(kept, flags, 16)
            take(cpu)
            move(flags, kept, 16)

        function = Interrupt(deliver)
        self._keep.append(function)
        do_interrupt.value = ctypes.cast(function, _void_p).value or 0
        self._deliver = deliver

    def _bytes(self, address: int, size: int) -> bytes:
        try:
            return os.pread(self._memory, size, address)
        except OSError:
            return b""

    def _locate(self, uc: Any) -> tuple[int, int]:
        """CPUState and CPUARMState: the object behind `uc` that holds four marked registers."""
        marks = [0xA5A5_1234_5678_0000 + i * 0x1111 for i in range(4)]
        for i, mark in enumerate(marks):
            uc.reg_write(regs.UC_ARM64_REG_X0 + i, mark)
        held = struct.pack("<4Q", *marks)
        for (pointer,) in struct.iter_unpack("<Q", self._bytes(self.handle, 0x1000)):
            # Addresses of user space only: others are no pointers.
            if not 0x10000 <= pointer < 1 << 47:
                continue
            if self._bytes(pointer + _ENV + _X, 32) == held:
                assert self._bytes(pointer + _UC, 8) == struct.pack("<Q", self.handle)
                return pointer, pointer + _ENV
        raise AssertionError("unicorn's CPU state is not where it was")

    def _counters(self, uc: Any) -> tuple[ctypes.c_uint64, ctypes.c_uint64]:
        """uc->emu_counter and uc->emu_count, found by a count that stays there."""
        uc.mem_map(0, 4096)
        uc.mem_write(0, struct.pack("<2I", 0xD503201F, 0xD503201F))
        uc.emu_start(0, 4, count=_PROBE)
        uc.mem_unmap(0, 4096)
        assert uc.reg_read(regs.UC_ARM64_REG_PC) == self.pc.value == 4
        at = self._bytes(self.handle, 0x1000).find(struct.pack("<Q", _PROBE))
        assert at >= 8, "uc->emu_count is not where it was"
        uc.ctl_flush_tb()
        counter = _u64.from_address(self.handle + at - 8)
        assert counter.value in (1, 2)
        return counter, _u64.from_address(self.handle + at)

    # -- what QEMU can be asked to do -----------------------------------------------------
    def deliver(self) -> None:
        """Take the exception that is on its way, as hardware would."""
        self._deliver(self.cpu)

    def flush_tlb(self) -> None:
        """Drop all cached translations of addresses."""
        self._lib.tlb_flush_aarch64(self.cpu)

    def rebuild(self) -> None:
        """Bring what QEMU derives from PSTATE and SCTLR up to date."""
        self._lib.arm_rebuild_hflags_aarch64(self.env)

    def physical_page(self, va: int) -> int | None:
        """The page that a virtual address is mapped to."""
        attrs = (ctypes.c_uint64 * 4)()
        page = int(self._page(self.cpu, va, ctypes.addressof(attrs)))
        return None if page == (1 << 64) - 1 else page & ~0xFFF

    def set_features(self, values: dict[str, int]) -> None:
        """Make the translator implement what these ID registers say, and nothing else."""
        for i, name in enumerate(_ISAR_FIELDS):
            self._isar[i] = values.get(name, 0)

    # -- system registers -----------------------------------------------------------------
    def reginfo(self, op0: int, op1: int, crn: int, crm: int, op2: int) -> Reginfo | None:
        """QEMU's description of a register or SYS operation."""
        key = 1 << 28 | 0x13 << 16 | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
        at = self._find(self._table, key)
        return None if at is None else Reginfo.from_address(at)

    def hook(self, info: Reginfo, read: Any = None, write: Any = None) -> None:
        """Replace what reads and writes of a register do: read(), write(value)."""
        if read is not None:
            function = Read(lambda _env, _info: read())
            self._keep.append(function)
            info.readfn = ctypes.cast(function, _void_p).value
        if write is not None:
            setter = Write(lambda _env, _info, value: write(value))
            self._keep.append(setter)
            info.writefn = ctypes.cast(setter, _void_p).value

    def writer(self, info: Reginfo) -> Any:
        """What a write of the register does now, as a function of the value."""
        if info.writefn:
            function = Write(info.writefn)
            at = ctypes.addressof(info)
            return lambda value: function(self.env, at, value)
        field = _u64.from_address(self.env + info.fieldoffset)

        def store(value: int) -> None:
            field.value = value

        return store
