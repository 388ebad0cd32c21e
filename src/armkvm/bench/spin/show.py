"""The figures of `armkvm bench check` as tables, and as they go into JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from armkvm.bench.spin.compare import Claims, Find, Hunt, Row, Side

PIPE = 130  # columns


def as_json(rows: Sequence[Row], hunts: Sequence[Hunt]) -> dict[str, Any]:
    """{"rows": [...], "mutants": [...]}: the fields of the dataclasses."""
    mutants = [
        asdict(hunt.pair) | {key: value for key, value in asdict(hunt).items() if key != "pair"}
        for hunt in hunts
    ]
    return {"rows": [asdict(row) for row in rows], "mutants": mutants}


def tables(rows: Sequence[Row], hunts: Sequence[Hunt]) -> None:
    """Print them."""
    from rich.console import Console

    # A pipe has no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else PIPE)
    console.print(_searches(rows))
    for row in rows:
        if row.shared is not None:
            console.print(
                f"{row.name}: {row.shared.both} shared states in both, {row.shared.only_armkvm} in "
                f"armkvm only, {row.shared.only_spin} in SPIN only",
                highlight=False,
            )
    told: list[Claims] = []
    for row in rows:
        if row.claims is not None and row.claims not in told:
            told.append(row.claims)
            console.print(
                f"SPIN, {row.name}: no violation; safe {row.claims.safe:.2f} s, live "
                f"{row.claims.live:.2f} s, building the verifiers {row.claims.build:.1f} s",
                highlight=False,
            )
    console.print(_mutants(hunts))


def _searches(rows: Sequence[Row]) -> Any:
    from rich.table import Table

    table = Table()
    table.add_column("")
    table.add_column("by")
    for heading in ("states", "transitions", "s", "states/s", "shared states"):
        table.add_column(heading, justify="right")
    table.add_column("bound", max_width=40)
    shown: list[Side] = []
    for row in rows:
        for tool, side in (("armkvm", row.armkvm), ("SPIN", row.spin)):
            if side is None or side in shown:
                continue
            shown.append(side)
            states = "" if side.states is None else str(side.states)
            rate = "" if side.states is None else f"{side.states / side.seconds:.0f}"
            table.add_row(row.name, tool, states, str(side.transitions), f"{side.seconds:.2f}",
                          rate, str(side.shared), side.bound or "exhausted")  # fmt: skip
    return table


def _mutants(hunts: Sequence[Hunt]) -> Any:
    from rich.table import Table

    table = Table(
        caption="states: seen until it was found; shared states: of one vCPU, past all violations"
    )
    for heading in ("mutant", "in ut.pml"):
        table.add_column(heading)
    table.add_column("vCPUs", justify="right")
    for tool in ("armkvm", "SPIN"):
        table.add_column(f"{tool}: by")
        table.add_column("states", justify="right")
        table.add_column("s", justify="right")
    table.add_column("shared states: both, one only", justify="right")
    for hunt in hunts:
        pair, c = hunt.pair, hunt.shared
        found = [*_cells(hunt.armkvm), *_cells(hunt.spin)]
        shared = "" if c is None else f"{c.both}, {c.only_armkvm + c.only_spin}"
        table.add_row(pair.mutant, pair.macro, str(pair.vcpus), *found, shared)
    return table


def _cells(find: Find | None) -> tuple[str, str, str]:
    if find is None:
        return "", "", ""
    return escape(find.by or "not found"), str(find.states), f"{find.seconds:.2f}"
