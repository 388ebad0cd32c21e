"""How schedules are chosen: all of them in order of deviations, or at random.

`Exhaust` replays each schedule from the start. Beyond the prefix it was given it takes the first
alternative everywhere, and every other alternative that it passes by becomes a schedule of its own,
with one deviation more. They are tried in order of deviations, so what is found first is found with
the fewest. A state that was here before ends the schedule: its future is known. When no schedule is
left, every reachable state has been seen.

`Random` picks uniformly; `Pct` gives actors priorities and lowers one at a few random steps
(Burckhardt et al., ASPLOS 2010), which finds bugs of small depth with known probability.

Left out: dynamic partial-order reduction. Two steps that commute lead to the same state, and that
is where the second order ends.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from armkvm.check import locks, snapshot
from armkvm.check.actors import MACHINERY, Execution, Pruned, Violation
from armkvm.check.reduction import Reduction
from armkvm.check.world import World

MACHINERY.update({__file__, snapshot.__file__, locks.__file__})

LESSONS = 60  # schedules to learn from before a search
Build = Callable[[Execution], World]
Deviations = tuple[tuple[int, int], ...]  # (position among the picks, alternative)


@dataclass
class Found:
    """A violation and the schedule that leads to it."""

    prop: str
    detail: str
    deviations: Deviations
    steps: int
    schedules: int  # tried until then
    states: int
    seconds: float


@dataclass
class Result:
    """What a search of one scenario came to."""

    states: int = 0
    transitions: int = 0
    schedules: int = 0
    seconds: float = 0.0
    bound: str = ""  # "" when exhausted
    deviations: int = 0  # all schedules of so many were tried
    found: Found | None = None
    seen: Counter[str] = field(default_factory=Counter)


class Replay:
    """Follows a list of deviations."""

    def __init__(self, deviations: Deviations) -> None:
        self.deviations = dict(deviations)

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """The alternative that the schedule names, else the first."""
        del actors
        return min(self.deviations.get(len(execution.picks), 0), len(labels) - 1)


class Exhaust:
    """Every schedule, fewest deviations first."""

    def __init__(self, reduction: Reduction | None = None) -> None:
        self.visited: set[int] = set()
        self.todo: deque[tuple[Deviations, int, int]] = deque([((), -1, 0)])
        self.deviations: Deviations = ()
        self._at: dict[int, int] = {}
        self._last = -1
        self.depth = 0  # deviations of our own choice
        self.transitions = 0
        self.world: World | None = None
        self.reduction = reduction

    def watch(self, world: World) -> None:
        """An execution begins."""
        self.world = world
        if self.reduction is not None:
            self.reduction.watch(world, self._last < 0)

    def start(self) -> None:
        """The next schedule."""
        self.deviations, self._last, self.depth = self.todo.popleft()
        self._at = dict(self.deviations)
        self.transitions += 1

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """In the prefix what it says; beyond, the first, and the others later."""
        at = len(execution.picks)
        if at <= self._last:
            if at == self._last and self.reduction is not None:
                execution.watcher = self.reduction
            return self._at.get(at, 0)
        assert self.world is not None
        if actors and self.reduction is not None:
            private = self.reduction.private(execution)
            if private is not None:
                if private:
                    self.deviations = (*self.deviations, (at, private))
                return private
        state = snapshot.key(self.world)
        if state in self.visited:
            raise Pruned
        self.visited.add(state)
        self.transitions += 1
        for alternative in range(1, len(labels)):
            self.todo.append(((*self.deviations, (at, alternative)), at, self.depth + 1))
        return 0


class Random:
    """Uniformly; or mostly straight on, with `straight` the probability of the first."""

    def __init__(self, seed: int, straight: float = 0.7) -> None:
        self.random = random.Random(seed)
        self.straight = straight

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """One of them."""
        del execution, actors
        if self.random.random() < self.straight:
            return 0
        return self.random.randrange(len(labels))


class Pct:
    """Priorities, lowered at `depth` - 1 random steps among `length`."""

    def __init__(self, seed: int, depth: int, length: int) -> None:
        self.random = random.Random(seed)
        self.priorities: dict[str, float] = {}
        self.changes = {self.random.randrange(max(length, 1)) for _ in range(depth - 1)}
        self.low = 0.0

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """The highest priority."""
        if not actors:
            return self.random.randrange(len(labels))
        for label in labels:
            self.priorities.setdefault(label, 1 + self.random.random())
        best = max(range(len(labels)), key=lambda i: self.priorities[labels[i]])
        if len(execution.picks) in self.changes:
            self.low -= 1
            self.priorities[labels[best]] = self.low
            best = max(range(len(labels)), key=lambda i: self.priorities[labels[i]])
        return best


def perform(
    build: Build, execution: Execution, ready: Callable[[World], None] | None = None
) -> World | None:
    """One execution from the start to the end, files closed. Sets `execution.ended`."""
    locks.set_execution(execution)
    world: World | None = None
    try:
        world = build(execution)
        if ready is not None:
            ready(world)
        execution.run()
        if execution.ended is None and not execution.exceeded:
            world.close()
    except Violation as error:
        execution.ended = error
    finally:
        locks.set_execution(None)
    if execution.exceeded and execution.ended is None:
        execution.ended = Violation("I0", f"no end within {execution.max_steps} steps")
    return world


def as_violation(error: BaseException | None) -> Violation | None:
    """What an execution ended with, if that is a finding. Any Python exception is one."""
    if error is None or isinstance(error, Pruned):
        return None
    if isinstance(error, Violation):
        return error
    where = error.__traceback__
    place = ""
    while where is not None:
        name = where.tb_frame.f_code.co_filename
        if "/kvm/" in name or "/host/" in name:
            place = f" in {where.tb_frame.f_code.co_name}()"
        where = where.tb_next
    return Violation("I0", f"{type(error).__name__}{place}: {error}")


@dataclass(frozen=True)
class Bound:
    """How far to search."""

    schedules: int = 100_000
    seconds: float = 60.0
    steps: int = 3000
    seed: int = 1
    samples: int = 0  # random schedules after an exhaustive search that hit its bound
    reduce: bool = True  # leave alternatives out where a step commutes with all others


Progress = Callable[[Result], None]


def explore(build: Build, bound: Bound, progress: Progress | None = None) -> Result:
    """Exhaust a scenario, or stop at the bound; the first violation ends the search."""
    result = Result()
    began = time.perf_counter()
    reduction = Reduction() if bound.reduce else None
    if reduction is not None:
        _learn(build, bound, reduction)
    chooser = Exhaust(reduction)
    while chooser.todo:
        if reduction is not None and reduction.places.wrong:
            reduction.places.close()
            chooser = Exhaust(reduction)
        if result.schedules >= bound.schedules:
            result.bound = f"{bound.schedules} schedules"
            break
        if time.perf_counter() - began > bound.seconds:
            result.bound = f"{bound.seconds:g} s"
            break
        chooser.start()
        execution = Execution(chooser, bound.steps)
        world = perform(build, execution, chooser.watch)
        result.schedules += 1
        if world is not None:
            for name in world.monitor.seen:
                result.seen[name] += 1
        violation = as_violation(execution.ended)
        if violation is not None:
            result.found = Found(
                violation.prop, violation.detail, chooser.deviations, execution.steps,
                result.schedules, len(chooser.visited), time.perf_counter() - began,
            )  # fmt: skip
            break
        if progress is not None and not result.schedules % 200:
            result.states = len(chooser.visited)
            progress(result)
    result.states, result.transitions = len(chooser.visited), chooser.transitions
    result.deviations = chooser.depth - bool(chooser.todo)
    if result.bound:
        result.bound += f"; every schedule of up to {result.deviations} deviations"
    result.seconds = time.perf_counter() - began
    return result


def _learn(build: Build, bound: Bound, reduction: Reduction) -> None:
    """Random schedules, to see what the steps from each place touch."""
    for seed in range(LESSONS):
        perform(build, Execution(Random(seed, 0.8), bound.steps), reduction.watch)
    reduction.places.close()


def sample(build: Build, bound: Bound, first_seed: int, count: int) -> Result:
    """Random schedules, one a seed: uniform ones for odd seeds, PCT for even ones.

    A schedule depends on its seed alone, so the seeds can be spread over any number of calls. The
    first violation ends a call.
    """
    result = Result()
    began = time.perf_counter()
    # PCT needs to know where its changes may fall: along the schedule without deviations.
    straight = Execution(Replay(()), bound.steps)
    perform(build, straight)
    length = max(50, len(straight.picks))
    for seed in range(first_seed, first_seed + count):
        chooser = Random(seed) if seed % 2 else Pct(seed, 3, length)
        execution = Execution(chooser, bound.steps)
        world = perform(build, execution)
        result.schedules += 1
        if world is not None:
            for name in world.monitor.seen:
                result.seen[name] += 1
        violation = as_violation(execution.ended)
        if violation is not None:
            picks = tuple((i, p) for i, p in enumerate(execution.picks) if p)
            result.found = Found(
                violation.prop, violation.detail, picks, execution.steps, result.schedules,
                0, time.perf_counter() - began,
            )  # fmt: skip
            break
    result.seconds = time.perf_counter() - began
    return result


def minimise(build: Build, found: Found, steps: int) -> Found:
    """Drop deviations that the violation does not need, one after the other."""
    deviations = found.deviations
    best = found
    changed = True
    while changed:
        changed = False
        for index in range(len(deviations)):
            shorter = deviations[:index] + deviations[index + 1 :]
            execution = Execution(Replay(shorter), steps)
            perform(build, execution)
            violation = as_violation(execution.ended)
            if violation is not None and violation.prop == found.prop:
                best = Found(
                    violation.prop, violation.detail, shorter, execution.steps, found.schedules,
                    found.states, found.seconds,
                )  # fmt: skip
                deviations, changed = shorter, True
                break
    return best
