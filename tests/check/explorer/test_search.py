"""The search itself, on actors that have nothing to do with KVM."""

from __future__ import annotations

import pytest

from armkvm.check.execution.actors import Execution, Violation
from armkvm.check.execution.locks import Condition, Lock, set_execution
from armkvm.check.explorer.choosers import Pct, Random, Replay
from armkvm.check.explorer.search import Bound
from armkvm.check.jobs.job import Job, Token, replay, run


def two(execution: Execution, log: list[str]) -> None:
    """Two threads of three steps."""

    def body(name: str) -> None:
        for n in range(3):
            execution.point(f"{name}{n}")
            log.append(f"{name}{n}")

    execution.add("a", lambda: body("a"))
    execution.add("b", lambda: body("b"))


def test_without_deviations_one_follows_the_other() -> None:
    log: list[str] = []
    execution = Execution(Replay(()))
    two(execution, log)
    execution.run()
    assert log == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_a_deviation_switches_where_it_says() -> None:
    log: list[str] = []
    execution = Execution(Replay(((2, 1),)))
    two(execution, log)
    execution.run()
    assert log == ["a0", "b0", "b1", "b2", "a1", "a2"]


def test_two_locks_in_two_orders() -> None:
    first, second = Lock(), Lock()
    stuck = []
    for at in range(5):
        execution = Execution(Replay(((at, 1),)))
        set_execution(execution)

        def take(one: Lock, other: Lock, execution: Execution = execution) -> None:
            with one:
                execution.point("between")
                with other:
                    pass

        execution.add("a", lambda: take(first, second))
        execution.add("b", lambda: take(second, first))
        execution.run()
        set_execution(None)
        stuck.append(execution.stuck)
        first.count = second.count = 0
    assert stuck == [False, True, False, False, False]


def test_a_notification_before_the_wait_is_lost() -> None:
    condition = Condition()
    execution = Execution(Replay(((0, 1),)))
    set_execution(execution)

    def wait() -> None:
        with condition:
            condition.wait()

    def tell() -> None:
        with condition:
            condition.notify_all()

    execution.add("waits", wait)
    execution.add("tells", tell)
    execution.run()
    set_execution(None)
    assert execution.stuck


def test_an_exception_ends_an_execution_and_the_others_unwind() -> None:
    execution = Execution(Replay(()))
    unwound: list[bool] = []

    def waits() -> None:
        try:
            execution.block(lambda: False, "for ever")
        finally:
            unwound.append(True)

    def fails() -> None:
        raise Violation("I0", "on purpose")

    execution.add("waits", waits)
    execution.add("fails", fails)
    execution.run()
    assert isinstance(execution.ended, Violation)
    assert unwound == [True]


@pytest.mark.parametrize("seed", range(3))
def test_random_schedules_depend_on_the_seed_alone(seed: int) -> None:
    def once() -> tuple[list[str], list[str]]:
        logs = []
        for chooser in (Random(seed, 0.3), Pct(seed, 3, 8)):
            log: list[str] = []
            execution = Execution(chooser)
            two(execution, log)
            execution.run()
            logs.append(log)
        return logs[0], logs[1]

    assert once() == once()


def test_a_token_is_its_text() -> None:
    text = "timer-future/current/no-notification/0.1-12.2"
    assert str(Token.parse(text)) == text
    for wrong in ("timer-future", "nothing/current/-/-", "timer-past/other/-/-"):
        with pytest.raises(ValueError):
            Token.parse(wrong)


def test_a_replay_is_the_same_every_time(bound: Bound) -> None:
    found = run(Job("timer-future", mutant="no-notification", bound=bound)).found
    assert found is not None
    token = Token("timer-future", "current", "no-notification", found.deviations)
    first = replay(token)
    assert first == replay(token)
    assert first[1] == found.prop == "I1"


def test_the_bound_is_said() -> None:
    result = run(Job("two-vcpus", bound=Bound(schedules=50, seconds=60)))
    assert result.bound.startswith("50 schedules; every schedule of up to ")
    assert result.schedules == 50
