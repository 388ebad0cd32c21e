"""Write the tables of docs/check.md and docs/late-vgic.md from what `armkvm check` finds now.

``make tables`` runs it: the current hypervisor, all mutants, and the patch of 2017, each by
``armkvm check --json``, some minutes in all. ARGS is handed on to each of them. A table stands
between ``<!-- generated: NAME -->`` and ``<!-- end -->``; what is outside stays as it is.
tests/check/test_tables.py fails when a page lacks a scenario, a mutant or a property.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from armkvm.check.mutants import MUTANTS
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world.properties import PROPERTIES

DOCS = Path(__file__).resolve().parent.parent / "docs"
THE_CHECK = "7330672befe6"  # a vgic only before any vCPU has run, and while none is in an ioctl

Data = dict[str, Any]
Lines = Iterator[str]


class Runs:
    """The three runs, each carried out when a table first asks for it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = arguments
        self._done: dict[str, Data] = {}

    def __call__(self, *options: str) -> Data:
        command = " ".join(("armkvm check", *options, *self.arguments))
        if command not in self._done:
            call = [sys.executable, "-m", "armkvm", "check", "--json", *options, *self.arguments]
            done = subprocess.run(call, stdout=subprocess.PIPE, check=False)
            if done.returncode not in (0, 1):  # 1: something was found
                raise SystemExit(done.returncode)
            self._done[command] = {"command": command, **json.loads(done.stdout)}
        return self._done[command]

    @property
    def current(self) -> Data:
        """All scenarios."""
        return self()

    @property
    def mutants(self) -> Data:
        """All mutants."""
        return self("--all-mutants")

    @property
    def seed(self) -> Data:
        """The patch as it was posted."""
        return self("--variant", "seed")


def row(*cells: object) -> str:
    """One row."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def said(data: Data) -> str:
    """What was run."""
    return (
        f"`{data['command']}`, {os.cpu_count()} CPUs: {data['states']:,} states, "
        f"{data['transitions']:,} transitions, {data['schedules']:,} schedules in "
        f"{data['seconds']:.0f} s, {data['states_per_second']:,} states/s."
    )


def outcome(each: Data) -> str:
    """A scenario's, in words."""
    if each["violation"]:
        return f"violates {each['violation']['property']}"
    return each["bound"] or "exhausted"


# docs/check.md


def properties(_runs: Runs) -> Lines:
    """The table of properties: nothing is run for it."""
    yield row("", "kind", "sentence", "source")
    yield "|---|---|---|---|"
    for p in PROPERTIES.values():
        yield row(p.name, p.kind, p.sentence, p.source)


def scenarios(runs: Runs) -> Lines:
    """What was explored on the current hypervisor."""
    data = runs.current
    exhausted = sum(each["exhausted"] for each in data["scenarios"])
    violated = sum(bool(each["violation"]) for each in data["scenarios"])
    yield said(data)
    yield (
        f"{exhausted} of {len(data['scenarios'])} exhausted, "
        f"{f'{violated} violations' if violated else 'no violation'}."
    )
    yield ""
    yield row("scenario", "what", "states", "transitions", "schedules", "s", "result")
    yield "|---|---|--:|--:|--:|--:|---|"
    for each in data["scenarios"]:
        yield row(
            each["name"], SCENARIOS[each["name"]].title, each["states"], each["transitions"],
            each["schedules"], f"{each['seconds']:.2f}", outcome(each),
        )  # fmt: skip


def mutants(runs: Runs) -> Lines:
    """How each mutant is found."""
    data = runs.mutants
    found = sum(each["found"] for each in data["mutants"])
    yield said(data)
    yield f"{found} of {len(data['mutants'])} found."
    yield ""
    yield row("mutant", "commit", "what", "scenario", "found by", "deviations", "steps", "states",
              "s")  # fmt: skip
    yield "|---|---|---|---|---|--:|--:|--:|--:|"
    for each in data["mutants"]:
        yield row(
            each["name"], each["commit"], each["what"], each["scenario"],
            each["property"] or "**not found**", number(each["deviations"]), number(each["steps"]),
            each["states"], f"{each['seconds']:.2f}",
        )  # fmt: skip


def number(value: int | None) -> str:
    """Empty where there is none."""
    return "" if value is None else str(value)


# docs/late-vgic.md


