"""The engine's LLVM module: native functions, and handlers and decoders from the table of forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from armkvm.engine.hosts import Host
from armkvm.engine.interp import decoder, fusion
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm.code import HANDLER, SLOW, Routine
from armkvm.engine.llvm.module import Module
from armkvm.engine.native import (
    control,
    debug,
    exception,
    fpenv,
    gic,
    gic_registers,
    gic_window,
    icache,
    memory,
    timer,
    tlb,
    walk,
)
from armkvm.isa.all import forms
from armkvm.isa.decode import tree
from armkvm.isa.table import Form

NATIVE = (
    walk, icache, debug, memory, tlb, exception, timer, gic, gic_registers, gic_window, fpenv,
    control,
)  # fmt: skip


def _variants(form: Form, name: str) -> dict[str, Handler]:
    """All handlers that one form needs; "" or "fw" comes first."""

    def traced(variant: str, suffix: str, *, slow: bool = False) -> Handler:
        h = Handler(form, name + suffix, variant=variant, slow=slow)
        h.trace()
        return h

    first = traced("", "")
    if first.is_branch:
        return {v: traced(v, f"_{v}") for v in ("fw", "bk", "far")}
    out = {"": first}
    if first.touches_memory:
        out["slow"] = traced("slow", "_slow", slow=True)
    if first.uses_base:
        sp = Handler(form, name, variant="sp")  # its slow path is the common one
        sp.trace()
        sp.routine = Routine(f"{name}_sp")
        out["sp"] = sp
    return out


def module(
    host: Host,
    progress: Callable[[int, int], None] | None = None,
    all_forms: Sequence[Form] | None = None,
) -> Module:
    """The whole module for a kind of host, or one that knows only some forms.

    `progress(done, total)` is called now and then while tracing.
    """
    out = Module()
    out.define_all(*NATIVE, host, decoder, fusion)
    all_forms = forms() if all_forms is None else all_forms
    decoders: list[tuple[decoder.Decoder, int, int]] = []
    tables = decoder.Tables()
    rows: list[tuple[Routine, list[fusion.Fused]]] = []
    for i, form in enumerate(all_forms):
        variants = _variants(form, f"h{i}")
        both = fusion.fused(form, f"h{i}") if fusion.compares(form) else []
        for pair in both:
            pair.trace()
        if both:
            rows.append((variants[""].routine, both))
        handlers: list[Handler] = [*variants.values(), *both]
        for h in handlers:
            out.add(h.routine, h.routine.head(SLOW if h.slow else HANDLER), h)
        fills = decoder.form_decoder(f"d{i}", variants, tables)
        out.define(fills)
        decoders.append((fills, form.mask, form.value))
        if progress and i % 64 == 0:
            progress(i, len(all_forms))
    decoder.decision_tables(out, tree(all_forms), decoders)
    fusion.tables(out, rows)
    tables.write(out)
    return out
