"""Every form of every description against unicorn, from random states.

One test an encoding class (a module of armkvm.isa). The system modules are not here: system
registers, traps and hints depend on the whole machine, and have tests of their own.
"""

from __future__ import annotations

import os

import pytest
from tests.oracle.differ import Differ

from armkvm.isa.all import forms
from armkvm.isa.table import Form

SAMPLES = int(os.environ.get("ARMKVM_SAMPLES", "200"))  # of each form
SEED = int(os.environ.get("ARMKVM_SEED", "1"))


def _by_class() -> dict[str, list[Form]]:
    out: dict[str, list[Form]] = {}
    for form in forms():
        out.setdefault(form.insn.semantics.__module__.rpartition(".")[2], []).append(form)
    return {name: members for name, members in out.items() if not name.startswith("system")}


CLASSES = _by_class()


@pytest.fixture(scope="module")
def differ() -> Differ:
    return Differ()


@pytest.mark.parametrize("name", CLASSES)
def test_agrees_with_unicorn(differ: Differ, name: str) -> None:
    reports = differ.differ(CLASSES[name], SAMPLES, SEED)
    shown = "\n\n".join(reports[:8])
    assert reports == [], f"{len(reports)} of {len(CLASSES[name])} forms\n\n{shown}"
