"""Turns: one task at a time, in an order that threads do not decide."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable

import pytest

from armkvm.host import turn as t
from armkvm.host.clock import Clock, PacedClock, VirtualClock
from armkvm.host.hrtimer import Hrtimer, HrtimerBase
from armkvm.host.turn import Task, Turn


class Cast:
    """Tasks with a thread each; `log` is in the order of turns."""

    def __init__(self, count: int, clock: Clock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.timers = HrtimerBase()
        self.turn = Turn(self.clock, self.timers)
        self.tasks = [self.turn.join() for _ in range(count)]
        self.log: list[str] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, n: int, part: Callable[[Task], None]) -> None:
        """A thread that takes task n's turn for `part`, announced as machines do."""

        def play() -> None:
            try:
                self.turn.take(task)
                part(task)
                self.turn.give(task)
            except BaseException as e:
                self.errors.append(e)

        task = self.tasks[n]
        self.turn.announce(task)
        thread = threading.Thread(target=play, daemon=True)
        self._threads.append(thread)
        thread.start()

    def run(self, *parts: Callable[[Task], None]) -> list[str]:
        """All parts from the same moment on; returns the log."""
        main = self.turn.join()
        self.turn.take(main)
        for n, part in enumerate(parts):
            self.start(n, part)
        self.turn.leave(main)
        self.join()
        return self.log

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def sleep(self, task: Task, ns: int | None) -> None:
        """Sleep until a time, or until woken."""
        task.woken = False
        timer = Hrtimer(lambda _now: self.turn.wake(task))
        if ns is not None:
            timer.start(self.timers, ns)
        self.turn.sleep(task)
        timer.cancel()


def speaker(cast: Cast, name: str, lines: int) -> Callable[[Task], None]:
    def part(task: Task) -> None:
        for n in range(lines):
            cast.log.append(f"{name}{n}")
            cast.turn.pass_on(task)

    return part


def test_round_robin_in_the_order_of_creation() -> None:
    for _ in range(20):
        cast = Cast(3)
        said = cast.run(speaker(cast, "a", 3), speaker(cast, "b", 2), speaker(cast, "c", 3))
        assert said == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "c2"]


def test_a_chooser_decides_instead() -> None:
    cast = Cast(3)
    asked: list[int] = []

    def last(runnable: object) -> Task:
        assert isinstance(runnable, list)
        asked.append(len(runnable))
        task: Task = runnable[-1]
        return task

    cast.turn.choose = last
    said = cast.run(speaker(cast, "a", 2), speaker(cast, "b", 1), speaker(cast, "c", 2))
    assert said[0] == "c0"
    assert sorted(said) == ["a0", "a1", "b0", "c0", "c1"]
    assert 3 in asked


def test_alone_nothing_passes() -> None:
    cast = Cast(1)
    task = cast.tasks[0]
    cast.turn.take(task)
    assert not cast.turn.crowded
    cast.turn.pass_on(task)
    assert cast.turn.owner is task
    cast.turn.give(task)
    assert cast.turn.owner is None


def test_taken_twice_is_given_back_twice() -> None:
    cast = Cast(2)
    one, other = cast.tasks
    cast.turn.take(one)
    cast.turn.take(one)
    cast.turn.announce(other)
    cast.turn.give(one)
    assert cast.turn.owner is one
    assert cast.turn.crowded
    cast.turn.give(one)
    assert cast.turn.owner is other


def test_sleep_gives_up_all_and_restores_all() -> None:
    cast = Cast(2)

    def sleeper(task: Task) -> None:
        cast.turn.take(task)
        cast.turn.take(task)
        cast.sleep(task, 5000)
        assert task.depth == 3
        cast.log.append("awake")
        cast.turn.give(task)
        cast.turn.give(task)

    def other(_task: Task) -> None:
        cast.log.append("other")

    assert cast.run(sleeper, other) == ["other", "awake"]
    assert cast.clock.ns == 5000


