"""Hosts and the choice of a physical CPU."""

import pytest

from armkvm.host.clock import VirtualClock
from armkvm.host.host import KINDS, Host, HostParts
from armkvm.host.sched import POINTS
from armkvm.kvm import System


def test_kinds() -> None:
    assert not KINDS["nvhe-gicv2"].vhe
    assert KINDS["vhe-gicv3"].vhe
    assert not KINDS["nvhe-nogic"].gic_active_state


def test_claim_prefers_the_last_cpu_and_never_runs_out() -> None:
    host = Host("nvhe-gicv2", VirtualClock())
    first = host.claim(None)
    second = host.claim(first)
    assert first is host.pcpus[0]
    assert second is host.pcpus[1]
    second.lock.release()
    assert host.claim(second) is second
    first.lock.release()
    assert host.claim(second) is first


def test_a_timer_interrupt_without_a_vcpu_is_nobodys() -> None:
    """It may still come after vcpu_put: the signal had not been retired yet."""
    irq = System().host.pcpus[0].vtimer_irq
    assert irq.handler is not None
    irq.handler(irq)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cpu_that_comes_up_later_has_the_same_interrupts(kind: str) -> None:
    host = System(kind).host
    pcpus = [host.claim(None), host.claim(None)]
    irqs = [irq for pcpu in pcpus for irq in (pcpu.vtimer_irq, pcpu.ptimer_irq)]
    assert len({irq.handler for irq in irqs}) == 1
    assert None not in {irq.handler for irq in irqs}
    assert {irq.forwarded for irq in irqs} == {KINDS[kind].gic_active_state}


def test_a_host_has_the_parts_it_is_given() -> None:
    clock = VirtualClock()
    parts = HostParts.usual(clock)
    parts.claim = lambda _last: parts.pcpus[0]
    host = Host("vhe-gicv3", clock, parts=parts)
    assert (host.turn, host.hrtimers, host.pcpus) == (parts.turn, parts.hrtimers, parts.pcpus)
    assert host.claim(None) is host.claim(None) is parts.pcpus[0]


def test_points_are_distinct_names() -> None:
    assert len(set(POINTS)) == len(POINTS)
    assert all(name == name.lower() for name in POINTS)
