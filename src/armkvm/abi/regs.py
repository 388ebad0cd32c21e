"""Register ids of KVM_GET_ONE_REG and KVM_SET_ONE_REG: asm-arm64/kvm.h and linux/kvm.h.

An id holds the architecture (63:56), the size as a power of two (55:52), the group (27:16) and an
index in that group. Two timer ids carry the encoding of each other's register: CVAL has
CNTVCT_EL0's and CNT has CNTV_CVAL_EL0's. Users depend on it, so it stays.
"""

from armkvm.abi.structs import KvmRegs

KVM_REG_ARM64 = 0x6000_0000_0000_0000
KVM_REG_SIZE_SHIFT = 52
KVM_REG_SIZE_MASK = 0x00F0_0000_0000_0000
KVM_REG_SIZE_U32 = 2 << KVM_REG_SIZE_SHIFT
KVM_REG_SIZE_U64 = 3 << KVM_REG_SIZE_SHIFT
KVM_REG_SIZE_U128 = 4 << KVM_REG_SIZE_SHIFT

KVM_REG_ARM_COPROC_MASK = 0x0FFF_0000
KVM_REG_ARM_CORE = 0x0010 << 16
KVM_REG_ARM_DEMUX = 0x0011 << 16
KVM_REG_ARM_DEMUX_ID_SHIFT = 8
KVM_REG_ARM_DEMUX_ID_CCSIDR = 0
KVM_REG_ARM64_SYSREG = 0x0013 << 16
KVM_REG_ARM_FW = 0x0014 << 16
KVM_REG_ARM_FW_FEAT_BMAP = 0x0016 << 16


def reg_size(reg_id: int) -> int:
    """Bytes of the register that the id names."""
    return 1 << (reg_id >> KVM_REG_SIZE_SHIFT & 0xF)


def core_reg(offset: int, size: int = KVM_REG_SIZE_U64) -> int:
    """Id of the core register at `offset` bytes in struct kvm_regs."""
    return KVM_REG_ARM64 | size | KVM_REG_ARM_CORE | offset // 4


def sys_reg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Id of a system register (ARM64_SYS_REG)."""
    index = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
    return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG | index


def ccsidr_reg(csselr: int) -> int:
    """Id of the CCSIDR_EL1 that is read when CSSELR_EL1 has this value."""
    cache = KVM_REG_ARM_DEMUX_ID_CCSIDR << KVM_REG_ARM_DEMUX_ID_SHIFT | csselr
    return KVM_REG_ARM64 | KVM_REG_SIZE_U32 | KVM_REG_ARM_DEMUX | cache


def fw_reg(number: int) -> int:
    """Id of a firmware register."""
    return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW | number


def fw_feat_bmap_reg(number: int) -> int:
    """Id of a register that lists the hypercall services offered to the guest."""
    return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW_FEAT_BMAP | number


def core_x(n: int) -> int:
    """Id of general register X<n>, n in 0..30."""
    return core_reg(KvmRegs.regs.offset + 8 * n)


CORE_SP = core_reg(KvmRegs.regs.offset + 8 * 31)
CORE_PC = core_reg(KvmRegs.regs.offset + 8 * 32)
CORE_PSTATE = core_reg(KvmRegs.regs.offset + 8 * 33)
CORE_SP_EL1 = core_reg(KvmRegs.sp_el1.offset)
CORE_ELR_EL1 = core_reg(KvmRegs.elr_el1.offset)
CORE_SPSR_EL1 = core_reg(KvmRegs.spsr.offset)

KVM_REG_ARM_TIMER_CTL = sys_reg(3, 3, 14, 3, 1)
KVM_REG_ARM_TIMER_CVAL = sys_reg(3, 3, 14, 0, 2)
KVM_REG_ARM_TIMER_CNT = sys_reg(3, 3, 14, 3, 2)
KVM_REG_ARM_PTIMER_CTL = sys_reg(3, 3, 14, 2, 1)
KVM_REG_ARM_PTIMER_CVAL = sys_reg(3, 3, 14, 2, 2)
KVM_REG_ARM_PTIMER_CNT = sys_reg(3, 3, 14, 0, 1)

KVM_REG_ARM_PSCI_VERSION = fw_reg(0)
KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1 = fw_reg(1)
KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2 = fw_reg(2)
KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3 = fw_reg(3)
KVM_REG_ARM_STD_BMAP = fw_feat_bmap_reg(0)
KVM_REG_ARM_STD_HYP_BMAP = fw_feat_bmap_reg(1)
KVM_REG_ARM_VENDOR_HYP_BMAP = fw_feat_bmap_reg(2)
