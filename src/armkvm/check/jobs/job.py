"""Pieces of work for a process: explore one scenario, in a variant, perhaps with a mutant.

There are two kinds. Exhausting a scenario is one piece: its schedules share the states seen so far.
Random schedules depend on their seeds alone, so those of a scenario that hit its bound are cut into
pieces (`Sample`), and `merge` puts them together by seed, whoever was ready first.

Names and numbers go in and out, so that any executor of concurrent.futures can carry them. A piece
replaces functions of kvm and host while it runs: threads of one process take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from armkvm.check.execution import locks
from armkvm.check.execution.actors import Execution
from armkvm.check.execution.patching import patched
from armkvm.check.explorer import search
from armkvm.check.explorer.choosers import Deviations, Replay
from armkvm.check.explorer.search import Bound, Found, Result
from armkvm.check.mutants import MUTANTS
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.seed import VARIANTS
from armkvm.check.world.properties import PROPERTIES
from armkvm.check.world.timeline import Recorder, Timeline
from armkvm.check.world.world import World

DEFAULT = Bound()
CHUNK = 250  # random schedules in a piece: a quarter of a second of work
_turn = threading.Lock()


@dataclass(frozen=True)
class Job:
    """What to explore."""

    scenario: str
    variant: str = "current"
    mutant: str = ""
    bound: Bound = DEFAULT
    ignore: frozenset[str] = frozenset()  # properties that are not looked at

    def __str__(self) -> str:
        return "/".join(name for name in (self.scenario, self.variant, self.mutant) if name)


@dataclass(frozen=True)
class Sample:
    """Random schedules of a job: those of `count` seeds."""

    job: Job
    first_seed: int
    count: int

    def __str__(self) -> str:
        return f"{self.job}, seeds from {self.first_seed}"


@dataclass(frozen=True)
class Token:
    """Everything that a schedule depends on; its text is what --replay takes."""

    scenario: str
    variant: str
    mutant: str
    deviations: Deviations
    ignore: frozenset[str] = frozenset()  # a property that fails earlier would end it there

    def __str__(self) -> str:
        picks = "-".join(
            f"{at}~{~pick}" if pick < 0 else f"{at}.{pick}" for at, pick in self.deviations
        )
        ignore = "/" + ",".join(sorted(self.ignore)) if self.ignore else ""
        return f"{self.scenario}/{self.variant}/{self.mutant or '-'}/{picks or '-'}{ignore}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """ValueError for what is no token."""
        scenario, variant, mutant, picks, *rest = text.split("/")
        ignore = frozenset(rest[0].split(",")) if len(rest) == 1 else frozenset()
        mutant = "" if mutant == "-" else mutant
        if scenario not in SCENARIOS or variant not in VARIANTS:
            raise ValueError(text)
        if (mutant and mutant not in MUTANTS) or len(rest) > 1 or ignore - set(PROPERTIES):
            raise ValueError(text)
        pairs = () if picks == "-" else tuple(_pair(p) for p in picks.split("-"))
        return cls(scenario, variant, mutant, pairs, ignore)


def _pair(text: str) -> tuple[int, int]:
    """A deviation, 12.1; or 40~12, which says that the schedule goes round from 12 to 40."""
    at, tilde, start = text.partition("~")
    if tilde:
        return int(at), ~int(start)
    at, pick = text.split(".")
    return int(at), int(pick)


@contextmanager
def _prepared(job: Job) -> Iterator[search.Build]:
    """What builds a job's worlds, while its variant and its mutant are in place."""
    scenario = SCENARIOS[job.scenario]
    variant = VARIANTS[job.variant]
    mutate = MUTANTS[job.mutant].apply if job.mutant else None

    def build(execution: Execution) -> World:
        world = scenario.build(execution, variant.hooks)
        world.monitor.ignored = job.ignore
        return world

    with _turn, locks.controlled(), patched(variant.apply), patched(mutate):
        yield build


def explore(job: Job) -> Result:
    """Exhaust a scenario or stop at its bound, and shorten what is found."""
    with _prepared(job) as build:
        result = search.explore(build, job.bound)
        if result.found is not None:
            result.found = search.minimise(build, result.found, job.bound.steps)
    return result


def samples(job: Job, explored: Result) -> list[Sample]:
    """The random schedules that remain to be tried."""
    if not explored.bound or explored.found is not None:
        return []
    first, count = job.bound.seed, job.bound.samples
    return [
        Sample(job, first + n, min(CHUNK, count - n)) for n in range(0, max(count, 0), CHUNK)
    ]  # fmt: skip


def sample(piece: Sample) -> Result:
    """Try random schedules, and shorten what is found."""
    job = piece.job
    with _prepared(job) as build:
        result = search.sample(build, job.bound, piece.first_seed, piece.count)
        if result.found is not None:
            result.found = search.minimise(build, result.found, job.bound.steps)
    return result


def perform(work: Job | Sample) -> Result:
    """What a worker does."""
    return sample(work) if isinstance(work, Sample) else explore(work)


def merge(job: Job, explored: Result, sampled: Sequence[Result]) -> Result:
    """One result; `sampled` in order of seeds. What comes after the first finding is not counted.

    `seconds` is what the pieces took together, wherever they ran.
    """
    whole = replace(explored, seen=explored.seen.copy())
    for part in sampled:
        if part.found is not None:
            whole.found = replace(
                part.found,
                schedules=whole.schedules + part.found.schedules,
                states=whole.states,
                seconds=whole.seconds + part.found.seconds,
            )
        whole.schedules += part.schedules
        whole.seconds += part.seconds
        whole.seen.update(part.seen)
        if part.found is not None:
            break
    if sampled and whole.found is None:
        whole.bound += f", then {job.bound.samples} random schedules"
    if whole.found is None and not job.mutant:
        reaches = set(SCENARIOS[job.scenario].reaches) - job.ignore
        missing = [p for p in sorted(reaches) if not whole.seen[p]]
        if missing:
            whole.found = Found("vacuous", f"never reached: {', '.join(missing)}", (), 0,
                                whole.schedules, whole.states, whole.seconds)  # fmt: skip
    return whole


def run(job: Job) -> Result:
    """All of it, here."""
    explored = explore(job)
    return merge(job, explored, [sample(piece) for piece in samples(job, explored)])


def replay(token: Token, steps: int = 3000) -> tuple[Timeline, str, str]:
    """Follow a schedule: its timeline, the property violated ("" if none), and how."""
    recorders: list[Recorder] = []

    def ready(world: World) -> None:
        recorders.append(Recorder(world))

    job = Job(token.scenario, token.variant, token.mutant, ignore=token.ignore)
    with _prepared(job) as build:
        execution = Execution(Replay(token.deviations), steps)
        search.perform(build, execution, ready)
    violation = search.as_violation(execution.ended)
    timeline = recorders[0].timeline if recorders else Timeline()
    if violation is None:
        return timeline, "", ""
    for recorder in recorders:
        recorder.finish()
    return timeline, violation.prop, violation.detail
