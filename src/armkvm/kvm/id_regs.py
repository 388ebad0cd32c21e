"""ID registers as user space writes them, after arch/arm64/kvm/sys_regs.c (set_id_reg()).

Before the first run user space may lower what a VM's vCPUs are: in the fields that KVM lets it
write, to a value that the CPU's own implies (arm64_check_features()). The registers are the VM's:
a write to one vCPU's is a write to all. KVM_ARM_GET_REG_WRITABLE_MASKS says which fields those are.

Lowering hides a feature, its instructions still work, as on hardware that KVM cannot trap. The
engine has no AArch32, so its ID registers read as zero and ignore writes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from armkvm.arch.sysreg import Encoding
from armkvm.arch.word import M64
from armkvm.kvm.file import fail

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

FEATURE_ID_RANGE_SIZE: Final = 3 * 8 * 8  # KVM_ARM_FEATURE_ID_RANGE_SIZE, in masks


def _id(crm: int, op2: int) -> Encoding:
    return 3, 0, 0, crm, op2


def _fields(*shifts: int) -> int:
    """The fields of four bits that begin there."""
    return sum(0xF << shift for shift in shifts)


def _but(*shifts: int) -> int:
    return ~_fields(*shifts) & M64


PFR0, PFR1, DFR0 = _id(4, 0), _id(4, 1), _id(5, 0)
MMFR0, MMFR1 = _id(7, 0), _id(7, 1)
CTR_EL0: Final[Encoding] = (3, 3, 0, 0, 1)
CLIDR_EL1: Final[Encoding] = (3, 1, 0, 0, 1)

# What is writable, by register: the `val` of sys_reg_descs[].
WRITABLE: Final[dict[Encoding, int]] = {
    PFR0: _but(16, 20, 28, 32, 40, 44),  # FP, AdvSIMD, RAS, SVE, MPAM, AMU
    PFR1: _fields(0, 4, 32),  # BT, SSBS, CSV2_frac
    _id(4, 2): _fields(32),  # ID_AA64PFR2_EL1: FPMR
    _id(4, 4): _but(8, 12, 28, 36, 48, 60),  # ID_AA64ZFR0_EL1
    _id(4, 7): 0xF000_0003,  # ID_AA64FPFR0_EL1
    DFR0: _fields(0, 8, 20, 36),  # DebugVer, PMUVer, WRPs, DoubleLock
    _id(6, 0): _but(0),  # ID_AA64ISAR0_EL1
    _id(6, 1): _but(4, 8, 24, 28),  # ID_AA64ISAR1_EL1: pointer authentication
    _id(6, 2): _but(8, 12, 44),  # ID_AA64ISAR2_EL1: pointer authentication
    MMFR0: _but(4, 32, 36, 40, 48, 52),  # ASIDBits, TGran*_2
    MMFR1: _but(4, 8, 28, 32, 40),  # VMIDBits, VH, XNX, TWED, HCX
    _id(7, 2): _but(20, 24, 36, 40, 44, 56),  # ID_AA64MMFR2_EL1: CCIDX, NV, IDS, FWB, EVT
    _id(7, 3): _fields(0, 8, 16),  # ID_AA64MMFR3_EL1: TCRX, S1PIE, S1POE
    CTR_EL0: 1 << 29 | 1 << 28 | _fields(0, 16),  # DIC, IDC, DminLine, IminLine
    CLIDR_EL1: (1 << 47) - 1,
}
# Not the VM's, and not made of features: a vCPU's own, with a check of its own.
_CLIDR_RES0 = ~WRITABLE[CLIDR_EL1]

# Fields that are not unsigned numbers of which a lower one is the safe one (arm64_ftr_bits).
_SIGNED = {(DFR0, 36), (MMFR0, 24), (MMFR0, 28)}  # DoubleLock, TGran64, TGran4
_HIGHER_SAFE = {(MMFR1, 24)}  # SpecSEI
_CTR_FIELDS = ((0, 4), (16, 4), (28, 1), (29, 1))

# Of the AArch32 ones, those that KVM hides or that nobody has allocated take zero and nothing else.
_AA32_HIDDEN = {_id(1, 3), _id(3, 3), _id(3, 5), _id(3, 7)}

_PMUVER_SHIFT, _PMUVER_IMP_DEF, _DEBUGVER_IMP = 8, 0xF, 6


def is_aa32(enc: Encoding) -> bool:
    """is_aa32_id_reg()."""
    return enc[:3] == (3, 0, 0) and 1 <= enc[3] <= 3


def is_vm_id(enc: Encoding) -> bool:
    """is_vm_ftr_id_reg(): a register that KVM keeps for the whole VM."""
    return enc == CTR_EL0 or (enc[:3] == (3, 0, 0) and 1 <= enc[3] <= 7)


def masks() -> bytes:
    """KVM_ARM_GET_REG_WRITABLE_MASKS: a word for each register that could be a feature ID's."""
    table = [0] * FEATURE_ID_RANGE_SIZE
    for (_op0, op1, _crn, crm, op2), mask in WRITABLE.items():
        table[(op1 - (op1 == 3)) << 6 | crm << 3 | op2] = mask
    return b"".join(mask.to_bytes(8, "little") for mask in table)


