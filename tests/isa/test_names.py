"""Every name of the engine that a description uses is there, with as many arguments.

Descriptions ask for native functions, routines and fields of the CPU state by name. A wrong one
would be an error of LLVM's parser half a minute into a compilation; here it is told in half a
second, with the instruction that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator

import llvmlite.binding as llvm
import pytest
from tests.engine.interp.forms import described

from armkvm.engine import generate
from armkvm.engine.hosts import host_of
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm.module import Module
from armkvm.isa.all import INSTRUCTIONS
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import Insn


def wrong(insn: Insn, known: Module) -> Iterator[str]:
    """What an instruction asks for in vain."""
    for form in insn.forms():
        for slow in (False, True):
            trace = Handler(form, "h", slow=slow)
            try:
                trace.trace()
            except KeyError as e:
                yield f"{form.name}: no field {e}"
            trace.calls.pop(trace.slow_twin.name, None)
            yield from (f"{form.name}: {what}" for what in known.wrong(trace.calls))


@pytest.fixture(scope="module")
def known() -> Module:
    """What the engine defines without any instruction."""
    return generate.module(host_of(llvm.get_default_triple()), all_forms=[])


def test_every_name_exists(known: Module) -> None:
    assert [w for insn in INSTRUCTIONS for w in wrong(insn, known)] == []


def test_a_wrong_name_is_told(known: Module) -> None:
    def finish(m: Machine, Rt: Field) -> None:
        m.finish("sys_to_el2")

    def ask(m: Machine, Rt: Field) -> None:
        m.set_X(Rt, m.ask("read_fpsr", m.count()))  # takes the CPU alone

    def get(m: Machine, Rt: Field) -> None:
        m.set_X(Rt, m.get("fpsrr"))

    told = [
        next(wrong(described(f"{0:027b} Rt:5", semantics, name="X"), known), None)
        for semantics in (finish, ask, get)
    ]
    assert told == [
        "X: sys_to_el2 is called as routine, and is not there",
        "X: read_fpsr is called as i64 (ptr, i64), and is i64 (ptr)",
        "X: no field 'fpsrr'",
    ]
