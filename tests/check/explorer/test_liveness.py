"""Rounds in graphs, fair and unfair; and rounds of actors that have nothing to do with KVM."""

from __future__ import annotations

from armkvm.check.explorer.liveness import ROOT, Graph, components, fair_round

A, B, TIME = 1, 2, 4
ALL = A | B | TIME


def graph(able: dict[int, int], *edges: tuple[int, ...]) -> Graph:
    """States with who can go on; edges from, pick, to, who moves, and what is owed (default 1)."""
    g = Graph()
    first = next(iter(able))
    g.edge(ROOT, 0, first, 0, -1)
    g.node(first, able[first])
    for state, pick, to, moved, *owed in edges:
        g.edge(state, pick, to, moved, owed[0] if owed else 1)
        if to not in g.able:
            g.node(to, able[to])
    return g


def test_a_way_without_a_round() -> None:
    g = graph({1: A | B, 2: A | B, 3: A}, (1, 0, 2, A), (1, 1, 3, B), (2, 0, 3, A))
    assert fair_round(g, ALL, 1) is None


def test_a_round_in_which_somebody_waits_for_ever_is_not_fair() -> None:
    g = graph({1: A | B, 2: A | B, 3: A}, (1, 0, 2, A), (2, 0, 1, A), (2, 1, 3, B))
    assert fair_round(g, ALL, 1) is None
    assert fair_round(g, A, 1) == ([], [0, 0])


def test_both_take_part() -> None:
    g = graph({1: A | B, 2: A | B}, (1, 0, 2, A), (1, 1, 2, B), (2, 0, 1, A), (2, 1, 1, A))
    found = fair_round(g, ALL, 1)
    assert found is not None
    way, around = found
    assert way == []
    assert 1 in around


def test_who_can_go_on_again_and_again_must() -> None:
    """Strong fairness: B can only at 2, which the round leaves and comes back to."""
    g = graph({1: A, 2: A | B, 3: A}, (1, 0, 2, A), (2, 0, 1, A), (2, 1, 3, B), (3, 0, 3, A))
    found = fair_round(g, ALL, 1)
    assert found == ([0, 1], [0])


def test_what_is_paid_on_the_way_is_not_owed() -> None:
    g = graph({1: A, 2: A}, (1, 0, 2, A, 1), (2, 0, 1, A, 0))
    assert fair_round(g, ALL, 1) is None
    g = graph({1: A, 2: A}, (1, 0, 2, A, 3), (2, 0, 1, A, 2))
    assert fair_round(g, ALL, 3) is not None


def test_components_of_a_long_chain_with_two_rounds() -> None:
    n = 5000
    edges = [(i, 0, i + 1, A) for i in range(1, n)]
    g = graph(dict.fromkeys(range(1, n + 1), A), *edges, (10, 1, 5, A), (n, 0, n - 3, A))
    found = sorted(sorted(p) for p in components(g, set(g.able), 1) if len(p) > 1)
    assert found == [list(range(5, 11)), list(range(n - 3, n + 1))]
