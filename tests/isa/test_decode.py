"""The decision tree: every word goes to the one form that matches it."""

import random
from itertools import combinations

from armkvm.isa import decode
from armkvm.isa.all import forms
from armkvm.isa.table import Form, Insn

FORMS = forms()
TREE = decode.tree(FORMS)


def _overlap(a: Form, b: Form) -> int | None:
    """A word that both forms match."""
    if a.mask & b.mask & (a.value ^ b.value):
        return None
    if a.guard is None and b.guard is None:
        return a.value | b.value
    rng = random.Random(a.value ^ b.value)
    fixed = a.mask | b.mask
    for _ in range(2000):
        word = a.value | b.value | rng.getrandbits(32) & ~fixed
        if a.matches(word) and b.matches(word):
            return word
    return None


def test_no_two_forms_overlap() -> None:
    # Forms that could meet end in the same leaf: comparing those is comparing all.
    pairs = {pair for leaf in TREE.leaves for pair in combinations(leaf, 2)}
    found = [
        f"{FORMS[i].name} and {FORMS[j].name}: {word:#010x}"
        for i, j in sorted(pairs)
        if (word := _overlap(FORMS[i], FORMS[j])) is not None
    ]
    assert found == []


def test_an_overlap_would_be_noticed() -> None:
    drawing, other = "0101 x" + "x" * 27, "01 x" + "x" * 28 + "1"
    a, b = (_form(d, n) for n, d in (("A", drawing), ("B", other)))
    assert _overlap(a, b) is not None
    tree = decode.tree([a, b])
    assert [0, 1] in tree.leaves


def _form(drawing: str, name: str) -> Form:
    entry = Insn(name, drawing, lambda *_: None, "", "", "base", None)
    (form,) = entry.forms()
    return form


def test_the_tree_finds_what_a_search_finds() -> None:
    rng = random.Random(1)
    words = [rng.getrandbits(32) for _ in range(1000)]
    for form in rng.sample(FORMS, 1000):
        words.append(form.value | rng.getrandbits(32) & ~form.mask)
    for word in words:
        searched = next((f for f in FORMS if f.matches(word)), None)
        assert decode.lookup(TREE, FORMS, word) is searched, f"{word:#010x}"


def test_every_form_is_reached() -> None:
    assert {i for leaf in TREE.leaves for i in leaf} == set(range(len(FORMS)))


def test_the_tree_is_small_and_shallow() -> None:
    assert len(TREE.edges) < 100_000
    assert max(len(leaf) for leaf in TREE.leaves) <= 4
    assert _depth(0) <= 8


def _depth(node: int) -> int:
    _, width, base = TREE.nodes[node]
    children = {e >> 1 for e in TREE.edges[base : base + (1 << width)] if not e & 1}
    return 1 + max(map(_depth, children), default=0)


def test_trees_of_none_and_of_one() -> None:
    assert decode.lookup(decode.tree([]), [], 0x12345678) is None
    nop = _form("11010101000000110010000000011111", "NOP")
    tree = decode.tree([nop])
    assert decode.lookup(tree, [nop], 0xD503201F) is nop
    assert decode.lookup(tree, [nop], 0xD503203F) is None
