"""The hypervisor in the scenarios, the bugs of history, and the patch of 2017."""

from __future__ import annotations

import itertools

import pytest

from armkvm.check.job import Job, run
from armkvm.check.mutants import MUTANTS
from armkvm.check.scenario import SCENARIOS
from armkvm.check.search import Bound

EXHAUSTED = (
    "timer-past", "timer-future", "timer-nogic", "timer-masked", "timer-moved", "timer-direct",
    "timer-emulated", "wfi-line", "psci-suspend", "late-vgic", "late-vgic-failed-run",
    "vgic-vcpu-race", "vgic-timer", "vgic-emulated-moved", "reset", "counter",
)  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_violation_in_the_first_schedules(name: str) -> None:
    """All of them, far enough that a property that nothing reaches shows."""
    result = run(Job(name, bound=Bound(schedules=60, seconds=20, samples=6)))
    assert result.found is None


@pytest.mark.parametrize("name", EXHAUSTED)
def test_exhausted(name: str, bound: Bound) -> None:
    result = run(Job(name, bound=bound))
    assert result.found is None
    assert not result.bound


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_found(name: str, bound: Bound) -> None:
    results = (run(Job(s, mutant=name, bound=bound)) for s in MUTANTS[name].scenarios)
    assert any(result.found is not None for result in results)


def test_with_the_first_look_only_a_late_deadline_is_lost(bound: Bound) -> None:
    """What the checker found first: the output rises between kvm_vcpu_check_block() and put."""
    found = run(Job("timer-future", mutant="sleep-checks-twice", bound=bound)).found
    assert found is not None
    assert found.prop == "I6"
    assert len(found.deviations) == 1


def test_the_seed_leaves_the_interrupt_disabled_for_the_next_vm(bound: Bound) -> None:
    """d60d8b64280c, found in the patch as posted."""
    ignore = frozenset(("I2", "I6"))
    found = run(Job("two-vms", "seed", bound=bound, ignore=ignore)).found
    assert found is not None
    assert found.prop == "I8"


def test_the_seed_does_not_fall_to_late_creation(bound: Bound) -> None:
    """The reviewer's question, with the patch as posted: stopped by the check of 2013."""
    for name in ("late-vgic", "late-vgic-failed-run", "late-vgic-immediate-exit"):
        result = run(Job(name, "seed", bound=bound, ignore=frozenset(("I2", "I6"))))
        assert result.found is None
        assert not result.bound


def test_a_property_that_is_never_reached_fails() -> None:
    from dataclasses import replace

    name = "counter"
    before = SCENARIOS[name]
    SCENARIOS[name] = replace(before, reaches=("I13",))
    try:
        found = run(Job(name)).found
    finally:
        SCENARIOS[name] = before
    assert found is not None
    assert found.prop == "vacuous"


def test_mutants_are_undone(bound: Bound) -> None:
    for name in itertools.islice(MUTANTS, 4):
        run(Job(MUTANTS[name].scenarios[0], mutant=name, bound=bound))
    assert run(Job("timer-past", bound=bound)).found is None
