"""The engine's LLVM module as text: handlers, decoder and native functions, from the table of
forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from armkvm.engine.hosts import Host
from armkvm.engine.interp import decoder, fusion
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm import module as natives
from armkvm.engine.llvm.code import CC, PARAMS
from armkvm.engine.llvm.ir import INTRINSICS, METADATA
from armkvm.engine.native import (
    control,
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

_ATTRIBUTES = """
attributes #0 = { nounwind "no-jump-tables"="true" "frame-pointer"="none" }
attributes #1 = { nounwind noinline "no-jump-tables"="true" }
attributes #2 = { nounwind noinline optnone }
attributes #3 = { nounwind noinline optsize cold "no-jump-tables"="true" "frame-pointer"="none" }
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
"""


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
        sp.name = f"{name}_sp"
        out["sp"] = sp
    return out


def module(
    host: Host,
    progress: Callable[[int, int], None] | None = None,
    all_forms: Sequence[Form] | None = None,
) -> str:
    """The whole module for a kind of host, or one that knows only some forms.

    `progress(done, total)` is called now and then while tracing.
    """
    natives.TEXTS.clear()
    for part in (
        walk, icache, memory, tlb, exception, timer, gic, gic_registers, gic_window, fpenv, host,
        control,
    ):  # fmt: skip
        part.build()
    all_forms = forms() if all_forms is None else all_forms
    parts: list[str] = []
    decoders: list[tuple[str, int, int]] = []
    tables: dict[tuple[int, ...], str] = {}
    rows: list[tuple[str, list[fusion.Fused]]] = []
    for i, form in enumerate(all_forms):
        variants = _variants(form, f"h{i}")
        both = fusion.fused(form, f"h{i}") if fusion.compares(form) else []
        for pair in both:
            pair.trace()
        if both:
            rows.append((f"h{i}", both))
        handlers: list[Handler] = [*variants.values(), *both]
        for h in handlers:
            attr = "#3" if h.slow else "#0"
            head = f"define internal {CC} void @{h.name}({PARAMS}) {attr} {{ ; {form.name}"
            parts.append(f"{head}\n{h.body()}\n}}")
        parts.append(decoder.form_decoder(f"d{i}", variants, tables))
        decoders.append((f"d{i}", form.mask, form.value))
        if progress and i % 64 == 0:
            progress(i, len(all_forms))
    parts.append(decoder.module(tree(all_forms), decoders))
    parts.append(decoder.undecoded())
    parts.append(fusion.tables(rows))
    for values, name in tables.items():
        words = ", ".join(f"i64 {v}" for v in values)
        parts.append(f"@{name} = internal constant [{len(values)} x i64] [{words}]")
    head = "\n".join([_ATTRIBUTES, host.DECLARATIONS, METADATA, *sorted(set(INTRINSICS.values()))])
    return "\n".join([head, *natives.TEXTS, *parts])
