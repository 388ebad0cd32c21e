"""What a mutant is, and the table of all of them.

A bug of history, put back: a few lines in the place of the current code, named by its commit. That
is the commit which mended it, or where nobody knows that, the one which brought it. A mutant names
the property that it violates, and the scenarios in which to look for it, the likeliest first. Where
the code of then has no counterpart today (static keys), it brings as much along as the bug needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from armkvm.check.execution.patching import Patch

Apply = Callable[[Patch], None]


@dataclass(frozen=True)
class Mutant:
    """One bug."""

    name: str
    commit: str
    prop: str
    what: str
    apply: Apply
    scenarios: tuple[str, ...]


MUTANTS: dict[str, Mutant] = {}


def mutant(
    name: str, commit: str, prop: str, what: str, *scenarios: str
) -> Callable[[Apply], Apply]:
    """Register one."""

    def register(apply: Apply) -> Apply:
        MUTANTS[name] = Mutant(name, commit, prop, what, apply, scenarios)
        return apply

    return register
