"""The scenarios, one file a theme. Importing this fills the table of scenario.py.

Guests are in scripts.py; VMs and threads that several themes need are in parts.py.
"""

from __future__ import annotations

from armkvm.check.scenario import SCENARIOS
from armkvm.check.scenarios import lines, lives, timers, vgics

THEMES = (timers, lines, vgics, lives)

__all__ = ["SCENARIOS", "THEMES"]
