"""Comparing logs: what may differ is what is named, and nothing else."""

import re

import pytest
from tests.conformance.truth import truth

from armkvm.conformance.cases import CASES
from armkvm.conformance.compare import (
    DEPARTURES,
    HOSTS,
    LOOPS,
    TWO_THREADS,
    Loop,
    compare,
    normalise,
    sections,
)

RUN = "   #{} ret=-1 errno=EINTR   exit=INTR         irq_level={} t= pc=+{:#x}"
THREAD = "     KVM_IRQ_LINE from other thread   type=0 vcpu=0 num=0 level=1 -> ret=0 errno=0"


def moved(log: list[str], section: str, run: int, pc: int) -> list[str]:
    """The log with the PC of one run changed."""
    out, inside = [], False
    for line in log:
        if line.startswith("== "):
            inside = line.split()[1] == section
        if inside and line.startswith(f"   #{run} "):
            line = re.sub(r"pc=\+0x[0-9a-f]+", f"pc=+{pc:#x}", line)
        out.append(line)
    assert out != log
    return out


def differing(log: list[str], host: str) -> dict[str, int]:
    """Sections that differ from the truth, and how many lines of the difference."""
    return {
        section.heading.split()[0]: len(section.diff)
        for section in compare(log, truth(host), host)
        if not section.same
    }


@pytest.mark.parametrize("host", HOSTS)
def test_the_truth_agrees_with_itself(host: str) -> None:
    result = compare(truth(host), truth(host), host)
    assert all(section.same and not section.excused for section in result)
    # As many sections as headings, and the line that ends the log.
    assert len(result) == sum(line.startswith("== ") for line in truth(host)) + 1


def test_the_hosts_differ() -> None:
    found = differing(truth("vhe-gicv3"), "nvhe-gicv2")
    assert {"caps", "E4", "E5", "E6", "T10", "T11", "T13", "T15", "M9"} <= set(found)


def test_times_and_counts_are_taken_out() -> None:
    console = (
        "[    1.2] booting\r\n== caps\r\n   #0  ret=0 t=   0.17ms pc=+0x0\r\n"
        "   CTL=4 CVAL=0 CNT=12ab pstate=3c5\r\n   set CNT=1000 ret=0; CNT now=77\r\n"
        "ORACLE-DONE\r\nreboot: Power down\r\n"
    )
    assert normalise(console) == [
        "== caps",
        "   #0  ret=0 t= pc=+0x0",
        "   CTL=4 CVAL=0 CNT=X pstate=3c5",
        "   set CNT=X ret=0; CNT now=X",
        "ORACLE-DONE",
    ]
    assert normalise("no log at all\n") == []


@pytest.mark.parametrize("host", HOSTS)
def test_every_case_is_in_the_truth_and_nothing_else(host: str) -> None:
    names = {section.name for section in sections(truth(host))}
    # Headings beyond a case's own: E6's second part, E10's guest, the end.
    assert names - set(CASES) == {"E6b", "psci_ver", "ORACLE-DONE"}
    assert set(CASES) <= names


@pytest.mark.parametrize("loop", LOOPS)
def test_a_pc_is_free_within_its_loop_and_on_its_hosts(loop: Loop) -> None:
    for host in HOSTS:
        own = truth(host)
        for pc in range(loop.first, loop.last + 1, 4):
            free = host in loop.hosts
            try:
                log = moved(own, loop.section, loop.run, pc)
            except AssertionError:
                continue  # there already
            assert differing(log, host) == ({} if free else {loop.section: 2})
            if free:
                assert sum(s.excused for s in compare(log, own, host)) == 1
        for pc in (loop.first - 4, loop.last + 4):
            assert differing(moved(own, loop.section, loop.run, pc), host) == {loop.section: 2}


@pytest.mark.parametrize("loop", LOOPS)
def test_the_truth_is_within_each_loop(loop: Loop) -> None:
    for host in loop.hosts:
        (section,) = (s for s in sections(truth(host)) if s.name == loop.section)
        line = section.lines[loop.run]
        assert line.startswith(f"   #{loop.run} ")
        assert "exit=INTR" in line
        assert loop.first <= int(line.rpartition("+")[2], 16) <= loop.last


def test_only_the_pc_is_free() -> None:
    log = [line.replace("irq_level=0 t= pc=+0x74", "irq_level=1 t= pc=+0x74") for line in truth(
        "nvhe-gicv2"
    )]  # fmt: skip
    assert differing(log, "nvhe-gicv2") == {"T2": 2}


