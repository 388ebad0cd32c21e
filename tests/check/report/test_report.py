"""What a run is shown as: the page, the tables, JSON, progress."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from html.parser import HTMLParser

import pytest

from armkvm.check.explorer.search import Bound, Found, Result
from armkvm.check.jobs.job import Job, run
from armkvm.check.mutants import MUTANTS
from armkvm.check.report import results, table
from armkvm.check.report.page import html
from armkvm.check.report.results import Row, Run, as_json
from armkvm.check.report.timeline_html import FOLD, LAST, MOST, figure
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world.properties import PROPERTIES
from armkvm.check.world.timeline import Sample, Step, Timeline
from armkvm.cli.exploring import Exploring

VOID = {"meta", "col"}
MANY = Bound(schedules=300)


class Page(HTMLParser):
    """Whether elements are properly nested, and what is in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.resources: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        names = dict(attrs)
        assert len(names) == len(attrs), f"an attribute twice in {tag}"
        self.ids += [names["id"] or ""] if "id" in names else []
        self.links += [names["href"] or ""] if tag == "a" else []
        self.resources += [f"{k}={v}" for k, v in attrs if k in ("src", "srcset", "action")]
        self.resources += [f"{tag} {v}" for k, v in attrs if k == "href" and tag != "a"]
        assert not any(name.startswith("on") for name in names)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def checked(text: str) -> Page:
    """A page that is one file, well-formed, and needs neither network nor script."""
    page = Page(text)
    assert page.open == []
    assert page.resources == []
    assert "script" not in page.elements
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    return page


def explored(*jobs: Job) -> list[Row]:
    """Each with its result."""
    return [(job, run(job)) for job in jobs]


@pytest.fixture(scope="module")
def mutants() -> Run:
    """Three of them; one has two scenarios, one is looked for where it cannot be found."""
    jobs = (
        Job("timer-future", mutant="no-notification", bound=MANY),
        Job("timer-past", mutant="no-notification", bound=MANY),
        Job("timer-past", mutant="never-masked", bound=MANY),
        Job("timer-direct", mutant="reset-keeps-timer", bound=MANY),
    )
    return Run(explored(*jobs), True, 2.0)


@pytest.fixture(scope="module")
def seed() -> Run:
    """The patch of 2017."""
    jobs = (Job("two-vms", "seed", bound=MANY), Job("timer-past", "seed", bound=MANY))
    return Run(explored(*jobs), False, 1.0)


def test_the_page_of_mutants(mutants: Run) -> None:
    text = html(mutants)
    page = checked(text)
    assert "2 of 3 mutants found" in page.text
    assert "not found" in page.text
    assert page.elements["section"] == len(mutants.violations()) == 2
    for violated in mutants.violations():
        assert f"armkvm check --replay {violated.token}" in page.text
        assert PROPERTIES[violated.found.prop].sentence in page.text
        assert PROPERTIES[violated.found.prop].source in page.text
        assert MUTANTS[violated.job.mutant].what in page.text
        assert violated.found.detail in page.text
    assert page.elements["figure"] == 2


def test_the_page_of_the_seed(seed: Run) -> None:
    page = checked(html(seed))
    assert "1 violation in 1 of 2 scenarios" in page.text.lower()
    assert "variant seed" in page.text
    assert f"--replay {seed.violations()[0].token}" in page.text


def test_the_page_without_a_violation() -> None:
    rows = explored(Job("timer-future", bound=MANY), Job("two-vcpus", bound=Bound(schedules=20)))
    page = checked(html(Run(rows, False, 1.0)))
    assert "No violation" in page.text
    assert "exhausted" in page.text
    assert "bounded: 20 schedules" in page.text
    assert page.elements["section"] == page.elements["figure"] == 0
    for prop in PROPERTIES.values():
        assert prop.sentence in page.text


def test_a_vacuous_run_has_no_schedule_to_show() -> None:
    found = Found("vacuous", "never reached: I6", (), 0, 9, 9, 0.1)
    page = checked(html(Run([(Job("timer-future"), Result(found=found))], False, 1.0)))
    assert "never reached: I6" in page.text
    assert "vacuous violated" not in page.text
    assert page.elements["figure"] == 0


def test_what_comes_from_outside_is_escaped() -> None:
    """A detail is an exception's text, which may hold anything."""
    hostile = "<script>alert('&')</script>\"'"
    result = Result(found=Found("I0", hostile, (), 1, 1, 1, 0.0), bound=hostile)
    page = checked(html(Run([(Job("timer-past"), result)], False, 1.0)))
    assert hostile in page.text
    low = Sample(0, 0, 0, 0, None, None, 0, 0, None, 0, None)
    steps = [Step(0, hostile, (hostile,), 0, False, (low,))]
    page = checked(figure(Timeline([hostile], [hostile], steps), hostile))
    assert page.text.count(hostile) == 5  # caption, thread, vCPU, what it did and where it is


