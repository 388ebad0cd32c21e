"""What a run of the checker came to: a row a job, in words, and as JSON.

A violation is looked up here with everything that is shown of it: the property with its source, the
mutant if there is one, the token, the timeline of its schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from armkvm.check.explorer.search import Found, Result
from armkvm.check.jobs.job import Job, Token, replay
from armkvm.check.mutants import MUTANTS, Mutant
from armkvm.check.world.properties import PROPERTIES, Property
from armkvm.check.world.timeline import Timeline

Row = tuple[Job, Result]


@dataclass(frozen=True)
class Run:
    """Everything that was explored, and how long that took."""

    rows: Sequence[Row]
    mutants: bool  # each job has a bug put back
    seconds: float

    @property
    def states(self) -> int:
        """Of all explorations."""
        return sum(result.states for _job, result in self.rows)

    @property
    def transitions(self) -> int:
        """Of all explorations."""
        return sum(result.transitions for _job, result in self.rows)

    @property
    def schedules(self) -> int:
        """Of all explorations."""
        return sum(result.schedules for _job, result in self.rows)

    @property
    def states_per_second(self) -> float:
        """Of all processes together."""
        return self.states / self.seconds if self.seconds else 0.0

    def shown(self) -> list[Row]:
        """The rows of a table: with mutants the best for each of them."""
        return best(self.rows) if self.mutants else list(self.rows)

    def violations(self) -> list[Violated]:
        """What was found, of the rows that are shown."""
        return [
            Violated(job, result.found) for job, result in self.shown() if result.found is not None
        ]


@dataclass(frozen=True)
class Violated:
    """One finding."""

    job: Job
    found: Found

    @property
    def token(self) -> Token:
        """What --replay takes."""
        job = self.job
        return Token(job.scenario, job.variant, job.mutant, self.found.deviations, job.ignore)

    @property
    def rule(self) -> Property | None:
        """The property; None for a run that was vacuous."""
        return PROPERTIES.get(self.found.prop)

    @property
    def mutant(self) -> Mutant | None:
        """The bug that was put back."""
        return MUTANTS.get(self.job.mutant)

    def timeline(self) -> Timeline:
        """Its schedule once more."""
        return replay(self.token)[0]


def best(rows: Sequence[Row]) -> list[Row]:
    """For each mutant the scenario that shows it with the fewest deviations and steps."""
    chosen: dict[str, Row] = {}
    for job, result in rows:
        before = chosen.get(job.mutant)
        if before is None or _rank(result) < _rank(before[1]):
            chosen[job.mutant] = job, result
    return list(chosen.values())


def _rank(result: Result) -> tuple[bool, int, int]:
    found = result.found
    return (False, deviations(found), found.steps) if found else (True, 0, 0)


def deviations(found: Found) -> int:
    """How often its schedule deviates; that it goes round is not one of them."""
    return sum(pick >= 0 for _at, pick in found.deviations)


def outcome(job: Job, result: Result) -> str:
    """Exhausted, bounded by what, or violated."""
    without = f" (without {', '.join(by_number(job.ignore))})" if job.ignore else ""
    if result.found is not None:
        verdict = f"{result.found.prop} violated" if result.found.prop in PROPERTIES else "vacuous"
        return f"{verdict}{without}"
    return (f"bounded: {result.bound}" if result.bound else "exhausted") + without


def by_number(names: frozenset[str]) -> list[str]:
    """Properties in their order."""
    return sorted(names, key=lambda name: list(PROPERTIES).index(name))


def counted(count: int, what: str) -> str:
    """A number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def as_json(run: Run) -> dict[str, Any]:
    """For machines."""
    return {
        **({"mutants": [_mutant(*row) for row in run.shown()]} if run.mutants
           else {"scenarios": [_scenario(*row) for row in run.shown()]}),
        "states": run.states,
        "transitions": run.transitions,
        "schedules": run.schedules,
        "seconds": round(run.seconds, 3),
        "states_per_second": round(run.states_per_second),
    }  # fmt: skip


def _mutant(job: Job, result: Result) -> dict[str, Any]:
    found = result.found
    return {
        "name": job.mutant,
        "commit": MUTANTS[job.mutant].commit,
        "what": MUTANTS[job.mutant].what,
        "scenario": job.scenario,
        "property": found.prop if found else None,
        "found": found is not None,
        "deviations": deviations(found) if found else None,
        "steps": found.steps if found else None,
        "states": found.states if found else result.states,
        "seconds": round(found.seconds if found else result.seconds, 3),
        "token": str(Violated(job, found).token) if found else None,
    }


def _scenario(job: Job, result: Result) -> dict[str, Any]:
    found = result.found
    return {
        "name": job.scenario,
        "variant": job.variant,
        "ignored": by_number(job.ignore),
        "exhausted": not result.bound and found is None,
        "bound": result.bound or None,
        "states": result.states,
        "transitions": result.transitions,
        "schedules": result.schedules,
        "seconds": round(result.seconds, 3),
        "violation": None if found is None else {
            "property": found.prop,
            "detail": found.detail,
            "deviations": deviations(found),
            "steps": found.steps,
            "token": str(Violated(job, found).token),
        },
    }  # fmt: skip
