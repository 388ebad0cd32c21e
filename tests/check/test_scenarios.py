"""The hypervisor in the scenarios, and the patch of 2017."""

from __future__ import annotations

import pytest

from armkvm.check.explorer.search import Bound
from armkvm.check.jobs.job import Job, run
from armkvm.check.scenarios import SCENARIOS

EXHAUSTED = (
    "timer-past", "timer-future", "timer-nogic", "timer-masked", "timer-moved", "timer-direct",
    "timer-emulated", "wfi-line", "psci-suspend", "late-vgic", "late-vgic-failed-run",
    "vgic-vcpu-race", "vgic-timer", "vgic-emulated-moved", "reset", "counter",
    "gic-overwrites", "vgic-rearmed", "vgic-exit-in-handler", "vgic-ghost", "vgic-v3",
    "vgic-user-writes", "late-vgic-failed-enable", "psci-cpu-on-irqchip", "psci-saved",
    "id-registers", "pmu-overflow", "irq-line-names",
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
