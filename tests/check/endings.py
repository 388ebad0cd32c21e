"""How the schedules of a scenario can end: what a search must not lose."""

from __future__ import annotations

from armkvm.check.execution import locks
from armkvm.check.execution.actors import Execution
from armkvm.check.explorer import search
from armkvm.check.explorer.choosers import Exhaust
from armkvm.check.scenarios.table import Scenario
from armkvm.check.world.guest import CheckCpu

Ending = tuple[object, ...]


def endings(scenario: Scenario, chooser: Exhaust) -> set[Ending]:
    """The time, what each user space has seen and each guest remembers, of every end."""
    found: set[Ending] = set()
    with locks.controlled():
        while chooser.todo:
            chooser.start()
            execution = Execution(chooser)
            world = search.perform(scenario.build, execution)
            assert world is not None
            if execution.ended is None:
                cpus = [vcpu.cpu for vcpu in world.vcpus]
                logs = [cpu.memory.log for cpu in cpus if isinstance(cpu, CheckCpu)]
                found.add((world.clock.time, *(vmm.key() for vmm in world.vmms), *logs))
    return found
