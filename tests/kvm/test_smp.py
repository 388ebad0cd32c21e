"""Several vCPUs in one VM: power, interrupts between them, atomicity, one outcome in every run."""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.kvm import smp
from tests.kvm.smp import ROUNDS, TIMES, Smp

from armkvm.abi import kvm as k
from armkvm.host.turn import SLICE_NS
from armkvm.kvm import Vcpu
from armkvm.vmm.machine import Machine

M64 = (1 << 64) - 1
ALREADY_ON, INVALID = -4 & M64, -2 & M64
ON, OFF = 0, 1
CPUS = 4
SLICE_TICKS = SLICE_NS >> 4


def test_cpus_are_switched_on_and_off_and_on_again() -> None:
    expected = []
    for cpu in (1, 2, 3):
        life = [OFF, 0, 0x100 + cpu, 1 << 31 | cpu, ON, ALREADY_ON]
        expected += life * 2
    assert Smp(smp.POWER).results() == [*expected, INVALID]


def test_counters_lose_nothing() -> None:
    """Exclusives, single and pair, atomics, compare-and-swap, a spin lock; and none of them."""
    total = CPUS * TIMES
    *careful, tripled, careless = Smp(smp.COUNT).results()
    assert careful == [total] * 5
    assert tripled == 3 * total
    # The turn does pass between a load and its store: this test could fail.
    assert careless < total


def test_an_exclusive_store_fails_when_another_cpu_wrote_the_same_value() -> None:
    assert Smp(smp.ABA).results() == [1, 0]


def test_sgis_reach_their_targets() -> None:
    answers, senders, *heard = Smp(smp.SGI).results()
    assert answers == 3 * ROUNDS
    assert senders == ROUNDS * (1 + 2 + 3)
    assert heard == [ROUNDS] * 3


def test_timers_of_sleeping_cpus_interrupt_the_one_that_runs() -> None:
    """Each is as late as the others' slices at most."""
    late = Smp(smp.TIMERS).results()
    assert max(late) <= (CPUS - 1) * SLICE_TICKS + 100


def test_timers_of_cpus_that_all_sleep() -> None:
    """Time jumps from one to the next; the last of ten ticks of 4 ms ends it."""
    one = Smp(smp.NAP)
    assert max(one.results()) < 100
    assert 40_000_000 < one.system.clock.now() < 41_000_000
    assert one.machine.vm.instructions < 1_000_000


def test_a_cpu_sees_translations_and_instructions_that_another_changed() -> None:
    before, unspecified, after, old, new = Smp(smp.TLBI).results()
    assert (before, after) == (0xA, 0xB)
    # Until the TLBI the old entry may serve; as it does here, the broadcast is what ended it.
    assert unspecified == 0xA
    assert (old, new) == (1, 2)


@pytest.mark.parametrize("guest", [smp.POWER, smp.COUNT, smp.SGI, smp.TIMERS, smp.NAP])
def test_every_run_is_the_same(guest: int) -> None:
    """Instructions and exits of each vCPU, the time, and what is in memory at the end."""
    seen = []
    for _ in range(3):
        one = Smp(guest)
        one.run()
        stats = one.machine.stats()
        del stats["wall_seconds"]
        seen.append(stats)
        one.machine.close()
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]["vcpus"]) == CPUS
    assert sum(v["instructions"] for v in seen[0]["vcpus"]) == seen[0]["instructions"]
    assert all(v["instructions"] for v in seen[0]["vcpus"])


def test_threads_that_start_late_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen() -> list[object]:
        one = Smp(smp.COUNT)
        one.run()
        return [one.machine.stats()[key] for key in ("vcpus", "guest_seconds", "memory_digest")]

    secondary = Machine._secondary

    def late(machine: Machine, cpu: int) -> None:
        time.sleep(0.01 * (5 - cpu))
        secondary(machine, cpu)

    prompt = seen()
    monkeypatch.setattr(Machine, "_secondary", late)
    assert seen() == prompt


@pytest.mark.parametrize("mode", ["paced", "realtime"])
def test_other_clocks(mode: str) -> None:
    assert len(Smp(smp.TIMERS, time=mode).results()) == CPUS
    assert Smp(smp.SGI, time=mode).results()[0] == 3 * ROUNDS


@pytest.mark.parametrize("limit", [100_000, 1_234_567, 3_000_001])
def test_an_instruction_limit_counts_all_cpus(limit: int) -> None:
    one = Smp(smp.SPIN, max_insns=limit)
    assert one.run().reason == "limit"
    assert one.machine.vm.instructions == limit
    one.machine.close()


def test_cpus_that_spin_share_the_time() -> None:
    one = Smp(smp.SPIN, max_insns=10_000_000)
    one.run()
    shares = [vcpu.instructions for vcpu in one.machine.vcpus]
    assert max(shares) - min(shares) <= 2 * SLICE_NS
    one.machine.close()


def no_threads_left() -> bool:
    return not [t for t in threading.enumerate() if t.name.startswith("armkvm-vcpu")]


