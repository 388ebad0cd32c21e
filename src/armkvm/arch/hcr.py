"""HCR_EL2: the bits by which a hypervisor raises virtual interrupts (Arm ARM D17.2.48).

Left out: its traps. What EL1 finds trapped is said where it traps: WFE by the CPU state's `twe`,
registers by rows of arch/sysreg.py.
"""

from typing import Final

HCR_VF: Final = 1 << 6
HCR_VI: Final = 1 << 7
HCR_VSE: Final = 1 << 8
