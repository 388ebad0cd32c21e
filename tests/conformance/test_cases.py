"""armkvm against the ground truth: every section, on both kinds of host."""

from functools import cache

import pytest
from tests.conformance.truth import truth

from armkvm.client.inprocess import InProcess
from armkvm.conformance import DONE, run
from armkvm.conformance.compare import HOSTS, compare, sections


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


@pytest.mark.parametrize("host", HOSTS)
def test_a_reset_after_a_failed_first_run(host: str) -> None:
    # Not in the truth: on one of the hosts the real kernel does not come to its end.
    lines: list[str] = []
    with InProcess(host) as client:
        run(client, lines.append, ["P4"])
    assert "P4" not in {line.split()[1] for line in log(host) if line.startswith("== ")}
    assert lines[0] == "== P4 a first run fails at the PMU, then KVM_ARM_VCPU_INIT"
    assert sum("errno=EINVAL  exit=(untouched)" in line for line in lines) == 3
    assert sum("VCPU_INIT again, same" in line and "ret=0" in line for line in lines) == 2
    assert sum("VCPU_INIT without the PMU" in line and "EINVAL" in line for line in lines) == 2


@pytest.mark.parametrize("host", HOSTS)
def test_a_timer_that_a_failed_run_had_enabled_is_mapped_all_the_same(host: str) -> None:
    found = {section.name: section.lines for section in sections(list(log(host)))}
    for name in ("P2", "P3"):
        reports = [line for line in found[name] if "MMIO W +0x28 " in line]
        assert len(reports) == (2 if host == "nvhe-gicv2" else 1)
        assert all("data=0x1b " in line for line in reports)  # interrupt 27
        assert not any("SIGALRM" in line for line in found[name])


def test_nothing_stays_open() -> None:
    with InProcess() as client:
        run(client, lambda _line: None, ["caps", "E1", "E6", "E7", "L2", "M10", "P3", "P4"])
        assert client.open_files == 0
