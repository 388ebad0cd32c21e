"""The pages' generated tables: complete, and written where they belong."""

from __future__ import annotations

import re

import pytest
from tools import check_tables as tables

from armkvm.check.jobs.job import Token
from armkvm.check.mutants import MUTANTS
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world.properties import PROPERTIES

PAGES = {name: (tables.DOCS / name).read_text(encoding="utf-8") for name in tables.PAGES}


def first_column(page: str, name: str) -> list[str]:
    """Of a generated table, without its head."""
    lines = tables.section(PAGES[page], name)[1].splitlines()
    return [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:]


@pytest.mark.parametrize(
    ("page", "name", "registered"),
    [
        ("check.md", "properties", list(PROPERTIES)),
        ("check.md", "scenarios", list(SCENARIOS)),
        ("check.md", "mutants", list(MUTANTS)),
        ("late-vgic.md", "late", tables.late_scenarios()),
        ("late-vgic.md", "removed", tables.late_mutants(lambda c: c == tables.THE_CHECK)),
        ("late-vgic.md", "neighbours", tables.late_mutants(lambda c: c != tables.THE_CHECK)),
    ],
)
def test_a_page_is_of_today(page: str, name: str, registered: list[str]) -> None:
    """Where this fails, `make tables` writes them anew."""
    assert sorted(first_column(page, name)) == sorted(registered)


def test_the_sentences_are_those_that_are_checked() -> None:
    """This table needs no run: it has to be exact."""
    runs = tables.Runs([])
    again = tables.replaced(PAGES["check.md"], "properties", tables.properties(runs))
    assert again == PAGES["check.md"]


def test_what_is_found_in_the_patch_can_be_replayed() -> None:
    text = tables.section(PAGES["late-vgic.md"], "seed")[1]
    tokens = re.findall(r"--replay (\S+)`", text)
    assert tokens
    assert {Token.parse(token).variant for token in tokens} == {"seed"}
    assert set(first_column("late-vgic.md", "seed")) <= set(PROPERTIES)


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = (
        "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->\nc\n"
    )
    once = tables.replaced(page, "x", iter(["new", "lines"]))
    assert once == page.replace("old\n", "\nnew\nlines\n\n")
    assert tables.replaced(once, "x", iter(["new", "lines"])) == once
    with pytest.raises(SystemExit):
        tables.replaced(page, "z", iter([]))


def test_from_a_run_to_a_table() -> None:
    """The smallest run that a table can be made of."""
    runs = tables.Runs(["timer-past", "timer-future", "--jobs", "1"])
    text = list(tables.scenarios(runs))
    assert text[0].startswith("`armkvm check timer-past timer-future --jobs 1`, ")
    assert text[1] == "2 of 2 exhausted, no violation."
    assert [line.split("|")[1].strip() for line in text[5:]] == ["timer-past", "timer-future"]
    assert runs.current is runs.current
