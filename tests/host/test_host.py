"""Hosts and the choice of a physical CPU."""

from armkvm.host.clock import VirtualClock
from armkvm.host.host import KINDS, Host
from armkvm.host.sched import POINTS


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


def test_timer_interrupt_without_a_vcpu_is_nobodys() -> None:
    """It may still come after vcpu_put: the signal had not been retired yet."""
    host = Host("nvhe-gicv2", VirtualClock())
    host.timer_handler(host.pcpus[0].vtimer_irq)


def test_points_are_distinct_names() -> None:
    assert len(set(POINTS)) == len(POINTS)
    assert all(name == name.lower() for name in POINTS)
