"""System registers that KVM emulates when an access to them traps, after sys_regs.c.

The engine runs most registers natively; an encoding that it does not know traps, and so do the
physical timer's registers where it is emulated. A register that is not in the table does not
exist: the guest gets UNDEFINED. Without a vgic that is so for the whole of ICC_* (with one, those
that trap send SGIs), without the PMU feature for the PMU's registers.

Debug registers keep what is written and do nothing: there is no self-hosted debug by breakpoint
registers. Left out: AArch32 views, LORegions, statistical profiling, trace.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from armkvm.arch import esr as e
from armkvm.arch.sysreg import STORED
from armkvm.kvm import arch_timer_context as at
from armkvm.kvm.file import fail
from armkvm.kvm.inject_fault import kvm_inject_undefined
from armkvm.kvm.kvm_emulate import kvm_incr_pc
from armkvm.kvm.pmu import regs as pmu_regs
from armkvm.kvm.pmu.regs import Undefined
from armkvm.kvm.vgic.mmio_v3 import dispatch_sgi

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

Encoding = tuple[int, int, int, int, int]
# Reads return the value, writes (value given) return None; UNDEFINED is signalled by `Undefined`.
Access = Callable[["Vcpu", int | None], int | None]

# Registers that reset leaves UNKNOWN hold this, as in KVM: it shows up when a guest relies on them.
RESET_UNKNOWN = 0x1DE7_EC7E_DBAD_C0DE
MPIDR_RES1 = 1 << 31

# How long the hypervisor takes to emulate one register access. Guest time must pass in a loop that
# reads a trapped counter, and on hardware it does.
TRAP_NS = 500

ID_AA64PFR0_EL1 = 3, 0, 0, 4, 0
PFR0_GIC_SHIFT = 24
ID_AA64DFR0_EL1 = 3, 0, 0, 5, 0
DFR0_PMUVER_SHIFT = 8

MIDR_EL1 = 3, 0, 0, 0, 0
CTR_EL0 = 3, 3, 0, 0, 1
CCSIDR_EL1 = 3, 1, 0, 0, 0
CLIDR_EL1 = 3, 1, 0, 0, 1
CSSELR_EL1 = 3, 2, 0, 0, 0
CSSELR_MAX = 14  # seven levels, of data or unified caches and of instruction caches
CSSELR_IND = 1 << 0
# What reset_clidr() makes of a CTR_EL0 without IDC and DIC: Ctype1 separate caches, LoUIS, LoC and
# LoUU at the first level.
CLIDR_SEPARATE_L1 = 3 | 1 << 21 | 1 << 24 | 1 << 27
CCSIDR_LINE_SIZE = 7
CCSIDR_LINE_BASE = 2  # LineSize is log2 of a line's words, less two

OSLSR_EL1 = 2, 0, 1, 1, 4
OSLSR_OSLM = 1 << 3
OSLSR_OSLK = 1 << 1

# Registers that only user space reaches, with their reset values: 6.12 lists them on every host.
# The guest's access is UNDEFINED: AArch32's are EL2's, the others belong to features (RAS, TCR2,
# S1PIE) that its CPU has not.
USER_ONLY: Final[dict[Encoding, tuple[str, int]]] = {
    (2, 4, 0, 7, 0): ("DBGVCR32_EL2", 0),
    (3, 0, 2, 0, 3): ("TCR2_EL1", 0),
    (3, 0, 10, 2, 2): ("PIRE0_EL1", RESET_UNKNOWN),
    (3, 0, 10, 2, 3): ("PIR_EL1", RESET_UNKNOWN),
    (3, 0, 12, 1, 1): ("DISR_EL1", 0),
    (3, 4, 3, 0, 0): ("DACR32_EL2", RESET_UNKNOWN),
    (3, 4, 5, 0, 1): ("IFSR32_EL2", RESET_UNKNOWN),
    (3, 4, 5, 3, 0): ("FPEXC32_EL2", 0x700),
}


def raz_wi(_vcpu: Vcpu, value: int | None) -> int | None:
    """Reads as zero, writes are ignored."""
    return 0 if value is None else None


def write_only_ignored(_vcpu: Vcpu, value: int | None) -> int | None:
    """A maintenance operation that has nothing to do."""
    if value is None:
        raise Undefined
    return None


def _stored(name: str) -> Access:
    def access(vcpu: Vcpu, value: int | None) -> int | None:
        if value is None:
            return vcpu.sys_regs.get(name, 0)
        vcpu.sys_regs[name] = value
        return None

    return access


def _oslar(vcpu: Vcpu, value: int | None) -> int | None:
    if value is None:
        raise Undefined
    status = vcpu.sys_regs.get("OSLSR_EL1", OSLSR_OSLM) & ~OSLSR_OSLK
    vcpu.sys_regs["OSLSR_EL1"] = status | (OSLSR_OSLK if value & 1 else 0)
    return None


def _oslsr(vcpu: Vcpu, value: int | None) -> int | None:
    if value is not None:
        raise Undefined
    return vcpu.sys_regs.get("OSLSR_EL1", OSLSR_OSLM)


def _ccsidr(vcpu: Vcpu, value: int | None) -> int | None:
    """access_ccsidr(): of the cache that CSSELR_EL1 selects; of none, Rt stays as it is."""
    if value is not None:
        raise Undefined
    csselr = vcpu.cpu.get_sysreg(*CSSELR_EL1)
    return get_ccsidr(vcpu, csselr) if csselr < CSSELR_MAX else None


def _arch_timer(register: int) -> Access:
    def access(vcpu: Vcpu, value: int | None) -> int | None:
        timer = vcpu.arch_timer
        if value is None:
            return timer.read_sysreg(timer.ptimer, register)
        if register == at.TIMER_REG_CNT:
            raise Undefined
        timer.write_sysreg(timer.ptimer, register, value)
        return None

    return access


def _icc_sre(vcpu: Vcpu, value: int | None) -> int | None:
    """On a GICv3 host the register cannot be hidden: system registers are on, and stay so (B11)."""
    if vcpu.vm.host.kind.gic != "gicv3":
        raise Undefined
    return 7 if value is None else None


def _gic_sgi(*, allow_group1: bool) -> Access:
    def access(vcpu: Vcpu, value: int | None) -> int | None:
        """access_gic_sgi(): write-only, and there with a GICv3 only."""
        if not vcpu.vm.has_gicv3 or value is None:
            raise Undefined
        dispatch_sgi(vcpu, value, allow_group1=allow_group1)
        return None

    return access


def _sys_reg_descs() -> dict[Encoding, tuple[str, Access]]:
    table: dict[Encoding, tuple[str, Access]] = {}
    for n in range(16):
        for op2, name in ((4, "DBGBVR"), (5, "DBGBCR"), (6, "DBGWVR"), (7, "DBGWCR")):
            table[2, 0, 0, n, op2] = f"{name}{n}_EL1", _stored(f"{name}{n}_EL1")
    for enc, name in (
        ((2, 0, 0, 0, 2), "OSDTRRX_EL1"),
        ((2, 0, 0, 3, 2), "OSDTRTX_EL1"), ((2, 0, 0, 6, 2), "OSECCR_EL1"),
        ((2, 0, 1, 0, 0), "MDRAR_EL1"), ((2, 0, 1, 3, 4), "OSDLR_EL1"),
        ((2, 0, 1, 4, 4), "DBGPRCR_EL1"), ((2, 0, 7, 8, 6), "DBGCLAIMSET_EL1"),
        ((2, 0, 7, 9, 6), "DBGCLAIMCLR_EL1"), ((2, 0, 7, 14, 6), "DBGAUTHSTATUS_EL1"),
        ((2, 3, 0, 1, 0), "MDCCSR_EL0"), ((2, 3, 0, 4, 0), "DBGDTR_EL0"),
        ((2, 3, 0, 5, 0), "DBGDTRTX_EL0"),
    ):  # fmt: skip
        table[enc] = name, raz_wi
    table[2, 0, 0, 2, 0] = "MDCCINT_EL1", _stored("MDCCINT_EL1")
    table[2, 0, 0, 2, 2] = "MDSCR_EL1", _stored("MDSCR_EL1")
    table[2, 0, 1, 0, 4] = "OSLAR_EL1", _oslar
    table[OSLSR_EL1] = "OSLSR_EL1", _oslsr
    table[CCSIDR_EL1] = "CCSIDR_EL1", _ccsidr
    for crm in (6, 10, 14):
        table[1, 0, 7, crm, 2] = f"DC_SW_C{crm}", write_only_ignored
    for enc, name, register in (
        ((3, 3, 14, 0, 1), "CNTPCT_EL0", at.TIMER_REG_CNT),
        ((3, 3, 14, 2, 0), "CNTP_TVAL_EL0", at.TIMER_REG_TVAL),
        ((3, 3, 14, 2, 1), "CNTP_CTL_EL0", at.TIMER_REG_CTL),
        ((3, 3, 14, 2, 2), "CNTP_CVAL_EL0", at.TIMER_REG_CVAL),
    ):
        table[enc] = name, _arch_timer(register)
    table[3, 0, 9, 14, 6] = "PMMIR_EL1", raz_wi
    table |= pmu_regs.DESCS
    table[3, 0, 12, 12, 5] = "ICC_SRE_EL1", _icc_sre
    table[3, 0, 12, 11, 5] = "ICC_SGI1R_EL1", _gic_sgi(allow_group1=True)
    table[3, 0, 12, 11, 6] = "ICC_ASGI1R_EL1", _gic_sgi(allow_group1=False)
    table[3, 0, 12, 11, 7] = "ICC_SGI0R_EL1", _gic_sgi(allow_group1=False)
    return table


sys_reg_descs = _sys_reg_descs()

_BY_KEY = {e.sys64_key(*enc): access for enc, (_name, access) in sys_reg_descs.items()}


def kvm_handle_sys_reg(vcpu: Vcpu, esr: int) -> int:
    """A trapped MSR or MRS: emulate it and step over it, or inject UNDEFINED."""
    iss = esr & e.ISS_MASK
    is_read = iss & e.SYS64_READ
    if vcpu.trace.kvm_sys_access is not None:
        encoding = e.sys64_encoding(iss)
        name = sys_reg_descs[encoding][0] if encoding in sys_reg_descs else "UNKN"
        vcpu.trace.kvm_sys_access(vcpu.vcpu_id, vcpu.state.pc, name, encoding, not is_read)
    pcpu = vcpu.pcpu
    assert pcpu is not None
    pcpu.clock.advance(pcpu, TRAP_NS)
    access = _BY_KEY.get(iss & e.SYS64_REG_MASK)
    rt = iss >> 5 & 31
    try:
        if access is None:
            raise Undefined
        if is_read:
            value = access(vcpu, None)
            if rt != 31 and value is not None:
                vcpu.x[rt] = value
        else:
            access(vcpu, vcpu.x[rt] if rt != 31 else 0)
    except Undefined:
        kvm_inject_undefined(vcpu)
        return 1
    kvm_incr_pc(vcpu)
    return 1


def set_identity(vcpu: Vcpu) -> None:
    """Whose CPU it is: the host's. Its caches are made up, with lines as long (reset_clidr())."""
    kind = vcpu.vm.host.kind
    cpu = vcpu.cpu
    cpu.set_sysreg(*MIDR_EL1, kind.midr)
    cpu.set_sysreg(*CTR_EL0, kind.ctr)
    cpu.set_sysreg(*CLIDR_EL1, CLIDR_SEPARATE_L1)


