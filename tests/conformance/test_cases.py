"""armkvm against the ground truth: every section, on both kinds of host."""

from functools import cache

import pytest
from tests.conformance.truth import truth

from armkvm.conformance import DONE, run
from armkvm.conformance.compare import HOSTS, compare
from armkvm.conformance.inprocess import InProcess


@cache
def log(host: str) -> tuple[str, ...]:
    lines: list[str] = []
    with InProcess(host) as client:
        run(client, lines.append)
    return tuple(lines)


@pytest.mark.parametrize("host", HOSTS)
def test_the_log_is_the_truth(host: str) -> None:
    wrong = {
        section.heading: section.diff
        for section in compare(list(log(host)), truth(host), host)
        if not section.same
    }
    assert wrong == {}


@pytest.mark.parametrize("host", HOSTS)
def test_a_second_run_prints_the_same(host: str) -> None:
    lines: list[str] = []
    with InProcess(host) as client:
        run(client, lines.append)
    assert tuple(lines) == log(host)


def test_cases_run_alone_and_in_the_logs_order() -> None:
    lines: list[str] = []
    with InProcess() as client:
        run(client, lines.append, ["M6", "E3"])
    whole = log("nvhe-gicv2")
    assert [line for line in lines if line.startswith("==")] == [
        "== E3 KVM_IRQ_LINE argument matrix, userspace irqchip",
        "== M6 PSCI SYSTEM_OFF",
    ]
    assert lines[-1] == DONE
    assert set(lines) <= set(whole)


def test_nothing_stays_open() -> None:
    with InProcess() as client:
        run(client, lambda _line: None, ["caps", "E1", "E6", "E7", "L2", "M10"])
        assert client.open_files == 0
