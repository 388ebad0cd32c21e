"""Mutants: levels, emulated timers, counters, and the sleep of a vCPU."""

from __future__ import annotations

from typing import Any

from armkvm.check.mutants.table import mutant
from armkvm.check.patching import Patch
from armkvm.host.cpu import NEVER
from armkvm.kvm import arch_timer
from armkvm.kvm.arch_timer import ArchTimer, TimerContext


@mutant("rising-edges-only", "bee038a67487", "of an emulated timer only rising edges go to the "
        "vgic: the line never falls", "vgic-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: Any) -> None:
        fires = self.should_fire()
        if fires and not self.level:
            self.update_irq(True)
        if fires or not self.can_fire():
            return
        self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("soft-timer-forgotten", "b450dcce93bc", "after a change of level the soft timer is not "
        "set up", "vgic-emulated-moved")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: Any) -> None:
        fires = self.should_fire()
        if fires != self.level:
            self.update_irq(fires)
            return
        if fires or not self.can_fire():
            return
        self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("wrong-offset", "84135d3d18da", "the physical counter is read with the virtual one's "
        "offset", "counter")  # fmt: skip
def _(p: Patch) -> None:
    p.set(TimerContext, "counter", lambda self: (self.vcpu.now() >> 4) - self.vcpu.vm.voffset.value)


@mutant("tval-unsigned", "8fa761624871", "TVAL is not sign-extended: -1 is in the far future",
        "counter")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.write

    def write(self: TimerContext, register: int, value: int) -> None:
        if register == arch_timer.TIMER_REG_TVAL:
            self.cval = self.counter() + (value & 0xFFFF_FFFF)
        else:
            real(self, register, value)

    p.set(TimerContext, "write", write)


@mutant("sleep-forgets-ptimer", "245715cbe83c", "a sleeping vCPU is woken for the virtual timer "
        "only", "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def blocking(self: ArchTimer, pcpu: Any) -> None:
        ctx = self.vtimer
        if ctx.can_fire() and not ctx.should_fire():
            self.bg_timer.start(pcpu.hrtimers, ctx.expiry_ns())

    p.set(ArchTimer, "blocking", blocking)


@mutant("sleep-checks-twice", "found by this checker", "the soft timer of a sleep is not armed "
        "if the output rose after the last look", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    def blocking(self: ArchTimer, pcpu: Any) -> None:
        expiry = NEVER
        for ctx in self.timers:
            if ctx.can_fire() and not ctx.should_fire():
                expiry = min(expiry, ctx.expiry_ns())
        if expiry != NEVER:
            self.bg_timer.start(pcpu.hrtimers, expiry)

    p.set(ArchTimer, "blocking", blocking)


@mutant("first-run-not-loaded", "4.15-rc (timer enable flow)", "the timer of a first run is "
        "enabled after the vCPU is loaded, and never restored", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.load

    def load(self: ArchTimer, pcpu: Any) -> None:
        if self.vcpu.stat.returns or self.vcpu.stat.exits:
            real(self, pcpu)

    p.set(ArchTimer, "load", load)
