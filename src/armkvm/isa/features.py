"""ID registers, computed from the features that the table of instructions implements (D17.2).

Nothing here may claim what is not there: a feature's field is set only where its instructions are
in the table. Fields that describe the machine around the instructions (address sizes, caches, debug
resources) are constants of this implementation.
"""

from __future__ import annotations

from collections.abc import Collection

MIDR = (
    0x000F_A4B1  # implementer 0: reserved for software use; architecture 0xf: see the ID registers
)


def id_registers(features: Collection[str]) -> dict[str, int]:
    """Values of the ID registers that are not zero, by lower-case name."""
    has = {f: int(f in features) for f in ("fp", "asimd", "crc32", "lse")}
    pfr0 = 1 | 1 << 4  # EL0, EL1: AArch64 only
    if not (has["fp"] and has["asimd"]):
        pfr0 |= 0xF << 16 | 0xF << 20
    pfr0 |= 1 << 56 | 1 << 60  # CSV2, CSV3: nothing here speculates
    return {
        "midr_el1": MIDR,
        "id_aa64pfr0_el1": pfr0,
        # DebugVer Armv8.0, 6 breakpoints, 4 watchpoints, 2 of the breakpoints match contexts.
        "id_aa64dfr0_el1": 6 | 5 << 12 | 3 << 20 | 1 << 28,
        "id_aa64isar0_el1": has["crc32"] << 16 | (2 * has["lse"]) << 20,
        # 44-bit addresses, 16-bit ASIDs, all three granules.
        "id_aa64mmfr0_el1": 4 | 2 << 4 | 1 << 20,
        # Lines of 64 bytes. IDC: stores need no cleaning. Not DIC: fetching what somebody else has
        # written takes IC IVAU.
        "ctr_el0": 1 << 31 | 1 << 28 | 4 << 24 | 4 << 20 | 4 << 16 | 3 << 14 | 4,
        "clidr_el1": 1 << 27 | 1 << 24 | 1 << 21 | 3,
        "ccsidr_el1": 127 << 13 | 3 << 3 | 2,
    }
