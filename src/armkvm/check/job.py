"""One piece of work for a process: explore one scenario, in a variant, perhaps with a mutant.

Names and numbers go in and out, so that any executor of concurrent.futures can carry it.
"""

from __future__ import annotations

from dataclasses import dataclass

from armkvm.check import locks, search
from armkvm.check.actors import Execution
from armkvm.check.mutants import MUTANTS
from armkvm.check.patching import patched
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.search import Bound, Found, Replay, Result
from armkvm.check.seed import VARIANTS
from armkvm.check.world import World

DEFAULT = Bound()


@dataclass(frozen=True)
class Job:
    """What to explore."""

    scenario: str
    variant: str = "current"
    mutant: str = ""
    bound: Bound = DEFAULT
    ignore: frozenset[str] = frozenset()  # properties that are not looked at


@dataclass(frozen=True)
class Token:
    """Everything that a schedule depends on; its text is what --replay takes."""

    scenario: str
    variant: str
    mutant: str
    deviations: search.Deviations

    def __str__(self) -> str:
        picks = "-".join(f"{at}.{pick}" for at, pick in self.deviations)
        return f"{self.scenario}/{self.variant}/{self.mutant or '-'}/{picks or '-'}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """ValueError for what is no token."""
        scenario, variant, mutant, picks = text.split("/")
        mutant = "" if mutant == "-" else mutant
        if scenario not in SCENARIOS or variant not in VARIANTS:
            raise ValueError(text)
        if mutant and mutant not in MUTANTS:
            raise ValueError(text)
        pairs = [] if picks == "-" else [p.split(".") for p in picks.split("-")]
        return cls(scenario, variant, mutant, tuple((int(a), int(b)) for a, b in pairs))


def run(job: Job) -> Result:
    """Explore, and shorten what is found."""
    scenario = SCENARIOS[job.scenario]
    mutate = MUTANTS[job.mutant].apply if job.mutant else None
    variant = VARIANTS[job.variant]

    def build(execution: Execution) -> World:
        world = scenario.build(execution, variant.hooks)
        world.monitor.ignored = job.ignore
        return world

    with locks.controlled(), patched(variant.apply), patched(mutate):
        result = search.explore(build, job.bound)
        if result.found is not None:
            result.found = search.minimise(build, result.found, job.bound.steps)
        elif not job.mutant:
            missing = [p for p in scenario.reaches if not result.seen[p]]
            if missing:
                result.found = Found("vacuous", f"never reached: {', '.join(missing)}", (), 0,
                                     result.schedules, result.states, result.seconds)  # fmt: skip
    return result


def replay(token: Token, steps: int = 3000) -> tuple[list[str], str, str]:
    """Follow a schedule: its steps, the property violated ("" if none), and how."""
    scenario = SCENARIOS[token.scenario]
    mutate = MUTANTS[token.mutant].apply if token.mutant else None
    variant = VARIANTS[token.variant]
    log: list[str] = []

    def ready(world: World) -> None:
        world.log = log

    def build(execution: Execution) -> World:
        return scenario.build(execution, variant.hooks)

    with locks.controlled(), patched(variant.apply), patched(mutate):
        execution = Execution(Replay(token.deviations), steps)
        search.perform(build, execution, ready)
    violation = search.as_violation(execution.ended)
    if violation is None:
        return log, "", ""
    return log, violation.prop, violation.detail
