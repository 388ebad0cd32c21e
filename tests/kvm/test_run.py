"""The run loop: what ends KVM_RUN, in which order, and what is never lost."""

from __future__ import annotations

import errno
import threading
import time

import pytest
from tests.kvm.rig import IO, Ops, Rig, fails

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.host import sched
from armkvm.host.scripted import Load, Mask, Msr, Native, Run, ScriptedCpu, Store, Wfi


def forever(_cpu: ScriptedCpu) -> Ops:
    while True:
        yield Run(1 << 20)


def stores(_cpu: ScriptedCpu) -> Ops:
    for i in range(1000):
        yield Store(IO + 4 * i)


def test_first_run_needs_init_and_a_failed_one_does_not_count() -> None:
    rig = Rig(stores)
    vcpu = rig.vm.create_vcpu(1)
    fails(errno.ENOEXEC, vcpu.run)
    assert not vcpu.has_run_once
    assert not rig.vm.has_run
    rig.run()
    assert rig.vcpu.has_run_once


def test_immediate_exit_counts_as_having_run() -> None:
    """6.12 sets vcpu->pid before it looks at immediate_exit."""
    rig = Rig(stores)
    rig.struct.immediate_exit = 1
    rig.struct.exit_reason = 0xDEAD
    fails(errno.EINTR, rig.vcpu.run)
    assert rig.vcpu.has_run_once
    assert rig.struct.exit_reason == 0xDEAD
    assert rig.vcpu.instructions == 0


def test_immediate_exit_completes_mmio_but_reports_no_level() -> None:
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        seen.append((yield Load(IO, rt=3)))
        yield Store(IO + 4)

    rig = Rig(guest)
    assert rig.run() == k.KVM_EXIT_MMIO
    rig.struct.mmio.value = 0x55
    rig.struct.immediate_exit = 1
    rig.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CTL, 1)  # the level is high now
    fails(errno.EINTR, rig.vcpu.run)
    assert rig.get(regs.core_x(3)) == 0x55
    assert rig.level == 0
    rig.struct.immediate_exit = 0
    assert rig.notified() == 1
    assert rig.stored() == 4
    assert seen == [0x55]


def test_changing_the_exit_reason_abandons_the_access() -> None:
    rig = Rig(stores)
    assert rig.stored() == 0
    rig.struct.exit_reason = 0
    assert rig.stored() == 0  # executed again
    assert rig.stored() == 4


def test_a_kick_before_the_run_ends_it() -> None:
    rig = Rig(stores)
    rig.vcpu.kick()
    fails(errno.EINTR, rig.vcpu.run)
    assert rig.struct.exit_reason == k.KVM_EXIT_INTR
    assert rig.stored() == 0
    assert rig.stored() == 4


def test_limit_ends_the_run_at_the_exact_instruction() -> None:
    rig = Rig(forever)
    for limit in (1000, 1001, 5_000_000):
        rig.vcpu.limit = limit
        fails(errno.EINTR, rig.vcpu.run)
        assert rig.vcpu.instructions == limit
    assert rig.vcpu.stat.limit_exits == 3


def test_two_runs_are_the_same_run() -> None:
    def trace() -> list[tuple[object, ...]]:
        def guest(_cpu: ScriptedCpu) -> Ops:
            for i in range(30):
                yield Native("cntv_cval", 1000 * i * i)
                yield Native("cntv_ctl", 1 if i % 3 else 3)
                yield Msr((3, 3, 14, 2, 0), 777 * i)
                yield Msr((3, 3, 14, 2, 1), 1)
                yield Wfi()
                yield Load(IO)
                yield Run(12345 * i + 1)
            while True:
                yield Store(IO)

        rig = Rig(guest)
        events: list[tuple[object, ...]] = []
        for _ in range(120):
            ret = rig.vcpu.run_raw()
            events.append((
                ret, rig.struct.exit_reason, rig.level, rig.vcpu.instructions,
                rig.system.clock.now(),
            ))  # fmt: skip
        return [*events, (rig.vcpu.stat.as_dict(),)]

    assert trace() == trace()


