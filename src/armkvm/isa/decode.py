"""The decision tree that finds an instruction word's form, as plain data.

Mirrors the idea of the manual's C4.1 ("A64 instruction set encoding"): look at a few bits, go to
the next table, look at a few more. The tree is computed from the forms' masks, never written by
hand, so a new description cannot forget to be decoded. The engine emits `nodes`, `edges` and
`leaves` as a native table; the disassembler walks the same data in Python.

A leaf only narrows the candidates: whoever uses it still has to compare all fixed bits and the
guard, because bits that told no two forms apart were never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log2

from armkvm.isa.table import Form

# A node may have this many edges per form that it separates: bounds the size of the table.
EDGES_PER_FORM = 4
MAX_WIDTH = 10
# Windows are judged on at most this many of a node's forms; all of them would only cost time.
JUDGED = 256


@dataclass(slots=True)
class Tree:
    """A decision tree over 32-bit words; the root is node 0.

    nodes: (shift, width, base): bits [shift+width-1:shift] of the word pick edge base + those bits.
    edges: even: 2 * node; odd: 2 * leaf + 1.
    leaves: indices of the forms that may match, to be tried in order by (word & mask) == value.
    """

    nodes: list[tuple[int, int, int]] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    leaves: list[list[int]] = field(default_factory=list)

    def leaf(self, word: int) -> list[int]:
        """Indices of the forms that the word may be."""
        edge = 0
        while not edge & 1:
            shift, width, base = self.nodes[edge >> 1]
            edge = self.edges[base + (word >> shift & (1 << width) - 1)]
        return self.leaves[edge >> 1]


def tree(forms: Sequence[Form]) -> Tree:
    """The tree of these forms. Equal sub-tables are shared."""
    out = Tree()
    leaves: dict[tuple[int, ...], int] = {}
    # Nodes whose edges are still to be filled: (node, members, bits looked at so far).
    work: list[tuple[int, list[int], int]] = []

    def enter(members: list[int], known: int) -> int:
        if len(members) > 1 and (window := _window(forms, members, known)) is not None:
            shift, width = window
            out.nodes.append((shift, width, len(out.edges)))
            out.edges.extend([0] * (1 << width))
            work.append((len(out.nodes) - 1, members, known))
            return len(out.nodes) - 1 << 1
        leaf = leaves.setdefault(tuple(members), len(leaves))
        if leaf == len(out.leaves):
            out.leaves.append(members)
        return leaf << 1 | 1

    root = enter(list(range(len(forms))), 0)
    if root & 1:  # fewer than two forms: a node that looks at one bit for nothing
        out.nodes.append((0, 1, 0))
        out.edges.extend([root, root])
    while work:
        node, members, known = work.pop()
        shift, width, base = out.nodes[node]
        buckets: list[list[int]] = [[] for _ in range(1 << width)]
        for i in members:
            for b in _entries(forms[i], shift, width):
                buckets[b].append(i)
        seen: dict[tuple[int, ...], int] = {}
        for b, bucket in enumerate(buckets):
            key = tuple(bucket)
            if key not in seen:
                seen[key] = enter(bucket, known | (1 << width) - 1 << shift)
            out.edges[base + b] = seen[key]
    return out


def lookup(t: Tree, forms: Sequence[Form], word: int) -> Form | None:
    """The word's form; None when it is UNDEFINED."""
    return next((forms[i] for i in t.leaf(word) if forms[i].matches(word)), None)


def _entries(form: Form, shift: int, width: int) -> Iterator[int]:
    """The values of a window of bits that the form allows."""
    window = (1 << width) - 1
    fixed = form.value >> shift & window
    free = ~(form.mask >> shift) & window
    subset = free
    while True:  # all subsets of the free bits, descending
        yield fixed | subset
        if not subset:
            return
        subset = subset - 1 & free


def _window(forms: Sequence[Form], members: list[int], known: int) -> tuple[int, int] | None:
    """The contiguous bits to look at next: those that leave the fewest candidates behind.

    None when no bit can separate the members: they differ by their guards.
    """
    ones = zeros = 0
    for i in members:
        ones |= forms[i].mask & forms[i].value
        zeros |= forms[i].mask & ~forms[i].value
    telling = ones & zeros & ~known
    judged = members[:: -(-len(members) // JUDGED)]
    best: tuple[float, int, int] | None = None
    for shift in range(32):
        if not telling >> shift & 1:
            continue
        for width in range(1, min(MAX_WIDTH, 32 - shift) + 1):
            if width > 1 and 1 << width > EDGES_PER_FORM * len(members):
                break
            if not telling >> shift + width - 1 & 1:
                continue
            cost = _cost(forms, judged, shift, width)
            if cost is not None and (best is None or (cost, width) < best[:2]):
                best = (cost, width, shift)
    return None if best is None else (best[2], best[1])


def _cost(forms: Sequence[Form], judged: list[int], shift: int, width: int) -> float | None:
    """Forms left to tell apart behind the window, in bits; None when it mostly copies them."""
    window = (1 << width) - 1
    copies = sum(1 << (~(forms[i].mask >> shift) & window).bit_count() for i in judged)
    if width > 1 and copies > 8 * len(judged):
        return None
    sizes = [0] * (1 << width)
    for i in judged:
        for b in _entries(forms[i], shift, width):
            sizes[b] += 1
    return sum(n * log2(n) for n in sizes if n > 1)
