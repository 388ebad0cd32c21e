"""Guests that use the vgic: what they see of it natively, what reaches the host."""

from __future__ import annotations

import pytest
from tests.kvm import smp
from tests.kvm.smp import ROUNDS, Smp

from armkvm.host.turn import SLICE_NS

CPUS = 4
SLICE_TICKS = SLICE_NS >> 4


def kernel(guest: int) -> Smp:
    return Smp(guest, cpus=CPUS, irqchip="kernel-gicv2")


def test_sgis_reach_their_targets() -> None:
    answers, senders, *heard = kernel(smp.SGI).results()
    assert answers == 3 * ROUNDS
    assert senders == ROUNDS * (1 + 2 + 3)
    assert heard == [ROUNDS] * 3


@pytest.mark.parametrize("guest", [smp.TIMERS, smp.NAP])
def test_timers_interrupt(guest: int) -> None:
    assert max(kernel(guest).results()) <= (CPUS - 1) * SLICE_TICKS + 100


@pytest.mark.parametrize("guest", [smp.POWER, smp.COUNT])
def test_the_rest_is_as_with_the_gic_in_user_space(guest: int) -> None:
    exact = slice(None) if guest == smp.POWER else slice(6)
    assert kernel(guest).results()[exact] == Smp(guest, cpus=CPUS).results()[exact]


def test_user_space_sees_no_interrupt_and_no_level() -> None:
    """No exit for acknowledging and ending, none for a timer; device_irq_level stays 0."""
    one, other = kernel(smp.NAP), Smp(smp.NAP, cpus=CPUS)
    for machine in (one.machine, other.machine):
        machine.run()
    assert all(vcpu.irq_level.value == 0 for vcpu in one.machine.vcpus)
    mine, theirs = (x.machine.stats()["exits"] for x in (one, other))
    assert mine["notifications"] == 0
    assert theirs["notifications"] > 0
    assert mine["mmio_exit_kernel"] > 0
    # Ten ticks of four CPUs: a notification, IAR and EOIR each.
    assert theirs["returns"] - mine["returns"] >= 3 * 10 * CPUS
    for x in (one, other):
        x.machine.close()


@pytest.mark.parametrize("guest", [smp.SGI, smp.TIMERS, smp.NAP])
def test_every_run_is_the_same(guest: int) -> None:
    seen = []
    for _ in range(3):
        one = kernel(guest)
        one.run()
        stats = one.machine.stats()
        del stats["wall_seconds"]
        seen.append(stats)
        one.machine.close()
    assert seen[0] == seen[1] == seen[2]