def test_counters() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO)
        yield Native("cntv_ctl", 1)
        yield Load(IO)
        yield Wfi()

    rig = Rig(guest)
    for _ in range(4):
        rig.vcpu.run_raw()
    stat = rig.vcpu.stat.as_dict()
    assert stat["exits"] == 4
    assert stat["returns"] == 4
    assert stat["notifications"] == 1
    assert stat["signal_exits"] == 1
    assert stat["traps"] == {"WFx": 1, "DABT_LOW": 2}
    assert stat["exit_reasons"] == {"MMIO": 2, "INTR": 2}


def test_an_exit_reason_that_user_space_made_up_breaks_nothing() -> None:
    rig = Rig(stores)
    rig.struct.immediate_exit = 1
    for reason in (0xFFFF_FFFF, 64, 6):
        rig.struct.exit_reason = reason
        fails(errno.EINTR, rig.vcpu.run)


# other threads


def run_in_thread(rig: Rig) -> tuple[threading.Thread, list[int]]:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(rig.vcpu.run_raw()))
    thread.start()
    return thread, results


def spinning_in_thread(_cpu: ScriptedCpu) -> Ops:
    while True:
        time.sleep(0.0001)  # the scripted CPU holds the GIL: let the other thread have it
        yield Run(1000)


def test_kick_from_another_thread() -> None:
    rig = Rig(spinning_in_thread)
    thread, results = run_in_thread(rig)
    time.sleep(0.02)
    rig.vcpu.kick()
    thread.join()
    assert results == [-errno.EINTR]
    assert rig.struct.exit_reason == k.KVM_EXIT_INTR


def test_line_from_another_thread_reaches_a_guest_that_spins() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Mask(False)
        yield from spinning_in_thread(_cpu)

    def irq(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO + 0x20)

    rig = Rig(guest, irq)
    thread, results = run_in_thread(rig)
    time.sleep(0.02)
    rig.line(1)
    thread.join()
    assert results == [0]
    assert rig.struct.mmio.phys_addr == IO + 0x20


def test_line_from_another_thread_ends_a_wfi() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Wfi()
        yield Store(IO + 0x30)

    rig = Rig(guest)
    asleep = threading.Event()
    rig.system.clock.idle = lambda due: asleep.set()
    thread, results = run_in_thread(rig)
    asleep.wait()
    rig.line(1)
    thread.join()
    assert results == [0]
    assert rig.struct.mmio.phys_addr == IO + 0x30


def test_another_thread_may_go_on_with_the_vcpu() -> None:
    rig = Rig(stores)
    assert rig.stored() == 0
    thread, results = run_in_thread(rig)
    thread.join()
    assert results == [0]
    assert rig.struct.mmio.phys_addr == IO + 4
    assert rig.stored() == 8


def test_ioctls_wait_for_a_run_and_vm_ioctls_do_not() -> None:
    rig = Rig(spinning_in_thread)
    thread, results = run_in_thread(rig)
    time.sleep(0.02)
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.append(rig.get(regs.CORE_PSTATE)))
    reader.start()
    rig.line(1)
    rig.line(0)
    assert rig.vm.check_extension(144) == 1
    reader.join(0.05)
    assert got == []
    rig.vcpu.kick()
    thread.join()
    reader.join()
    assert got == [0x3C5]
    assert results == [-errno.EINTR]


@pytest.mark.parametrize("wfi", [False, True])
def test_closing_a_vcpu_that_runs(wfi: bool) -> None:
    def guest(cpu: ScriptedCpu) -> Ops:
        if wfi:
            yield Wfi()
        yield from spinning_in_thread(cpu)

    rig = Rig(guest)
    rig.system.clock.idle = None
    thread, results = run_in_thread(rig)
    time.sleep(0.02)
    rig.vm.close()
    assert thread.is_alive()
    rig.vcpu.close()
    thread.join()
    assert results == [-errno.EIO]
    assert rig.cpu.closed
    fails(errno.EBADF, rig.vcpu.run)


