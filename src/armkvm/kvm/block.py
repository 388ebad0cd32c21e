"""Loading, putting and sleeping: how a vCPU gets onto a physical CPU and off it.

After vcpu_load(), kvm_vcpu_block() and the preempt notifiers in virt/kvm/kvm_main.c. A vCPU is
loaded only while it has the turn (host/turn.py); one that sleeps, or lets others run, gives both
back. What ends a WFI is kvm_vcpu_check_block(): a line, a level that user space does not know yet,
a signal. Left out: halt polling; directed yields, which with round robin would help nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armkvm.arch.timer import NEVER
from armkvm.host import sched
from armkvm.host.pcpu import RESCHED_TICKS, PhysicalCpu
from armkvm.kvm import kvm_host as h
from armkvm.kvm.pmu import emul as pmu_emul
from armkvm.kvm.pvtime import INVALID_GPA, record_steal, stolen_by_others

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu


def vcpu_load(vcpu: Vcpu) -> PhysicalCpu:
    """vcpu_load(): wait for the turn, then onto a CPU."""
    vcpu.turn.take(vcpu.task)
    pcpu = kvm_sched_in(vcpu)
    if vcpu.steal.base != INVALID_GPA:
        record_steal(vcpu)
    return pcpu


def vcpu_put(vcpu: Vcpu) -> None:
    """vcpu_put(). Nothing if an exception has unloaded it already."""
    if vcpu.pcpu is not None:
        kvm_sched_out(vcpu)
        if vcpu.point is not None:
            vcpu.point(sched.TURN_GIVE, vcpu)
        vcpu.turn.give(vcpu.task)


def kvm_sched_in(vcpu: Vcpu) -> PhysicalCpu:
    """kvm_sched_in() and kvm_arch_vcpu_load()."""
    if vcpu.point is not None:
        vcpu.point(sched.TURN_TAKE, vcpu)
    last = vcpu.last_pcpu
    pcpu = vcpu.vm.host.claim(last)
    if pcpu is not last:
        # What this CPU believes of our state, if anything, dates from before we left it.
        pcpu.remove()
        vcpu.last_pcpu = pcpu
    vcpu.pcpu = pcpu
    pcpu.vcpu = vcpu
    pcpu.resched_at = pcpu.ticks + RESCHED_TICKS
    pcpu.install(vcpu.cpu)
    vcpu.arch_timer.load(pcpu)
    vm = vcpu.vm
    if vm.limit is not None:
        state = vcpu.state
        state.limit = state.count + max(vm.limit - vm.instructions, 0)
    return pcpu


def kvm_sched_out(vcpu: Vcpu) -> None:
    """kvm_sched_out() and kvm_arch_vcpu_put()."""
    pcpu = vcpu.pcpu
    assert pcpu is not None
    vcpu.arch_timer.put(pcpu)
    if vcpu.binary_stats is not None:
        vcpu.show_stats()
    if vcpu.pmu is not None:
        vcpu.pmu.hrtimer.cancel()
    pcpu.slice_ns = NEVER
    pcpu.vcpu = None
    vcpu.pcpu = None
    pcpu.lock.release()


def kvm_arch_vcpu_runnable(vcpu: Vcpu) -> bool:
    """There is something for the guest, or for user space, to do."""
    return bool(
        (
            vcpu.hcr & h.LINES
            or (
                vcpu.arch_timer.should_notify_user() or pmu_emul.should_notify_user(vcpu)
                if vcpu.vgic_cpu is None
                else vcpu.vgic_cpu.pending_irq()
            )
        )
        and not vcpu.stopped
        and not vcpu.pause
    )


def kvm_vcpu_check_block(vcpu: Vcpu) -> bool:
    """The vCPU must not sleep."""
    return (
        kvm_arch_vcpu_runnable(vcpu)
        or vcpu.signal_pending
        or bool(vcpu.requests & (h.REQ_UNBLOCK | h.REQ_VM_DEAD))
    )


def kvm_vcpu_halt(vcpu: Vcpu) -> None:
    """kvm_vcpu_halt() and kvm_vcpu_block(): WFI. Returns when the vCPU should look around."""
    waited = False
    began = vcpu.vm.clock.ns
    vcpu.blocking = True
    try:
        while True:
            # Before the check, so that a wake-up between the check and the sleep ends the sleep.
            vcpu.task.woken = False
            if kvm_vcpu_check_block(vcpu):
                break
            waited = True
            schedule(vcpu)
    finally:
        vcpu.blocking = False
        vcpu.arch_timer.unblocking()
    if waited:
        vcpu.stat.slept(max(vcpu.now() - began, 0))
    if vcpu.binary_stats is not None:
        vcpu.show_stats()
    if vcpu.trace.kvm_vcpu_wakeup is not None:
        vcpu.trace.kvm_vcpu_wakeup(vcpu.vcpu_id, vcpu.vm.clock.ns - began, waited)


def kvm_vcpu_sleep(vcpu: Vcpu) -> None:
    """Powered off or paused: sleep until that ends, or until a signal."""
    while True:
        vcpu.task.woken = False
        if not (vcpu.stopped or vcpu.pause) or vcpu.signal_pending:
            break
        if vcpu.requests & h.REQ_VM_DEAD:
            break
        schedule(vcpu)
    if vcpu.stopped or vcpu.pause:
        # Woken to handle a signal: ask again, the guest must not be entered.
        vcpu.make_request(h.REQ_SLEEP)


def schedule(vcpu: Vcpu) -> None:
    """Off the CPU until woken: kvm_sched_out(), sleep, kvm_sched_in()."""
    kvm_sched_out(vcpu)
    if vcpu.point is not None:
        vcpu.point(sched.BEFORE_SLEEP, vcpu)
    vcpu.turn.sleep(vcpu.task)
    if vcpu.point is not None:
        vcpu.point(sched.AFTER_SLEEP, vcpu)
    kvm_sched_in(vcpu)
    if vcpu.steal.base != INVALID_GPA:
        record_steal(vcpu)


def cond_resched(vcpu: Vcpu, pcpu: PhysicalCpu) -> PhysicalCpu:
    """Others want to run, or wanted to: let them if the slice is over, else run until it is.

    A vCPU that runs alone is scheduled out and in now and then too, as on any host: a physical
    timer whose deadline has wrapped in the hardware (there is no CNTPOFF) is only looked at there.
    The host's tick says when, which in counted time is a number of instructions.

    As long as they do, a WFE traps: kvm_arch_vcpu_load() sets HCR_EL2.TWE unless the vCPU is the
    only task on its CPU.
    """
    turn = vcpu.turn
    if pcpu.ticks >= pcpu.resched_at or (turn.crowded and pcpu.ns >= turn.slice_ns):
        pcpu = preempt(vcpu)
    crowded = turn.crowded
    pcpu.slice_ns = turn.slice_ns if crowded else NEVER
    if crowded != vcpu.twe:
        vcpu.twe = crowded
        vcpu.state.twe = int(crowded)
    return pcpu


def preempt(vcpu: Vcpu) -> PhysicalCpu:
    """Let every other runnable vCPU have a slice first."""
    kvm_sched_out(vcpu)
    if vcpu.point is not None:
        vcpu.point(sched.TURN_GIVE, vcpu)
    began = vcpu.vm.clock.ns
    vcpu.turn.pass_on(vcpu.task)
    pcpu = kvm_sched_in(vcpu)
    # Time on the run queue after a wake-up is not accounted: it depends on threads outside.
    stolen_by_others(vcpu, vcpu.vm.clock.ns - began)
    return pcpu


def kvm_vcpu_on_spin(vcpu: Vcpu) -> None:
    """A WFE: whom it waits for may be one that does not run."""
    if vcpu.turn.crowded:
        preempt(vcpu)
