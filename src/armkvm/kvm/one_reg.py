"""KVM_GET_ONE_REG, KVM_SET_ONE_REG and KVM_GET_REG_LIST, after arch/arm64/kvm/guest.c.

Core registers are offsets into struct kvm_regs; timers, firmware and system registers have groups
of their own, and so have cache sizes, a register for each value of CSSELR_EL1. Left out: SVE.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi import regs as r
from armkvm.abi.kvm import KVM_ARM_VCPU_PSCI_0_2
from armkvm.abi.psci import KVM_ARM_PSCI_0_1, KVM_ARM_PSCI_0_2, KVM_ARM_PSCI_1_0, KVM_ARM_PSCI_1_1
from armkvm.abi.structs import KvmRegs, UserFpsimdState, UserPtRegs
from armkvm.arch.sysreg import BY_ENCODING, BY_NAME, STORED
from armkvm.arch.timer import NS_PER_TICK_SHIFT
from armkvm.arch.word import M64
from armkvm.kvm import arch_timer_context as at
from armkvm.kvm.file import fail
from armkvm.kvm.hypercalls import SERVICES, services
from armkvm.kvm.id_regs import set_id_reg
from armkvm.kvm.pmu.regs import USER as PMU_REGS
from armkvm.kvm.pmu.regs import get_user, set_user
from armkvm.kvm.psci import kvm_psci_version
from armkvm.kvm.sys_regs import (
    CSSELR_MAX,
    OSLSR_EL1,
    USER_ONLY,
    Encoding,
    get_ccsidr,
    set_ccsidr,
    set_oslsr,
    sys_reg_descs,
)

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

_CORE_END = 864
_SP, _PC, _PSTATE = (UserPtRegs.sp.offset, UserPtRegs.pc.offset, UserPtRegs.pstate.offset)
_SP_EL1, _ELR_EL1, _SPSR = KvmRegs.sp_el1.offset, KvmRegs.elr_el1.offset, KvmRegs.spsr.offset
_FP = KvmRegs.fp_regs.offset
_FPSR, _FPCR = _FP + UserFpsimdState.fpsr.offset, _FP + UserFpsimdState.fpcr.offset

MODES = (0b0000, 0b0100, 0b0101)  # EL0t, EL1t, EL1h

# Registers that the engine runs natively and that live in struct kvm_regs, not in the system group.
_IN_CORE = frozenset(("SPSR_EL1", "ELR_EL1"))


def size_of(reg_id: int) -> int:
    """Bytes of a register's value."""
    return r.reg_size(reg_id)


def get_reg(vcpu: Vcpu, reg_id: int) -> int:
    """kvm_arm_get_reg(). ENOENT, EINVAL."""
    return _access(vcpu, reg_id, None)


def set_reg(vcpu: Vcpu, reg_id: int, value: int) -> None:
    """kvm_arm_set_reg(). ENOENT, EINVAL, EBUSY."""
    _access(vcpu, reg_id, value & (1 << 8 * size_of(reg_id)) - 1)


