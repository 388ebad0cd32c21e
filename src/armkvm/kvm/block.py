"""Loading, putting and sleeping: how a vCPU gets onto a physical CPU and off it.

After vcpu_load(), kvm_vcpu_block() and the preempt notifiers in virt/kvm/kvm_main.c. A sleeping
vCPU gives its physical CPU back. What ends a WFI is kvm_vcpu_check_block(): a line, a level that
user space does not know yet, a signal. Left out: halt polling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armkvm.host import sched
from armkvm.host.cpu import NEVER
from armkvm.host.pcpu import PhysicalCpu
from armkvm.kvm import kvm_host as h

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu


def vcpu_load(vcpu: Vcpu) -> PhysicalCpu:
    """vcpu_load() and kvm_arch_vcpu_load()."""
    last = vcpu.last_pcpu
    pcpu = vcpu.vm.host.claim(last)
    if pcpu is not last:
        # What this CPU believes of our state, if anything, dates from before we left it.
        pcpu.remove()
        vcpu.last_pcpu = pcpu
    vcpu.pcpu = pcpu
    pcpu.vcpu = vcpu
    pcpu.install(vcpu.cpu)
    vcpu.arch_timer.load(pcpu)
    return pcpu


def vcpu_put(vcpu: Vcpu) -> None:
    """vcpu_put() and kvm_arch_vcpu_put()."""
    pcpu = vcpu.pcpu
    if pcpu is None:
        return
    vcpu.arch_timer.put(pcpu)
    pcpu.vcpu = None
    vcpu.pcpu = None
    pcpu.lock.release()


def kvm_arch_vcpu_runnable(vcpu: Vcpu) -> bool:
    """There is something for the guest, or for user space, to do."""
    return bool(
        (
            vcpu.hcr & h.LINES
            or (not vcpu.vm.irqchip_in_kernel and vcpu.arch_timer.should_notify_user())
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
    vcpu.blocking = True
    try:
        while True:
            # Before the check, so that a wake-up between the check and the sleep ends the sleep.
            vcpu.woken = False
            if kvm_vcpu_check_block(vcpu):
                break
            waited = True
            schedule(vcpu)
    finally:
        vcpu.blocking = False
        vcpu.arch_timer.unblocking()
    if vcpu.trace.kvm_vcpu_wakeup is not None:
        vcpu.trace.kvm_vcpu_wakeup(vcpu.vcpu_id, waited)


def kvm_vcpu_sleep(vcpu: Vcpu) -> None:
    """Powered off or paused: sleep until that ends, or until a signal."""
    while True:
        vcpu.woken = False
        if not (vcpu.stopped or vcpu.pause) or vcpu.signal_pending:
            break
        if vcpu.requests & h.REQ_VM_DEAD:
            break
        schedule(vcpu)
    if vcpu.stopped or vcpu.pause:
        # Woken to handle a signal: ask again, the guest must not be entered.
        vcpu.make_request(h.REQ_SLEEP)


def sleep(vcpu: Vcpu, due: int) -> bool:
    """Until somebody calls or the time `due` comes. False if woken already."""
    clock = vcpu.vm.clock
    with vcpu.wait:
        if vcpu.woken:
            return False
        clock.ns = max(clock.ns, clock.sleep(vcpu.wait, None if due == NEVER else due))
        return True


def schedule(vcpu: Vcpu) -> None:
    """Off the CPU until woken: kvm_sched_out(), sleep, kvm_sched_in()."""
    pcpu = vcpu.pcpu
    assert pcpu is not None
    clock = vcpu.vm.clock
    point = vcpu.point
    vcpu_put(vcpu)
    try:
        if point is not None:
            point(sched.BEFORE_SLEEP, vcpu)
        timers = pcpu.hrtimers
        if clock.idle is not None and not vcpu.woken:
            due = timers.next_ns
            clock.idle(None if due == NEVER else due)
        while sleep(vcpu, timers.next_ns):
            # The idle CPU takes its timer's interrupt.
            timers.run(clock.ns)
        if point is not None:
            point(sched.AFTER_SLEEP, vcpu)
    finally:
        vcpu_load(vcpu)
