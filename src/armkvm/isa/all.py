"""Every instruction: importing this module fills the table."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection

import armkvm.isa
from armkvm.isa.table import FEATURES, TABLE, Form, Insn

# A sub-package holds instructions; what lies beside it is the language they are written in.
for _module in sorted(m.name for m in pkgutil.walk_packages(armkvm.isa.__path__, "armkvm.isa.")):
    if _module.count(".") > 2:
        importlib.import_module(_module)

INSTRUCTIONS: list[Insn] = list(TABLE)


def forms() -> list[Form]:
    """All forms of all instructions, in table order."""
    return [form for entry in INSTRUCTIONS for form in entry.forms()]


def announced(table: Collection[Insn] = INSTRUCTIONS) -> dict[str, int]:
    """What ID registers say of the features of a table, by lower-case name.

    Nothing may be claimed that is not there: a field is set when all of its feature is.
    """
    out: dict[str, int] = {}
    for feature in FEATURES.values():
        if feature.field is not None:
            register, lowest, value = feature.field
            says = value if feature.complete(table) else feature.absent
            out[register] = out.get(register, 0) | says << lowest
    return out
