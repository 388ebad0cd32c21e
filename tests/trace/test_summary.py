"""Both forms say the same; what real tools print is understood; late reports are found."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from tests.trace.guest import recorded

from armkvm.trace.reader import Read, TraceError, read
from armkvm.trace.summary import Summary, summarise


def summary(path: Path) -> Summary:
    with path.open() as file:
        return summarise(read(file))


@pytest.mark.parametrize("kind", ["nvhe-gicv2", "vhe-gicv3", "nvhe-nogic"])
def test_both_forms_give_one_summary(kind: str, tmp_path: Path) -> None:
    paths = tmp_path / "trace.txt", tmp_path / "trace.json"
    for path in paths:
        recorded(path, kind)
    text, viewer = (summary(path) for path in paths)
    assert text == viewer
    assert text.exits["HVC64"] == 1
    assert text.events["kvm_entry"] == text.events["kvm_exit"] == sum(text.exits.values())
    assert text.returns["KVM_EXIT_MMIO"] == text.events["kvm_mmio"] - 1  # a read is two events
    vtimer = text.timers["vcpu0 vtimer"]
    assert (vtimer.level.edges, vtimer.reported.edges) == (2, 2)
    # The level falls before an access that traps, which takes KVM half a microsecond.
    assert vtimer.slowest_report == 500
    assert vtimer.unknown_entries == 0
    assert vtimer.level.longest_high > 0
    assert text.timers["vcpu0 ptimer"].level.edges == 2
    assert 0 < text.guest_ns["vcpu-0-1"] < text.last_ns


def test_a_late_report_is_found() -> None:
    name = "vcpu0 vtimer"
    found = summarise(
        Read(ns, "vcpu-0-1", f"{name} {what}", value=value)
        for ns, what, value in (
            (100, "level", 1), (130, "reported", 1), (200, "level", 0), (900, "level", 1),
            # Reported is still high: it agrees again, and was never wrong for user space to see.
            (1000, "level", 0), (1500, "reported", 0),
        )
    )  # fmt: skip
    timer = found.timers[name]
    assert timer.slowest_report == 500
    assert timer.level.edges == 4
    assert timer.level.longest_high == 100


def test_an_entry_with_an_unknown_level_is_counted() -> None:
    level, reported = "vcpu1 vtimer level", "vcpu1 vtimer reported"
    found = summarise([
        Read(1, "vcpu-1-2", level, value=1),
        Read(2, "vcpu-0-1", "kvm_entry"),  # another vCPU's
        Read(3, "vcpu-1-2", reported, value=1),
        Read(4, "vcpu-1-2", "kvm_entry"),
        Read(5, "vcpu-1-2", level, value=0),
        Read(6, "vcpu-1-2", "kvm_entry"),
    ])  # fmt: skip
    assert found.timers["vcpu1 vtimer"].unknown_entries == 1


TRACE_CMD = """\
cpus=4
       CPU 0/KVM-2345  [002] d..1.  8123.456789: kvm_entry:            PC: 0xffff800010081a98
       CPU 0/KVM-2345  [002] ...1.  8123.456799: kvm_exit:             TRAP: HSR_EC: 0x0024 (DABT_LOW), PC: 0xffff800010081a98
       CPU 0/KVM-2345  [002] .....  8123.456801: kvm_userspace_exit:   reason KVM_EXIT_MMIO (6)
"""  # noqa: E501


def test_what_trace_cmd_prints_on_a_real_host_is_understood() -> None:
    found = summarise(read(io.StringIO(TRACE_CMD)))
    assert found.exits == {"DABT_LOW": 1}
    assert found.returns == {"KVM_EXIT_MMIO": 1}
    assert found.guest_ns == {"CPU 0/KVM-2345": 10_000}


@pytest.mark.parametrize("text", ["", "hello\n", "[\n", "{}\n", "\0\0"])
def test_what_is_no_trace(text: str) -> None:
    with pytest.raises(TraceError):
        summarise(read(io.StringIO(text)))
