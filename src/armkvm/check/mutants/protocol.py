"""Mutants: three of the notification protocol's that history does not have one by one.

With those of user_irqchip.py they are the six of bench/spin/ut.pml, where each is a few lines of
Promela: `armkvm bench check` looks for them on both sides.
"""

from __future__ import annotations

from armkvm.check.execution.patching import Patch
from armkvm.check.mutants.table import mutant
from armkvm.host.pcpu import PerCpuIrq
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.arch_timer_context import TimerContext


@mutant("levels-never-written", "d9e139778376", "I2", "no return writes the bits", "timer-past")
def _(p: Patch) -> None:
    p.set(ArchTimer, "update_run", lambda self: None)


@mutant("sleep-without-timer", "not known (kvm_timer_blocking())", "I6", "no soft timer watches "
        "the deadline of a vCPU that sleeps", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    p.set(ArchTimer, "blocking", lambda self, pcpu: None)


@mutant("mask-of-the-last", "d60d8b64280c", "I8", "loading leaves the host's interrupt masked as "
        "the last vCPU on that CPU had it", "two-vcpus")  # fmt: skip
def _(p: Patch) -> None:
    def load_gic(ctx: TimerContext, host_irq: PerCpuIrq) -> None:
        ctx.update_irq(ctx.should_fire())

    p.set(ArchTimer, "_load_gic", staticmethod(load_gic))