def test_a_wakeup_before_the_sleep_is_not_lost() -> None:
    cast = Cast(1)
    task = cast.tasks[0]
    cast.turn.take(task)
    cast.turn.wake(task)
    cast.turn.sleep(task)  # would never end
    assert cast.turn.owner is task


@pytest.mark.parametrize("_again", range(20))
def test_runnable_at_the_moment_of_the_wakeup(_again: int) -> None:
    """Both are woken in one turn: they go on in their order, not in that of the wake-ups."""
    cast = Cast(3)

    def sleeper(name: str) -> Callable[[Task], None]:
        def part(task: Task) -> None:
            cast.sleep(task, None)
            cast.log.append(name)

        return part

    def waker(_task: Task) -> None:
        cast.turn.wake(cast.tasks[1])
        cast.turn.wake(cast.tasks[0])
        cast.log.append("woke")

    assert cast.run(sleeper("a"), sleeper("b"), waker) == ["woke", "a", "b"]


def test_time_jumps_to_the_earliest_deadline_only() -> None:
    cast = Cast(3)

    def sleeper(name: str, *times: int) -> Callable[[Task], None]:
        def part(task: Task) -> None:
            for ns in times:
                cast.sleep(task, ns)
                cast.log.append(f"{name}{cast.clock.ns}")

        return part

    said = cast.run(sleeper("a", 300, 400), sleeper("b", 100, 400), sleeper("c", 200, 250, 800))
    assert said == ["b100", "c200", "c250", "a300", "b400", "a400", "c800"]


@pytest.mark.parametrize("_again", range(20))
def test_two_timers_at_once_both_wake_before_anybody_runs(_again: int) -> None:
    cast = Cast(2)
    crowded = []

    def part(task: Task) -> None:
        cast.sleep(task, 100)
        crowded.append(cast.turn.crowded)

    cast.run(part, part)
    assert crowded == [True, False]


def test_the_idle_callback_can_end_idling() -> None:
    cast = Cast(2)
    asked: list[int | None] = []

    def idle(due: int | None) -> None:
        asked.append(due)
        if due is None:
            cast.turn.wake(cast.tasks[0])

    cast.clock.idle = idle

    def first(task: Task) -> None:
        cast.sleep(task, None)
        cast.turn.wake(cast.tasks[1])

    def second(task: Task) -> None:
        cast.sleep(task, 700)
        cast.sleep(task, None)

    cast.run(first, second)
    assert asked == [700, None]


def test_an_idle_callback_that_fails_fails_its_thread_only() -> None:
    cast = Cast(2)

    def idle(_due: int | None) -> None:
        cast.clock.idle = None
        raise ValueError("idle")

    cast.clock.idle = idle

    def part(task: Task) -> None:
        cast.sleep(task, 100)
        cast.log.append("awake")

    with pytest.raises(ValueError, match="idle"):
        cast.run(part, part)
    assert cast.log == ["awake"]


def test_without_a_deadline_somebody_outside_ends_the_sleep() -> None:
    cast = Cast(2)

    def sleeper(task: Task) -> None:
        cast.sleep(task, None)
        cast.log.append("awake")
        cast.turn.wake(cast.tasks[1])

    cast.start(0, sleeper)
    cast.start(1, lambda task: cast.sleep(task, None))
    time.sleep(0.02)
    assert cast.log == []
    cast.turn.wake(cast.tasks[0])
    cast.join()
    assert cast.log == ["awake"]
    assert cast.clock.ns == 0


def test_paced_idling_ends_early_for_input() -> None:
    cast = Cast(2, PacedClock())
    for n in range(2):
        cast.start(n, lambda task: cast.sleep(task, 3600 * 10**9))
    time.sleep(0.05)
    cast.turn.wake(cast.tasks[1])
    cast.turn.wake(cast.tasks[0])
    cast.join()
    assert cast.clock.ns < 3600 * 10**9


def test_paced_idling_lasts_until_the_deadline() -> None:
    cast = Cast(2, PacedClock())
    cast.run(lambda task: cast.sleep(task, 30_000_000), lambda task: cast.sleep(task, 20_000_000))
    assert cast.clock.ns == 30_000_000


