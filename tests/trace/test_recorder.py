"""Recordings of a scripted guest: what is in them, in which order, and what a full disk does."""

from __future__ import annotations

import errno
import io
import re
import threading
from pathlib import Path

import pytest
from tests.kvm.rig import Rig, fails
from tests.trace.guest import guest, recorded

from armkvm.abi import kvm as k
from armkvm.trace import Recorder, record
from armkvm.trace.ftrace import HEADER, FtraceWriter

KINDS = ("nvhe-gicv2", "vhe-gicv3", "nvhe-nogic")


def events(text: str) -> list[str]:
    """Name and text of each event, without task and time."""
    assert text.startswith(HEADER)
    lines = text[len(HEADER) :].splitlines()
    return [re.sub(r"^.*? \d+\.\d{9}: ", "", line) for line in lines]


def test_one_tick_from_the_deadline_to_the_end_of_interrupt(tmp_path: Path) -> None:
    got = events(recorded(tmp_path / "trace"))
    start = got.index("tracing_mark_write: C|1|vcpu0 vtimer level|1")
    end = got.index("tracing_mark_write: C|1|vcpu0 irq line|0")
    tick = [re.sub("PC: 0x.*", "PC", line) for line in got[start - 1 : end + 1]]
    restored = "kvm_timer_restore_state: CTL: 0x00000{} CVAL:            0x3e8 " + (
        "arch_timer_ctx_index: 0"
    )
    saved = restored.replace("restore_state: ", "save_state:    ")
    assert tick == [
        # The deadline: the host's interrupt is taken, and stays active.
        "kvm_timer_update_irq: VCPU: 0, IRQ 27, level 1",
        "tracing_mark_write: C|1|vcpu0 vtimer level|1",
        "tracing_mark_write: C|1|vcpu0 vtimer host irq masked|1",
        "kvm_exit: IRQ: HSR_EC: 0x0000 (UNKNOWN), PC",
        # User space is told before the guest runs, and drives the line.
        saved.format(1),
        "kvm_userspace_exit: reason restart (4)",
        "tracing_mark_write: C|1|vcpu0 vtimer reported|1",
        "kvm_irq_line: Inject CPU interrupt (0), vcpu->idx: 0, num: 0, level: 1",
        "kvm_timer_update_irq: VCPU: 0, IRQ 27, level 1",
        "tracing_mark_write: C|1|vcpu0 irq line|1",
        restored.format(1),
        "kvm_entry: PC",
        # The handler's write to a trapped register is the first exit after it lowered the level.
        "kvm_timer_update_irq: VCPU: 0, IRQ 27, level 0",
        "tracing_mark_write: C|1|vcpu0 vtimer level|0",
        "kvm_exit: TRAP: HSR_EC: 0x0018 (SYS64), PC",
        "tracing_mark_write: C|1|vcpu0 vtimer host irq masked|0",
        "kvm_sys_access: PC: 1c CNTP_CTL_EL0 (3,3,14,2,1) write",
        "kvm_timer_emulate: arch_timer_ctx_index: 1 (should_fire: 0)",
        saved.format(3),
        "kvm_userspace_exit: reason restart (4)",
        "tracing_mark_write: C|1|vcpu0 vtimer reported|0",
        "kvm_irq_line: Inject CPU interrupt (0), vcpu->idx: 0, num: 0, level: 0",
        "kvm_timer_update_irq: VCPU: 0, IRQ 27, level 0",
        "tracing_mark_write: C|1|vcpu0 irq line|0",
    ]


def test_the_other_events(tmp_path: Path) -> None:
    got = events(recorded(tmp_path / "trace"))
    assert got[0] == "kvm_get_timer_map: VCPU: 0, dv: 0, dp: -1, ev: -1, ep: 1"
    for expected in (
        "kvm_hvc_arm64: HVC at 0x0000000000000004 (r0: 0x0000000084000000, imm: 0x0)",
        "kvm_mmio: mmio write len 2 gpa 0x10000008 val 0xabcd",
        "kvm_mmio: mmio unsatisfied-read len 4 gpa 0x10000010 val 0x0",
        "kvm_mmio: mmio read len 4 gpa 0x10000010 val 0x12345678",
        "kvm_userspace_exit: reason KVM_EXIT_MMIO (6)",
        "tracing_mark_write: C|1|vcpu0 ptimer level|1",
        "tracing_mark_write: C|1|vcpu0 ptimer reported|1",
    ):
        assert expected in got
    asleep = [line for line in got if line.startswith("kvm_vcpu_wakeup")]
    assert len(asleep) == 1
    # From the WFI to tick 100000 of the physical timer.
    waited = re.fullmatch(r"kvm_vcpu_wakeup: wait time (\d+) ns, polling valid", asleep[0])
    assert waited is not None
    assert 1_390_000 < int(waited[1]) < 1_400_000
    assert any(line.endswith("CNTP_CVAL_EL0 (3,3,14,2,2) write") for line in got)


@pytest.mark.parametrize("kind", KINDS)
def test_times_never_go_back_and_entries_and_exits_alternate(kind: str, tmp_path: Path) -> None:
    text = recorded(tmp_path / "trace", kind)
    times = [float(t) for t in re.findall(r" (\d+\.\d{9}): ", text)]
    assert times == sorted(times)
    assert times[-1] > 0.0016
    inside = re.findall(r"kvm_(entry|exit):", text)
    assert inside[::2] == ["entry"] * (len(inside) // 2)
    assert inside[1::2] == ["exit"] * (len(inside) // 2)
    assert all("vcpu-0-1       [000]" in line for line in text[len(HEADER) :].splitlines())


def test_only_a_direct_timer_has_a_host_interrupt(tmp_path: Path) -> None:
    assert "ptimer host irq" not in recorded(tmp_path / "a", "nvhe-gicv2")
    assert "vcpu0 ptimer host irq masked|1" in recorded(tmp_path / "b", "vhe-gicv3")


@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_the_same_run_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    assert recorded(tmp_path / f"a.{suffix}") == recorded(tmp_path / f"b.{suffix}")


def test_a_line_driven_by_another_thread_is_that_threads(tmp_path: Path) -> None:
    rig = Rig(guest)
    path = tmp_path / "trace"
    with record(rig.vm, str(path)):
        rig.stored()
        thread = threading.Thread(target=rig.line, args=(1,))
        thread.start()
        thread.join()
        no_such_vcpu = k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, 7, k.KVM_ARM_IRQ_CPU_IRQ)
        fails(errno.EINVAL, lambda: rig.vm.irq_line(no_such_vcpu, 1))  # an event all the same
    text = path.read_text()
    assert "             vmm-2       [000]" in text
    assert "vcpu->idx: 7" in text


class FullDisk(io.StringIO):
    """Takes a thousand characters more than the header."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > len(HEADER) + 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_full_disk_ends_the_recording_and_not_the_guest() -> None:
    rig = Rig(guest)
    file = FullDisk()
    recorder = Recorder(rig.vm, FtraceWriter(file))
    rig.stored()
    rig.run()
    assert recorder.error is not None
    assert rig.vm.trace.kvm_entry is None
    with pytest.raises(OSError, match="No space left"):
        recorder.close()
    recorder.close()
    assert file.closed


def test_nothing_is_recorded_after_close(tmp_path: Path) -> None:
    rig = Rig(guest)
    recorder = record(rig.vm, str(tmp_path / "trace"))
    recorder.close()
    rig.stored()
    assert (tmp_path / "trace").read_text() == HEADER
