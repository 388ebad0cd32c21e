"""The GIC CPU interface and its virtual half: registers, bits, interrupt IDs.

IHI 0069 (GICv3): ICH_* and ICC_*; IHI 0048 (GICv2): GICC_*, with GICV_* at the same offsets. Masks
are plain; what is a position is called _SHIFT. Names as in linux/irqchip/arm-gic-v3.h. The ITS has
a file of its own, its.py. Left out: distributors and redistributors (kvm/vgic and vmm/irqchip each
have their own).
"""

from typing import Final

# Interrupt IDs of the PPIs, as BSA (DEN0094) assigns them.
PPI_PMU: Final = 23
PPI_HYP_TIMER: Final = 26
PPI_VIRTUAL_TIMER: Final = 27
PPI_SECURE_PHYSICAL_TIMER: Final = 29
PPI_PHYSICAL_TIMER: Final = 30

# What an acknowledge register reads when there is nothing, or something of the other group only
# (IHI 0048 section 3.2.5), and the running priority of an interface with nothing active.
INTID_SPURIOUS: Final = 1023
INTID_OTHER_GROUP: Final = 1022
IDLE_PRIORITY: Final = 0xFF
# INTIDs from here on are LPIs: edge-triggered, without an active state (IHI 0069 2.2).
FIRST_LPI: Final = 8192

# The virtual CPU interface of this machine, as QEMU's and Arm's own CPUs have it.
NR_LR: Final = 4
PRI_BITS: Final = 5  # as many of preemption

# ICH_HCR_EL2: interface on; maintenance interrupts on underflow, entry not present, none pending
ICH_HCR_EN: Final = 1 << 0
ICH_HCR_UIE: Final = 1 << 1
ICH_HCR_LRENPIE: Final = 1 << 2
ICH_HCR_NPIE: Final = 1 << 3
ICH_HCR_EOICOUNT_SHIFT: Final = 27

# ICH_VMCR_EL2
ICH_VMCR_ENG0: Final = 1 << 0
ICH_VMCR_ENG1: Final = 1 << 1
ICH_VMCR_ACK_CTL: Final = 1 << 2
ICH_VMCR_FIQ_EN: Final = 1 << 3
ICH_VMCR_CBPR: Final = 1 << 4
ICH_VMCR_EOIM: Final = 1 << 9
ICH_VMCR_BPR1_SHIFT: Final = 18
ICH_VMCR_BPR0_SHIFT: Final = 21
ICH_VMCR_PMR_SHIFT: Final = 24
# Its bits that GICV_CTLR (and so GICC_CTLR) has at the same places.
ICH_VMCR_GICC_CTLR: Final = (
    ICH_VMCR_ENG0 | ICH_VMCR_ENG1 | ICH_VMCR_ACK_CTL | ICH_VMCR_FIQ_EN | ICH_VMCR_CBPR
    | ICH_VMCR_EOIM
)  # fmt: skip

# ICH_LR<n>_EL2
ICH_LR_CPUID_SHIFT: Final = 10  # in the virtual INTID: who sent a GICv2's SGI
ICH_LR_PHYS_ID_SHIFT: Final = 32
ICH_LR_EOI: Final = 1 << 41
ICH_LR_PRIORITY_SHIFT: Final = 48
ICH_LR_GROUP_SHIFT: Final = 60
ICH_LR_GROUP: Final = 1 << ICH_LR_GROUP_SHIFT
ICH_LR_HW: Final = 1 << 61
ICH_LR_STATE_SHIFT: Final = 62
ICH_LR_PENDING: Final = 1 << ICH_LR_STATE_SHIFT
ICH_LR_ACTIVE: Final = 2 << ICH_LR_STATE_SHIFT
ICH_LR_STATE: Final = 3 << ICH_LR_STATE_SHIFT

# ICC_CTLR_EL1
ICC_CTLR_CBPR: Final = 1 << 0
ICC_CTLR_EOIMODE: Final = 1 << 1
ICC_CTLR_PRI_BITS_SHIFT: Final = 8
ICC_CTLR_ID_BITS_SHIFT: Final = 11
ICC_CTLR_SEIS: Final = 1 << 14
ICC_CTLR_A3V: Final = 1 << 15

# ICC_SRE_EL1: system registers, no bypass
ICC_SRE_SRE: Final = 1 << 0
ICC_SRE_DFB: Final = 1 << 1
ICC_SRE_DIB: Final = 1 << 2

# The frame of GICC_* (a guest sees GICV_* there), by offset
GICC_SIZE: Final = 0x2000
GICC_CTLR: Final = 0x0000
GICC_PMR: Final = 0x0004
GICC_BPR: Final = 0x0008
GICC_IAR: Final = 0x000C
GICC_EOIR: Final = 0x0010
GICC_RPR: Final = 0x0014
GICC_HPPIR: Final = 0x0018
GICC_ABPR: Final = 0x001C
GICC_AIAR: Final = 0x0020
GICC_AEOIR: Final = 0x0024
GICC_AHPPIR: Final = 0x0028
GICC_APR: Final = 0x00D0
GICC_NSAPR: Final = 0x00E0
GICC_IIDR: Final = 0x00FC
GICC_DIR: Final = 0x1000

# GICC_CTLR without the Security Extensions (IHI 0048 4.4.1)
GICC_CTLR_ENABLE_GRP0: Final = 1 << 0
GICC_CTLR_ENABLE_GRP1: Final = 1 << 1
GICC_CTLR_ACK_CTL: Final = 1 << 2
GICC_CTLR_FIQ_EN: Final = 1 << 3
GICC_CTLR_CBPR: Final = 1 << 4
GICC_CTLR_BYPASS_DISABLE: Final = 0xF << 5
GICC_CTLR_EOIMODE: Final = 1 << 9
