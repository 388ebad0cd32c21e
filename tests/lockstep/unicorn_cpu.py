"""A second CPU behind the engine's interface (host.cpu.Backend): unicorn 2.1.4, QEMU's Arm.

The same hypervisor, devices and guest run on it, and it counts as the engine does: retired
instructions, a taken exception as one, nothing for an instruction that leaves for EL2 (but HVC).
unicorn's counter is advanced before each instruction, so what is left to do is to take back one
for a trap and to add one for a fault of the fetch and for an interrupt taken on entry. Time and
timers are functions of the count, as in engine/native/timer.py, computed here independently.

`state` is the engine's struct; it is copied to and from unicorn around each run. For tests only:
one CPU a VM, little attention to speed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import unicorn
from tests.lockstep.private import INTERRUPT_FIQ, INTERRUPT_HARD, Private, library
from tests.lockstep.syndrome import access_syndrome, access_va, sys_iss
from tests.lockstep.sysregs import SystemRegisters
from unicorn import arm64_const as regs

from armkvm.arch.debug import Watchpoint
from armkvm.arch.sysreg import BY_ENCODING, SysReg
from armkvm.arch.timer import NEVER, NS_PER_TICK_SHIFT
from armkvm.engine import layout
from armkvm.engine.cpu import Backing, Engine
from armkvm.host.cpu import (
    EXIT_IRQ,
    EXIT_LIMIT,
    EXIT_TRAP,
    GuestCpu,
    GuestMemory,
)

M64 = (1 << 64) - 1
_UNTIL = 1 << 63  # no address of a guest
_MANY = 1 << 40  # instructions at a time
# QEMU's exceptions (EXCP_*)
_UDEF, _PREFETCH_ABORT, _HVC, _SMC = 1, 3, 11, 13
# Errors of uc_emu_start that mean "no memory there"
_FETCH, _READ, _WRITE, _WRITE_PROT = 8, 6, 7, 12
_EC_DABT, _EC_IABT, _EC_HVC, _EC_SMC, _EC_SYS = 0x24, 0x20, 0x16, 0x17, 0x18
_IL = 1 << 25
_TRANSLATION_L3 = 0x07
_VECTORS = {"sync": 0x000, "irq": 0x080, "fiq": 0x100, "serror": 0x180}
_PSTATE_ALL_MASKED = 0x3C5

_VECTOR_IDS = [
    *(getattr(regs, f"UC_ARM64_REG_Q{i}") for i in range(32)),
    regs.UC_ARM64_REG_FPCR,
    regs.UC_ARM64_REG_FPSR,
]


class UnicornMemory:
    """Stage 2 of one VM: segments of host memory that every CPU of the VM has mapped."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, int, int, bool]] = []
        self.cpus: list[UnicornCpu] = []

    def replace(self, gone: Sequence[int], new: Sequence[Backing]) -> None:
        """Take segments away, and back others with host memory."""
        if any(b.log is not None for b in new):
            raise ValueError("the second CPU keeps no dirty log")
        removed = [s for s in self.segments if s[0] in gone]
        self.segments = [s for s in self.segments if s[0] not in gone]
        self.segments += [(b.ipa, b.host, b.size, b.readonly) for b in new]
        for cpu in self.cpus:
            for base, _, length, _ in removed:
                cpu.uc.mem_unmap(base, length)
            for b in new:
                cpu.map(b.ipa, b.host, b.size, b.readonly)
            cpu.flush()

    def flush(self) -> None:
        """A dirty log has begun anew; these CPUs keep none."""

    def written(self, ipa: int, size: int) -> None:
        """The host wrote guest memory: translated code may be old."""
        del ipa, size
        for cpu in self.cpus:
            cpu.flush()

    def close(self) -> None:
        """Unicorn gives its memory back with its CPUs."""

    def word(self, ipa: int) -> int | None:
        """The instruction word at a guest physical address."""
        for base, host, size, _ in self.segments:
            if base <= ipa < base + size:
                return ctypes.c_uint32.from_address(host + ipa - base).value
        return None


