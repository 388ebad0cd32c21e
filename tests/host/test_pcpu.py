"""Physical CPUs: per-CPU interrupts, timer outputs, the tick."""

from __future__ import annotations

from collections.abc import Generator

from armkvm.host.clock import VirtualClock
from armkvm.host.hrtimer import Hrtimer
from armkvm.host.pcpu import PerCpuIrq, PhysicalCpu
from armkvm.host.scripted import Op, Run, ScriptedCpu


def spinning() -> ScriptedCpu:
    def script(_cpu: ScriptedCpu) -> Generator[Op, int, None]:
        while True:
            yield Run(1 << 30)

    return ScriptedCpu(script)


def cpu_with_guest() -> tuple[PhysicalCpu, ScriptedCpu]:
    pcpu, cpu = PhysicalCpu(0, VirtualClock()), spinning()
    pcpu.install(cpu)
    return pcpu, cpu


def run(pcpu: PhysicalCpu, cpu: ScriptedCpu) -> int:
    pcpu.enter()
    code = cpu.run()
    pcpu.clock.leave(pcpu)
    return code


def test_masks_follow_the_cpu_that_is_installed() -> None:
    pcpu, first = cpu_with_guest()
    pcpu.vtimer_irq.set_active(True)
    assert (first.state.cntv_masked, first.state.cntp_masked) == (1, 0)
    second = spinning()
    pcpu.ptimer_irq.disable()
    pcpu.install(second)
    assert (second.state.cntv_masked, second.state.cntp_masked) == (1, 1)
    pcpu.vtimer_irq.set_active(False)
    pcpu.ptimer_irq.enable()
    assert (second.state.cntv_masked, second.state.cntp_masked) == (0, 0)
    assert first.state.cntv_masked == 1  # what it had when it left


def test_output_needs_enable_no_mask_and_the_time() -> None:
    pcpu, cpu = cpu_with_guest()
    cpu.state.cntvoff = 10
    cpu.state.cntv_cval = 5
    pcpu.ns = 15 << 4
    for ctl, high in ((0, False), (1, True), (3, False), (2, False)):
        cpu.state.cntv_ctl = ctl
        assert pcpu.vtimer_irq.output() is high
    cpu.state.cntv_ctl = 1
    pcpu.ns -= 1
    assert not pcpu.vtimer_irq.output()


def test_taken_interrupt_stays_active_when_it_is_forwarded() -> None:
    pcpu, cpu = cpu_with_guest()
    taken: list[PerCpuIrq] = []
    pcpu.vtimer_irq.handler = taken.append
    cpu.state.cntv_ctl = 1
    pcpu.local_irq_enable()
    assert taken == [pcpu.vtimer_irq]
    assert not pcpu.vtimer_irq.active  # the host deactivated it: it would come again
    pcpu.vtimer_irq.forwarded = True
    pcpu.local_irq_enable()
    pcpu.local_irq_enable()
    assert taken == [pcpu.vtimer_irq] * 2
    assert pcpu.vtimer_irq.masked


def test_run_ends_at_the_tick_and_at_an_hrtimer() -> None:
    pcpu, cpu = cpu_with_guest()
    expired: list[int] = []
    Hrtimer(lambda now: expired.append(now)).start(pcpu.hrtimers, 1_000_000)
    run(pcpu, cpu)
    assert pcpu.ns == 1_000_000
    pcpu.local_irq_enable()
    assert expired == [1_000_000]
    run(pcpu, cpu)
    assert pcpu.ns == pcpu.tick_period
    pcpu.local_irq_enable()
    run(pcpu, cpu)
    assert pcpu.ns == 2 * pcpu.tick_period


def test_ticks_do_not_pile_up_while_idle() -> None:
    pcpu, cpu = cpu_with_guest()
    pcpu.clock.advance(pcpu, 100 * pcpu.tick_period + 7)
    run(pcpu, cpu)
    assert pcpu.ns == 101 * pcpu.tick_period


def test_another_guest_cpu_gets_the_time() -> None:
    pcpu, first = cpu_with_guest()
    run(pcpu, first)
    second = spinning()
    pcpu.install(second)
    pcpu.enter()
    assert second.state.ns_base == pcpu.ns
    assert second.state.hyp_deadline_ns == 2 * pcpu.tick_period