def set_up(vcpu: Vcpu) -> None:
    """A vCPU is initialised: remember what it could be at most, make it what the VM's are."""
    cpu = vcpu.cpu
    vcpu.id_limits = {enc: cpu.get_sysreg(*enc) for enc in WRITABLE}
    for enc, value in vcpu.vm.id_regs.items():
        cpu.set_sysreg(*enc, value)


def shows_gic(vm: Vm) -> bool:
    """User space has not hidden the GIC's system registers (ID_AA64PFR0_EL1.GIC)."""
    return bool(vm.id_regs.get(PFR0, _fields(24)) & _fields(24))


def set_id_reg(vcpu: Vcpu, enc: Encoding, value: int) -> None:
    """KVM_SET_ONE_REG of an ID register. EINVAL; EBUSY: the VM has run with another value."""
    if enc == CLIDR_EL1:
        _set_clidr(vcpu, value)
        return
    held = vcpu.cpu.get_sysreg(*enc)
    if not is_vm_id(enc):
        if value != held:
            fail(errno.EINVAL)  # what the host's CPU is
        return
    if is_aa32(enc) and enc not in _AA32_HIDDEN:
        return
    vm = vcpu.vm
    if enc == DFR0:
        value = _debug_features(value)
    with vm.config_lock:
        if vm.has_run:
            if value != held:
                fail(errno.EBUSY)
            return
        if not _implied(enc, value, vcpu.id_limits.get(enc, held)):
            fail(errno.EINVAL)
        if value == held:
            return
        vm.id_regs[enc] = value
        for other in vm.vcpus:
            if other.initialized and not other.closed:
                other.cpu.set_sysreg(*enc, value)


def _implied(enc: Encoding, value: int, limit: int) -> bool:
    """arm64_check_features(): the CPU has all that this value promises."""
    writable = WRITABLE.get(enc, 0)
    mask = 0
    for shift, width in _layout(enc):
        field = (1 << width) - 1 << shift
        if field & writable != field:
            continue
        mask |= field
        new, most = ((v & field) >> shift for v in (value, limit))
        if (enc, shift) in _SIGNED:
            new, most = ((v ^ 8) - 8 for v in (new, most))
        if new != most and (new < most) == ((enc, shift) in _HIGHER_SAFE):
            return False
    return value & ~mask == limit & ~mask


def _layout(enc: Encoding) -> Iterator[tuple[int, int]]:
    if enc == CTR_EL0:
        yield from _CTR_FIELDS
    else:
        yield from ((shift, 4) for shift in range(0, 64, 4))


def _debug_features(value: int) -> int:
    """set_id_aa64dfr0_el1(): an IMPLEMENTATION DEFINED PMU is none; there is a least DebugVer."""
    if value >> _PMUVER_SHIFT & 0xF == _PMUVER_IMP_DEF:
        value &= ~_fields(_PMUVER_SHIFT)
    if value & 0xF < _DEBUGVER_IMP:
        fail(errno.EINVAL)
    return value


def _set_clidr(vcpu: Vcpu, value: int) -> None:
    """set_clidr(): no caches that make cleaning needless, unless CTR_EL0.IDC says so too."""
    loc, louis, louu = (value >> shift & 7 for shift in (24, 21, 27))
    idc = not loc or (not louis and not louu)
    if value & _CLIDR_RES0 or (idc and not vcpu.vm.host.kind.ctr >> 28 & 1):
        fail(errno.EINVAL)
    vcpu.cpu.set_sysreg(*CLIDR_EL1, value)
