"""Every instruction: importing this module fills the table."""

from __future__ import annotations

import importlib
import pkgutil

import armkvm.isa
from armkvm.isa.table import TABLE, Form, Insn

_INFRASTRUCTURE = {
    "all",
    "value",
    "field",
    "machine",
    "table",
    "decode",
    "disasm",
    "asm",
    "sysreg",
    "features",
}

for _module in sorted(m.name for m in pkgutil.iter_modules(armkvm.isa.__path__)):
    if _module not in _INFRASTRUCTURE:
        importlib.import_module(f"armkvm.isa.{_module}")

INSTRUCTIONS: list[Insn] = list(TABLE)


def forms() -> list[Form]:
    """All forms of all instructions, in table order."""
    return [form for entry in INSTRUCTIONS for form in entry.forms()]


def features() -> set[str]:
    """The features that the table implements."""
    return {entry.feature for entry in INSTRUCTIONS}
