"""Who chooses at each step of an execution: a schedule, all schedules in order, or chance.

`Exhaust` replays each schedule from the start. Beyond the prefix it was given it takes the first
alternative everywhere, and every other alternative that it passes by becomes a schedule of its own,
with one deviation more. They are tried in order of deviations, so what is found first is found with
the fewest. A state that was here before ends the schedule: its future is known. When no schedule is
left, every reachable state has been seen.

`Random` picks uniformly; `Pct` gives actors priorities and lowers one at a few random steps
(Burckhardt et al., ASPLOS 2010), which finds bugs of small depth with known probability.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from armkvm.check.execution.actors import Execution, Pruned, Violation
from armkvm.check.execution.place import MACHINERY
from armkvm.check.explorer import liveness, reduction
from armkvm.check.explorer.liveness import Graph
from armkvm.check.explorer.reduction import Reduction
from armkvm.check.world import snapshot

if TYPE_CHECKING:
    from armkvm.check.world.world import World

MACHINERY.update({__file__, liveness.__file__, reduction.__file__, snapshot.__file__})

# (position among the picks, alternative). A last pair (position, ~earlier position) says that the
# state is the one of that earlier position again: the schedule goes round.
Deviations = tuple[tuple[int, int], ...]


class Replay:
    """Follows a list of deviations; one that goes round ends in a violation."""

    def __init__(self, deviations: Deviations) -> None:
        self.round: tuple[int, int] | None = None
        if deviations and deviations[-1][1] < 0:
            end, start = deviations[-1]
            self.round = ~start, end
            deviations = deviations[:-1]
        self.deviations = dict(deviations)
        self._state = 0

    def watch(self, world: World) -> None:
        """An execution begins."""
        self.world = world

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """The alternative that the schedule names, else the first."""
        del actors
        at = len(execution.picks)
        if self.round is not None and at in self.round:
            state = snapshot.key(self.world)
            if at == self.round[0]:
                self._state = state
            elif state == self._state:
                raise Violation(liveness.PROPERTY, liveness.sentence(self.world, self.round))
        return min(self.deviations.get(at, 0), len(labels) - 1)


class Exhaust:
    """Every schedule, fewest deviations first."""

    def __init__(self, reduction: Reduction | None = None) -> None:
        self.graph = Graph()
        self.todo: deque[tuple[Deviations, int, int, int]] = deque([((), -1, 0, liveness.ROOT)])
        self.deviations: Deviations = ()
        self.depth = 0  # deviations of our own choice
        self.transitions = 0
        self.reduction = reduction
        self._at: dict[int, int] = {}
        self._last = -1
        self._from = liveness.ROOT, 0  # the state we come from, and what was picked there

    @property
    def visited(self) -> dict[int, int]:
        """The states so far."""
        return self.graph.able

    def watch(self, world: World) -> None:
        """An execution begins."""
        self.world = world
        if self.reduction is not None:
            self.reduction.watch(world, at_once=self._last < 0)

    def start(self) -> None:
        """The next schedule."""
        self.deviations, self._last, self.depth, state = self.todo.popleft()
        self._at = dict(self.deviations)
        self._from = state, self._at.get(self._last, 0)
        self.transitions += 1

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """In the prefix what it says; beyond, the first, and the others later."""
        at = len(execution.picks)
        if at <= self._last:
            if at == self._last:
                self.world.leave_state()
                if self.reduction is not None:
                    execution.watcher = self.reduction
            return self._at.get(at, 0)
        if actors and self.reduction is not None:
            private = self.reduction.private(execution)
            if private is not None:
                if private:
                    self.deviations = (*self.deviations, (at, private))
                return private
        state = snapshot.key(self.world)
        self.graph.edge(*self._from, state, execution.moved, self.world.owed)
        if state in self.visited:
            raise Pruned
        self.graph.node(state, sum(a.bit for a in execution.candidates) if actors else 0)
        self.world.leave_state()
        self._from = state, 0
        self.transitions += 1
        for alternative in range(1, len(labels)):
            schedule = (*self.deviations, (at, alternative))
            self.todo.append((schedule, at, self.depth + 1, state))
        return 0


class Guided:
    """Follows what was picked from state to state, and notes where: a path of the graph."""

    def __init__(self, picks: Sequence[int], mark: int, reduction: Reduction | None) -> None:
        self.picks = picks
        self.mark = mark  # where the round begins
        self.reduction = reduction
        self.deviations: Deviations = ()
        self.steps = 0
        self._n = 0
        self._start = 0

    def watch(self, world: World) -> None:
        """An execution begins."""
        if self.reduction is not None:
            self.reduction.watch(world)

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """A private step, or the next on the path."""
        at = len(execution.picks)
        picked = None
        if actors and self.reduction is not None:
            picked = self.reduction.private(execution)
        if picked is None:
            if self._n == self.mark:
                self._start = at
            if self._n == len(self.picks):
                self.deviations = (*self.deviations, (at, ~self._start))
                self.steps = execution.steps
                raise Pruned
            picked = self.picks[self._n]
            self._n += 1
        if picked:
            self.deviations = (*self.deviations, (at, picked))
        return picked


class Random:
    """Uniformly; or mostly straight on, with `straight` the probability of the first."""

    def __init__(self, seed: int, straight: float = 0.7) -> None:
        self.random = random.Random(seed)
        self.straight = straight

    def watch(self, world: World) -> None:
        """An execution begins."""

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

    def watch(self, world: World) -> None:
        """An execution begins."""

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