class UnicornCpu:
    """One CPU at EL1 and EL0, with the attributes of engine.cpu.Cpu that host and kvm use."""

    def __init__(self, memory: UnicornMemory) -> None:
        api: Any = unicorn
        if memory.cpus:
            raise ValueError("unicorn's CPUs do not share memory: one a VM")
        self.memory = memory
        self.uc = api.Uc(api.UC_ARCH_ARM64, api.UC_MODE_ARM)
        self._private = Private(self.uc)
        self._start: Any = library().uc_emu_start
        u64 = ctypes.c_uint64
        self._start.argtypes = (ctypes.c_void_p, u64, u64, u64, ctypes.c_size_t)
        self.state: Any = layout.State()
        s = self.state
        s.ns_mult = 1 << 16
        s.limit = s.hyp_deadline_ns = NEVER
        s.cnthctl = 3
        self._x = ctypes.addressof(s)
        self._pstate = _PSTATE_ALL_MASKED
        for name, value in Engine.load().id_registers.items():
            setattr(s, name, value)
        self.sysregs = SystemRegisters(self.uc, self._private, self)
        self._vectors = (u64 * 66)()  # V[0..31], FPCR, FPSR
        base = ctypes.addressof(self._vectors)
        self._vector_ids = (ctypes.c_int * len(_VECTOR_IDS))(*_VECTOR_IDS)
        places = [*range(base, base + 512, 16), base + 512, base + 520]
        self._vector_places = (ctypes.c_void_p * len(places))(*places)
        self._loaded_pstate = -1
        self._loaded_vectors = b""
        self._kicked = False
        self._trapped = False
        self._base = 0  # instructions before this start of unicorn
        self._faults: list[int] = []  # physical addresses without memory
        kinds = api.UC_HOOK_MEM_UNMAPPED | api.UC_HOOK_MEM_WRITE_PROT
        self.uc.hook_add(kinds, self._on_no_memory)
        self.uc.hook_add(api.UC_HOOK_INTR, self._on_exception)
        for segment in memory.segments:
            self.map(*segment)
        memory.cpus.append(self)

    def map(self, ipa: int, host: int, size: int, readonly: bool) -> None:
        """Guest memory appears."""
        api: Any = unicorn
        rights = api.UC_PROT_READ | api.UC_PROT_EXEC if readonly else api.UC_PROT_ALL
        self.uc.mem_map_ptr(ipa, size, rights, ctypes.c_void_p(host))
        self.flush()

    def flush(self) -> None:
        """Forget translated code and addresses."""
        self.uc.ctl_flush_tb()
        self._private.flush_tlb()

    def close(self) -> None:
        """Leave the VM."""
        self.memory.cpus.remove(self)

    def kick(self) -> None:
        """From any thread: leave guest code soon."""
        self._kicked = True
        self._private.stop_at.value = 0

    # -- registers ------------------------------------------------------------------------
    @property
    def pstate(self) -> int:
        """PSTATE in the layout of SPSR_EL1."""
        return self._pstate

    @pstate.setter
    def pstate(self, value: int) -> None:
        old_sp0, old_sp1 = self.sp_el0, self.sp_el1
        # Only what the engine has: NZCV, SS, IL, DAIF, EL0t, EL1t, EL1h.
        mode = value & 0xD if value & 0xC else 0
        self._pstate = value & 0xF030_03C0 | mode
        self.sp_el0, self.sp_el1 = old_sp0, old_sp1

    @property
    def _uses_sp_el1(self) -> bool:
        return self._pstate & 5 == 5

    @property
    def sp_el0(self) -> int:
        """SP_EL0, banked or current."""
        return int(self.state.sp_el0_ if self._uses_sp_el1 else self.state.sp)

    @sp_el0.setter
    def sp_el0(self, value: int) -> None:
        setattr(self.state, "sp_el0_" if self._uses_sp_el1 else "sp", value)

    @property
    def sp_el1(self) -> int:
        """SP_EL1, banked or current."""
        return int(self.state.sp if self._uses_sp_el1 else self.state.sp_el1_)

    @sp_el1.setter
    def sp_el1(self, value: int) -> None:
        setattr(self.state, "sp" if self._uses_sp_el1 else "sp_el1_", value)

    @property
    def fpsr(self) -> int:
        """FPSR."""
        return int(self.state.fpsr)

    @fpsr.setter
    def fpsr(self, value: int) -> None:
        self.state.fpsr = value

    def get_v(self, i: int, /) -> int:
        """V[i]."""
        return int(self.state.v[2 * i] | self.state.v[2 * i + 1] << 64)

    def set_v(self, i: int, value: int, /) -> None:
        """Set V[i]."""
        self.state.v[2 * i], self.state.v[2 * i + 1] = value & M64, value >> 64

    def _stored(self, enc: tuple[int, int, int, int, int]) -> SysReg:
        r = BY_ENCODING[enc]
        if not r.has_field:
            raise KeyError(enc)
        return r

    def get_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int, /) -> int:
        """A stored system register. KeyError where there is none."""
        return int(getattr(self.state, self._stored((op0, op1, crn, crm, op2)).field))

    def set_sysreg(self, op0: int, op1: int, crn: int, crm: int, op2: int, value: int, /) -> None:
        """Write a stored system register. KeyError where there is none."""
        r = self._stored((op0, op1, crn, crm, op2))
        setattr(self.state, r.field, value & r.mask | r.ones)

    def fetches(self) -> bool:
        """No debugger asks."""
        return True

    def set_watchpoints(self, watchpoints: Sequence[Watchpoint], /) -> None:
        """There are none: no debugger looks at this CPU."""

    def take_exception(self, esr: int, far: int = 0, kind: str = "sync") -> None:
        """AArch64.TakeException to EL1, from the present PC."""
        s = self.state
        if kind in ("sync", "serror"):
            s.esr_el1, s.far_el1 = esr, far
        s.spsr_el1, s.elr_el1 = self._pstate, s.pc
        if self._pstate & 0xC == 0:
            offset = 0x400
        else:
            offset = 0x200 if self._pstate & 1 else 0
        s.pc = s.vbar_el1 + offset + _VECTORS[kind] & M64
        self.pstate = self._pstate & 0xF000_0000 | _PSTATE_ALL_MASKED
        s.count += 1

    # -- running --------------------------------------------------------------------------
    def run(self) -> int:
        """Execute until something the hypervisor has to see; returns EXIT_*."""
        s = self.state
        self._interrupt_on_entry()
        self._load()
        try:
            while True:
                count = s.count
                if self._kicked or self._ns(count) >= s.hyp_deadline_ns or self._fires(count):
                    return EXIT_IRQ
                if count >= s.limit:
                    return EXIT_LIMIT
                left = self._go(self._deadline(count) - count)
                if left is not None:
                    return left
        finally:
            self._kicked = False
            self._save()

    def _interrupt_on_entry(self) -> None:
        s = self.state
        for line, mask, kind in ((s.hcr_vf, 1 << 6, "fiq"), (s.hcr_vi, 1 << 7, "irq")):
            if line and not self._pstate & mask:
                self.take_exception(0, kind=kind)
                return

    def _go(self, instructions: int) -> int | None:
        """Let unicorn run; afterwards state.count and the PC are exact. EXIT_TRAP or None."""
        s, private = self.state, self._private
        self._trapped = False
        self._faults.clear()
        self._base = s.count
        lines = INTERRUPT_HARD * bool(s.hcr_vi) | INTERRUPT_FIQ * bool(s.hcr_vf)
        private.interrupts.value = private.interrupts.value & ~0x12 | lines
        error = self._start(private.handle, private.pc.value, _UNTIL, 0, min(instructions, _MANY))
        self._raise_pending()
        private.interrupts.value &= ~0x12
        done = min(private.counter.value, private.stop_at.value)
        if error:
            if error not in (_FETCH, _READ, _WRITE, _WRITE_PROT) or not self._faults:
                raise AssertionError(f"unicorn: error {error} at PC {private.pc.value:#x}")
            self._no_memory(error)
            done -= error != _FETCH
        elif self._trapped and s.esr_el2 >> 26 != _EC_HVC:
            done -= 1
        s.count = self._base + done
        return EXIT_TRAP if self._trapped else None

    def _raise_pending(self) -> None:
        """An exception of a hook, which unicorn's binding keeps for its own emu_start."""
        pending = self.uc._hook_exception
        if pending is not None:
            self.uc._hook_exception = None
            raise pending

    def _on_no_memory(
        self, _uc: Any, _access: int, address: int, _size: int, _value: int, _data: Any
    ) -> bool:
        self._faults.append(address)
        return False

    def _no_memory(self, error: int) -> None:
        """A stage 2 abort, with the syndrome that Armv8 gives (D17.2.37)."""
        s, private = self.state, self._private
        pc, ipa = private.pc.value, self._faults[0]
        if error == _FETCH:
            s.esr_el2 = _EC_IABT << 26 | _IL | _TRANSLATION_L3
            s.far_el2 = pc
        else:
            word = self.word(pc) or 0
            x = (ctypes.c_uint64 * 32).from_address(private.x)
            iss = access_syndrome(word) | (error in (_WRITE, _WRITE_PROT)) << 6
            s.esr_el2 = _EC_DABT << 26 | _IL | iss | _TRANSLATION_L3
            s.far_el2 = access_va(word, pc, x) & ~0xFFF | ipa & 0xFFF
        s.hpfar_el2 = ipa >> 12 << 4
        self._trapped = True

    def word(self, pc: int) -> int | None:
        """The instruction word at a virtual address."""
        page = self._private.physical_page(pc)
        return None if page is None else self.memory.word(page | pc & 0xFFF)

    def _on_exception(self, uc: Any, number: int, _data: Any) -> None:
        """An exception is about to be taken: to EL1 by QEMU, to EL2 by leaving."""
        private = self._private
        pending = private.exception
        if number == _PREFETCH_ABORT:
            # The count moves in front of an instruction, and there was none.
            if private.counter.value >= private.stop_at.value:
                uc.emu_stop()
                return
            private.counter.value += 1
        if number == _HVC:
            self._trap(uc, _EC_HVC << 26 | _IL | pending.syndrome & 0xFFFF)
            return
        if number == _SMC:
            private.pc.value -= 4
            self._trap(uc, _EC_SMC << 26 | _IL | pending.syndrome & 0xFFFF)
            return
        if number == _UDEF:
            if pending.target_el == 2:
                self._trap(uc, pending.syndrome)
                return
            if pending.syndrome == 0:
                # QEMU 5.0 loses the syndrome of MSR DAIFSet and DAIFClr at EL0 on its way from the
                # helper: "AArch64.SystemAccessTrap(EL1, 0x18)", says MSR (immediate).
                word = self.word(private.pc.value) or 0
                pending.syndrome = _EC_SYS << 26 | _IL | sys_iss(word)
            if pending.syndrome >> 26 == 0 and uc.reg_read(regs.UC_ARM64_REG_PSTATE) & 0xC:
                word = self.word(private.pc.value) or 0
                if word & 0xFFC0_0000 == 0xD500_0000 and word >> 19 & 3:
                    # Registers that the engine does not have are the hypervisor's business.
                    self._trap(uc, _EC_SYS << 26 | _IL | sys_iss(word))
                    return
        private.deliver()

    def _trap(self, uc: Any, esr: int) -> None:
        self.state.esr_el2 = esr
        self._trapped = True
        uc.emu_stop()

    # -- between `state` and unicorn ------------------------------------------------------
    def _load(self) -> None:
        s, private, uc = self.state, self._private, self.uc
        changed = self.sysregs.load()
        if self._pstate != self._loaded_pstate:
            uc.reg_write(regs.UC_ARM64_REG_PSTATE, self._pstate)
            changed = True
        banked = regs.UC_ARM64_REG_SP_EL0 if self._uses_sp_el1 else regs.UC_ARM64_REG_SP_EL1
        ctypes.memmove(private.x, self._x, 256)
        uc.reg_write(banked, s.sp_el0_ if self._uses_sp_el1 else s.sp_el1_)
        private.pc.value = s.pc
        vectors = bytes(s.v) + s.fpcr.to_bytes(8, "little") + s.fpsr.to_bytes(8, "little")
        if vectors != self._loaded_vectors:
            ctypes.memmove(self._vectors, vectors, 528)
            library().uc_reg_write_batch(
                private.handle, self._vector_ids, self._vector_places, len(_VECTOR_IDS)
            )
            changed = True
        if changed:
            private.rebuild()

    def _save(self) -> None:
        s, private, uc = self.state, self._private, self.uc
        ctypes.memmove(self._x, private.x, 256)
        s.pc = private.pc.value
        self._pstate = uc.reg_read(regs.UC_ARM64_REG_PSTATE) & 0xF030_03CF
        self._loaded_pstate = self._pstate
        if self._uses_sp_el1:
            s.sp_el0_ = uc.reg_read(regs.UC_ARM64_REG_SP_EL0)
        else:
            s.sp_el1_ = uc.reg_read(regs.UC_ARM64_REG_SP_EL1)
        self._vectors[64] = self._vectors[65] = 0
        library().uc_reg_read_batch(
            private.handle, self._vector_ids, self._vector_places, len(_VECTOR_IDS)
        )
        ctypes.memmove(self._x + layout.V_OFFSET, self._vectors, 512)
        s.fpcr, s.fpsr = self._vectors[64], self._vectors[65]
        self._loaded_vectors = bytes(self._vectors)
        self.sysregs.save()

    # -- time (Arm ARM D11.2): a function of the count --------------------------------------
    def now(self) -> int:
        """Instructions retired before the one that is executing."""
        return self._base + self._private.counter.value - 1

    def recheck(self) -> None:
        """A timer was written: stop behind this instruction and look at the deadlines."""
        private = self._private
        private.stop_at.value = min(private.stop_at.value, private.counter.value)

    def _ns(self, count: int) -> int:
        s = self.state
        return int(s.ns_base + ((count - s.ns_count) * s.ns_mult >> 16))

    def ticks(self, count: int) -> int:
        """The physical counter."""
        return self._ns(count) >> NS_PER_TICK_SHIFT

    _TIMERS: ClassVar = (("cntv", "cntvoff"), ("cntp", "cntpoff"))

    def _fires(self, count: int) -> bool:
        """An unmasked timer's output is high."""
        s = self.state
        for name, offset in self._TIMERS:
            if getattr(s, f"{name}_ctl") & 3 == 1 and not getattr(s, f"{name}_masked"):
                now = self.ticks(count) - getattr(s, offset) & M64
                if getattr(s, f"{name}_cval") <= now:
                    return True
        return False

    def _deadline(self, count: int) -> int:
        """The first count at which run() has to return."""
        s = self.state
        stop = min(s.limit, count + _MANY)
        times = [s.hyp_deadline_ns]
        ticks = self.ticks(count)
        for name, offset in self._TIMERS:
            if getattr(s, f"{name}_ctl") & 3 == 1 and not getattr(s, f"{name}_masked"):
                left = getattr(s, f"{name}_cval") - (ticks - getattr(s, offset) & M64)
                times.append(ticks + left << NS_PER_TICK_SHIFT)
        for ns in times:
            if ns < NEVER:
                ahead = (ns - s.ns_base << 16) + s.ns_mult - 1
                stop = min(stop, s.ns_count + ahead // s.ns_mult)
        return int(stop)


class UnicornBackend:
    """Guest CPUs by unicorn."""

    def stage2(self) -> GuestMemory:
        """Memory of one VM."""
        return UnicornMemory()

    def cpu(self, memory: GuestMemory) -> GuestCpu:
        """A CPU of that VM."""
        assert isinstance(memory, UnicornMemory)
        return UnicornCpu(memory)
