"""Accesses to the PMU's registers, after the PMU parts of arch/arm64/kvm/sys_regs.c.

All trap, from EL0 too, where PMUSERENR_EL0 decides. Without the vCPU feature there are no such
registers. User space sees the same state through one-regs, by `get_user` and `set_user`. The
counters are brought up to date before anything is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armkvm.arch.sysreg import BY_NAME, Encoding
from armkvm.arch.word import M64
from armkvm.kvm.pmu import emul as p
from armkvm.kvm.pmu.emul import CYCLE_IDX, MAX_COUNTERS, Pmu

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

Access = Callable[["Vcpu", int | None], int | None]
_Register = Callable[[Pmu, int | None], int]

EN, SW, CR, ER = 1, 2, 4, 8  # PMUSERENR_EL0
PSTATE_EL_MASK = 0xC


class Undefined(Exception):
    """The access is UNDEFINED."""


def _pmcr(pmu: Pmu, value: int | None) -> int:
    if value is not None:
        pmu.pmcr = value & p.PMCR_MASK & ~(p.PMCR_P | p.PMCR_C | p.PMCR_LP)
        if value & p.PMCR_C:
            pmu.evcntr[CYCLE_IDX] = 0
        if value & p.PMCR_P:
            n = pmu.vcpu.vm.pmcr_n
            pmu.evcntr[:n] = [0] * n
    return pmu.pmcr | pmu.vcpu.vm.pmcr_n << p.PMCR_N_SHIFT


def _set_pmcr(pmu: Pmu, value: int) -> None:
    """set_pmcr() of user space: N too, for all vCPUs, until one has run. More than there are of
    counters, and a change that comes too late, change nothing and are no error."""
    vm = pmu.vcpu.vm
    n = value >> p.PMCR_N_SHIFT & 0x1F
    with vm.config_lock:
        if not vm.has_run and n <= MAX_COUNTERS:
            vm.pmcr_n = n
    _pmcr(pmu, value & ~(p.PMCR_P | p.PMCR_C))


def _pmselr(pmu: Pmu, value: int | None) -> int:
    if value is not None:
        pmu.pmselr = value & 0x1F
    return pmu.pmselr


def _pmuserenr(pmu: Pmu, value: int | None) -> int:
    if value is not None:
        pmu.pmuserenr = value & 0xF
    return pmu.pmuserenr


def _mask(name: str, *, sets: bool) -> _Register:
    """PMCNTENSET and PMCNTENCLR, and their likes: two views of one set of counters."""

    def access(pmu: Pmu, value: int | None) -> int:
        held: int = getattr(pmu, name) & pmu.implemented
        if value is not None:
            value &= pmu.implemented
            held = held | value if sets else held & ~value
            setattr(pmu, name, held)
        return held

    return access


def _pmceid(number: int) -> _Register:
    def access(pmu: Pmu, value: int | None) -> int:
        if value is not None:
            raise Undefined
        allowed = pmu.vcpu.vm.pmu_filter
        events = 0 if number else p.PMCEID0
        return sum(1 << n for n in p.bits(events) if allowed is None or allowed[n])

    return access


def _pmswinc(pmu: Pmu, value: int | None) -> int:
    if value is None:
        raise Undefined
    pmu.increment(value & pmu.implemented, p.SW_INCR)
    return 0


def _checked(pmu: Pmu, idx: int) -> int:
    """pmu_counter_idx_valid()."""
    if not pmu.implemented >> idx & 1:
        raise Undefined
    return idx


def _evcntr(number: int | None) -> _Register:
    """A counter; None: the one that PMSELR_EL0 selects."""

    def access(pmu: Pmu, value: int | None) -> int:
        idx = _checked(pmu, pmu.pmselr if number is None else number)
        if value is not None:
            pmu.evcntr[idx] = value & (M64 if idx == CYCLE_IDX else 0xFFFF_FFFF)
        return pmu.evcntr[idx]

    return access


def _evtyper(number: int | None) -> _Register:
    """What a counter counts; 31 is PMCCFILTR_EL0."""

    def access(pmu: Pmu, value: int | None) -> int:
        idx = _checked(pmu, pmu.pmselr if number is None else number)
        if value is not None:
            pmu.evtyper[idx] = value & p.EVTYPER_MASK
        return pmu.evtyper[idx]

    return access


# name: register, what PMUSERENR_EL0 must grant EL0 (to read, to write; None: never)
_BY_NAME: dict[str, tuple[_Register, int | None, int | None]] = {
    "PMINTENSET_EL1": (_mask("pminten", sets=True), None, None),
    "PMINTENCLR_EL1": (_mask("pminten", sets=False), None, None),
    "PMCR_EL0": (_pmcr, EN, EN),
    "PMCNTENSET_EL0": (_mask("pmcnten", sets=True), EN, EN),
    "PMCNTENCLR_EL0": (_mask("pmcnten", sets=False), EN, EN),
    "PMOVSCLR_EL0": (_mask("pmovs", sets=False), EN, EN),
    "PMSWINC_EL0": (_pmswinc, EN | SW, EN | SW),
    "PMSELR_EL0": (_pmselr, EN | ER, EN | ER),
    "PMCEID0_EL0": (_pmceid(0), EN, EN),
    "PMCEID1_EL0": (_pmceid(1), EN, EN),
    "PMCCNTR_EL0": (_evcntr(CYCLE_IDX), EN | CR, EN),
    "PMXEVTYPER_EL0": (_evtyper(None), EN, EN),
    "PMXEVCNTR_EL0": (_evcntr(None), EN | ER, EN),
    "PMUSERENR_EL0": (_pmuserenr, 0, None),
    "PMOVSSET_EL0": (_mask("pmovs", sets=True), EN, EN),
    "PMCCFILTR_EL0": (_evtyper(CYCLE_IDX), EN, EN),
    **{f"PMEVCNTR{n}_EL0": (_evcntr(n), EN | ER, EN) for n in range(CYCLE_IDX)},
    **{f"PMEVTYPER{n}_EL0": (_evtyper(n), EN, EN) for n in range(CYCLE_IDX)},
}
_REGISTERS = {BY_NAME[name].enc: (name, *row) for name, row in _BY_NAME.items()}


def _access(register: _Register, reads: int | None, writes: int | None) -> Access:
    def access(vcpu: Vcpu, value: int | None) -> int | None:
        pmu = vcpu.pmu
        if pmu is None:
            raise Undefined
        if not vcpu.cpu.pstate & PSTATE_EL_MASK:
            grants = reads if value is None else writes
            if grants is None or (grants and not pmu.pmuserenr & grants):
                raise Undefined
        return _do(pmu, register, value)

    return access


def _do(pmu: Pmu, register: _Register, value: int | None) -> int:
    pmu.fold()
    try:
        return register(pmu, value)
    finally:
        if value is not None:
            pmu.reprogram()


DESCS: dict[Encoding, tuple[str, Access]] = {
    enc: (name, _access(register, reads, writes))
    for enc, (name, register, reads, writes) in _REGISTERS.items()
}

# one-regs: what holds state. Writing PMSWINC_EL0 there does nothing.
_NO_STATE = ("PMCEID0_EL0", "PMCEID1_EL0", "PMXEVTYPER_EL0", "PMXEVCNTR_EL0")
USER = tuple(enc for enc, row in _REGISTERS.items() if row[0] not in _NO_STATE)
_MASKS = {
    "PMINTENSET_EL1": "pminten", "PMINTENCLR_EL1": "pminten", "PMCNTENSET_EL0": "pmcnten",
    "PMCNTENCLR_EL0": "pmcnten", "PMOVSSET_EL0": "pmovs", "PMOVSCLR_EL0": "pmovs",
}  # fmt: skip


def get_user(pmu: Pmu, enc: Encoding) -> int:
    """KVM_GET_ONE_REG."""
    name = _REGISTERS[enc][0]
    if name == "PMSWINC_EL0":
        return 0
    pmu.fold()
    array, idx = _array(pmu, enc, name)
    return array[idx] if array is not None else _REGISTERS[enc][1](pmu, None)


def set_user(pmu: Pmu, enc: Encoding, value: int) -> None:
    """KVM_SET_ONE_REG: plain state. A register of a set holds the whole set."""
    name, register, *_ = _REGISTERS[enc]
    if name == "PMSWINC_EL0":
        return
    pmu.fold()
    array, idx = _array(pmu, enc, name)
    if array is not None:
        kept = M64 if idx == CYCLE_IDX else 0xFFFF_FFFF
        array[idx] = value & (kept if array is pmu.evcntr else p.EVTYPER_MASK)
    elif name in _MASKS:
        setattr(pmu, _MASKS[name], value & pmu.implemented)
    elif name == "PMCR_EL0":
        _set_pmcr(pmu, value)
    else:
        register(pmu, value)
    pmu.reprogram()


def _array(pmu: Pmu, enc: Encoding, name: str) -> tuple[list[int] | None, int]:
    """Counters and their types exist for user space beyond PMCR_EL0.N as well."""
    if name in ("PMCCNTR_EL0", "PMCCFILTR_EL0"):
        return pmu.evcntr if name == "PMCCNTR_EL0" else pmu.evtyper, CYCLE_IDX
    if name.startswith(("PMEVCNTR", "PMEVTYPER")):
        number = (enc[3] & 3) << 3 | enc[4]
        return pmu.evcntr if name.startswith("PMEVC") else pmu.evtyper, number
    return None, 0
