"""The scenarios, one file a theme. Importing this fills the table of table.py.

Guests are in scripts.py; VMs and threads that several themes need are in parts.py.
"""

from __future__ import annotations

from armkvm.check.scenarios import (
    late_vgic,
    lines,
    lives,
    protocol,
    psci,
    registers,
    timers,
    user_space,
    vcpus,
    vgics,
)
from armkvm.check.scenarios.table import SCENARIOS

THEMES = (timers, lines, user_space, vgics, late_vgic, vcpus, psci, lives, registers, protocol)


def _in_order() -> None:
    """The table has them theme by theme, in whatever order they were imported."""
    order = [theme.__name__ for theme in THEMES]
    entries = sorted(SCENARIOS.items(), key=lambda item: order.index(item[1].setup.__module__))
    SCENARIOS.clear()
    SCENARIOS.update(entries)


_in_order()

__all__ = ["SCENARIOS", "THEMES"]
