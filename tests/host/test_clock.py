"""The clock's modes."""

from __future__ import annotations

import pytest
from tests.host.host_time import HostTime

from armkvm.host.clock import ONE, PacedClock, RealtimeClock, VirtualClock, make_clock
from armkvm.host.pcpu import PhysicalCpu
from armkvm.host.scripted import Run, ScriptedCpu


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> HostTime:
    """The host's time is the test's."""
    return HostTime(monkeypatch)


def spinning() -> ScriptedCpu:
    def script(_cpu: ScriptedCpu):  # type: ignore[no-untyped-def]
        while True:
            yield Run(1 << 30)

    return ScriptedCpu(script)


def run_for(pcpu: PhysicalCpu, cpu: ScriptedCpu, instructions: int) -> None:
    pcpu.install(cpu)
    pcpu.enter()
    cpu.state.limit = cpu.state.count + instructions
    cpu.state.hyp_deadline_ns = 1 << 62
    cpu.run()
    pcpu.clock.leave(pcpu)


def test_names() -> None:
    assert make_clock("virtual").mode == "virtual"
    assert make_clock("paced").mode == "paced"
    assert make_clock("realtime").mode == "realtime"


def test_virtual_time_is_the_number_of_instructions() -> None:
    clock = VirtualClock()
    pcpu, cpu = PhysicalCpu(0, clock), spinning()
    run_for(pcpu, cpu, 12345)
    assert clock.now() == pcpu.ns == 12345
    clock.advance(pcpu, 655)
    run_for(pcpu, cpu, 7000)
    assert clock.now() == 20000
    assert cpu.state.ns_base + cpu.state.count - cpu.state.ns_count == 20000


def test_a_cpu_that_idled_catches_up_with_the_others() -> None:
    clock = VirtualClock()
    first, second = PhysicalCpu(0, clock), PhysicalCpu(1, clock)
    run_for(first, spinning(), 5000)
    run_for(second, spinning(), 10)
    assert second.ns == 5010
    run_for(first, spinning(), 1)
    assert first.ns == 5011


def test_virtual_sleep_jumps(host: HostTime) -> None:
    clock = VirtualClock()
    with host:
        assert clock.sleep(host, 3600 * 10**9) == 3600 * 10**9
    assert host.slept == []


def test_virtual_sleep_with_nothing_to_wait_for_ends_by_another_thread(host: HostTime) -> None:
    host.woken_after = 20_000_000
    with host:
        assert VirtualClock().sleep(host, None) == 0
    assert host.slept == [None]


def test_paced_sleep_takes_its_time(host: HostTime) -> None:
    with host:
        assert PacedClock().sleep(host, 30_000_000) == 30_000_000
    assert host.slept == [0.03]


def test_paced_sleep_cut_short_ends_at_the_time_that_passed(host: HostTime) -> None:
    host.woken_after = 20_000_000
    with host:
        assert PacedClock().sleep(host, 60 * 10**9) == 20_000_000
    assert host.slept == [60]


def test_realtime_never_runs_backwards_and_follows_the_host(host: HostTime) -> None:
    clock = RealtimeClock()
    pcpu, cpu = PhysicalCpu(0, clock), spinning()
    last = 0
    for n in range(50):
        host.ns += 1_000_000
        run_for(pcpu, cpu, 200_000)
        assert pcpu.ns >= last
        last = pcpu.ns
        # Ahead by no more than a slice that was thought to be slower than it was.
        assert (n + 1) * 1_000_000 <= last <= (n + 1) * 1_000_000 + 200_000
    assert clock.now() == last


def test_realtime_sleeps_until_the_host_is_there(host: HostTime) -> None:
    clock = RealtimeClock()
    host.ns += 10_000_000
    with host:
        assert clock.sleep(host, 30_000_000) == 30_000_000
        assert clock.sleep(host, 1) == 30_000_000
    assert host.slept == [0.02]


def test_realtime_rate_adapts_to_a_slow_guest(host: HostTime) -> None:
    """200,000 instructions a millisecond and more are 5 ns each, not 1."""
    clock = RealtimeClock()
    pcpu, cpu = PhysicalCpu(0, clock), spinning()
    real_run = cpu.run

    def slow() -> int:
        host.ns += 1_000_000
        return real_run()

    cpu.run = slow  # type: ignore[method-assign]
    for _ in range(30):
        run_for(pcpu, cpu, 200_000)
    assert 4.9 * ONE < cpu.state.ns_mult <= 5 * ONE


def test_wall_clock_is_the_epoch_and_guest_time(host: HostTime) -> None:
    clock = VirtualClock(epoch_ns=10**18)
    clock.work(5)
    assert clock.wall_ns() == 10**18 + 5
    assert PacedClock().wall_ns() == 10**18 + host.ns