def late(runs: Runs) -> Lines:
    """The scenarios of late creation, on both hypervisors."""
    yield row("scenario", "what", "current", "the patch as posted")
    yield "|---|---|---|---|"
    for name in late_scenarios():
        yield row(
            name,
            SCENARIOS[name].title,
            "; then ".join(one(each) for each in of(runs.current, name)),
            "; then ".join(one(each) for each in of(runs.seed, name)) or "not a host of 2017",
        )


def late_scenarios() -> list[str]:
    """Those of the theme."""
    return [s.name for s in SCENARIOS.values() if s.setup.__module__.endswith(".late_vgic")]


def of(data: Data, name: str) -> list[Data]:
    """A scenario's explorations: again without the property that failed."""
    return [each for each in data["scenarios"] if each["name"] == name]


def one(each: Data) -> str:
    """An exploration in a cell."""
    without = f" without {', '.join(each['ignored'])}" if each["ignored"] else ""
    many = "state" if each["states"] == 1 else "states"
    return f"{outcome(each)}{without}, {each['states']} {many}"


def removed(runs: Runs) -> Lines:
    """Mutants that take the check away."""
    return _holes(runs, lambda commit: commit == THE_CHECK)


def neighbours(runs: Runs) -> Lines:
    """The other mutants of late creation."""
    return _holes(runs, lambda commit: commit != THE_CHECK)


def late_mutants(wanted: Callable[[str], bool]) -> list[str]:
    """Those that are looked for in scenarios of the theme, by commit."""
    theme = set(late_scenarios())
    return [m.name for m in MUTANTS.values() if theme & {*m.scenarios} and wanted(m.commit)]


def _holes(runs: Runs, wanted: Callable[[str], bool]) -> Lines:
    by_name = {each["name"]: each for each in runs.mutants["mutants"]}
    yield row("mutant", "commit", "what", "found by", "deviations", "again")
    yield "|---|---|---|---|--:|---|"
    for name in late_mutants(wanted):
        each = by_name[name]
        found = f"{each['property']} in {each['scenario']}" if each["found"] else "**not found**"
        again = f"`--replay {each['token']}`" if each["found"] else ""
        yield row(name, each["commit"], each["what"], found, number(each["deviations"]), again)


def seed(runs: Runs) -> Lines:
    """What the checker finds in the patch: of each kind the simplest schedule."""
    data = runs.seed
    kinds: dict[tuple[str, str], list[Data]] = {}
    for each in data["scenarios"]:
        found = each["violation"]
        if found:
            kind = re.sub(r"0x[0-9a-f]+|\d+", "#", found["detail"])
            kinds.setdefault((found["property"], kind), []).append(each)
    yield said(data)
    yield ""
    yield row("property", "what happens", "scenarios", "the simplest", "deviations", "steps",
              "again")  # fmt: skip
    yield "|---|---|--:|---|--:|--:|---|"
    order = [*PROPERTIES, "vacuous"]
    for (name, _kind), rows in sorted(kinds.items(), key=lambda item: order.index(item[0][0])):
        best = min(rows, key=lambda e: (e["violation"]["deviations"], e["violation"]["steps"]))
        found = best["violation"]
        yield row(name, found["detail"], len(rows), best["name"], found["deviations"],
                  found["steps"], f"`--replay {found['token']}`")  # fmt: skip


PAGES: dict[str, dict[str, Callable[[Runs], Lines]]] = {
    "check.md": {"properties": properties, "scenarios": scenarios, "mutants": mutants},
    "late-vgic.md": {"late": late, "removed": removed, "neighbours": neighbours, "seed": seed},
}


def section(page: str, name: str) -> re.Match[str]:
    """A generated section: the first group is what is between its marks."""
    found = re.search(rf"<!-- generated: {name} -->\n(.*?)<!-- end -->", page, re.DOTALL)
    if found is None:
        raise SystemExit(f"there is no section {name!r}")
    return found


def replaced(page: str, name: str, lines: Lines) -> str:
    """The page with another table."""
    found = section(page, name)
    text = "\n".join(lines)
    return f"{page[: found.start(1)]}\n{text}\n\n{page[found.end(1) :]}"


def main(arguments: Sequence[str]) -> int:
    """Rewrite both pages when everything has been run."""
    runs = Runs(arguments)
    pages = {}
    for file, sections in PAGES.items():
        page = (DOCS / file).read_text(encoding="utf-8")
        for name, table in sections.items():
            page = replaced(page, name, table(runs))
        pages[file] = page
    for file, page in pages.items():
        (DOCS / file).write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
