"""armkvm's checker beside SPIN: the same protocol, the same six mutants, one after the other.

For one vCPU both exhaust. For two SPIN does; armkvm explores for some seconds in order of
deviations, then walks at random for as many. Of each side there are the distinct states of what the
two have in common (`shared` of check/scenarios/protocol.py), and how many of these are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from armkvm.bench import BenchError
from armkvm.bench.spin import Pan
from armkvm.check.execution import locks
from armkvm.check.execution.actors import Execution
from armkvm.check.execution.patching import patched
from armkvm.check.explorer import search
from armkvm.check.explorer.choosers import Exhaust, Random
from armkvm.check.explorer.search import Bound
from armkvm.check.jobs import job
from armkvm.check.jobs.job import Job
from armkvm.check.mutants import MUTANTS
from armkvm.check.scenarios import SCENARIOS, protocol
from armkvm.check.world.properties import PROPERTIES
from armkvm.check.world.world import World
from armkvm.host import clock
from armkvm.vmm.guest.debian import Progress

SCENARIO = {1: "protocol", 2: "protocol-two"}
MANY = 10**9  # schedules, or walks: time is the bound
ENOUGH = 300.0  # seconds for what is exhausted, or found
STEPS = 3000  # of a random walk
ROUND = 600  # steps: a schedule of a mutant that is longer goes round without a choice
STRAIGHT = 0.75  # how often a walk lets the one go on that runs


@dataclass(frozen=True)
class Side:
    """What one of the two came to. `states` is None where nobody compares them with each other."""

    states: int | None
    transitions: int
    seconds: float
    shared: int
    bound: str = ""  # "" when exhausted


@dataclass(frozen=True)
class Common:
    """Distinct states of what is shared."""

    both: int
    only_armkvm: int
    only_spin: int


@dataclass(frozen=True)
class Claims:
    """SPIN's other claims on the same model, and what its verifiers took to build, in seconds."""

    safe: float
    live: float
    build: float


@dataclass(frozen=True)
class Row:
    """One search of each; what is None needs SPIN."""

    name: str
    armkvm: Side
    spin: Side | None = None
    claims: Claims | None = None
    shared: Common | None = None


@dataclass(frozen=True)
class Pair:
    """A bug on both sides: a macro of the model, a mutant, and the vCPUs that it takes."""

    macro: str
    mutant: str
    vcpus: int


@dataclass(frozen=True)
class Find:
    """What saw a mutant first, a property or a claim (None: nothing did), and what that took."""

    by: str | None
    states: int
    seconds: float


@dataclass(frozen=True)
class Hunt:
    """A mutant, and how it was found."""

    pair: Pair
    armkvm: Find
    spin: Find | None
    shared: Common | None  # one vCPU with the mutant, past all violations


PAIRS = (
    Pair("M_NONOTIFY", "no-notification", 1),
    Pair("M_NOMASK", "never-masked", 1),
    Pair("M_NOUNMASK", "never-unmasked", 1),
    Pair("M_NOWAKE", "sleep-without-timer", 1),
    Pair("M_MASKLOST", "mask-of-the-last", 2),
    Pair("M_NOSYNC", "levels-never-written", 1),
)


def rows(folder: Path, seconds: float, with_spin: bool, progress: Progress) -> Iterator[Row]:
    """One vCPU; two; and two at random. `seconds` for each of the last two."""
    for vcpus, name in enumerate(("one vCPU", "two vCPUs"), 1):
        progress(f"{name}: SPIN", vcpus, 0)
        spin = _spin(folder, vcpus) if with_spin else None
        progress(f"{name}: armkvm", vcpus, 0)
        limit = ENOUGH if vcpus == 1 else seconds
        yield _row(name, *explored(vcpus, limit), spin)
        if vcpus == 2:
            progress(f"{name}: armkvm at random", vcpus, 0)
            yield _row(f"{name}, at random", *walked(vcpus, seconds), spin)


def hunts(folder: Path, with_spin: bool, progress: Progress) -> Iterator[Hunt]:
    """The six mutants."""
    for number, pair in enumerate(PAIRS):
        progress(pair.mutant, number, len(PAIRS))
        ours = find(pair)
        if not with_spin:
            yield Hunt(pair, ours, None, None)
            continue
        pan = Pan(folder, 1, pair.macro)
        several = pan if pair.vcpus == 1 else Pan(folder, pair.vcpus, pair.macro)
        shared = common(beyond(pair.mutant), pan.run("states").shared)
        yield Hunt(pair, ours, find_by_spin(several), shared)


