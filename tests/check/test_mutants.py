"""The bugs of history: each is found, by the property that it violates."""

from __future__ import annotations

import itertools

import pytest

from armkvm.check.explorer.search import Bound
from armkvm.check.jobs.job import Job, run
from armkvm.check.mutants import MUTANTS, THEMES
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world.properties import PROPERTIES

PAIRS = [(mutant, scenario) for mutant in MUTANTS for scenario in MUTANTS[mutant].scenarios]


@pytest.mark.parametrize(("name", "scenario"), PAIRS)
def test_every_mutant_is_found_for_its_reason(name: str, scenario: str, bound: Bound) -> None:
    """One that another property finds is found by accident: its patch breaks something else."""
    found = run(Job(scenario, mutant=name, bound=bound)).found
    assert found is not None
    assert found.prop == MUTANTS[name].prop, found.detail


def test_the_table_names_what_there_is() -> None:
    for mutant in MUTANTS.values():
        assert mutant.prop in PROPERTIES
        assert mutant.commit
        assert mutant.scenarios
        assert set(mutant.scenarios) <= set(SCENARIOS)


def test_every_property_finds_something() -> None:
    """A property that no bug violates may be one that nothing checks."""
    assert {mutant.prop for mutant in MUTANTS.values()} == set(PROPERTIES)


def test_every_theme_has_mutants() -> None:
    assert {m.apply.__module__ for m in MUTANTS.values()} == {theme.__name__ for theme in THEMES}


def test_with_the_first_look_only_a_late_deadline_is_lost(bound: Bound) -> None:
    """What the checker found first: the output rises between kvm_vcpu_check_block() and put."""
    found = run(Job("timer-future", mutant="sleep-checks-twice", bound=bound)).found
    assert found is not None
    assert found.prop == "I6"
    assert len(found.deviations) == 1


def test_the_reviewers_question_has_an_answer_that_is_yes(bound: Bound) -> None:
    """A run that fails at the PMU does not count as one, and has enabled the timer all the same."""
    found = run(
        Job("late-vgic-failed-enable", mutant="failed-run-enables-timer", bound=bound)
    ).found
    assert found is not None
    assert "not mapped to the vgic" in found.detail


def test_mutants_are_undone(bound: Bound) -> None:
    for name in itertools.islice(MUTANTS, 4):
        run(Job(MUTANTS[name].scenarios[0], mutant=name, bound=bound))
    assert run(Job("timer-past", bound=bound)).found is None