def test_memory_can_change_while_a_vcpu_runs() -> None:
    rig = Rig(spinning_in_thread)
    thread, results = run_in_thread(rig)
    time.sleep(0.02)
    for _ in range(5):
        rig.vm.set_user_memory_region(0, 0, 0)
        rig.vm.set_user_memory_region(0, 0x4000_0000, 0x1000, rig.memory)
    assert thread.is_alive()
    rig.vcpu.kick()
    thread.join()
    assert results == [-errno.EINTR]


# the scheduler's points


BEFORE_ENTRY = (sched.TIMER_LOAD, sched.LOOP_TOP, sched.BEFORE_IN_GUEST, sched.IN_GUEST)


class Recorder:
    """A scheduler that only watches."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def point(self, name: str, _vcpu: object) -> None:
        self.seen.append(name)


def test_every_point_is_reached() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Msr((3, 3, 14, 2, 0), 1000)
        yield Msr((3, 3, 14, 2, 1), 1)
        yield Wfi()
        yield Store(IO)

    recorder = Recorder()
    rig = Rig(guest, sched=recorder)
    rig.line(1)
    rig.line(0)
    rig.notified()
    rig.stored()
    assert set(recorder.seen) == set(sched.POINTS)


def test_a_line_raised_at_any_point_before_entry_is_seen_by_the_guest() -> None:
    """325f9c649c8a: a line set between the last check and the entry was seen an exit later."""

    class Intruder:
        def __init__(self, at: int) -> None:
            self.left = at
            self.rig: Rig | None = None

        def point(self, name: str, _vcpu: object) -> None:
            if self.rig is None or name not in BEFORE_ENTRY:
                return
            self.left -= 1
            if self.left == 0:
                self.rig.line(1)

    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Mask(False)
        yield Run(1000)
        yield Store(IO)
        yield Run(1000)
        yield Store(IO + 4)

    def irq(cpu: ScriptedCpu) -> Ops:
        yield Store(IO + 0x20)
        cpu.state.hcr_vi = 0
        yield Run(1)

    for at in range(1, 2 * len(BEFORE_ENTRY) + 1):
        intruder = Intruder(at)
        rig = Rig(guest, irq, sched=intruder)
        intruder.rig = rig
        stored = [rig.stored()]
        if stored[0] == 0:
            stored.append(rig.stored())
        # The handler ran before the device write that this entry leads to.
        assert stored == ([0x20] if at <= len(BEFORE_ENTRY) else [0, 0x20])


def test_before_the_guest_a_line_is_a_request_and_after_it_is_a_kick_too() -> None:
    """The mode is set before the last check: it sees the request, or the kick comes."""
    kicked: dict[str, bool] = {}
    seen: list[str] = []

    class Driver:
        rig: Rig | None = None

        def point(self, name: str, _vcpu: object) -> None:
            seen.append(name)
            if self.rig is not None and name in BEFORE_ENTRY and name not in kicked:
                kicks: list[int] = []
                self.rig.cpu.kick = lambda: kicks.append(1)  # type: ignore[method-assign]
                self.rig.line(len(kicked) % 2 == 0)
                kicked[name] = bool(kicks)
                if name == sched.IN_GUEST:
                    assert self.rig.vcpu.requests

    driver = Driver()
    rig = Rig(stores, sched=driver)
    driver.rig = rig
    rig.stored()
    assert kicked == {
        sched.TIMER_LOAD: False,
        sched.LOOP_TOP: False,
        sched.BEFORE_IN_GUEST: False,
        sched.IN_GUEST: True,
    }
    # What was raised in IN_GUEST sent it round again before the guest.
    assert seen.count(sched.LOOP_TOP) >= 2
    assert rig.vcpu.requests == 0
