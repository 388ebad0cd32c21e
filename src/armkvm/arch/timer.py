"""The generic timer: bits of its registers, and the rate that this machine's counters have.

Arm ARM D11.2 and D17.11. Masks are plain; what is a position is called _SHIFT. The timers'
interrupts are PPIs: see arch/gic.py.
"""

from typing import Final

# CNT<n>_CTL_EL0
CTL_ENABLE: Final = 1 << 0
CTL_IMASK: Final = 1 << 1
CTL_ISTATUS: Final = 1 << 2


def armed(ctl: int) -> bool:
    """The timer's output follows its condition: ENABLE, not IMASK (D11.2.4)."""
    return ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE



# CNTKCTL_EL1: what EL0 may use without a trap to EL1
CNTKCTL_EL0PCTEN: Final = 1 << 0
CNTKCTL_EL0VCTEN: Final = 1 << 1
CNTKCTL_EL0VTEN: Final = 1 << 8
CNTKCTL_EL0PTEN: Final = 1 << 9

# CNTHCTL_EL2 while HCR_EL2.E2H is 0: what EL1 may use without a trap to EL2
CNTHCTL_EL1PCTEN: Final = 1 << 0
CNTHCTL_EL1PCEN: Final = 1 << 1

# The counters run at 62.5 MHz: one tick is 16 ns, so that converting is a shift.
NS_PER_TICK_SHIFT: Final = 4
FREQUENCY: Final = 1_000_000_000 >> NS_PER_TICK_SHIFT

NEVER: Final = 2**63 - 1  # in ns or instructions: a deadline that is off, a limit that is not set
