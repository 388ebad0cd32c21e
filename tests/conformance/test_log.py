"""The log's lines, character by character as the real KVM's were printed."""

import errno

import pytest
from tests.conformance.truth import truth

from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmRun
from armkvm.client.protocol import Bell
from armkvm.conformance.log import IO, RAM, UNTOUCHED, Answer, error_name, exit_name, run_line


def rung() -> Bell:
    bell = Bell()
    bell.rang = True
    return bell


def mmio(address: int, length: int, value: int, write: int) -> KvmRun:
    run = KvmRun(exit_reason=k.KVM_EXIT_MMIO)
    run.mmio.phys_addr, run.mmio.len = address, length
    run.mmio.value, run.mmio.is_write = value, write
    return run


def event() -> KvmRun:
    run = KvmRun(exit_reason=k.KVM_EXIT_SYSTEM_EVENT)
    run.system_event.type = run.system_event.ndata = 1
    return run


def nisv() -> KvmRun:
    run = KvmRun(exit_reason=k.KVM_EXIT_ARM_NISV)
    run.arm_nisv.esr_iss, run.arm_nisv.fault_ipa = 5, IO + 0x40
    return run


@pytest.mark.parametrize(
    "line",
    [
        run_line(0, Answer(0), mmio(IO + 0x48, 4, 0x8877665500000011, 1), Bell(), RAM + 0x24),
        run_line(0, Answer(0), mmio(IO - 0x7FFFFFC, 4, 0x1234, 0), Bell(), RAM + 0x1C),
        run_line(0, Answer(0), event(), Bell(), RAM + 0x24),
        run_line(1, Answer(0), nisv(), Bell(), RAM + 0x20),
        run_line(
            13, Answer(-1, errno.EINTR), KvmRun(exit_reason=k.KVM_EXIT_INTR), rung(), RAM + 0x70
        ),
        run_line(
            1, Answer(-1, errno.EIO), KvmRun(exit_reason=UNTOUCHED), Bell(), (1 << 64) - 1
        ),
    ],
)  # fmt: skip
def test_runs_look_as_in_the_truth(line: str) -> None:
    # The number of the run aside, each is a line that the real KVM's log has.
    assert line[6:] in {known[6:] for known in truth("nvhe-gicv2")}


def test_exits_that_the_truth_does_not_show() -> None:
    run = KvmRun(exit_reason=k.KVM_EXIT_INTERNAL_ERROR)
    run.internal.suberror = 2
    assert " suberr=2 pc=+0x0" in run_line(0, Answer(0), run, Bell(), RAM)
    run = KvmRun(exit_reason=k.KVM_EXIT_FAIL_ENTRY)
    run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu = 0xAB, 1
    assert " hw=ab cpu=1 pc=+0x0" in run_line(0, Answer(0), run, Bell(), RAM)


def test_names() -> None:
    assert [error_name(code) for code in (0, errno.EINTR, errno.EFBIG)] == ["0", "EINTR", "E27"]
    assert [exit_name(reason) for reason in (10, 24, 28, 31, UNTOUCHED)] == [
        "INTR", "SYSTEM_EVENT", "ARM_NISV", "#31", "(untouched)",
    ]  # fmt: skip
    assert str(Answer(-1, errno.EBUSY)) == "ret=-1 errno=EBUSY"
    assert str(Answer(7)) == "ret=7 errno=0"
