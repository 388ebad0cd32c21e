"""Searching a scenario: all schedules, or random ones; and making what is found shorter.

An exhaustive search that is not small begins anew after some random schedules, from which the
reduction learns. When it has come to its end it looks for fair rounds in the graph of states.
Either may find a violation, and the first one ends the search.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import armkvm
from armkvm.check.execution import locks
from armkvm.check.execution.actors import Execution, Pruned, Violation
from armkvm.check.execution.place import MACHINERY
from armkvm.check.explorer import liveness
from armkvm.check.explorer.choosers import Deviations, Exhaust, Guided, Pct, Random, Replay
from armkvm.check.explorer.reduction import Reduction
from armkvm.check.world.world import World

MACHINERY.update({__file__, locks.__file__})

# The code that is explored: where its own exceptions come from is told.
_EXPLORED = tuple(f"{Path(armkvm.__file__).parent / floor}/" for floor in ("kvm", "host"))

SMALL = 100  # schedules: what has ended by then needs no reduction
LESSONS, LESSON = 60, 400  # schedules to learn from, and their steps
Build = Callable[[Execution], World]


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


def perform(
    build: Build, execution: Execution, ready: Callable[[World], None] | None = None
) -> World | None:
    """One execution from the start to the end, files closed. Sets `execution.ended`."""
    locks.set_execution(execution)
    world: World | None = None
    try:
        world = build(execution)
        execution.chooser.watch(world)
        if ready is not None:
            ready(world)
        execution.run()
        if execution.ended is None and not execution.exceeded:
            world.close()
    except Violation as error:
        execution.ended = error
    finally:
        locks.set_execution(None)
    # A random schedule of endless guests comes to no end, and need not. An exhaustive one ends at a
    # state that was here before; if it does not, it goes round where nobody has a choice.
    endless = world and world.endless and isinstance(execution.chooser, Random | Pct)
    if execution.exceeded and execution.ended is None and not endless:
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
        if name.startswith(_EXPLORED):
            place = f" in {where.tb_frame.f_code.co_name}()"
        where = where.tb_next
    return Violation("I0", f"{type(error).__name__}{place}: {error}")


@dataclass(frozen=True)
class Bound:
    """How far to search."""

    schedules: int = 100_000
    seconds: float = math.inf
    steps: int = 3000
    seed: int = 1
    samples: int = 0  # random schedules after an exhaustive search that hit its bound
    reduce: bool = True  # leave alternatives out where a step commutes with all others


def explore(build: Build, bound: Bound) -> Result:
    """Exhaust a scenario, or stop at the bound; the first violation ends the search."""
    result = Result()
    began = time.perf_counter()
    chooser = Exhaust()
    while chooser.todo:
        if bound.reduce and result.schedules == SMALL:
            chooser = Exhaust(_learned(build, bound))
        elif chooser.reduction is not None and chooser.reduction.places.wrong:
            chooser.reduction.places.close()
            chooser = Exhaust(chooser.reduction)
        if result.schedules >= bound.schedules:
            result.bound = f"{bound.schedules} schedules"
            break
        if time.perf_counter() - began > bound.seconds:
            result.bound = f"{bound.seconds:g} s"
            break
        chooser.start()
        execution = Execution(chooser, bound.steps)
        violation = _attempt(build, execution, result)
        if violation is not None:
            result.found = Found(
                violation.prop, violation.detail, chooser.deviations, execution.steps,
                result.schedules, len(chooser.visited), time.perf_counter() - began,
            )  # fmt: skip
            break
    if not result.bound and result.found is None:
        result.found = _goes_round(build, bound, chooser, result, began)
    result.states, result.transitions = len(chooser.visited), chooser.transitions
    result.deviations = chooser.depth - bool(chooser.todo)
    if result.bound:
        result.bound += f"; every schedule of up to {result.deviations} deviation"
        result.bound += "s" * (result.deviations != 1)
    result.seconds = time.perf_counter() - began
    return result


def _attempt(build: Build, execution: Execution, result: Result) -> Violation | None:
    """One more schedule."""
    world = perform(build, execution)
    result.schedules += 1
    if world is not None:
        result.seen.update(world.monitor.seen.keys())
    return as_violation(execution.ended)


def _goes_round(
    build: Build, bound: Bound, chooser: Exhaust, result: Result, began: float
) -> Found | None:
    """A fair round in which something is owed for ever."""
    world = chooser.world
    found = liveness.fair_round(chooser.graph, world.fair, world.owing)
    if found is None:
        return None
    way, around = found
    guided = Guided([*way, *around], len(way), chooser.reduction)
    perform(build, Execution(guided, bound.steps))
    execution = Execution(Replay(guided.deviations), bound.steps)
    perform(build, execution)
    violation = as_violation(execution.ended)
    assert violation is not None
    return Found(violation.prop, violation.detail, guided.deviations, guided.steps,
                 result.schedules, len(chooser.visited), time.perf_counter() - began)  # fmt: skip


def _learned(build: Build, bound: Bound) -> Reduction:
    """Random schedules, to see what the steps from each place touch."""
    reduction = Reduction()
    for seed in range(LESSONS):
        perform(build, Execution(Random(seed, 0.8), min(bound.steps, LESSON)), reduction.watch)
    reduction.places.close()
    return reduction


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
        violation = _attempt(build, execution, result)
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
    if deviations and deviations[-1][1] < 0:
        return found  # a round: each deviation is a step of it
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
                best = replace(
                    found, detail=violation.detail, deviations=shorter, steps=execution.steps
                )
                deviations, changed = shorter, True
                break
    return best
