"""Whose turn it is: of all vCPUs of a host one runs at any moment, and this decides which.

The scheduler of a host with a single physical CPU (kernel/sched/core.c in a few words). One CPU's
worth of time is shared, so that what a vCPU sees of memory, devices and counters follows from the
order of turns, and a run with several vCPUs is a function of its inputs as one with a single vCPU
is. The rules:

- A `Task` is what the kernel's scheduler knows of a vCPU; tasks are in the order of creation.
- A task becomes runnable in the thread that wakes it, at that moment; when its own thread is
  scheduled by the machine below decides nothing.
- The turn passes round robin among the runnable: when its owner sleeps, leaves for user space,
  or has used up its slice and asks (`pass_on`). A vCPU that becomes runnable preempts nobody.
- With nobody runnable, the thread of one that sleeps idles for all: it lets time pass up to the
  next timer, runs the timers, and passes the turn to whom they woke.

- Who sends an interrupt to another vCPU may wait for it by spinning, which would cost both a slice.
  So the turn is lent (`hand_over`): the target runs at once, for a moment, and the lender goes on
  with what is left of its slice. The order of the others stays as it was.

A thread may take its turn several times; it has it until it has given it back as often. So user
space can keep the turn while it handles an exit, and devices are accessed in the order of turns as
well. Who does not is OUTSIDE meanwhile and the others go on: the order then depends on threads,
but nothing waits for ever. Where idling means to jump in time, it waits a moment for those. A
thread that takes a second turn in its first gives that up until it has given the second back. The
first is ABSENT meanwhile, not OUTSIDE: no moment brings a thread back that sleeps in the second.

What may be the case whenever nobody has the lock (`illegal`, which the tests ask after each step):

    a task is     has the turn    idles    with a thread    that is
    ABSENT        no              no       no               no thread runs it, or none that could
    OUTSIDE       no              no       no               in user space, expected back
    RUNNABLE      no              no       no               waits for its turn
    RUNNABLE      yes             no       no               was granted the turn, its thread comes
    RUNNABLE      yes             no       yes              runs
    RUNNABLE      no              yes      no               was woken, and has timers to finish
    SLEEPING      no              no       no               sleeps
    SLEEPING      no              yes      no               lets time pass for all

At most one has the turn or idles; if there is nobody who does, nobody is RUNNABLE or SLEEPING.

Left out: priorities, several CPUs at once.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Final, NamedTuple

from armkvm.arch.timer import NEVER

if TYPE_CHECKING:
    from armkvm.host.clock import Clock
    from armkvm.host.hrtimer import HrtimerBase

SLICE_NS: Final = 100_000
LENT_NS: Final = 20_000  # for an interrupt's handler
OUTSIDE_GRACE_S: Final = 0.01  # host time for an exit to be handled, before time jumps without it

# Task.state
GONE: Final = -1
ABSENT: Final = 0  # no thread runs it
OUTSIDE: Final = 1  # it was here and went to user space: expected back
RUNNABLE: Final = 2  # it runs, or wants to
SLEEPING: Final = 3

# state, has the turn, idles, with a thread: the table above
LEGAL: Final = frozenset({
    (ABSENT, False, False, False),
    (OUTSIDE, False, False, False),
    (RUNNABLE, False, False, False),
    (RUNNABLE, True, False, False),
    (RUNNABLE, True, False, True),
    (RUNNABLE, False, True, False),
    (SLEEPING, False, False, False),
    (SLEEPING, False, True, False),
})  # fmt: skip

Choose = Callable[[Sequence["Task"]], "Task"]


class Given(NamedTuple):
    """A turn that a thread has given up for another one, to take it back afterwards."""

    task: Task
    depth: int
    before: Given | None  # what it had given up for that


class Task:
    """One vCPU in the eyes of the scheduler."""

    __slots__ = ("cond", "depth", "given", "state", "thread", "user", "waiters", "woken")

    def __init__(self, lock: threading.Lock) -> None:
        self.cond = threading.Condition(lock)  # its thread waits here for the turn
        self.state = ABSENT
        self.thread = 0  # the thread that has its turn
        self.user = 0  # the thread that had it last
        self.depth = 0  # how often it took it
        self.waiters = 0  # threads that wait for it
        self.woken = False  # a wake-up came since the owner last cleared this
        self.given: Given | None = None  # what its thread had before


class Turn:
    """The turn of one host."""

    def __init__(self, clock: Clock, timers: HrtimerBase) -> None:
        self.clock = clock
        self.timers = timers
        # Picks among the runnable, given in round-robin order. None: the first.
        self.choose: Choose | None = None
        self.lock = threading.Lock()
        self.tasks: list[Task] = []
        self.owner: Task | None = None
        self.crowded = False  # somebody else wants to run: read without the lock
        self.slice_ns = NEVER  # end of the owner's slice
        self._last: Task | None = None  # the last owner
        self._runnable = 0
        self._asleep = 0
        self._idler: Task | None = None  # whose thread idles for all
        self._idling = False  # and it has begun to
        self._frozen = 0
        self._lender: Task | None = None  # who goes on when those have run to whom it has lent
        self._lender_ends = 0  # its slice
        self._lent: deque[Task] = deque()  # who runs next, one after the other
        self._granted: tuple[int, int] = (SLICE_NS, NEVER)  # the owner's slice: length, end
        self._forgotten: deque[Task] = deque()  # of vCPUs that were dropped, still to leave

    # membership

    def join(self) -> Task:
        """A vCPU was created."""
        with self.lock:
            self._forget()
            task = Task(self.lock)
            self.tasks.append(task)
            return task

    def leave(self, task: Task) -> None:
        """A vCPU is gone; no thread is in KVM_RUN on it."""
        with self.lock:
            given = task.given if task.thread == get_ident() else None
            self._leave(task)
        self._take_back(given)

    def forget(self, task: Task) -> None:
        """A vCPU was dropped without a word. Called by the garbage collector, anywhere.

        So also in a thread that has our lock: then whoever takes it for a new vCPU cleans up.
        """
        self._forgotten.append(task)
        if self.lock.acquire(blocking=False):
            try:
                self._forget()
            finally:
                self.lock.release()

    def announce(self, task: Task) -> None:
        """A thread is about to take this turn: it counts as runnable from now on.

        What wake_up_new_task() is: a new thread has its place in the order before it ever ran.
        """
        with self.lock:
            if task.state in (ABSENT, OUTSIDE):
                self._set(task, RUNNABLE)
                self._pass()

    # having the turn

    def take(self, task: Task) -> None:
        """Wait for the turn of `task`; at once for a thread that has it already.

        A thread that has the turn for another task gives that up for the time being. EBADF when
        the vCPU is gone: then it has the other's again.
        """
        me = get_ident()
        if task.thread == me:
            task.depth += 1
            return
        given: Given | None = None
        try:
            with self.lock:
                owner = self.owner
                if owner is None and self._idler is None and task.state in (ABSENT, OUTSIDE):
                    # Nobody else runs or sleeps: the way of a single vCPU, kept short.
                    self._set(task, RUNNABLE)
                    self._grant(task)
                    self._begin(task, me, 1, None)
                    return
                if owner is not None and owner.thread == me:
                    given = Given(owner, owner.depth, owner.given)
                    self._drop(owner, RUNNABLE if owner.waiters else ABSENT)
                if task.state in (ABSENT, OUTSIDE):
                    self._set(task, RUNNABLE)
                    self._pass()
                self._await(task, me, 1, given)
        except OSError:
            self._take_back(given)
            raise

    def _take_back(self, given: Given | None) -> None:
        """What was given up last, of those that are still there."""
        while given is not None:
            with suppress(OSError):
                self.take(given.task)
                given.task.depth, given.task.given = given.depth, given.before
                return
            given = given.before

    def give(self, task: Task) -> None:
        """Give the turn back, if taken once only. Nothing if an exception has lost it."""
        if task.thread != get_ident():
            return
        if task.depth > 1:
            task.depth -= 1
            return
        with self.lock:
            given = task.given
            if self.crowded or self._asleep or task.waiters:
                self._drop(task, RUNNABLE if task.waiters else OUTSIDE)
            else:
                task.thread = task.depth = 0
                task.given = None
                self._set(task, OUTSIDE)
                self.owner = None
        self._take_back(given)

    def pass_on(self, task: Task) -> None:
        """Let the other runnable ones have a turn each first."""
        with self.lock:
            if not self.crowded:
                return
            me, depth, given = task.thread, task.depth, task.given
            self._drop(task, RUNNABLE)
            self._await(task, me, depth, given)

    def hand_over(self, task: Task) -> None:
        """From the owner's thread, which has sent `task` something: let it run at once.

        The owner's slice is over until then; `pass_on` is what does it.
        """
        with self.lock:
            owner = self.owner
            if owner is None or owner.thread != get_ident() or task is owner:
                return
            if task.state != RUNNABLE or task is self._lender or task in self._lent:
                return
            self._lent.append(task)
            if self._lender is None:
                self._lender, self._lender_ends = owner, self.slice_ns
                self.slice_ns = 0

    def sleep(self, task: Task) -> None:
        """Give the turn up until somebody calls `wake`; at once if that was since `woken` fell."""
        with self.lock:
            if task.woken:
                return
            me, depth, given = task.thread, task.depth, task.given
            self._drop(task, SLEEPING)
            self._await(task, me, depth, given)

    def wake(self, task: Task) -> None:
        """From any thread: end a sleep, or the one that is about to begin."""
        with self.lock:
            task.woken = True
            if task.state == SLEEPING:
                self._set(task, RUNNABLE)
                self._pass()

    @contextmanager
    def time_stands(self) -> Iterator[None]:
        """Whoever sleeps now is about to be woken by us: no reason to let time pass."""
        with self.lock:
            self._frozen += 1
        try:
            yield
        finally:
            with self.lock:
                self._frozen -= 1
                if self._idler is not None:
                    self._idler.cond.notify_all()

    # all that follows is called with the lock held

    def illegal(self) -> str:
        """What is not as it must be, or nothing. `_idler` may be gone while its thread finishes."""
        tasks, owner, idler = self.tasks, self.owner, self._idler
        for n, task in enumerate(tasks):
            row = task.state, task is owner, task is idler, bool(task.thread)
            if row not in LEGAL or bool(task.depth) != bool(task.thread):
                return f"task {n} is {row}, {task.depth} deep"
        states = [task.state for task in tasks]
        if (states.count(RUNNABLE), states.count(SLEEPING)) != (self._runnable, self._asleep):
            return f"{states} counted as {self._runnable} and {self._asleep}"
        if self.crowded != (self._runnable > 1):
            return f"{self._runnable} runnable, crowded {self.crowded}"
        others = [task for task in (owner, idler, self._last, self._lender, *self._lent) if task]
        if any(task not in tasks for task in others):
            return "somebody who has left has the turn, or is next"
        if owner is not None and idler is not None:
            return "one has the turn, another one idles"
        somebody = owner is not None or idler is not None or self._idling
        if not somebody and (self._runnable or self._asleep):
            return "nobody has the turn, and nobody idles"
        return ""

    def _leave(self, task: Task) -> None:
        if task.state == GONE:
            return
        index = self.tasks.index(task)
        del self.tasks[index]
        if task in self._lent:
            self._lent.remove(task)
        if self._lender is task:
            self._lender = None
        if self._last is task:
            self._last = self.tasks[index - 1] if self.tasks else None
        self._drop(task, GONE)
        task.cond.notify_all()

    def _forget(self) -> None:
        while self._forgotten:
            self._leave(self._forgotten.popleft())

    def _set(self, task: Task, state: int) -> None:
        before = task.state
        if before == RUNNABLE:
            self._runnable -= 1
        elif before == SLEEPING:
            self._asleep -= 1
        if state == RUNNABLE:
            self._runnable += 1
        elif state == SLEEPING:
            self._asleep += 1
        task.state = state
        self.crowded = self._runnable > 1

    def _drop(self, task: Task, state: int) -> None:
        """The task has no longer the turn, if it had."""
        task.thread = task.depth = 0
        task.given = None
        self._set(task, state)
        if self.owner is task:
            self.owner = None
        if self._idler is task:
            self._idler = None
        self._pass(task)

    def _pass(self, by: Task | None = None) -> None:
        """If nobody has the turn: to the next in order, or to an idler's care."""
        if self.owner is not None:
            return
        if self._idler is not None:
            # It has to account for the time first, and to finish with its timers.
            self._idler.cond.notify_all()
        elif self._runnable:
            task = self._grant_next()
            if task.waiters:
                task.cond.notify_all()
        elif self._asleep:
            self._lent.clear()
            self._lender = None
            if by is None or by.state != SLEEPING:
                by = next(task for task in self.tasks if task.state == SLEEPING)
            self._idler = by
            if by.waiters:
                by.cond.notify_all()

    def _grant(self, task: Task) -> None:
        self.owner = self._last = task
        self._granted = SLICE_NS, NEVER

    def _grant_next(self) -> Task:
        """To whom the turn is lent, back to the lender, or round robin."""
        while self._lent:
            task = self._lent.popleft()
            if task.state == RUNNABLE:
                self.owner = task  # `_last` is the lender still: its neighbour comes next
                self._granted = LENT_NS, NEVER
                return task
        lender, self._lender = self._lender, None
        if lender is not None and lender.state == RUNNABLE:
            self._grant(lender)
            self._granted = SLICE_NS, self._lender_ends
            return lender
        task = self._next()
        self._grant(task)
        return task

    def _begin(self, task: Task, me: int, depth: int, given: Given | None) -> None:
        """The owner's thread is here: its slice begins now, whenever the turn was granted."""
        task.thread = task.user = me
        task.depth, task.given = depth, given
        length, end = self._granted
        self.slice_ns = min(self.clock.now() + length, end)

    def _next(self) -> Task:
        """Round robin."""
        tasks, last = self.tasks, self._last
        start = 0 if last is None else tasks.index(last) + 1
        order = tasks[start:] + tasks[:start] if start < len(tasks) else tasks
        runnable = [task for task in order if task.state == RUNNABLE]
        return runnable[0] if self.choose is None else self.choose(runnable)

    def _await(self, task: Task, me: int, depth: int, given: Given | None) -> None:
        """Wait until it is this task's turn, idling if that falls to us."""
        task.waiters += 1
        try:
            while self.owner is not task or task.thread:
                if task.state == GONE:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                if self._idler is task and not self._idling:
                    self._idle(task, me)
                else:
                    task.cond.wait()
            self._begin(task, me, depth, given)
        except BaseException:
            # A signal handler's exception, or a callback's: the thread unwinds without the turn.
            if task.state != GONE and task.thread in (0, me):
                self._drop(task, RUNNABLE if task.waiters > 1 else OUTSIDE)
            raise
        finally:
            task.waiters -= 1

    def _idle(self, task: Task, me: int) -> None:
        """Let time pass until somebody is runnable. Others are called without the lock."""
        clock, timers = self.clock, self.timers
        self._idling = True
        try:
            told = False
            while not self._runnable:
                due = timers.next_ns
                if self._frozen:
                    task.cond.wait()
                    continue
                if clock.idle is not None and not told:
                    told = True
                    self.lock.release()
                    try:
                        clock.idle(None if due == NEVER else due)
                    finally:
                        self.lock.acquire()
                    continue
                if clock.jumps and due != NEVER and len(self.tasks) > 1:
                    if self._somebody_returns(task, me):
                        continue
                clock.ns = max(clock.ns, clock.sleep(task.cond, None if due == NEVER else due))
                self.lock.release()
                try:
                    # The idle CPU takes its timer's interrupt.
                    timers.run(clock.ns)
                finally:
                    self.lock.acquire()
        finally:
            self._idling = False
            self._idler = None
        self._pass()

    def _somebody_returns(self, task: Task, me: int) -> bool:
        """Time is about to jump: give exits that are being handled a moment to be finished.

        Otherwise guest time would fly whenever one vCPU waits for its device and the others sleep.
        Each gets one moment only: user space may have no wish to run that vCPU again.
        """
        away = [t for t in self.tasks if t.state == OUTSIDE and t.user != me]
        if not away:
            return False
        if not task.cond.wait(OUTSIDE_GRACE_S):
            for one in away:
                if one.state == OUTSIDE:
                    self._set(one, ABSENT)
        return True