# armkvm


def explored(vcpus: int, seconds: float) -> tuple[Side, set[int]]:
    """In order of deviations, without reduction: it could pass by states of what is shared."""
    seen: set[int] = set()
    bound = Bound(schedules=MANY, seconds=seconds, reduce=False)
    with locks.controlled():
        result = search.explore(_build(vcpus, seen), bound)
    if result.found is not None:
        raise BenchError(f"{SCENARIO[vcpus]}: {result.found.prop}: {result.found.detail}")
    side = Side(result.states, result.transitions, result.seconds, len(seen), result.bound)
    return side, seen


class Walk(Random):
    """Mostly who runs already; of what a guest can do, anything."""

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """One of them."""
        del execution
        if actors and self.random.random() < STRAIGHT:
            return 0
        return self.random.randrange(len(labels))


def walked(vcpus: int, seconds: float) -> tuple[Side, set[int]]:
    """At random: nothing is replayed, and nothing is known to be complete."""
    seen: set[int] = set()
    build = _build(vcpus, seen)
    steps = seed = 0
    began = clock.monotonic_ns()
    with locks.controlled():
        while seed < MANY and clock.monotonic_ns() - began < seconds * 1e9:
            seed += 1
            execution = Execution(Walk(seed), STEPS)
            search.perform(build, execution)
            steps += execution.steps
            violation = search.as_violation(execution.ended)
            if violation is not None:
                raise BenchError(f"{SCENARIO[vcpus]}: {violation}")
    bound = f"{seconds:g} s; {seed} walks of {STEPS} steps"
    return Side(None, steps, (clock.monotonic_ns() - began) / 1e9, len(seen), bound), seen


def _build(vcpus: int, seen: set[int]) -> search.Build:
    def build(execution: Execution) -> World:
        world = SCENARIOS[SCENARIO[vcpus]].build(execution)
        protocol.record(world, seen)
        return world

    return build


def find(pair: Pair) -> Find:
    """Until a property does not hold."""
    bound = Bound(schedules=MANY, seconds=ENOUGH, reduce=False)
    result = job.explore(Job(SCENARIO[pair.vcpus], mutant=pair.mutant, bound=bound))
    if result.found is None:
        return Find(None, result.states, result.seconds)
    return Find(result.found.prop, result.found.states, result.found.seconds)


def beyond(mutant: str) -> set[int]:
    """All of one vCPU with a mutant, whatever it violates: nobody looks."""
    seen: set[int] = set()
    shared = _build(1, seen)

    def build(execution: Execution) -> World:
        world = shared(execution)
        world.monitor.ignored = frozenset(PROPERTIES)
        execution.quiet = None
        return world

    chooser = Exhaust()
    with locks.controlled(), patched(MUTANTS[mutant].apply):
        while chooser.todo:
            chooser.start()
            search.perform(build, Execution(chooser, ROUND))
    return seen


# SPIN


def _spin(folder: Path, vcpus: int) -> tuple[Side, Claims, frozenset[int]]:
    pan = Pan(folder, vcpus)
    fair = pan if vcpus == 1 else Pan(folder, vcpus, "FAIR")
    states, safe, live = pan.run("states"), pan.run("safe"), fair.run("live")
    for verdict in (states, safe, live):
        if verdict.violated:
            raise BenchError(f"SPIN, {vcpus} vCPUs: {verdict.violated} is violated")
    side = Side(states.states, states.transitions, states.seconds, len(states.shared))
    build = pan.seconds + (fair.seconds if fair is not pan else 0)
    return side, Claims(safe.seconds, live.seconds, build), states.shared


def find_by_spin(pan: Pan) -> Find:
    """Safety first; what it does not see, liveness may."""
    seconds = 0.0
    for claim in ("safe", "live"):
        verdict = pan.run(claim)
        seconds += verdict.seconds
        if verdict.violated:
            break
    return Find(verdict.violated or None, verdict.states, seconds)


def _row(
    name: str,
    armkvm: Side,
    seen: set[int],
    spin: tuple[Side, Claims, frozenset[int]] | None,
) -> Row:
    if spin is None:
        return Row(name, armkvm)
    side, claims, theirs = spin
    return Row(name, armkvm, side, claims, common(seen, theirs))


def common(ours: Set[int], theirs: Set[int]) -> Common:
    """How many are in both, and in one of them only."""
    return Common(len(ours & theirs), len(ours - theirs), len(theirs - ours))
