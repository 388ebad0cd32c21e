"""Whether the target of an interrupt gets the sender's CPU is a choice."""

from __future__ import annotations

import pytest

from armkvm.check.execution.actors import Execution
from armkvm.check.explorer.search import Bound
from armkvm.check.jobs.job import Job, run


def test_the_target_of_an_sgi_runs_at_once_in_some_schedules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: set[str] = set()
    choose = Execution.choose

    def watched(execution: Execution, labels: list[str]) -> int:
        index = choose(execution, labels)
        if "hands over" in labels:
            chosen.add(labels[index])
        return index

    monkeypatch.setattr(Execution, "choose", watched)
    assert run(Job("sgi-one-cpu", bound=Bound(schedules=60))).found is None
    assert chosen == {"goes on", "hands over"}
