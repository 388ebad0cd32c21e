"""Every name of the engine that a description uses is there, with as many arguments.

Descriptions ask for native functions, routines and fields of the CPU state by name. A wrong one
would be an error of LLVM's parser half a minute into a compilation; here it is told in half a
second, with the instruction that uses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import llvmlite.binding as llvm
import pytest
from tests.engine.interp.forms import described

from armkvm.engine import generate
from armkvm.engine.hosts import host_of
from armkvm.engine.interp.handler import Handler
from armkvm.isa.all import INSTRUCTIONS
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import Form, Insn
from armkvm.isa.value import Value

DEFINED = re.compile(r"define [^@]*@(\w+)\(([^)]*)\)")
ROUTINE = -1  # reached by a tail call: its arguments are in the CPU state


def native() -> dict[str, int]:
    """What the engine defines: native functions by name, with the number of their arguments."""
    text = generate.module(host_of(llvm.get_default_triple()), all_forms=[])
    return {
        name: ROUTINE if "%acc" in params else params.count("%")
        for name, params in DEFINED.findall(text)
    }


class Traced(Handler):
    """Notes the names that a description asks for."""

    def __init__(self, form: Form, *, slow: bool) -> None:
        super().__init__(form, "h", slow=slow)
        self.names: set[tuple[str, int]] = set()

    def call(self, name: str, ty: str, *args: Value | str) -> Value:
        self.names.add((name, len(args)))
        return super().call(name, ty, *args)

    def tail(self, name: str, op: str = "%op", acc: str = "%acc") -> None:
        if not name.startswith("h_"):  # its own slow handler
            self.names.add((name, ROUTINE))
        super().tail(name, op, acc)


def wrong(insn: Insn, known: dict[str, int]) -> Iterator[str]:
    """What an instruction asks for in vain."""
    for form in insn.forms():
        for slow in (False, True):
            trace = Traced(form, slow=slow)
            try:
                trace.trace()
            except KeyError as e:
                yield f"{form.name}: no field {e}"
            for name, arguments in trace.names:
                if known.get(name) != arguments:
                    yield f"{form.name}: {name} with {arguments} arguments"


@pytest.fixture(scope="module")
def known() -> dict[str, int]:
    return native()


def test_every_name_exists(known: dict[str, int]) -> None:
    assert [w for insn in INSTRUCTIONS for w in wrong(insn, known)] == []


def test_a_wrong_name_is_told(known: dict[str, int]) -> None:
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
        "X: sys_to_el2 with -1 arguments",
        "X: read_fpsr with 2 arguments",
        "X: no field 'fpsrr'",
    ]
