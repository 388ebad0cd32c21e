"""What must happen at some time: the graph of states, and rounds in it that are fair.

*Eventually* is violated by a schedule that goes round for ever while something is owed. An
exhaustive search leaves behind a graph: states where there was a choice, and between them who took
steps. A round is a counterexample only under a fair scheduler, one that lets everybody go on who
can go on again and again: in a strongly connected part where somebody could and never does, the
states in which he could are taken out, and what is left is looked at again (Emerson and Lei, 1987).

What is owed is a set of bits at each step: in scenarios whose guests end, that they end; in endless
ones, a timer that is high with interrupts open and not yet taken, a bit for each vCPU. A round owes
what every step of it owes. The host's scheduler owes nothing: it need not strike.

Left out: fairness in what a guest chooses; it may compute for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from armkvm.check.world.world import World

PROPERTY = "I14"
ROOT = 0  # before the first choice


class Edge(NamedTuple):
    """From a state to the next one."""

    target: int
    moved: int  # actors that took steps
    owed: int  # what was owed all the way


class Graph:
    """States with who could go on there, and edges by what was picked."""

    def __init__(self) -> None:
        self.able: dict[int, int] = {}
        self.edges: dict[int, dict[int, Edge]] = {ROOT: {}}
        self.parent: dict[int, tuple[int, int]] = {}

    def node(self, state: int, able: int) -> None:
        """A new state; its first edge came before."""
        self.able[state] = able
        self.edges[state] = {}

    def edge(self, state: int, pick: int, target: int, moved: int, owed: int) -> None:
        """A step from a state to another, or to itself."""
        self.edges[state][pick] = Edge(target, moved, owed)
        if target not in self.able and target not in self.parent:
            self.parent[target] = state, pick

    def way(self, state: int) -> list[int]:
        """What was picked from the start to a state."""
        picks: list[int] = []
        while state in self.parent:
            state, pick = self.parent[state]
            picks.append(pick)
        return picks[-2::-1] if picks else []


def fair_round(graph: Graph, fair: int, bits: int) -> tuple[list[int], list[int]] | None:
    """The picks to a fair round in which one of `bits` is owed throughout, and those around it."""
    while bits:
        bit = bits & -bits
        bits &= ~bit
        parts = [set(graph.able)]
        while parts:
            for part in components(graph, parts.pop(), bit):
                edges = list(_inner(graph, part, bit))
                if not edges:
                    continue
                able, moved = 0, 0
                for state in part:
                    able |= graph.able[state]
                for _state, _pick, edge in edges:
                    moved |= edge.moved
                starved = able & fair & ~moved
                if not starved:
                    return _lasso(graph, part, bit, able & fair)
                parts.append({s for s in part if not graph.able[s] & starved})
    return None


def _inner(graph: Graph, part: set[int], bit: int) -> Iterator[tuple[int, int, Edge]]:
    for state in part:
        for pick, edge in graph.edges[state].items():
            if edge.owed & bit and edge.target in part:
                yield state, pick, edge


def components(graph: Graph, part: set[int], bit: int) -> Iterator[set[int]]:
    """Strongly connected components by the edges that owe a bit (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()

    def targets(state: int) -> Iterator[int]:
        return (
            e.target for e in graph.edges[state].values() if e.owed & bit and e.target in part
        )  # fmt: skip

    for root in part:
        if root in index:
            continue
        work = [(root, targets(root))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            state, rest = work[-1]
            for target in rest:
                if target not in index:
                    index[target] = low[target] = len(index)
                    path.append(target)
                    on_path.add(target)
                    work.append((target, targets(target)))
                    break
                if target in on_path:
                    low[state] = min(low[state], index[target])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    low[above] = min(low[above], low[state])
                if low[state] == index[state]:
                    found = set()
                    while state not in found:
                        found.add(path.pop())
                    on_path -= found
                    yield found


def _lasso(graph: Graph, part: set[int], bit: int, needed: int) -> tuple[list[int], list[int]]:
    """A way to the part, and a round in it that everybody of `needed` takes part in."""
    start = min(part, key=lambda state: len(graph.way(state)))
    picks: list[int] = []
    here = start
    while needed:
        steps, here, moved = _walk(graph, part, bit, here, needed)
        picks += steps
        needed &= ~moved
    if here != start or not picks:
        steps, here, _moved = _walk(graph, part, bit, here, 0, start)
        picks += steps
    return graph.way(start), picks


def _walk(
    graph: Graph, part: set[int], bit: int, start: int, movers: int, goal: int = ROOT
) -> tuple[list[int], int, int]:
    """The shortest way to a state, or to a step of one of some actors: picks, end, who moved."""
    came: dict[int, tuple[int, int]] = {}
    todo = deque([start])
    seen = {start}
    while todo:
        state = todo.popleft()
        for pick, edge in graph.edges[state].items():
            if not edge.owed & bit or edge.target not in part:
                continue
            if edge.moved & movers or edge.target == goal:
                picks = [pick]
                moved = edge.moved
                while state != start:
                    state, pick = came[state]
                    picks.append(pick)
                    moved |= graph.edges[state][pick].moved
                return picks[::-1], edge.target, moved
            if edge.target not in seen:
                seen.add(edge.target)
                came[edge.target] = state, pick
                todo.append(edge.target)
    raise AssertionError("the part is strongly connected")


def sentence(world: World, positions: tuple[int, int]) -> str:
    """What a round means."""
    owed = world.monitor.owed() if world.endless else 0
    which = [f"vCPU {n}" for n in range(len(world.vcpus)) if owed >> n & 1]
    what = f"a timer of {', '.join(which)} is high and never taken" if which else ""
    start, end = positions
    return f"{what or 'nobody comes to an end'}: choice {end} is choice {start} again, and so on"
