"""What a scenario is, and the table of all of them.

A scenario is a function that makes VMs and adds threads to a world. It names the properties that
its schedules have to reach: one that is not reached is an error of the scenario.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from armkvm.check.execution.actors import Execution
from armkvm.check.world.world import World

Variant = Callable[[World], None]
BOUND = 100_000  # more than any of those needs that can be exhausted


@dataclass(frozen=True)
class Scenario:
    """One small situation."""

    name: str
    title: str
    setup: Callable[[World], None]
    reaches: tuple[str, ...] = ()
    kind: str = "nvhe-gicv2"
    cpus: int = 1
    migrate: bool = False
    resched: int = 0
    endless: bool = False  # its guests never end: states are relative to the time they are met at
    bound: int = BOUND  # schedules that are tried unless one says otherwise

    def build(self, execution: Execution, variant: Variant | None = None) -> World:
        """A world in which it begins."""
        world = World(
            execution,
            kind=self.kind,
            cpus=self.cpus,
            migrate=self.migrate,
            resched=self.resched,
            endless=self.endless,
        )
        if variant is not None:
            variant(world)
        self.setup(world)
        world.settle()
        return world


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str,
    title: str,
    *reaches: str,
    kind: str = "nvhe-gicv2",
    cpus: int = 1,
    migrate: bool = False,
    resched: int = 0,
    endless: bool = False,
    bound: int = BOUND,
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a set-up function."""

    def register(setup: Callable[[World], None]) -> Callable[[World], None]:
        SCENARIOS[name] = Scenario(
            name, title, setup, reaches, kind, cpus, migrate, resched, endless, bound
        )
        return setup

    return register
