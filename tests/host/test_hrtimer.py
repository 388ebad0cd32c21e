"""hrtimers."""

import pytest

from armkvm.arch.timer import NEVER
from armkvm.host.hrtimer import Hrtimer, HrtimerBase


def test_expire_in_order_and_not_early() -> None:
    base, log = HrtimerBase(), []

    def note(name: str) -> Hrtimer:
        return Hrtimer(lambda now: log.append((name, now)))

    late, early, same = note("late"), note("early"), note("same")
    late.start(base, 30)
    early.start(base, 10)
    same.start(base, 10)
    assert base.next_ns == 10
    assert base.run(9) == 0
    assert base.run(20) == 2
    assert log == [("early", 20), ("same", 20)]
    assert base.next_ns == 30
    assert not early.queued
    assert late.queued


def test_cancel_and_restart() -> None:
    base = HrtimerBase()
    timer = Hrtimer(lambda _now: None)
    timer.cancel()
    timer.start(base, 10)
    timer.start(base, 50)
    assert base.next_ns == 50
    assert len(base.timers) == 1
    timer.cancel()
    assert base.next_ns == NEVER
    assert base.run(100) == 0


def test_callback_may_restart_its_timer() -> None:
    base, times = HrtimerBase(), []

    def again(now: int) -> int | None:
        times.append(now)
        return now + 5 if now < 20 else None

    Hrtimer(again).start(base, 10)
    for now in range(0, 40, 1):
        base.run(now)
    assert times == [10, 15, 20]


def test_moving_a_timer_to_another_cpu() -> None:
    first, second = HrtimerBase(), HrtimerBase()
    timer = Hrtimer(lambda _now: None)
    timer.start(first, 10)
    timer.start(second, 20)
    assert (first.next_ns, second.next_ns) == (NEVER, 20)


def test_a_timer_cancelled_by_another_thread_at_the_last_moment_does_not_run() -> None:
    """Between the look at `next_ns` and the lock: the queue was empty then, and run() fell over."""
    base = HrtimerBase()
    timer = Hrtimer(lambda _now: pytest.fail("it was cancelled"))
    timer.start(base, 10)

    class Late:
        """The queue's lock; who takes it first finds that the canceller was faster."""

        def __enter__(self) -> None:
            base.lock = lock
            timer.cancel()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    lock = base.lock
    base.lock = Late()  # type: ignore[assignment]
    assert base.run(10) == 0
