"""Disassembler: a word's form and its assembly text, from the same table as the engine.

    disassemble(0x91000421) == "add x1, x1, #0x1"

Text follows the `asm` of each description; the format specs are in isa/asm.py. Undefined words
give None: there is no `.inst` here, because what to print for them depends on the caller.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache

from armkvm.isa import all as table
from armkvm.isa import decode as trees
from armkvm.isa.asm import Operand
from armkvm.isa.table import Form


@cache
def forms() -> tuple[Form, ...]:
    """Every form of the table, in its order."""
    return tuple(table.forms())


@cache
def _tree() -> trees.Tree:
    return trees.tree(forms())


def decode(word: int) -> Form | None:
    """The form of an instruction word; None when it is UNDEFINED."""
    return trees.lookup(_tree(), forms(), word)


def disassemble(word: int, pc: int = 0) -> str | None:
    """Assembly text of the word at address pc; None when it is UNDEFINED."""
    form = decode(word)
    return None if form is None else text(form, word, pc)


def text(form: Form, word: int, pc: int = 0) -> str:
    """Assembly text of a word that is of this form."""
    asm = form.insn.asm
    values = form.operands(word)
    if callable(asm):
        return asm(**values, pc=pc) if _wants_pc(asm) else asm(**values)
    widths = {name: width for name, _, width, _ in form.insn.layout}
    sf = values.get("sf", 1)
    return asm.format(**{k: Operand(v, widths[k], sf, pc) for k, v in values.items()})


@cache
def _wants_pc(asm: Callable[..., str]) -> bool:
    return "pc" in inspect.signature(asm).parameters
