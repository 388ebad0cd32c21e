"""What a mutant is, and the table of all of them.

A bug of history, put back: a few lines in the place of the current code, named by its commit. A
mutant names the scenarios in which to look for it, the likeliest first. Where the code of then has
no counterpart today (static keys), the mutant brings as much of it along as the bug needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from armkvm.check.patching import Patch


@dataclass(frozen=True)
class Mutant:
    """One bug."""

    name: str
    commit: str
    what: str
    apply: Callable[[Patch], None]
    scenarios: tuple[str, ...]


MUTANTS: dict[str, Mutant] = {}


def mutant(
    name: str, commit: str, what: str, *scenarios: str
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register one."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[name] = Mutant(name, commit, what, apply, scenarios)
        return apply

    return register
