"""The trace of a whole boot: the same bytes each time, and no level that user space learns late."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

from tests.boot.conftest import Runner

from armkvm.host.turn import SLICE_NS
from armkvm.trace.reader import read
from armkvm.trace.summary import summarise
from armkvm.vmm.guest.debian import Guest


def test_two_vcpus(boot: Runner, debian: Callable[..., Guest], tmp_path: Path) -> None:
    debian()
    first, second = tmp_path / "first", tmp_path / "second"
    plain = boot("-c", "2")
    got = boot("-c", "2", "--trace", str(first))
    boot("-c", "2", "--trace", str(second))
    assert got.code == 0, got.errors
    assert filecmp.cmp(first, second, shallow=False)
    # To be watched changes nothing.
    assert got.stats["memory_digest"] == plain.stats["memory_digest"]
    with first.open() as file:
        found = summarise(read(file))
    exits = got.stats["exits"]
    assert found.events["kvm_entry"] == found.events["kvm_exit"] == exits["exits"]
    assert found.events["kvm_userspace_exit"] == exits["returns"]
    assert {f"KVM_EXIT_{name}": n for name, n in exits["exit_reasons"].items() if name != "INTR"} \
        == {name: n for name, n in found.returns.items() if name != "restart"}  # fmt: skip
    for cpu in range(2):
        timer = found.timers[f"vcpu{cpu} vtimer"]
        assert timer.level.edges > 50
        assert timer.reported.edges == timer.level.edges
        # api.rst 8.9: before the guest runs, user space knows. It may have to wait for its turn.
        assert timer.unknown_entries == 0
        assert timer.slowest_report <= SLICE_NS
