"""Putting something else in the place of a function or an attribute, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Patch:
    """What was replaced, so that it can be put back."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> Any:
        """owner.name = value; returns what was there."""
        before = vars(owner)[name]
        self._saved.append((owner, name, before))
        setattr(owner, name, value)
        return before

    def undo(self) -> None:
        """Put everything back."""
        for owner, name, value in reversed(self._saved):
            setattr(owner, name, value)
        self._saved.clear()


@contextmanager
def patched(apply: Callable[[Patch], None] | None) -> Iterator[None]:
    """`apply` holds inside."""
    patch = Patch()
    try:
        if apply is not None:
            apply(patch)
        yield
    finally:
        patch.undo()
