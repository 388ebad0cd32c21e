"""System registers of the second CPU: the same set, access rights and ID values as the engine's.

QEMU's CPU here is a Cortex-A72 with EL2 and EL3. What it has and the engine lacks becomes
UNDEFINED (and so a trap to the hypervisor), ID registers become constants that the hypervisor
set, timers count instructions, RES0 and RES1 bits are kept as the engine keeps them. What a
register does is left to QEMU: that is what is compared.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from tests.lockstep.private import Private, Reginfo

from armkvm.arch.sysreg import ALL, STORED, SYSREGS, SysReg
from armkvm.arch.timer import FREQUENCY
from armkvm.isa.disasm import decode

if TYPE_CHECKING:
    from tests.lockstep.unicorn_cpu import UnicornCpu

M64 = (1 << 64) - 1
_CONST = 2  # ARM_CP_CONST: reads are resetvalue
_EL1_READ, _EL1_WRITE, _EL0_READ, _EL0_WRITE = 8, 4, 2, 1
_SCR_EL3 = 3, 6, 1, 1, 0
_HCR_EL2 = 3, 4, 1, 1, 0
_CNTHCTL_EL2 = 3, 4, 14, 1, 0
_CNTFRQ_EL0 = 3, 3, 14, 0, 0
# RW, HCE, NS and RES1: lower levels are AArch64, HVC works, EL1 is not secure.
_SCR = 0x531
_RW, _TWI = 1 << 31, 1 << 13
# FPCR.Stride and Len have a function in AArch32 only: RES0 where there is none (D17.2.44).
_FPCR = 0x07C0_0000
# Constants of QEMU's Cortex-A72 that are storage in the engine.
_PLAIN = ("ACTLR_EL1", "AFSR0_EL1", "AFSR1_EL1", "AMAIR_EL1")


class SystemRegisters:
    """The registers of one unicorn CPU, and their copies in the engine's struct."""

    def __init__(self, uc: Any, private: Private, cpu: UnicornCpu) -> None:
        self.uc, self.private, self.cpu = uc, private, cpu
        self.state = cpu.state
        self._fields: list[tuple[SysReg, ctypes.c_uint64]] = []
        self._ids: list[tuple[str, Reginfo]] = []
        self._loaded: dict[str, int] = {}
        self._cnthctl = -1
        private.set_features({r.field: getattr(self.state, r.field) for r in STORED})
        uc.cpr_write(*_SCR_EL3, _SCR)
        uc.cpr_write(*_HCR_EL2, _RW | _TWI)
        uc.cpr_write(*_CNTFRQ_EL0, FREQUENCY)
        self._same_access()
        for r in SYSREGS:
            info = private.reginfo(*r.enc)
            if r.kind == "trapped":
                continue
            if r.name.startswith("ICC_"):
                assert info is None  # UNDEFINED, so they trap: load() insists on that
                continue
            assert info is not None, f"unicorn has no {r.name}"
            self._same_register(r, info)

    def _same_access(self) -> None:
        """EL1 and EL0 may use exactly what the engine's table has, and does not trap."""
        trapped = {r.enc for r in SYSREGS if r.kind == "trapped"}
        rights = {r.enc: r for r in SYSREGS if r.kind != "trapped"}
        for op0 in (1, 2, 3):
            for n in range(1 << 14):
                enc = (op0, n >> 11, n >> 7 & 15, n >> 3 & 15, n & 7)
                info = self.private.reginfo(*enc)
                if info is None:
                    continue
                r = rights.get(enc)
                if r is not None:
                    info.access = info.access & ~15 | _access(r)
                elif enc in trapped or decode(0xD500_0000 | op0 << 19 | n << 5) is None:
                    info.access &= ~15

    def _same_register(self, r: SysReg, info: Reginfo) -> None:
        private, state = self.private, self.state
        if r.kind == "id":
            info.type |= _CONST
            self._ids.append((r.field, info))
        elif r.name in _PLAIN:
            info.type &= ~_CONST
            private.hook(info, lambda: getattr(state, r.field), self._plain_write(r))
        elif r.kind == "stored":
            field = ctypes.c_uint64.from_address(private.env + info.fieldoffset)
            self._fields.append((r, field))
            if r.mask != ALL or r.ones:
                write = private.writer(info)
                private.hook(info, write=lambda v: write(v & r.mask | r.ones))
        elif r.name == "FPCR":
            write = private.writer(info)
            private.hook(info, write=lambda v: write(v & _FPCR))
        elif r.name.startswith("CNT") and r.name != "CNTFRQ_EL0":
            private.hook(info, *self._timer(r.field))

    def _plain_write(self, r: SysReg) -> Any:
        return lambda value: setattr(self.state, r.field, value & r.mask | r.ones)

    def _timer(self, name: str) -> tuple[Any, Any]:
        """(read, write) of a counter or timer register."""
        cpu, state = self.cpu, self.state
        prefix = name[:4]
        offset = "cntvoff" if name.startswith("cntv") else "cntpoff"
        ctl, cval = f"{prefix}_ctl", f"{prefix}_cval"

        def counter() -> int:
            return int(cpu.ticks(cpu.now()) - getattr(state, offset) & M64)

        def set_cval(value: int) -> None:
            setattr(state, cval, value)
            cpu.recheck()

        def set_ctl(value: int) -> None:
            setattr(state, ctl, value & 3)
            cpu.recheck()

        def set_tval(value: int) -> None:
            set_cval(counter() + ctypes.c_int32(value & 0xFFFF_FFFF).value & M64)

        def read_ctl() -> int:
            value = int(getattr(state, ctl))
            return value | 4 if value & 1 and getattr(state, cval) <= counter() else value

        if name.endswith("ct_el0"):
            return counter, None
        if name.endswith("_tval_el0"):
            return lambda: getattr(state, cval) - counter() & 0xFFFF_FFFF, set_tval
        if name.endswith("_cval_el0"):
            return lambda: getattr(state, cval), set_cval
        return read_ctl, set_ctl

    def load(self) -> bool:
        """To unicorn what the hypervisor has changed; True if anything."""
        state, changed = self.state, False
        assert not state.icc_sre | state.ich_hcr | state.gicv_size, "no virtual GIC interface here"
        assert not state.twe, "WFE does not trap here: one CPU a VM"
        if state.cnthctl != self._cnthctl:
            self._cnthctl = state.cnthctl
            self.uc.cpr_write(*_CNTHCTL_EL2, self._cnthctl)
        for r, _ in self._fields:
            value = getattr(state, r.field)
            if value != self._loaded.get(r.field):
                self._loaded[r.field] = value
                self.uc.cpr_write(*r.enc, value)
                changed = True
        if not changed and self._loaded.get("mpidr_el1") == state.mpidr_el1:
            return False
        for name, info in self._ids:
            value = getattr(state, name)
            if self._loaded.get(name) != value:
                self._loaded[name] = value
                info.resetvalue = value
                self.uc.ctl_flush_tb()  # the translator has put the old value into the code
        return True

    def save(self) -> None:
        """From unicorn."""
        state, loaded = self.state, self._loaded
        for r, field in self._fields:
            value = field.value
            if value != loaded[r.field]:
                loaded[r.field] = value
                setattr(state, r.field, value)


def _access(r: SysReg) -> int:
    el1 = {"rw": _EL1_READ | _EL1_WRITE, "ro": _EL1_READ, "wo": _EL1_WRITE}[r.el1]
    el0 = {"": 0, "ro": _EL0_READ, "rw": _EL0_READ | _EL0_WRITE}[r.el0]
    return el1 | el0
