"""Mutants: levels of timers and what becomes of them, soft timers, counters."""

from __future__ import annotations

from typing import Any

from armkvm.arch.timer import CTL_IMASK, NEVER, NS_PER_TICK_SHIFT
from armkvm.arch.word import M64
from armkvm.check.execution.patching import Patch
from armkvm.check.mutants.table import mutant
from armkvm.host.pcpu import PhysicalCpu
from armkvm.kvm import arch_timer_context, block
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.arch_timer_context import TimerContext
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic.cpu import VgicCpu
from armkvm.kvm.vgic.dist import queue_irq
from armkvm.kvm.vgic.irq import VgicIrq

# an emulated timer


@mutant("rising-edges-only", "e4e5a865e9a9", "I7", "of an emulated timer only rising edges go to "
        "the vgic: the line never falls", "vgic-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: PhysicalCpu) -> None:
        if self.should_fire():
            self.update_irq(True)
        elif self.can_fire():
            self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("soft-timer-forgotten", "b450dcce93bc", "I14", "after a change of level the soft timer is "
        "not set up", "vgic-emulated-moved")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: PhysicalCpu) -> None:
        fires = self.should_fire()
        if fires != self.level:
            self.update_irq(fires)
        elif not fires and self.can_fire():
            self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("expiry-during-setup", "7afc4ddbf299", "I14", "a deadline that passes between looking at "
        "the output and setting up the soft timer: the timer is cancelled, nothing is injected",
        "vgic-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def emulate(self: TimerContext, pcpu: PhysicalCpu) -> None:
        fires = self.should_fire()
        if fires != self.level:
            self.update_irq(fires)
        if self.vcpu.point is not None:
            self.vcpu.point("phys-timer-emulate", self.vcpu)
        if not self.should_fire() and self.can_fire():
            self.hrtimer.start(pcpu.hrtimers, self.expiry_ns())

    p.set(TimerContext, "emulate", emulate)


@mutant("blocked-ptimer-lost", "245715cbe83c", "I14", "an emulated timer that fires while its vCPU "
        "sleeps wakes it, and loading does not inject it", "vgic-emulated")  # fmt: skip
def _(p: Patch) -> None:
    real, runnable = ArchTimer.load, block.kvm_arch_vcpu_runnable

    def load(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        emul, self.emul_ptimer = self.emul_ptimer, None
        real(self, pcpu)
        self.emul_ptimer = emul
        if emul is not None and self.enabled and emul.can_fire() and not emul.should_fire():
            emul.hrtimer.start(pcpu.hrtimers, emul.expiry_ns())

    def pending_timer(vcpu: Vcpu) -> bool:
        return runnable(vcpu) or any(t.should_fire() for t in vcpu.arch_timer.timers)

    p.set(ArchTimer, "load", load)
    p.set(block, "kvm_arch_vcpu_runnable", pending_timer)


@mutant("ghost-interrupt", "4b4b4512da2a", "I7", "a timer's interrupt is an edge: what has fired "
        "stays pending when the timer is switched off", "vgic-ghost")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.update_irq

    def update_irq(self: TimerContext, level: bool) -> None:
        real(self, level)
        if self.vcpu.vgic_cpu is not None and level:
            irq = self.vcpu.vgic_cpu.private_irqs[self.irq]
            irq.pending_latch = True
            queue_irq(irq)

    p.set(TimerContext, "update_irq", update_irq)


# a timer that is the hardware's


@mutant("first-run-not-loaded", 'not known ("Fix timer enable flow", 4.15-rc)', "I14", "on a first "
        "run the timer is never marked as loaded: what the guest programs is not read back",
        "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    real = ArchTimer.load

    def load(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        if self.vcpu.stat.returns or self.vcpu.stat.exits:
            real(self, pcpu)
        else:
            self.vcpu.state.cntvoff = self.vcpu.vm.voffset.value

    p.set(ArchTimer, "load", load)


@mutant("late-interrupt", "36e5cfd410ad", "I14", "the host's interrupt is handled after the timer "
        "was saved and switched off: the guest's CTL is overwritten", "timer-moved")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.save_state

    def save_state(self: TimerContext) -> None:
        pcpu = self.loaded_on
        late = pcpu is not None and pcpu.vtimer_irq.output() and not pcpu.vtimer_irq.masked
        real(self)
        if late and self.index == 0:
            self.ctl = self.vcpu.state.cntv_ctl
            self.level = True

    p.set(TimerContext, "save_state", save_state)


@mutant("no-resampling", "3134cc8beb69", "I7", "an interrupt that came again while it was active, "
        "and went away, is still pending when it has been ended",
        "vgic-exit-in-handler")  # fmt: skip
def _(p: Patch) -> None:
    real = VgicCpu._resample

    def resample(self: VgicCpu, irq: VgicIrq, deactivated: bool, lr_pending: bool) -> None:
        real(self, irq, False, lr_pending)

    p.set(VgicCpu, "_resample", resample)


# sleep


@mutant("sleep-forgets-ptimer", 'not known ("Set a background timer to the earliest timer '
        'expiration", 4.11)', "I6", "a sleeping vCPU is woken for the virtual timer only",
        "timer-emulated")  # fmt: skip
def _(p: Patch) -> None:
    def blocking(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        ctx = self.vtimer
        if ctx.can_fire() and not ctx.should_fire():
            self.bg_timer.start(pcpu.hrtimers, ctx.expiry_ns())

    p.set(ArchTimer, "blocking", blocking)


@mutant("sleep-checks-twice", "found by this checker", "I6", "the soft timer of a sleep is not "
        "armed if the output rose after the last look", "timer-future")  # fmt: skip
def _(p: Patch) -> None:
    def blocking(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        expiry = NEVER
        for ctx in self.timers:
            if ctx.can_fire() and not ctx.should_fire():
                expiry = min(expiry, ctx.expiry_ns())
        if expiry != NEVER:
            self.bg_timer.start(pcpu.hrtimers, expiry)

    p.set(ArchTimer, "blocking", blocking)


@mutant("sleep-trusts-old-level", "found by this checker", "I14", "nor if the level that was last "
        "passed on to the vgic is high, which the guest has lowered since",
        "vgic-rearmed")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.known_high

    def known_high(self: TimerContext) -> bool:
        return self.level if self.vcpu.vgic_cpu is not None else real(self)

    p.set(TimerContext, "known_high", known_high)


@mutant("masked-while-saved", "1a74847885cc", "I13", "the soft timer of a vCPU that is not running "
        "masks the guest's timer, between saving the lines and saving the timer",
        "save-restore")  # fmt: skip
def _(p: Patch) -> None:
    load, put, expire = ArchTimer.load, ArchTimer.put, ArchTimer._bg_timer_expire

    def load_injected(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        # Where it was masked the interrupt is pending too; for us the level is.
        if getattr(self, "injected", False):
            self.injected = False  # type: ignore[attr-defined]
            self.vtimer.ctl &= ~CTL_IMASK
        load(self, pcpu)

    def put_and_watch(self: ArchTimer, pcpu: PhysicalCpu) -> None:
        put(self, pcpu)
        if self.vtimer.can_fire() and not self.vtimer.should_fire():
            self.bg_timer.start(pcpu.hrtimers, self.vtimer.expiry_ns())

    def mask(self: ArchTimer, now: int) -> int | None:
        if self.vcpu.pcpu is None and self.vtimer.should_fire():
            self.vtimer.ctl |= CTL_IMASK
            self.injected = True  # type: ignore[attr-defined]
        return expire(self, now)

    p.set(ArchTimer, "load", load_injected)
    p.set(ArchTimer, "put", put_and_watch)
    p.set(ArchTimer, "_bg_timer_expire", mask)


# counters


@mutant("wrong-offset", "84135d3d18da", "I11", "the physical counter is read with the virtual "
        "one's offset", "counter")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.read

    def read(self: TimerContext, register: int) -> int:
        if register == arch_timer_context.TIMER_REG_CNT:
            return (self.vcpu.now() >> NS_PER_TICK_SHIFT) - self.vcpu.vm.voffset.value & M64
        return real(self, register)

    p.set(TimerContext, "read", read)


@mutant("tval-unsigned", "4a267aa70795", "I11", "TVAL is not sign-extended: -1 is in the far "
        "future", "counter")  # fmt: skip
def _(p: Patch) -> None:
    real = TimerContext.write

    def write(self: TimerContext, register: int, value: int) -> None:
        if register == arch_timer_context.TIMER_REG_TVAL:
            self.cval = self.counter() + value & M64
        else:
            real(self, register, value)

    p.set(TimerContext, "write", write)


@mutant("counter-moved-by-vcpu", "not known (gVisor issue 5739)", "I11", "a new vCPU moves the "
        "counter of all others, also where user space has fixed it", "counter-fixed")  # fmt: skip
def _(p: Patch) -> None:
    real: Any = ArchTimer.vcpu_init

    def vcpu_init(self: ArchTimer) -> None:
        self.vcpu.vm.counter_offset_set = False
        real(self)

    p.set(ArchTimer, "vcpu_init", vcpu_init)
