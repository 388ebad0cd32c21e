"""One LLVM module: functions, constants, and what they ask of each other.

A `Module` writes the definitions it is given as text, and refuses to be finished while a function
that is called is not there with the type that it is called by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from armkvm.engine.llvm.code import Routine
from armkvm.engine.llvm.ir import METADATA, Function, Symbol
from armkvm.engine.llvm.native import Native

Definition = Native[Any, Any] | Routine

_ATTRIBUTES = """
attributes #0 = { nounwind "no-jump-tables"="true" "frame-pointer"="none" }
attributes #1 = { nounwind noinline "no-jump-tables"="true" }
attributes #2 = { nounwind noinline optnone }
attributes #3 = { nounwind noinline optsize cold "no-jump-tables"="true" "frame-pointer"="none" }
"""


class File(Protocol):
    """A Python module."""

    __name__: str


class Module:
    """An LLVM module under construction."""

    def __init__(self) -> None:
        self.prototypes: dict[str, str] = {}
        self._calls: dict[str, str] = {}
        self._intrinsics: dict[str, str] = {}
        self._parts: list[str] = []

    def define(self, *definitions: Definition) -> None:
        """Write native functions and routines."""
        for d in definitions:
            self.add(d, *d.write())

    def define_all(self, *files: File) -> None:
        """Write all that Python files define at their top, alone or in lists."""
        for file in files:
            self.define(*definitions(file))

    def add(self, d: Definition, head: str, fn: Function) -> None:
        """Write a function of which head (`define ...`) and body are there."""
        self.prototypes[d.name] = d.prototype
        self._calls |= fn.calls
        self._intrinsics |= fn.intrinsics
        self._parts.append(f"{head} {{\n{fn.body()}\n}}")

    def constant(self, name: str, ty: str, values: Iterable[str]) -> Symbol:
        """Write an array of constants of type ty, given in LLVM's spelling."""
        cells = [f"{ty} {v}" for v in values]
        array = f"[{len(cells)} x {ty}] [{', '.join(cells)}]"
        self._parts.append(f"@{name} = internal constant {array}")
        return Symbol(name)

    def wrong(self, calls: dict[str, str]) -> Iterator[str]:
        """Those of the calls (prototype by name) that no function here answers."""
        for name, prototype in calls.items():
            found = self.prototypes.get(name)
            if found != prototype:
                yield f"{name} is called as {prototype}, and is {found or 'not there'}"

    def text(self) -> str:
        """The whole module. TypeError where it is not complete."""
        wrong = [*self.wrong(self._calls)]
        if wrong:
            raise TypeError("; ".join(wrong[:5]))
        head = [_ATTRIBUTES, METADATA, *sorted(self._intrinsics.values())]
        return "\n".join([*head, *self._parts])


def definitions(file: File) -> Iterator[Definition]:
    """What a Python file defines at its top, in its order."""
    for thing in vars(file).values():
        for one in thing if isinstance(thing, list | tuple) else (thing,):
            if isinstance(one, Native | Routine) and one.defined and one.home == file.__name__:
                yield one
