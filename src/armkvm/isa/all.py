"""Every instruction: importing this module fills the table."""

from __future__ import annotations

import importlib
import pkgutil

import armkvm.isa
from armkvm.isa.table import TABLE, Form, Insn

# A sub-package holds instructions; what lies beside it is the language they are written in.
for _module in sorted(m.name for m in pkgutil.walk_packages(armkvm.isa.__path__, "armkvm.isa.")):
    if _module.count(".") > 2:
        importlib.import_module(_module)

INSTRUCTIONS: list[Insn] = list(TABLE)


def forms() -> list[Form]:
    """All forms of all instructions, in table order."""
    return [form for entry in INSTRUCTIONS for form in entry.forms()]


def features() -> set[str]:
    """The features that the table implements."""
    return {entry.feature for entry in INSTRUCTIONS}
