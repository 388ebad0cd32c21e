"""The ID registers of this implementation (D17.2).

What they say of instructions comes from the table: a field is set when all of its feature is there
(isa/table.py: Feature, isa/all.py: announced). Fields that describe the machine around the
instructions (exception levels, address sizes, caches, debug resources) are constants here.
"""

from __future__ import annotations

from collections.abc import Mapping

from armkvm.arch.debug import BREAKPOINTS, CONTEXT_AWARE, WATCHPOINTS

MIDR = (
    0x000F_A4B1  # implementer 0: reserved for software use; architecture 0xf: see the ID registers
)


def _debug_resources() -> int:
    """BRPs, WRPs and CTX_CMPs."""
    return BREAKPOINTS - 1 << 12 | WATCHPOINTS - 1 << 20 | len(CONTEXT_AWARE) - 1 << 28


def id_registers(announced: Mapping[str, int]) -> dict[str, int]:
    """Values of the ID registers that are not zero, by lower-case name."""
    machine = {
        "midr_el1": MIDR,
        # EL0, EL1: AArch64 only. CSV2, CSV3: nothing here speculates.
        "id_aa64pfr0_el1": 1 | 1 << 4 | 1 << 56 | 1 << 60,
        # DebugVer Armv8.0
        "id_aa64dfr0_el1": 6 | _debug_resources(),
        # 44-bit addresses, 16-bit ASIDs, all three granules.
        "id_aa64mmfr0_el1": 4 | 2 << 4 | 1 << 20,
        # Lines of 64 bytes. IDC: stores need no cleaning. Not DIC: fetching what somebody else has
        # written takes IC IVAU.
        "ctr_el0": 1 << 31 | 1 << 28 | 4 << 24 | 4 << 20 | 4 << 16 | 3 << 14 | 4,
        "clidr_el1": 1 << 27 | 1 << 24 | 1 << 21 | 3,
    }
    return {
        name: machine.get(name, 0) | announced.get(name, 0) for name in {**machine, **announced}
    }
