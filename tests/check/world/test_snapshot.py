"""The state's key knows every attribute of the objects it stands for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.check.endings import endings

from armkvm.check.execution import locks
from armkvm.check.execution.actors import Execution
from armkvm.check.explorer import search
from armkvm.check.explorer.choosers import Exhaust, Random, Replay
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world import snapshot
from armkvm.check.world.world import World

# In the key in another form, fixed after the start, or nothing that anybody acts on.
OTHER = {
    "Vcpu": {
        "vm", "vcpu_id", "memslots", "trace", "point", "page", "pages", "run_struct", "irq_level",
        "cpu", "state", "x", "stat", "turn", "task", "mutex", "wait", "pcpu", "last_pcpu",
        "sys_regs", "core_spsr", "arch_timer", "vgic_cpu",
        # of features that scenarios do not use
        "pmu", "guest_debug", "steal", "id_limits", "ccsidr", "binary_stats",
    },
    "Vm": {
        "system", "host", "clock", "trace", "lock", "slots_lock", "config_lock", "halt_lock",
        "stage2", "memslots", "vcpus", "vgic", "mmio_bus", "limit", "voffset", "poffset",
        "timer_ppi",
        # of ioctls that scenarios do not use
        "manual_dirty_log_protect", "pmcr_n", "pmu_filter", "smccc_services", "coalesced_mmio",
        "ioeventfds", "irqfds", "id_regs", "its", "smccc_filter", "binary_stats",
    },
    "CheckPcpu": {
        "clock", "lock", "hrtimers", "state", "vcpu", "vtimer_irq", "ptimer_irq", "base", "count",
        "_deadline", "mult", "tick_period", "tick_ns", "ticks", "slice_ns", "resched_at",
    },
}  # fmt: skip


def world_of(name: str) -> tuple[Execution, World]:
    execution = Execution(Replay(()))
    with locks.controlled():
        world = search.perform(SCENARIOS[name].build, execution)
    assert execution.ended is None
    assert world is not None
    return execution, world


@pytest.mark.parametrize("cls", OTHER)
def test_attributes_are_known_and_there(cls: str) -> None:
    """Each is in the key or known to be in no need of it; and no name is of what is gone."""
    _execution, world = world_of("vgic-emulated")
    things = (
        (world.vcpus[0], snapshot.VCPU),
        (world.vms[0], snapshot.VM),
        (world.host.pcpus[0], snapshot.PCPU),
    )
    (thing, named), *_ = [pair for pair in things if type(pair[0]).__name__ == cls]
    assert set(vars(thing)) == {*named, *OTHER[cls]}


@pytest.mark.parametrize("name", ["timer-future", "timer-masked", "timer-moved", "vgic-emulated"])
def test_the_same_endings_with_and_without_the_cache(name: str) -> None:
    """Pruning loses no reachable end: exhausted both ways, the final states agree."""
    assert endings(SCENARIOS[name], Exhaust()) == endings(SCENARIOS[name], Uncached())


class Uncached(Exhaust):
    """Every schedule to its end."""

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """As if no state had ever been seen."""
        self.visited.clear()
        return super().pick(execution, labels, actors)


class Walk(Random):
    """A random schedule that notes what each pick in each state leads to."""

    def __init__(self, seed: int, leads: dict[object, object]) -> None:
        super().__init__(seed, 0.6 + 0.35 * (seed % 2))
        self.leads = leads
        self.last: object = None

    def watch(self, world: World) -> None:
        """An execution begins."""
        self.world = world

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        """One of them; what it leads to is what it has led to before."""
        state = snapshot.parts(self.world)
        if self.last is not None:
            assert self.leads.setdefault(self.last, (state, *labels)) == (state, *labels)
        picked = super().pick(execution, labels, actors)
        self.last = state, picked
        return picked


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_pick_in_the_same_state_leads_to_the_same_state(name: str) -> None:
    """What a state leaves out must not come back: else two that look alike have two futures."""
    leads: dict[object, object] = {}
    with locks.controlled():
        for seed in range(24):
            execution = Execution(Walk(seed, leads), max_steps=400)
            search.perform(SCENARIOS[name].build, execution)
            assert not isinstance(execution.ended, AssertionError)