def _least_ccsidr(vcpu: Vcpu, csselr: int) -> int:
    """One set of one way, as nobody should do anything by set and way; the host's least lines."""
    ctr = vcpu.vm.host.kind.ctr
    return (ctr & 0xF if csselr & CSSELR_IND else ctr >> 16 & 0xF) - CCSIDR_LINE_BASE


def get_ccsidr(vcpu: Vcpu, csselr: int) -> int:
    """What CCSIDR_EL1 reads as for a value of CSSELR_EL1."""
    if vcpu.ccsidr is None:
        return _least_ccsidr(vcpu, csselr)
    return vcpu.ccsidr[csselr]


def set_ccsidr(vcpu: Vcpu, csselr: int, value: int) -> None:
    """User space says what it is, the VM's CPUs came with it. EINVAL: lines that are too short."""
    if value & CCSIDR_LINE_SIZE < _least_ccsidr(vcpu, csselr):
        fail(errno.EINVAL)
    if vcpu.ccsidr is None:
        vcpu.ccsidr = [_least_ccsidr(vcpu, n) for n in range(CSSELR_MAX)]
    vcpu.ccsidr[csselr] = value


def set_oslsr(vcpu: Vcpu, value: int) -> None:
    """set_oslsr_el1(): user space may take the lock, and change nothing else. EINVAL."""
    if (value ^ OSLSR_OSLM) & ~OSLSR_OSLK:
        fail(errno.EINVAL)
    vcpu.sys_regs["OSLSR_EL1"] = value


