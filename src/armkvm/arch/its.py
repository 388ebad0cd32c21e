"""The Interrupt Translation Service: its registers, commands and command errors.

IHI 0069 (GICv3): chapter 5 for commands and their errors, 12.19 and 12.20 for GITS_*, 12.11 for the
redistributor's side of LPIs. Names as in linux/irqchip/arm-gic-v3.h. Left out: GICv4.
"""

from typing import Final

# The control frame, by offset; the translation frame with GITS_TRANSLATER follows it.
GITS_CTLR: Final = 0x0000
GITS_IIDR: Final = 0x0004
GITS_TYPER: Final = 0x0008
GITS_CBASER: Final = 0x0080
GITS_CWRITER: Final = 0x0088
GITS_CREADR: Final = 0x0090
GITS_BASER: Final = 0x0100
GITS_PIDR4: Final = 0xFFD0
GITS_PIDR0: Final = 0xFFE0
GITS_PIDR1: Final = 0xFFE4
GITS_PIDR2: Final = 0xFFE8
GITS_CIDR0: Final = 0xFFF0
GITS_CIDR1: Final = 0xFFF4
GITS_CIDR2: Final = 0xFFF8
GITS_CIDR3: Final = 0xFFFC
GITS_TRANSLATER: Final = 0x1_0040

GITS_CTLR_ENABLE: Final = 1 << 0
GITS_CTLR_QUIESCENT: Final = 1 << 31

GITS_TYPER_PLPIS: Final = 1 << 0
GITS_TYPER_ITT_ENTRY_SIZE_SHIFT: Final = 4
GITS_TYPER_IDBITS_SHIFT: Final = 8
GITS_TYPER_DEVBITS_SHIFT: Final = 13

# Attributes of a table's memory: where the fields are, and their values
SHAREABILITY_SHIFT: Final = 10
INNER_SHAREABLE: Final = 1
OUTER_SHAREABLE: Final = 2
CACHE_NCNB: Final = 0  # device memory
CACHE_NC: Final = 1
CACHE_RAWB: Final = 5
OUTER_SAME_AS_INNER: Final = 0

# GITS_BASER<n> and GITS_CBASER
BASER_VALID: Final = 1 << 63
BASER_INNER_SHIFT: Final = 59
BASER_OUTER_SHIFT: Final = 53
GITS_BASER_INDIRECT: Final = 1 << 62
GITS_BASER_TYPE_SHIFT: Final = 56
GITS_BASER_TYPE_DEVICE: Final = 1
GITS_BASER_TYPE_COLLECTION: Final = 4
GITS_BASER_ENTRY_SIZE_SHIFT: Final = 48
GITS_BASER_RO_MASK: Final = 0x1F << 48 | 7 << 56
GITS_BASER_PAGE_SIZE_MASK: Final = 3 << 8
GITS_BASER_PAGE_SIZE_64K: Final = 2 << 8
GITS_BASER_SIZE_MASK: Final = 0xFF
GITS_CBASER_ADDRESS: Final = 0xF_FFFF_FFFF_F000

# GICR_PROPBASER and GICR_PENDBASER
RBASER_INNER_SHIFT: Final = 7
RBASER_OUTER_SHIFT: Final = 56
GICR_PROPBASER_ADDRESS: Final = 0xF_FFFF_FFFF_F000
GICR_PROPBASER_IDBITS: Final = 0x1F
GICR_PENDBASER_ADDRESS: Final = 0xF_FFFF_FFFF_0000
GICR_PENDBASER_PTZ: Final = 1 << 62

# An entry of the LPI configuration table
LPI_PROP_ENABLED: Final = 1 << 0
LPI_PROP_PRIORITY: Final = 0xFC

# Commands, four words each; the number is in the low byte of the first
CMD_SIZE: Final = 32
CMD_MOVI: Final = 0x01
CMD_INT: Final = 0x03
CMD_CLEAR: Final = 0x04
CMD_SYNC: Final = 0x05
CMD_MAPD: Final = 0x08
CMD_MAPC: Final = 0x09
CMD_MAPTI: Final = 0x0A
CMD_MAPI: Final = 0x0B
CMD_INV: Final = 0x0C
CMD_INVALL: Final = 0x0D
CMD_MOVALL: Final = 0x0E
CMD_DISCARD: Final = 0x0F

# Command errors, as GITS_TYPER.SEIS would report them
E_MOVI_UNMAPPED_INTERRUPT: Final = 0x01_0107
E_MOVI_UNMAPPED_COLLECTION: Final = 0x01_0109
E_INT_UNMAPPED_INTERRUPT: Final = 0x01_0307
E_CLEAR_UNMAPPED_INTERRUPT: Final = 0x01_0507
E_MAPD_DEVICE_OOR: Final = 0x01_0801
E_MAPD_ITTSIZE_OOR: Final = 0x01_0802
E_MAPC_PROCNUM_OOR: Final = 0x01_0902
E_MAPC_COLLECTION_OOR: Final = 0x01_0903
E_MAPTI_UNMAPPED_DEVICE: Final = 0x01_0A04
E_MAPTI_ID_OOR: Final = 0x01_0A05
E_MAPTI_PHYSICALID_OOR: Final = 0x01_0A06
E_INV_UNMAPPED_INTERRUPT: Final = 0x01_0C07
E_INVALL_UNMAPPED_COLLECTION: Final = 0x01_0D09
E_MOVALL_PROCNUM_OOR: Final = 0x01_0E01
E_DISCARD_UNMAPPED_INTERRUPT: Final = 0x01_0F07
