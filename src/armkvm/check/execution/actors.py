"""One execution: actors of which one runs at a time, and who goes on at each step.

An actor is a thread of user space (in KVM_RUN or making other ioctls) or a piece of the host (time,
its timer interrupt, its scheduler). It runs until a point or until it must wait; there the chooser
picks one of those that can go on. The first in the list is the one that runs already, and picking
another one is a *deviation*: a schedule is the list of its picks, and the fewer deviations, the
easier it is to understand.

Locks of kvm and host are controlled too (locks.py), so that waiting for one is a step like others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from greenlet import getcurrent, greenlet

from armkvm.check.execution import place
from armkvm.check.execution.place import Frame, position

Ready = Callable[[], bool]


class Stop(BaseException):
    """The execution is over: unwind."""


class Violation(Exception):
    """A property does not hold."""

    def __init__(self, prop: str, detail: str) -> None:
        super().__init__(f"{prop}: {detail}")
        self.prop = prop
        self.detail = detail


class Pruned(Exception):
    """A state that was here before: what follows is known."""


class Chooser(Protocol):
    """Picks one of some alternatives."""

    def watch(self, world: Any) -> None: ...
    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int: ...


class Watcher(Protocol):
    """Told of the steps of whom a choice has let go on."""

    def begins(self, actor: Actor) -> None: ...
    def ended(self, actor: Actor, touched: int) -> None: ...
    def reaches(self, other: Any) -> None: ...


# What a step may touch besides the vCPU that its actor owns.
VM_WIDE, SHARED = 1, 2


class Actor:
    """One of those that take turns."""

    __slots__ = (
        "bit",
        "body",
        "done",
        "host",
        "name",
        "number",
        "owns",
        "place",
        "position",
        "ready",
        "stack",
        "started",
        "timed",
        "why",
    )  # fmt: skip

    def __init__(self, number: int, name: str, body: Callable[[], object], host: bool) -> None:
        self.number = number
        self.bit = 1 << number
        self.name = name
        self.body = body
        self.host = host  # the host's own: it does not keep the execution going
        self.owns: Any = None  # the vCPU that it runs and nobody else's threads touch
        self.ready: Ready | None = None  # what it waits for
        self.why = ""
        self.timed = False  # and gives up waiting when nobody else can go on
        self.done = False
        self.started = False
        self.place = "start"  # the last point
        self.position: tuple[Frame, ...] = ()  # where it stands, while it does not run
        self.stack: greenlet


class Execution:
    """Runs actors until all threads have ended, or nobody can go on."""

    def __init__(self, chooser: Chooser, max_steps: int = 4000) -> None:
        self.chooser = chooser
        self.max_steps = max_steps
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.picks: list[int] = []
        self.steps = 0
        self.over = False
        self.touched = 0  # by the step under way
        self.interrupted = 0  # threads in which a host interrupt runs: it is not they who touch
        self.moved = 0  # actors that took steps since somebody last set it to 0
        self.candidates: list[Actor] = []  # at a choice between actors
        self.watcher: Watcher | None = None
        self.ended: BaseException | None = None
        self.stuck = False
        self.exceeded = False
        # Called when no thread can go on: first thing before time passes, or for good.
        self.quiet: Callable[[bool], None] | None = None
        # Called at every point, in the actor, before anybody else may come in between.
        self.seen: Callable[[Actor, str], None] | None = None
        # Called with what ends the execution, before anybody unwinds.
        self.failing: Callable[[Exception], None] | None = None
        self._hub = getcurrent()

    def add(
        self,
        name: str,
        body: Callable[[], object],
        *,
        host: bool = False,
        ready: Ready | None = None,
    ) -> Actor:
        """Another actor; it begins where it is first picked."""
        actor = Actor(len(self.actors) + 1, name, body, host)
        actor.ready = ready
        actor.why = "not begun" if ready is not None else ""
        actor.stack = greenlet(lambda: self._body(actor), self._hub)
        self.actors.append(actor)
        return actor

    # called by actors

    def point(self, name: str, _what: object = None) -> None:
        """Somebody else may come in between here."""
        actor = self.current
        if self.over or actor is None:
            return
        actor.place = name
        self._see(actor, name)
        self.steps += 1
        if self.steps >= self.max_steps:
            self.exceeded = True
            self._finish()
        self._yield(actor)

    def block(self, ready: Ready, why: str, *, timed: bool = False) -> None:
        """Wait until `ready()`."""
        actor = self.current
        if self.over or actor is None:
            return
        actor.ready, actor.why, actor.timed = ready, why, timed
        self._see(actor, why)
        self._yield(actor)
        actor.ready, actor.why, actor.timed = None, "", False

    def touch(self, what: object) -> None:
        """The step under way touches a vCPU, a VM, or with None what anybody may touch."""
        owns = None if self.current is None or self.interrupted else self.current.owns
        if owns is None or what is not owns:
            mine = owns is not None and what is owns.vm
            self.touched |= VM_WIDE if mine else SHARED
            if owns is not None and what is not None and not mine and self.watcher is not None:
                self.watcher.reaches(what)

    def choose(self, labels: Sequence[str]) -> int:
        """A choice that is not who goes on: which CPU, which of two things."""
        if self.over or self.current is None or len(labels) < 2:
            return 0
        try:
            return self._pick(labels, False)
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: Exception) -> None:
        """The execution ends here, with a finding."""
        if self.over:
            return
        self._fails(error)
        self._finish()

    def _fails(self, error: Exception) -> None:
        if self.failing is not None:
            self.failing(error)
        self.ended = error

    # who goes on

    def _see(self, actor: Actor, what: str) -> None:
        if self.seen is not None:
            try:
                self.seen(actor, what)
            except Exception as error:
                self.fail(error)

    def _yield(self, actor: Actor) -> None:
        self.moved |= actor.bit
        if self.watcher is not None:
            self.watcher.ended(actor, self.touched)
        try:
            chosen = self._next(actor)
        except Exception as error:
            self._fails(error)
            chosen = None
        if chosen is None:
            self._finish()
        elif chosen is not actor:
            actor.position = position()
            self._switch(chosen)
        self.touched = 0

    def _finish(self) -> None:
        self.over = True
        self._hub.switch()
        raise Stop

    def _switch(self, to: Actor) -> None:
        self.current = to
        to.started = True
        to.stack.switch()
        if self.over:
            raise Stop

    def _next(self, actor: Actor | None) -> Actor | None:
        threads: list[Actor] = []
        hosts: list[Actor] = []
        waiting = False
        for a in self.actors:
            if a.done:
                continue
            if a.host:
                if a.ready is None or a.ready():
                    hosts.append(a)
                continue
            waiting = True
            if a.ready is None or a.ready():
                if a is actor:
                    threads.insert(0, a)
                else:
                    threads.append(a)
        if not waiting:
            return None
        if not threads:
            threads = [a for a in self.actors if not a.done and a.timed]
        if not threads and self.quiet is not None:
            self.quiet(not hosts)
        threads += hosts
        if not threads:
            self.stuck = True
            return None
        if len(threads) == 1:
            return threads[0]
        self.candidates = threads
        if self.watcher is None:
            return threads[self._pick([a.name for a in threads], True)]
        if actor is not None:
            actor.position = position()
        chosen = threads[self._pick([a.name for a in threads], True)]
        self.watcher.begins(chosen)
        return chosen

    def _pick(self, labels: Sequence[str], actors: bool) -> int:
        index = self.chooser.pick(self, labels, actors)
        self.picks.append(index)
        return index

    def _body(self, actor: Actor) -> None:
        try:
            actor.body()
        except Stop:
            pass
        except Exception as error:
            if not self.over:
                self.over = True
                self.ended = error
        actor.done = True
        actor.place = "ended"
        self.moved |= actor.bit
        if self.watcher is not None and not self.over:
            self.watcher.ended(actor, self.touched)

    # from outside

    def run(self) -> None:
        """To the end. Afterwards: `ended` (a violation or an error), `stuck`, `exceeded`."""
        last: Actor | None = None
        try:
            while not self.over:
                chosen = self._next(last)
                if chosen is None:
                    break
                self.current = last = chosen
                chosen.started = True
                chosen.stack.switch()
                last = None
        except Exception as error:
            self._fails(error)
        self.unwind()

    def unwind(self) -> None:
        """Let every actor leave what it is in."""
        self.over = True
        for actor in self.actors:
            if actor.started and not actor.done:
                self.current = actor
                actor.stack.switch()
        self.current = None


place.MACHINERY.add(__file__)
place.BOTTOM.update((Execution._body.__code__, Execution.run.__code__))