def test_no_other_section_has_free_pcs() -> None:
    """A trap's PC is exact, and so is that of an interrupt that a trap waits for."""
    assert differing(moved(truth("vhe-gicv3"), "T10", 1, 0x64), "vhe-gicv3") == {"T10": 2}
    assert differing(moved(truth("vhe-gicv3"), "T9", 2, 0x2820), "vhe-gicv3") == {"T9": 2}


@pytest.mark.parametrize("host", HOSTS)
def test_an_interrupt_of_a_spinning_guest_hits_any_instruction_of_the_loop(host: str) -> None:
    """T9 and T13 spin until their timer's interrupt, as T3 does."""
    for section, run, pcs in (
        ("T9", 1, (0x54, 0x58)), ("T13", 3, (0x5C, 0x60, 0x64, 0x68)), ("T3", 3, (0x5C, 0x60)),
    ):  # fmt: skip
        same = [line for line in truth(host) if line not in moved(truth(host), section, run, 0)]
        for pc in pcs:
            if f"pc=+{pc:#x}" not in same[0]:
                assert differing(moved(truth(host), section, run, pc), host) == {}


def fixed(host: str, *, most: int = -1) -> list[str]:
    """The truth, as a KVM without its known bugs would have it; `most` times each."""
    text = "\n".join(truth(host))
    for bug in DEPARTURES:
        text = text.replace("\n".join(bug.theirs), "\n".join(bug.ours), most)
    return text.split("\n")


@pytest.mark.parametrize("host", HOSTS)
def test_known_bugs_may_be_left_out_and_are_named(host: str) -> None:
    shown = {
        section.heading.split()[0]: section.departures
        for section in compare(fixed(host), truth(host), host)
        if section.departures
    }
    known = {"P3": ("6.12 loses the timer's interrupt",)}
    if host == "nvhe-gicv2":
        known["caps"] = ("no AArch32",)
    assert shown == known
    assert differing(fixed(host), host) == {}
    assert not any(section.excused for section in compare(fixed(host), truth(host), host))


@pytest.mark.parametrize("host", HOSTS)
def test_without_its_bug_a_section_is_the_control(host: str) -> None:
    found = {section.name: section.lines for section in sections(fixed(host))}
    failed = "   #0  ret=-1 errno=EINVAL  exit=(untouched)  irq_level=0 t= pc=+0x0"
    assert found["P3"].count(failed) == 3
    assert [line for line in found["P3"] if line != failed] == found["P2"]


def test_a_bug_that_is_half_gone_is_named_too() -> None:
    host = "nvhe-gicv2"  # makes its vgic in two ways
    log = fixed(host, most=1)
    assert differing(log, host) == {}
    found = [s for s in compare(log, truth(host), host) if s.departures]
    assert [section.heading.split()[0] for section in found] == ["caps", "P3"]
    assert log not in (fixed(host), truth(host))


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_else_of_that_section_is_free(host: str) -> None:
    for log in (truth(host), fixed(host)):
        at = max(number for number, line in enumerate(log) if "MMIO W +0x28" in line)
        other = [*log[:at], log[at].replace("data=0x", "data=0x1"), *log[at + 1 :]]
        # Lines that are neither the bug nor right: none of them is excused.
        assert differing(other, host)["P3"] >= 2


def test_two_threads_keep_their_own_order() -> None:
    def log(*lines: str, name: str = TWO_THREADS[0]) -> list[str]:
        return ["== caps", f"== {name} x", *lines, "ORACLE-DONE"]

    one, two = RUN.format(0, 0, 0), RUN.format(1, 0, 4)
    assert all(s.same for s in compare(log(one, two, THREAD), log(one, THREAD, two), HOSTS[0]))
    swapped = compare(log(two, one, THREAD), log(one, two, THREAD), HOSTS[0])
    assert [s.same for s in swapped] == [True, False, True]
    elsewhere = compare(log(one, THREAD, name="L1"), log(THREAD, one, name="L1"), HOSTS[0])
    assert [s.same for s in elsewhere] == [True, False, True]


def test_missing_and_extra_sections_are_differences() -> None:
    want = ["== caps", "== A x", "  1", "ORACLE-DONE"]
    got = ["== caps", "== B y", "  1", "  2"]
    result = {s.heading: (s.lines, s.diff) for s in compare(got, want, HOSTS[0])}
    assert result == {
        "caps": (0, []),
        "A x": (1, ["- the section"]),
        "ORACLE-DONE": (0, ["- the section"]),
        "B y": (2, ["+ the section"]),
    }