def test_time_stands_while_somebody_works_on_the_sleepers() -> None:
    cast = Cast(1)
    with cast.turn.time_stands():
        cast.start(0, lambda task: cast.sleep(task, 100))
        time.sleep(0.02)
        assert cast.clock.ns == 0
    cast.join()
    assert cast.clock.ns == 100


def test_a_sleeper_idles_when_the_last_runner_goes_outside() -> None:
    cast = Cast(2)
    cast.run(lambda task: cast.sleep(task, 100), lambda _task: None)
    assert cast.clock.ns == 100
    # It was waited for, a moment, and is not any more.
    assert cast.tasks[1].state == t.ABSENT


def test_time_waits_a_moment_for_an_exit_that_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "OUTSIDE_GRACE_S", 10.0)
    cast = Cast(2)

    def handler(task: Task) -> None:
        for _ in range(5):
            cast.turn.give(task)
            time.sleep(0.005)
            cast.turn.take(task)
            cast.log.append(str(cast.clock.ns))
        cast.turn.leave(task)

    cast.run(lambda task: cast.sleep(task, 100), handler)
    assert cast.log == ["0"] * 5
    assert cast.clock.ns == 100


def test_a_thread_may_take_another_turn_in_its_own() -> None:
    cast = Cast(2)
    one, other = cast.tasks
    cast.turn.take(one)
    cast.turn.take(one)
    cast.turn.take(other)
    assert cast.turn.owner is other
    cast.turn.take(one)  # and back again
    assert cast.turn.owner is one
    cast.turn.give(one)
    assert cast.turn.owner is other
    cast.turn.give(other)
    assert cast.turn.owner is one
    assert one.depth == 2
    cast.turn.give(one)
    cast.turn.give(one)
    assert cast.turn.owner is None


