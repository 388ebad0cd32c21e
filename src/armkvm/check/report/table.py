"""A run as text for a terminal: a table, violations with their timelines, totals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from armkvm.check.report.results import Row, Run, Violated, counted, deviations, outcome
from armkvm.check.report.timeline_text import UNICODE, WIDTH, Glyphs, text

LAST = 30  # steps of a timeline under a table; --replay shows all


def lines(run: Run, width: int = WIDTH, draw: Glyphs = UNICODE) -> Iterator[str]:
    """Everything that `armkvm check` prints."""
    yield from _mutants(run.shown()) if run.mutants else _scenarios(run.shown())
    if not run.mutants or len(run.shown()) == 1:
        for violated in run.violations():
            yield ""
            yield from violation(violated, width, draw)
    yield (f"{run.states} states, {run.schedules} schedules in {run.seconds:.1f} s: "
           f"{run.states_per_second:.0f} states/s, "
           f"{run.schedules / run.seconds if run.seconds else 0:.0f} schedules/s")  # fmt: skip


def _mutants(rows: Sequence[Row]) -> Iterator[str]:
    yield (f"{'mutant':<26} {'scenario':<26} {'found by':<9} {'deviations':>10} {'steps':>6} "
           f"{'states':>7} {'seconds':>8}")  # fmt: skip
    for job, result in rows:
        found = result.found
        if found is None:
            yield f"{job.mutant:<26} {job.scenario:<26} NOT FOUND"
        else:
            yield (f"{job.mutant:<26} {job.scenario:<26} {found.prop:<9} "
                   f"{deviations(found):>10} {found.steps:>6} {found.states:>7} "
                   f"{found.seconds:>8.2f}")  # fmt: skip


def _scenarios(rows: Sequence[Row]) -> Iterator[str]:
    yield (f"{'scenario':<26} {'states':>8} {'transitions':>11} {'schedules':>9} "
           f"{'seconds':>8}")  # fmt: skip
    for job, result in rows:
        yield (f"{job.scenario:<26} {result.states:>8} {result.transitions:>11} "
               f"{result.schedules:>9} {result.seconds:>8.2f}  {outcome(job, result)}")  # fmt: skip


def violation(violated: Violated, width: int = WIDTH, draw: Glyphs = UNICODE) -> Iterator[str]:
    """The property, its source, the end of the schedule, and the token."""
    found = violated.found
    prop = violated.rule
    verdict = f"{found.prop} violated" if prop is not None else "vacuous"
    yield from _wrapped(f"{violated.job.scenario}: {verdict}: {found.detail}", width, "")
    if prop is None:
        return
    yield from _wrapped(prop.sentence, width)
    yield from _wrapped(f"source: {prop.source}", width)
    if violated.mutant is not None:
        put_back = f"put back: {violated.mutant.what} ({violated.mutant.commit})"
        yield from _wrapped(put_back, width)
    yield (f"  the shortest schedule found: {counted(deviations(found), 'deviation')}, "
           f"{found.steps} steps")  # fmt: skip
    timeline = violated.timeline()
    for line in text(timeline, width - 2, draw, LAST):
        yield f"  {line}".rstrip()
    before = len(timeline.steps) - LAST
    if before > 0:
        yield f"  {before} steps before are not shown"
    yield f"  armkvm check --replay {violated.token}"


def _wrapped(words: str, width: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        words, width, initial_indent=indent, subsequent_indent="    ", break_on_hyphens=False
    )
