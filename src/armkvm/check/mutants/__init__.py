"""Bugs of history, one file a theme. Importing this fills the table."""

from __future__ import annotations

from armkvm.check.mutants import (
    emulation,
    late_vgic,
    protocol,
    run_loop,
    user_irqchip,
    vmm,
)
from armkvm.check.mutants.table import MUTANTS, Mutant

THEMES = (user_irqchip, protocol, late_vgic, emulation, run_loop, vmm)

__all__ = ["MUTANTS", "THEMES", "Mutant"]