def test_a_timeout_stops_all() -> None:
    one = Smp(smp.SPIN, timeout=0.2)
    assert one.run().reason == "timeout"
    assert no_threads_left()
    one.machine.close()


def test_any_cpu_may_end_the_run() -> None:
    one = Smp(smp.RESET)
    assert one.run().reason == "reset"
    assert one.machine.vcpus[3].stat.as_dict()["exit_reasons"]["SYSTEM_EVENT"] == 1
    assert no_threads_left()
    one.machine.close()


class Device:
    """Fails, or tells which CPU used it."""

    name, size = "device", 0x1000

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.seen: list[int] = []

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        self.seen.append(cpu)
        return 0

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        if self.error is not None:
            raise self.error
        self.seen.append(cpu)


def test_a_device_learns_which_cpu_uses_it() -> None:
    one, device = Smp(smp.DEVICE), Device()
    one.machine.bus.map(0x0A00_0000, device)
    assert one.results() == []
    assert device.seen == [2, 2]


@pytest.mark.parametrize("error", [ZeroDivisionError("device"), KeyboardInterrupt()])
def test_an_error_in_a_vcpu_thread_ends_the_run(error: BaseException) -> None:
    one = Smp(smp.DEVICE)
    one.machine.bus.map(0x0A00_0000, Device(error))
    with pytest.raises(type(error)):
        one.run()
    assert no_threads_left()
    one.machine.close()


# a VMM that knows nothing of turns

Spinning = tuple[Smp, list[threading.Thread], dict[int, int]]


@pytest.fixture
def spinning() -> Iterator[Spinning]:
    """Four vCPUs, each in KVM_RUN in a thread of its own, as any client of the API has them."""
    one = Smp(smp.SPIN)
    results: dict[int, int] = {}

    def run(vcpu: Vcpu) -> None:
        while True:
            ret = vcpu.run_raw()
            if ret:
                results[vcpu.vcpu_id] = ret
                return

    threads = [threading.Thread(target=run, args=(v,)) for v in one.machine.vcpus]
    for thread in threads:
        thread.start()
    until(lambda: all(vcpu.instructions for vcpu in one.machine.vcpus))
    yield one, threads, results
    one.machine.close()
    for thread in threads:
        thread.join()


def until(true: Callable[[], bool]) -> None:
    """Wait."""
    while not true():
        time.sleep(0.001)


def test_a_kick_ends_one_while_the_others_run(spinning: Spinning) -> None:
    one, threads, results = spinning
    for n in (2, 0, 3):
        one.machine.vcpus[n].kick()
        threads[n].join()
    assert results == dict.fromkeys((0, 2, 3), -errno.EINTR)
    before = one.machine.vcpus[1].instructions
    until(lambda: one.machine.vcpus[1].instructions > before)


def test_closing_one_while_the_others_run(spinning: Spinning) -> None:
    one, threads, results = spinning
    one.machine.vcpus[1].close()
    threads[1].join()
    assert results == {1: -errno.EIO}
    before = one.machine.vcpus[3].instructions
    until(lambda: one.machine.vcpus[3].instructions > before)


def test_memory_can_change_while_they_run(spinning: Spinning) -> None:
    one, threads, results = spinning
    page = mmap.mmap(-1, 0x1000)
    for n in range(20):
        one.machine.vm.set_user_memory_region(1, 0x8000_0000, 0x1000, page)
        one.machine.vm.set_user_memory_region(1, 0, 0)
        assert results == {}, n
    assert all(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("how", ["kick", "close", "line"])
def test_a_cpu_that_is_off_waits_in_kvm_run(how: str) -> None:
    one = Smp(smp.SPIN)
    vcpu = one.machine.vcpus[2]
    assert isinstance(vcpu, Vcpu)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(vcpu.run_raw()))
    thread.start()
    until(lambda: vcpu.ran_once)
    time.sleep(0.02)
    assert thread.is_alive()
    assert vcpu.instructions == 0
    if how == "line":
        # An interrupt does not switch it on.
        one.machine.vm.irq_line(k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, 2, 0), 1)
        time.sleep(0.02)
        assert thread.is_alive()
    if how == "close":
        vcpu.close()
    else:
        vcpu.kick()
    thread.join()
    assert results == [-errno.EIO if how == "close" else -errno.EINTR]
    assert vcpu.instructions == 0
    one.machine.close()


def test_one_thread_may_run_all_vcpus_by_turns() -> None:
    """An exit of one leaves another free to run, held turn or not."""
    one = Smp(smp.DEVICE)
    vcpus = one.machine.vcpus
    with contextlib.ExitStack() as stack:
        for held in (False, True):
            if held:
                stack.enter_context(vcpus[1].held())
            vcpus[0].run_struct.immediate_exit = 1
            for n in (1, 0, 1):
                vcpus[n].kick()
                assert vcpus[n].run_raw() == -errno.EINTR
    one.machine.close()


def test_nothing_is_left_behind() -> None:
    one = Smp(smp.SGI)
    one.results()
    assert one.system.host.turn.tasks == []
    assert one.system.host.turn.owner is None
    assert not one.system.host.hrtimers.timers
    gc.collect()
    assert no_threads_left()