@pytest.mark.parametrize("count", [1, FOLD, FOLD + 1, MOST + 100])
def test_long_timelines_are_folded_and_have_an_end(count: int) -> None:
    low = Sample(0, 0, 0, 0, 0, None, 0, 0, None, 0, 0)
    steps = [Step(0, f"p{n}.", (), 0, False, (low,)) for n in range(count)]
    page = checked(figure(Timeline(["vcpu"], ["vCPU 0"], steps), "x"))
    folded = count > FOLD
    assert page.elements["details"] == folded
    assert page.elements["table"] == 1 + folded
    shown = [n for n in range(count) if f"p{n}." in page.text]
    assert shown == list(range(count))[-MOST:]
    if folded:
        assert f"Steps {count - LAST} to {count - 1}" in page.text
    assert page.elements["caption"] == page.elements["table"]


def test_every_row_of_a_timeline_has_all_columns(mutants: Run) -> None:
    """One cell of each row names the thread that acts: the narrow layout needs that."""
    for violated in mutants.violations():
        timeline = violated.timeline()
        text = figure(timeline, "x")
        bodies = [part.split("</tbody>")[0] for part in text.split("<tbody>")[1:]]
        rows = list(itertools.chain.from_iterable(b.split("<tr")[1:] for b in bodies))
        assert len(rows) == len(timeline.steps)
        columns = text.split("</colgroup>")[0].count("<col class")
        for row in rows:
            assert row.count("<td") + row.count("<th") == columns
            assert row.count("data-t=") == 1


def test_the_json_of_mutants(mutants: Run) -> None:
    said = as_json(mutants)["mutants"]
    assert [each["name"] for each in said] == [
        "no-notification", "never-masked", "reset-keeps-timer",
    ]  # fmt: skip
    required = {"name", "commit", "property", "found", "steps", "states", "seconds"}
    assert all(required <= set(each) for each in said)
    first, _second, third = said
    assert first["found"]
    assert (first["property"], first["commit"]) == ("I1", MUTANTS["no-notification"].commit)
    assert (third["found"], third["property"], third["steps"]) == (False, None, None)


def test_the_json_of_scenarios(seed: Run) -> None:
    said = as_json(seed)
    assert [each["name"] for each in said["scenarios"]] == ["two-vms", "timer-past"]
    broken, whole = said["scenarios"]
    assert broken["violation"]["token"] == str(seed.violations()[0].token)
    assert whole["exhausted"]
    assert whole["violation"] is whole["bound"] is None
    assert said["states"] == seed.states == said["states_per_second"]
    assert said["schedules"] == sum(each["schedules"] for each in said["scenarios"])


def test_a_mutant_is_shown_by_its_simplest_schedule() -> None:
    def row(scenario: str, deviations: int, steps: int) -> Row:
        picks = tuple((n, 1) for n in range(deviations))
        return Job(scenario, mutant="m"), Result(found=Found("I1", "", picks, steps, 1, 1, 0.0))

    rows = [row("a", 2, 5), row("b", 0, 90), row("c", 0, 80), (Job("d", mutant="m"), Result())]
    assert [job.scenario for job, _result in results.best(rows)] == ["c"]


def test_the_text_of_a_violation(seed: Run) -> None:
    lines = list(table.lines(seed))
    (violated,) = seed.violations()
    assert f"  source: {PROPERTIES[violated.found.prop].source}" in lines
    assert lines[-2] == f"  armkvm check --replay {violated.token}"
    assert "states/s" in lines[-1]
    narrow = list(table.violation(violated, 60))
    assert max(map(len, narrow[:-1])) <= 60  # the token is one word: it is to be copied
    assert PROPERTIES[violated.found.prop].sentence in " ".join(" ".join(narrow).split())


def test_progress_says_what_is_under_way() -> None:
    """Nothing is drawn: standard error is no terminal here."""
    names = list(SCENARIOS)[:5]
    with Exploring() as shown:
        shown.more(5)
        for name in names:
            shown.begun(Job(name))
        assert shown.text() == f"0 states: {', '.join(names[:3])} and 2 more"
        shown.ended(Job(names[0]), Result(states=7, found=Found("I1", "", (), 1, 1, 1, 0.0)))
        assert shown.text() == f"7 states, 1 found: {', '.join(names[1:4])} and 1 more"
        assert (shown.done, shown.total) == (1, 5)


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with Exploring() as shown:
        shown.more(1)
        shown.begun(Job("timer-past"))
    assert "timer-past" in terminal.getvalue()