def _access(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    if (reg_id & ~r.KVM_REG_SIZE_MASK) >> 32 != r.KVM_REG_ARM64 >> 32:
        fail(errno.EINVAL)
    match reg_id & r.KVM_REG_ARM_COPROC_MASK:
        case r.KVM_REG_ARM_CORE:
            return _core(vcpu, reg_id, value)
        case r.KVM_REG_ARM_FW | r.KVM_REG_ARM_FW_FEAT_BMAP:
            return _firmware(vcpu, reg_id, value)
        case r.KVM_REG_ARM_DEMUX:
            return _cache_size(vcpu, reg_id, value)
    if reg_id in _TIMER_REGS:
        return _timer(vcpu, reg_id, value)
    return _system(vcpu, reg_id, value)


# core registers


def _core_size(offset: int) -> int:
    """Size of the core register at an offset, 0 if none begins there."""
    if offset < _FP - 8:
        return 8 if offset % 8 == 0 else 0
    if _FP <= offset < _FPSR:
        return 16 if (offset - _FP) % 16 == 0 else 0
    return 4 if offset in (_FPSR, _FPCR) else 0


def _core(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    offset = (reg_id & 0xF000_FFFF) * 4
    size = size_of(reg_id)
    if offset >= _CORE_END or offset + size >= _CORE_END:
        fail(errno.ENOENT)
    if _core_size(offset) != size:
        fail(errno.EINVAL)
    cpu, state = vcpu.cpu, vcpu.state
    if offset < _SP:
        if value is not None:
            vcpu.x[offset // 8] = value
        return int(vcpu.x[offset // 8])
    if _FP <= offset < _FPSR:
        n = (offset - _FP) // 16
        if value is not None:
            cpu.set_v(n, value)
        return cpu.get_v(n)
    if offset == _PSTATE and value is not None and value & 0x1F not in MODES:
        fail(errno.EINVAL)
    if offset > _SPSR and offset < _FP:
        mode = (offset - _SPSR) // 8
        if value is not None:
            vcpu.core_spsr[mode] = value
        return vcpu.core_spsr[mode]
    owner, name = {
        _SP: (cpu, "sp_el0"),
        _PC: (state, "pc"),
        _PSTATE: (cpu, "pstate"),
        _SP_EL1: (cpu, "sp_el1"),
        _ELR_EL1: (state, "elr_el1"),
        _SPSR: (state, "spsr_el1"),
        _FPSR: (cpu, "fpsr"),
        _FPCR: (state, "fpcr"),
    }[offset]
    if value is not None:
        setattr(owner, name, value)
    return int(getattr(owner, name))


# timers

_TIMER_REGS = {
    r.KVM_REG_ARM_TIMER_CTL: (0, at.TIMER_REG_CTL),
    r.KVM_REG_ARM_TIMER_CNT: (0, at.TIMER_REG_CNT),
    r.KVM_REG_ARM_TIMER_CVAL: (0, at.TIMER_REG_CVAL),
    r.KVM_REG_ARM_PTIMER_CTL: (1, at.TIMER_REG_CTL),
    r.KVM_REG_ARM_PTIMER_CNT: (1, at.TIMER_REG_CNT),
    r.KVM_REG_ARM_PTIMER_CVAL: (1, at.TIMER_REG_CVAL),
}


def _timer(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    """kvm_arm_timer_get_reg() and set_reg(). Setting a counter moves it for the whole VM."""
    which, register = _TIMER_REGS[reg_id]
    ctx = vcpu.arch_timer.timers[which]
    if value is None:
        return ctx.read(register)
    if register == at.TIMER_REG_CNT:
        if not vcpu.vm.counter_offset_set:
            ctx.offset.value = (vcpu.now() >> NS_PER_TICK_SHIFT) - value & M64
    else:
        ctx.write(register, value)
    return value


# firmware

# Levels of the mitigations (asm/kvm.h), of a CPU that speculates nothing.
_NOT_REQUIRED, _WA2_AVAIL, _WA2_NOT_REQUIRED, _WA2_ENABLED = 2, 2, 3, 1 << 4
_LEVEL_MASK = 0xF
_WORKAROUNDS = {
    r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1: _NOT_REQUIRED,
    r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: _WA2_NOT_REQUIRED,
    r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3: _NOT_REQUIRED,
}

def _firmware(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    """kvm_arm_get_fw_reg() and set_fw_reg()."""
    if reg_id == r.KVM_REG_ARM_PSCI_VERSION:
        if value is not None:
            wants_0_2 = bool(vcpu.features & 1 << KVM_ARM_VCPU_PSCI_0_2)
            allowed = (
                (KVM_ARM_PSCI_0_2, KVM_ARM_PSCI_1_0, KVM_ARM_PSCI_1_1)
                if wants_0_2
                else (KVM_ARM_PSCI_0_1,)
            )
            if value not in allowed:
                fail(errno.EINVAL)
            vcpu.vm.psci_version = value
        return kvm_psci_version(vcpu)
    if reg_id in SERVICES:
        return _services(vcpu, reg_id, value)
    level = _WORKAROUNDS.get(reg_id)
    if level is None:
        fail(errno.ENOENT)
    if value is not None and not _acceptable(reg_id, value, level):
        fail(errno.EINVAL)
    return level


def _acceptable(reg_id: int, value: int, level: int) -> bool:
    """A guest that comes from a host with this level finds no less here. It is not kept."""
    if reg_id == r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2:
        enabled = bool(value & _WA2_ENABLED)
        value &= ~_WA2_ENABLED
        return value <= level and not (enabled and value != _WA2_AVAIL)
    return value & ~_LEVEL_MASK == 0 and value <= level


def _services(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    """kvm_arm_set_fw_reg_bmap(): the VM's; user space may take services away before it runs."""
    vm = vcpu.vm
    with vm.config_lock:
        held = services(vm, reg_id)
        if value is None:
            return held
        if value & ~SERVICES[reg_id]:
            fail(errno.EINVAL)
        if vm.has_run and value != held:
            fail(errno.EBUSY)
        vm.smccc_services[reg_id] = value
    return value


# cache sizes


def _cache_size(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    """demux_c15_get() and set(). ENOENT, EINVAL."""
    csselr = reg_id & 0xFFFF
    if reg_id != r.ccsidr_reg(csselr) or csselr >= CSSELR_MAX:
        fail(errno.ENOENT)
    if value is not None:
        set_ccsidr(vcpu, csselr, value)
    return get_ccsidr(vcpu, csselr)


# system registers


def _encoding(reg_id: int) -> Encoding:
    index = reg_id & 0xFFFF
    return index >> 14, index >> 11 & 7, index >> 7 & 15, index >> 3 & 15, index & 7


def _system(vcpu: Vcpu, reg_id: int, value: int | None) -> int:
    """kvm_arm_sys_reg_get_reg() and set_reg()."""
    enc = _encoding(reg_id)
    if reg_id != r.sys_reg(*enc):
        fail(errno.ENOENT)
    if enc in PMU_REGS:
        return _pmu(vcpu, enc, value)
    native = BY_ENCODING.get(enc)
    if native is None or not native.has_field:
        if enc not in _EMULATED:
            fail(errno.ENOENT)
        if enc == OSLSR_EL1 and value is not None:
            set_oslsr(vcpu, value)
        elif value is not None:
            vcpu.sys_regs[_EMULATED[enc]] = value
        return vcpu.sys_regs.get(_EMULATED[enc], 0)
    if native.name in _IN_CORE:
        fail(errno.ENOENT)
    if value is None:
        return vcpu.cpu.get_sysreg(*enc)
    if native.kind == "id" and native.name != "MPIDR_EL1":
        set_id_reg(vcpu, enc, value)
        return value
    if native.name == "MPIDR_EL1":
        vcpu.state.mpidr_el1 = value
    else:
        vcpu.cpu.set_sysreg(*enc, value)
    return value


def _pmu(vcpu: Vcpu, enc: Encoding, value: int | None) -> int:
    """The PMU's registers, where there is one."""
    if vcpu.pmu is None:
        fail(errno.ENOENT)
    if value is not None:
        set_user(vcpu.pmu, enc, value)
        return value
    return get_user(vcpu.pmu, enc)


_EMULATED = {
    enc: name
    for enc, (name, _) in [*sys_reg_descs.items(), *USER_ONLY.items()]
    if enc in USER_ONLY or name.startswith(("DBGB", "DBGW", "OSLSR", "MDCCINT"))
}
# invariant_sys_regs: they come before the table of the others, which is in the encodings' order.
_INVARIANT = [BY_NAME[name].enc for name in ("MIDR_EL1", "REVIDR_EL1", "AIDR_EL1")]


def reg_list(vcpu: Vcpu) -> list[int]:
    """kvm_arm_copy_reg_indices(): all registers, in the kernel's order."""
    ids = [r.core_x(n) for n in range(31)]
    ids += [r.CORE_SP, r.CORE_PC, r.CORE_PSTATE, r.CORE_SP_EL1, r.CORE_ELR_EL1]
    ids += [r.core_reg(_SPSR + 8 * i) for i in range(5)]
    ids += [r.core_reg(_FP + 16 * i, r.KVM_REG_SIZE_U128) for i in range(32)]
    ids += [r.core_reg(_FPSR, r.KVM_REG_SIZE_U32), r.core_reg(_FPCR, r.KVM_REG_SIZE_U32)]
    ids += [r.KVM_REG_ARM_PSCI_VERSION, *_WORKAROUNDS, *SERVICES]
    ids += list(_TIMER_REGS)
    native = [reg.enc for reg in STORED if reg.name not in _IN_CORE]
    pmu = PMU_REGS if vcpu.pmu is not None else ()
    table = sorted({*native, *_EMULATED, *pmu}.difference(_INVARIANT))
    ids += [r.sys_reg(*enc) for enc in (*_INVARIANT, *table)]
    ids += [r.ccsidr_reg(csselr) for csselr in range(CSSELR_MAX)]
    return ids
