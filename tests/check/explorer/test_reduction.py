"""A reduced search comes to the same ends and finds the same, with fewer states."""

from __future__ import annotations

import pytest
from tests.check.endings import endings

from armkvm.check.execution import locks
from armkvm.check.execution.actors import SHARED, VM_WIDE, Execution
from armkvm.check.explorer import search
from armkvm.check.explorer.choosers import Exhaust, Random
from armkvm.check.explorer.reduction import Places, Reduction
from armkvm.check.explorer.search import Bound
from armkvm.check.jobs.job import Job, run
from armkvm.check.scenarios import SCENARIOS


def lessons(name: str) -> Reduction:
    """What some random schedules teach."""
    reduction = Reduction()
    with locks.controlled():
        for seed in range(40):
            execution = Execution(Random(seed, 0.8))
            search.perform(SCENARIOS[name].build, execution, reduction.watch)
    reduction.places.close()
    return reduction


@pytest.mark.parametrize("name", ["timer-moved", "timers-both", "wfi-told", "timer-rearmed"])
def test_the_same_endings_with_fewer_states(name: str) -> None:
    whole, reduced = Exhaust(), Exhaust(lessons(name))
    assert endings(SCENARIOS[name], whole) == endings(SCENARIOS[name], reduced)
    assert reduced.reduction is not None
    assert not reduced.reduction.places.wrong
    assert len(reduced.visited) < len(whole.visited)


def test_it_may_find_less_states_and_never_less_properties() -> None:
    bounds = [Bound(reduce=reduce, seconds=60) for reduce in (False, True)]
    whole, reduced = (run(Job("timers-both", bound=bound)) for bound in bounds)
    assert not whole.bound
    assert not reduced.bound
    assert set(whole.seen) == set(reduced.seen)


def test_a_place_is_what_all_its_steps_have_touched() -> None:
    places = Places()
    places.saw(1, 0)
    places.saw(1, VM_WIDE)
    places.close()
    assert places.touched[1] == VM_WIDE
    assert not places.wrong


def test_a_place_that_was_thought_private_begins_the_search_anew() -> None:
    places = Places()
    places.saw(1, 0)
    places.close()
    places.saw(1, SHARED)
    assert places.wrong
    assert places.touched[1] == SHARED


def test_a_place_that_is_new_in_the_search_is_never_private() -> None:
    places = Places()
    places.close()
    places.saw(2, 0)
    assert places.touched[2] == SHARED
    assert not places.wrong


def test_a_vcpu_that_others_touch_has_no_private_steps_beside_them() -> None:
    """CPU_ON: what its thread reads, the thread of the other may write."""
    assert lessons("psci-cpu-on").places.reached == {1}
    assert not lessons("two-vcpus").places.reached


def test_who_is_touched_for_the_first_time_in_the_search_begins_it_anew() -> None:
    places = Places()
    places.close()
    places.reaches(0)
    assert places.wrong
