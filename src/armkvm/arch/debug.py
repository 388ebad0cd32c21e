"""Breakpoint and watchpoint registers (Arm ARM D2.9, D17.3: DBGBCR<n>_EL1, DBGWCR<n>_EL1).

Left out: fields that nobody here reads.
"""

from typing import Final, NamedTuple

# ID_AA64DFR0_EL1.BRPs, CTX_CMPs and WRPs, plus one each: as Cortex-A57 and A76 have them
BREAKPOINTS: Final = 6
CONTEXT_AWARE: Final = range(4, BREAKPOINTS)  # compare a context too
WATCHPOINTS: Final = 4

# DBGBCR<n>_EL1 and DBGWCR<n>_EL1
DBGCR_E: Final = 1 << 0
DBGCR_PC_SHIFT: Final = 1  # PMC, PAC: at EL1, at EL0
DBGCR_HMC: Final = 1 << 13
DBGCR_SSC_SHIFT: Final = 14
DBGCR_LBN_SHIFT: Final = 16  # four bits: the breakpoint that it is linked to

BCR_BT_SHIFT: Final = 20  # four bits: what it compares
BT_ADDRESS: Final = 0b0000
BT_ADDRESS_LINKED: Final = 0b0001  # and the context of another
BT_CONTEXT: Final = 0b0010  # CONTEXTIDR_EL1
BT_CONTEXT_LINKED: Final = 0b0011  # for those that link to it

WCR_LSC_SHIFT: Final = 3
WCR_BAS_SHIFT: Final = 5  # eight bits, a byte each
WCR_WT: Final = 1 << 20  # linked
WCR_MASK_SHIFT: Final = 24  # five bits: how many bits of the address are ignored

PC_EL1, PC_EL0 = 1, 2
LSC_LOAD, LSC_STORE = 1, 2

# Without large addresses (FEAT_LVA) bits [48:2] of an address are compared: a tag never is.
DEBUG_ADDRESS: Final = (1 << 49) - 1


class Watchpoint(NamedTuple):
    """One watchpoint: its two registers, and the context ID that it is linked to (WT)."""

    value: int  # DBGWVR<n>_EL1
    control: int  # DBGWCR<n>_EL1
    context: int = 0  # DBGBVR<LBN>_EL1[31:0]


def state_match(control: int, el: int) -> bool:
    """AArch64.StateMatch() at EL1 or EL0 in Non-secure state; reserved combinations disable.

    With HMC there is EL0 only together with EL1.
    """
    if control >> DBGCR_SSC_SHIFT & 2:
        return False
    wanted = PC_EL1 if el else PC_EL0 | PC_EL1 * bool(control & DBGCR_HMC)
    return control >> DBGCR_PC_SHIFT & wanted == wanted
