"""The clock's modes."""

from __future__ import annotations

import threading
import time

import pytest

from armkvm.host.clock import PacedClock, RealtimeClock, VirtualClock, make_clock
from armkvm.host.pcpu import PhysicalCpu
from armkvm.host.scripted import Run, ScriptedCpu


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


def test_virtual_sleep_jumps() -> None:
    clock = VirtualClock()
    started = time.monotonic()
    cond = threading.Condition()
    with cond:
        assert clock.sleep(cond, 3600 * 10**9) == 3600 * 10**9
    assert time.monotonic() - started < 1


def test_virtual_sleep_with_nothing_to_wait_for_ends_by_another_thread() -> None:
    clock = VirtualClock()
    cond = threading.Condition()

    def wake() -> None:
        with cond:
            cond.notify()

    with cond:
        threading.Timer(0.02, wake).start()
        assert clock.sleep(cond, None) == 0


def test_paced_sleep_takes_its_time() -> None:
    clock = PacedClock()
    cond = threading.Condition()
    started = time.monotonic()
    with cond:
        assert clock.sleep(cond, 30_000_000) == 30_000_000
    assert 0.029 < time.monotonic() - started < 2


def test_paced_sleep_cut_short_ends_at_the_time_that_passed() -> None:
    clock = PacedClock()
    cond = threading.Condition()

    def wake() -> None:
        with cond:
            cond.notify()

    with cond:
        threading.Timer(0.02, wake).start()
        now = clock.sleep(cond, 60 * 10**9)
    assert 15_000_000 < now < 10 * 10**9


def test_realtime_never_runs_backwards_and_follows_the_host() -> None:
    clock = RealtimeClock()
    pcpu, cpu = PhysicalCpu(0, clock), spinning()
    last = 0
    begin = clock.now()
    started = time.monotonic_ns()
    for _ in range(50):
        time.sleep(0.001)
        run_for(pcpu, cpu, 200_000)
        assert pcpu.ns >= last
        last = pcpu.ns
    elapsed = time.monotonic_ns() - started
    assert last - begin == pytest.approx(elapsed, rel=0.5)


def test_realtime_rate_adapts_to_a_slow_guest() -> None:
    """200,000 instructions a millisecond and more are 5 ns each, not 1."""
    clock = RealtimeClock()
    pcpu, cpu = PhysicalCpu(0, clock), spinning()
    real_run = cpu.run

    def slow() -> int:
        time.sleep(0.001)
        return real_run()

    cpu.run = slow  # type: ignore[method-assign]
    for _ in range(30):
        run_for(pcpu, cpu, 200_000)
    assert cpu.state.ns_mult > 3 << 16


def test_wall_clock_is_the_epoch_and_guest_time() -> None:
    clock = VirtualClock(epoch_ns=10**18)
    clock.work(5)
    assert clock.wall_ns() == 10**18 + 5
    assert abs(PacedClock().wall_ns() - time.time_ns()) < 10**10
