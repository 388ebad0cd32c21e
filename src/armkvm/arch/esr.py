"""ESR_EL2 and ESR_EL1: exception classes and the fields of their syndromes.

Arm ARM D17.2.37 (ESR_EL2), and asm/esr.h for the names. Left out: what nobody here raises or
reads.
"""

from typing import Final

EC_SHIFT: Final = 26
IL: Final = 1 << 25  # a 32-bit instruction
ISS_MASK: Final = (1 << 25) - 1

EC_UNKNOWN: Final = 0x00
EC_WFX: Final = 0x01
EC_FP_ASIMD: Final = 0x07
EC_ILL: Final = 0x0E
EC_SVC64: Final = 0x15
EC_HVC64: Final = 0x16
EC_SMC64: Final = 0x17
EC_SYS64: Final = 0x18
EC_SVE: Final = 0x19
EC_IABT_LOW: Final = 0x20
EC_IABT_CUR: Final = 0x21
EC_PC_ALIGN: Final = 0x22
EC_DABT_LOW: Final = 0x24
EC_DABT_CUR: Final = 0x25
EC_SP_ALIGN: Final = 0x26
EC_SERROR: Final = 0x2F
EC_BREAKPT_LOW: Final = 0x30
EC_SOFTSTP_LOW: Final = 0x32
EC_WATCHPT_LOW: Final = 0x34
EC_BRK64: Final = 0x3C

SERROR_IDS: Final = 1 << 24  # SError: the rest of the ISS is implementation defined

EC_NAMES: Final = {
    EC_UNKNOWN: "UNKNOWN",
    EC_WFX: "WFx",
    EC_FP_ASIMD: "FP_ASIMD",
    EC_ILL: "ILL",
    EC_SVC64: "SVC64",
    EC_HVC64: "HVC64",
    EC_SMC64: "SMC64",
    EC_SYS64: "SYS64",
    EC_SVE: "SVE",
    EC_IABT_LOW: "IABT_LOW",
    EC_IABT_CUR: "IABT_CUR",
    EC_PC_ALIGN: "PC_ALIGN",
    EC_DABT_LOW: "DABT_LOW",
    EC_DABT_CUR: "DABT_CUR",
    EC_SP_ALIGN: "SP_ALIGN",
    EC_SERROR: "SERROR",
    EC_BREAKPT_LOW: "BREAKPT_LOW",
    EC_SOFTSTP_LOW: "SOFTSTP_LOW",
    EC_WATCHPT_LOW: "WATCHPT_LOW",
    EC_BRK64: "BRK64",
}

# Data abort: ISS with a valid instruction syndrome
DABT_ISV: Final = 1 << 24
DABT_SAS_SHIFT: Final = 22
DABT_SSE: Final = 1 << 21
DABT_SRT_SHIFT: Final = 16
DABT_SF: Final = 1 << 15
DABT_AR: Final = 1 << 14
DABT_CM: Final = 1 << 8
DABT_S1PTW: Final = 1 << 7
DABT_WNR: Final = 1 << 6

FSC_MASK: Final = 0x3F
FSC_TYPE_MASK: Final = 0x3C
FSC_ADDRESS_SIZE: Final = 0x00
FSC_TRANSLATION: Final = 0x04
FSC_ACCESS: Final = 0x08
FSC_PERMISSION: Final = 0x0C
FSC_EXTABT: Final = 0x10
FSC_EXTABT_TTW: Final = 0x14  # on a walk; the level is added, as to the four types above
FSC_ALIGNMENT: Final = 0x21
FSC_DEBUG: Final = 0x22
FSC_TRANSLATION_L3: Final = FSC_TRANSLATION | 3

# FP_ASIMD, WFx, SYS64 of a conditional instruction: CV, and COND 0b1110 (always)
CV_ALWAYS: Final = 0x1E << 20

# WFx: what was executed
WFX_TI_WFE: Final = 1

# MSR/MRS: everything but Rt and the direction names the register
SYS64_REG_MASK: Final = 0x3FFC1E
SYS64_READ: Final = 1


def sys64_key(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """A register's encoding as it stands in the ISS of a trapped MSR or MRS."""
    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1


def sys64_encoding(iss: int) -> tuple[int, int, int, int, int]:
    """(op0, op1, CRn, CRm, op2) of a trapped MSR or MRS."""
    return iss >> 20 & 3, iss >> 14 & 7, iss >> 10 & 15, iss >> 1 & 15, iss >> 17 & 7


def syndrome(ec: int, iss: int = 0) -> int:
    """ESR_ELx of a 32-bit instruction."""
    return ec << EC_SHIFT | IL | iss
