"""Partial-order reduction: a step that touches nothing of others needs no alternatives.

If the next step of a thread is *private*, every other actor's steps commute with it, now and until
it is taken; so it is taken first, and nobody else is tried there (an ample set of one; Peled, CAV
1993). Private is a step that reads no time, uses no timer of the host, claims or frees no physical
CPU, takes no lock but those of its own vCPU, and is not in reach of others meanwhile: every thread
works for a vCPU of its own, none has ever been seen to touch this one (as PSCI CPU_ON does), no
soft timer of it is armed, no scheduler is about to strike. Where a VM has one thread only, its own
locks and its user space count as private as well.

What a step touches is not declared but seen: clock, locks and queues tell the execution. Each
place (the code position of a thread's stack) is learned in a number of random schedules. One that
was thought private and then is seen to touch more is struck off, and the search begins anew.

Left out: independence of steps that both touch something shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from armkvm.check.execution.actors import SHARED, VM_WIDE, Actor, Execution
from armkvm.check.execution.place import stands

if TYPE_CHECKING:
    from armkvm.check.world.world import World

LONGEST = 200  # private steps in a row: nobody may keep the others out for ever


class Places:
    """What the steps from each place have touched so far."""

    def __init__(self) -> None:
        self.touched: dict[int, int] = {}
        self.reached: set[int] = set()  # vCPUs, by their numbers, that others' threads touch
        self.closed = False  # nothing new is believed any more
        self.wrong = False  # a place was thought private and is not

    def saw(self, place: int, touched: int) -> None:
        """A step from there has ended."""
        before = self.touched.get(place)
        if before is None:
            self.touched[place] = SHARED if self.closed else touched
        elif touched & ~before:
            self.touched[place] = before | touched
            self.wrong |= self.closed

    def reaches(self, vcpu: int) -> None:
        """The thread of another vCPU has touched this one."""
        if vcpu not in self.reached:
            self.reached.add(vcpu)
            self.wrong |= self.closed

    def close(self) -> None:
        """A search begins, with all that was learned."""
        self.closed, self.wrong = True, False


class Reduction:
    """Watches one execution after the other, and says who goes on without a choice."""

    def __init__(self) -> None:
        self.places = Places()
        self._row = 0
        self._from = 0
        self._ahead = 0

    def watch(self, world: World, at_once: bool = True) -> None:
        """The next execution; not yet while it only repeats what is known."""
        self.world = world
        self._row = self._from = 0
        if at_once:
            world.execution.watcher = self

    # Watcher

    def begins(self, actor: Actor) -> None:
        """A step whose place is to be learned."""
        if actor.owns is not None:
            self._from = stands(actor.position)
            self._ahead = self.world.next_deadline()

    def ended(self, actor: Actor, touched: int) -> None:
        """Any step."""
        if self._from:
            if not touched & SHARED and self.world.next_deadline() != self._ahead:
                touched |= SHARED  # it has set a timer
            self.places.saw(self._from, touched)
            self._from = 0

    def reaches(self, other: Any) -> None:
        """A thread touches a vCPU that is not its own."""
        if other in self.world.vcpus:
            self.places.reaches(self.world.vcpus.index(other))

    def private(self, execution: Execution) -> int | None:
        """Among those that can go on: the first whose next step is private."""
        if self._row < LONGEST and self._apart(execution):
            for index, actor in enumerate(execution.candidates):
                if actor.owns is not None and self._is_private(execution, actor):
                    self._row += 1
                    return index
        self._row = 0
        return None

    def _apart(self, execution: Execution) -> bool:
        """Each thread works for a vCPU, and the host will only let time pass."""
        return not execution.interrupted and all(
            actor.done
            or actor.owns is not None
            or (actor.host and actor is not self.world.scheduler)
            for actor in execution.actors
        )

    def _is_private(self, execution: Execution, actor: Actor) -> bool:
        touched = self.places.touched.get(stands(actor.position), SHARED)
        if touched & SHARED:
            return False
        vcpu = actor.owns
        timer = vcpu.arch_timer
        if timer.bg_timer.queued or any(t.hrtimer.queued for t in timer.timers):
            return False
        if touched & VM_WIDE or self.world.vcpus.index(vcpu) in self.places.reached:
            vm = vcpu.vm
            return not any(
                a is not actor and not a.done and a.owns is not None and a.owns.vm is vm
                for a in execution.actors
            )
        return True