def test_time_does_not_wait_for_a_turn_that_its_thread_gave_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that could come back to it sleeps."""
    monkeypatch.setattr(t, "OUTSIDE_GRACE_S", 10.0)
    cast = Cast(3)
    one, other, _ = cast.tasks
    waited: list[bool] = []
    look = cast.turn._somebody_returns

    def somebody_returns(task: Task, me: int) -> bool:
        waited.append(look(task, me))
        return waited[-1]

    monkeypatch.setattr(cast.turn, "_somebody_returns", somebody_returns)

    def in_two(_task: Task) -> None:
        cast.turn.take(other)
        cast.sleep(other, 5000)
        cast.turn.leave(other)
        assert cast.turn.owner is one
        cast.log.append(str(cast.clock.ns))

    def idler(task: Task) -> None:
        cast.sleep(task, 3000)
        cast.turn.leave(task)

    main = cast.turn.join()
    cast.turn.take(main)
    cast.start(0, in_two)
    cast.start(2, idler)
    cast.turn.leave(main)
    cast.join()
    assert cast.log == ["5000"]
    assert not any(waited)


def test_who_waits_for_a_turn_that_its_thread_gave_up_for_another_has_it() -> None:
    cast = Cast(2)
    one, other = cast.tasks

    def second(_task: Task) -> None:
        cast.log.append(f"second at {cast.clock.ns}")
        cast.turn.wake(other)

    cast.turn.take(one)
    cast.start(0, second)
    while not one.waiters:
        time.sleep(0.001)
    cast.turn.take(other)
    cast.sleep(other, 5000)
    cast.turn.give(other)
    assert cast.turn.owner is one
    cast.turn.give(one)
    cast.join()
    assert cast.log == ["second at 0"]


def test_a_turn_that_was_given_up_may_be_gone() -> None:
    """Its vCPU was closed meanwhile: KVM_RUN on the other ends as if nothing had been."""
    cast = Cast(3)
    zero, one, other = cast.tasks
    for task in cast.tasks:
        cast.turn.take(task)
    cast.turn.leave(one)
    cast.turn.give(other)
    assert cast.turn.owner is zero
    cast.turn.give(zero)
    assert cast.turn.owner is None


def test_who_cannot_have_another_turn_keeps_the_first() -> None:
    cast = Cast(2)
    one, other = cast.tasks
    cast.turn.take(one)
    cast.turn.take(one)
    cast.turn.leave(other)
    with pytest.raises(OSError):
        cast.turn.take(other)
    assert (cast.turn.owner, one.depth) == (one, 2)


def test_a_turn_comes_back_when_the_second_vcpu_is_closed_in_its_own() -> None:
    cast = Cast(2)
    one, other = cast.tasks
    cast.turn.take(one)
    cast.turn.take(other)
    cast.turn.leave(other)
    assert cast.turn.owner is one
    cast.turn.give(other)
    cast.turn.give(one)
    assert cast.turn.owner is None


def test_each_thread_goes_back_to_its_own_turn() -> None:
    """Two threads want the same turn, each out of another one."""
    cast = Cast(3)
    one, other, shared = cast.tasks
    back: dict[str, Task | None] = {}

    def part(name: str) -> Callable[[Task], None]:
        def play(_task: Task) -> None:
            cast.turn.take(shared)
            cast.sleep(shared, 100)
            cast.turn.give(shared)
            back[name] = cast.turn.owner

        return play

    cast.run(part("one"), part("other"))
    assert back == {"one": one, "other": other}


def test_two_threads_for_one_task() -> None:
    cast = Cast(1)
    task = cast.tasks[0]
    cast.turn.take(task)
    cast.start(0, lambda _task: cast.log.append("second"))
    time.sleep(0.02)
    assert cast.log == []
    cast.turn.give(task)
    cast.join()
    assert cast.log == ["second"]


def test_leaving_passes_the_turn_and_ends_waiting() -> None:
    cast = Cast(3)
    cast.turn.take(cast.tasks[0])
    cast.start(1, lambda _task: cast.log.append("next"))
    thread_error: list[OSError] = []

    def wait() -> None:
        try:
            cast.turn.take(cast.tasks[0])
        except OSError as e:
            thread_error.append(e)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.02)
    cast.turn.leave(cast.tasks[0])
    cast.turn.leave(cast.tasks[0])  # has no effect
    waiter.join()
    cast.join()
    assert cast.log == ["next"]
    assert [e.errno for e in thread_error] == [errno.EBADF]
    cast.turn.give(cast.tasks[0])


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_the_order_goes_on_where_one_left(gone: int) -> None:
    cast = Cast(3)
    for task in cast.tasks:
        cast.turn.announce(task)
    cast.turn.take(cast.tasks[0])
    for _ in range(gone):
        pass_to_next(cast)
    cast.turn.leave(cast.tasks[gone])
    assert cast.turn.owner is cast.tasks[(gone + 1) % 3]
    cast.turn.leave(cast.tasks[(gone + 1) % 3])
    assert cast.turn.owner is cast.tasks[(gone + 2) % 3]
    cast.turn.leave(cast.tasks[(gone + 2) % 3])
    again = cast.turn.join()
    cast.turn.take(again)
    assert cast.turn.owner is again


def pass_to_next(cast: Cast) -> None:
    """The owner's thread gives the turn up and asks for it again; we are the next one's."""
    owner = cast.turn.owner
    assert owner is not None
    cast.turn.take(owner)
    for _ in range(owner.depth):
        cast.turn.give(owner)
    cast.turn.announce(owner)


def test_giving_what_one_has_not_does_nothing() -> None:
    cast = Cast(2)
    cast.turn.give(cast.tasks[0])
    cast.turn.take(cast.tasks[1])
    cast.turn.give(cast.tasks[0])
    assert cast.turn.owner is cast.tasks[1]


def test_only_one_has_the_turn() -> None:
    """Many threads that take, sleep, wake each other and pass on: never two inside."""
    cast = Cast(6)
    inside: list[Task] = []

    def part(task: Task) -> None:
        n = cast.tasks.index(task)
        for i in range(200):
            inside.append(task)
            assert inside == [task]
            inside.remove(task)
            match (i + n) % 4:
                case 0:
                    cast.turn.pass_on(task)
                case 1:
                    cast.turn.give(task)
                    cast.turn.take(task)
                case 2:
                    cast.turn.wake(cast.tasks[(n + i) % 6])
                case 3:
                    cast.sleep(task, cast.clock.ns + 10 + n)

    cast.run(*[part] * 6)
    assert cast.turn.owner is None


def test_forgotten_in_the_middle_of_something() -> None:
    """The garbage collector may drop a vCPU in a thread that has the lock."""
    cast = Cast(2)
    first, second = cast.tasks
    with cast.turn.lock:
        cast.turn.forget(first)
        assert cast.turn.tasks == [first, second]
    third = cast.turn.join()
    assert cast.turn.tasks == [second, third]
    cast.turn.forget(third)
    cast.turn.leave(third)
    assert cast.turn.tasks == [second]


def test_the_turn_is_lent_to_whom_an_interrupt_was_sent() -> None:
    """It runs next and for a moment; then the lender, with what is left; then the others."""
    cast = Cast(3)
    turn, log, ends = cast.turn, cast.log, []

    def lender(task: Task) -> None:
        end = turn.slice_ns
        turn.hand_over(cast.tasks[2])
        ends.append(turn.slice_ns)
        turn.pass_on(task)
        log.append("lender")
        ends.append(turn.slice_ns - end)
        turn.pass_on(task)
        log.append("lender again")

    def other(task: Task) -> None:
        log.append("other")

    def target(task: Task) -> None:
        log.append("target")
        ends.append(turn.slice_ns)
        turn.hand_over(cast.tasks[0])  # it comes back there anyway
        turn.pass_on(task)
        log.append("target again")

    assert cast.run(lender, other, target) == [
        "target", "lender", "other", "target again", "lender again",
    ]  # fmt: skip
    assert ends == [0, t.LENT_NS, 0]


def test_nothing_is_lent_to_who_sleeps_or_by_who_has_no_turn() -> None:
    cast = Cast(2)
    cast.turn.hand_over(cast.tasks[0])
    cast.turn.take(cast.tasks[0])
    cast.turn.hand_over(cast.tasks[1])
    cast.turn.hand_over(cast.tasks[0])
    assert cast.turn.slice_ns == t.SLICE_NS
    cast.turn.give(cast.tasks[0])


def test_who_is_gone_neither_lends_nor_is_lent_to() -> None:
    cast = Cast(3)

    def lender(task: Task) -> None:
        cast.turn.hand_over(cast.tasks[1])
        cast.turn.hand_over(cast.tasks[2])
        cast.turn.leave(cast.tasks[1])
        cast.log.append("lends")

    def target(_task: Task) -> None:
        cast.log.append("target")

    main = cast.turn.join()
    cast.turn.take(main)
    cast.start(0, lender)
    cast.turn.announce(cast.tasks[1])
    cast.start(2, target)
    cast.turn.leave(main)
    cast.join()
    assert cast.log == ["lends", "target"]


def _two_owners(turn: Turn) -> None:
    turn.tasks[1].thread, turn.tasks[1].depth = 7, 1


def _nobody(turn: Turn) -> None:
    turn.owner = None
    turn.tasks[0].thread = turn.tasks[0].depth = 0


def _idler(turn: Turn) -> None:
    turn._idler = turn.tasks[1]


def _not_counted(turn: Turn) -> None:
    turn.tasks[1].state = t.SLEEPING


def _gone(turn: Turn) -> None:
    turn._last = Task(turn.lock)


@pytest.mark.parametrize("break_it", [_two_owners, _nobody, _idler, _not_counted, _gone])
def test_what_is_not_legal_is_noticed(break_it: Callable[[Turn], None]) -> None:
    turn = Cast(2).turn
    turn.take(turn.tasks[0])
    turn.announce(turn.tasks[1])
    assert not turn.illegal()
    break_it(turn)
    assert turn.illegal()
