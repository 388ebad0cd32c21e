"""Every form of every description against unicorn, from random states.

One test an encoding class (a module of armkvm.isa). The system modules are not here: system
registers, traps and hints depend on the whole machine, and have tests of their own.
"""

from __future__ import annotations

import os

import pytest
from tests.oracle.differ import Differ
from tests.oracle.samples import CODE, Sample

from armkvm.isa.all import forms
from armkvm.isa.disasm import decode
from armkvm.isa.table import Form

# Compared as parts of whole systems (tests/lockstep), not one by one.
SYSTEM = ("base.exceptions", "base.registers", "base.sys_ops")

SAMPLES = int(os.environ.get("ARMKVM_SAMPLES", "200"))  # of each form
SEED = int(os.environ.get("ARMKVM_SEED", "1"))


def _by_class() -> dict[str, list[Form]]:
    out: dict[str, list[Form]] = {}
    for form in forms():
        out.setdefault(form.insn.encoding_class, []).append(form)
    return {name: members for name, members in out.items() if name not in SYSTEM}


CLASSES = _by_class()


@pytest.fixture(scope="module")
def differ() -> Differ:
    return Differ()


@pytest.mark.parametrize("name", CLASSES)
def test_agrees_with_unicorn(differ: Differ, name: str) -> None:
    reports = differ.differ(CLASSES[name], SAMPLES, SEED)
    shown = "\n\n".join(reports[:8])
    assert reports == [], f"{len(reports)} of {len(CLASSES[name])} forms\n\n{shown}"


def test_a_wrong_result_would_be_reported(differ: Differ) -> None:
    """The peer gets SUB where the subject gets ADD."""
    add, sub = 0x8B020020, 0xCB020020
    registers = b"".join(i.to_bytes(8, "little") for i in range(32)) + bytes(512)
    differ.subject.place(add.to_bytes(4, "little"))
    differ.peer.place(sub.to_bytes(4, "little"))
    form = decode(add)
    assert form is not None
    report = differ.compare(form, CODE, Sample(add, registers), memory=False)
    assert report is not None
    assert "add x0, x1, x2" in report
    assert "X0: 0000000000000003, expected ffffffffffffffff" in report