def set_gic_field(vcpu: Vcpu, gic: bool) -> None:
    """ID_AA64PFR0_EL1.GIC: a CPU interface in system registers.

    A GICv3 host shows it until kvm_finalize_sys_regs(), at the first run; then it is there if the
    VM has a GICv3 in the kernel.
    """
    pfr0 = vcpu.cpu.get_sysreg(*ID_AA64PFR0_EL1)
    value = pfr0 & ~(0xF << PFR0_GIC_SHIFT) | gic << PFR0_GIC_SHIFT
    if value != pfr0:
        vcpu.cpu.set_sysreg(*ID_AA64PFR0_EL1, value)


def set_pmu_field(vcpu: Vcpu, version: int) -> None:
    """ID_AA64DFR0_EL1.PMUVer, of a vCPU that has the feature."""
    dfr0 = vcpu.cpu.get_sysreg(*ID_AA64DFR0_EL1) & ~(0xF << DFR0_PMUVER_SHIFT)
    vcpu.cpu.set_sysreg(*ID_AA64DFR0_EL1, dfr0 | version << DFR0_PMUVER_SHIFT)


def reset(vcpu: Vcpu) -> None:
    """kvm_reset_sys_regs()."""
    state = vcpu.state
    for r in STORED:
        if r.kind == "stored":
            vcpu.cpu.set_sysreg(*r.enc, RESET_UNKNOWN if r.reset is None else r.reset | r.ones)
    n = vcpu.vcpu_id
    state.mpidr_el1 = MPIDR_RES1 | n & 0xF | (n >> 4 & 0xFF) << 8 | (n >> 12 & 0xFF) << 16
    vcpu.sys_regs.clear()
    vcpu.sys_regs["OSLSR_EL1"] = OSLSR_OSLM
    vcpu.sys_regs.update(USER_ONLY.values())
