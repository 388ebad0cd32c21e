"""An engine that knows only some forms: those of the table that a test names, and its own."""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.binding as llvm

from armkvm.engine import build, generate
from armkvm.engine.build import Artefact, Loaded
from armkvm.engine.cpu import Engine
from armkvm.engine.hosts import host_of
from armkvm.isa import table
from armkvm.isa.all import INSTRUCTIONS
from armkvm.isa.table import Insn


def described(drawing: str, semantics: Callable[..., None], **columns: str) -> Insn:
    """A description outside the table."""
    before = len(table.TABLE)
    table.insn(drawing, asm="test", **columns)(semantics)  # type: ignore[arg-type]
    [own] = table.TABLE[before:]
    del table.TABLE[before:]
    return own


def engine_of(own: list[Insn], *names: str) -> Engine:
    """Compiled from these descriptions alone."""
    insns = [*own, *(i for i in INSTRUCTIONS if i.name in {*names, "HVC"})]
    forms = [form for i in insns for form in i.forms()]
    machine = build.native_target()
    text = generate.module(host_of(llvm.get_default_triple()), all_forms=forms).text()
    code = machine.emit_object(build._optimised(text, machine))
    return Engine(Loaded(Artefact(code, {})))
