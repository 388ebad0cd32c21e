"""KVM_RUN: the run loop, after kvm_arch_vcpu_ioctl_run() in arch/arm64/kvm/arm.c.

What a user of the ABI can rely on, in the order in which it happens here:
- a pending MMIO is completed before anything else, also when immediate_exit is set;
- immediate_exit ends the call with EINTR, leaving exit_reason and device_irq_level alone;
- no guest instruction runs while a signal or a request is pending, or while a device level differs
  from what device_irq_level says: then the call ends with EINTR and KVM_EXIT_INTR;
- whatever ends the loop, the level bits are written from the state of that moment.

The interrupt-disabled stretch of the kernel is the code between setting IN_GUEST_MODE and
`local_irq_enable`. Functions return the kernel's way: 0 or a negative errno ends the loop.
"""

from __future__ import annotations

import errno
from threading import get_ident
from typing import TYPE_CHECKING

from armkvm.abi.kvm import KVM_EXIT_INTR, KVM_EXIT_MMIO, KVM_EXIT_UNKNOWN, KVM_MP_STATE_SUSPENDED
from armkvm.arch.hcr import HCR_VSE
from armkvm.host import sched
from armkvm.host.cpu import EXIT_IRQ
from armkvm.kvm import kvm_host as h
from armkvm.kvm.block import cond_resched, kvm_vcpu_sleep, vcpu_load, vcpu_put
from armkvm.kvm.handle_exit import handle_exit
from armkvm.kvm.inject_fault import sync_serror
from armkvm.kvm.mmio import kvm_handle_mmio_return
from armkvm.kvm.pmu import emul as pmu_emul
from armkvm.kvm.psci import suspend
from armkvm.kvm.reset import kvm_arch_vcpu_run_pid_change, kvm_reset_vcpu

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu


def kvm_vcpu_ioctl_run(vcpu: Vcpu) -> int:
    """The generic part: what happens when another thread than last time calls."""
    if vcpu.closed:
        return -errno.EBADF
    if vcpu.vm.vm_dead:
        return -errno.EIO
    thread = get_ident()
    if vcpu.pid != thread:
        ret = kvm_arch_vcpu_run_pid_change(vcpu)
        if ret:
            return ret
        # From here on the vCPU "has run once", whatever becomes of this call.
        vcpu.pid = thread
    ret = kvm_arch_vcpu_ioctl_run(vcpu, not vcpu.run_struct.immediate_exit)
    stat = vcpu.stat
    stat.returns += 1
    reason = vcpu.run_struct.exit_reason
    if reason < len(stat.reason):  # the page is user space's to scribble on
        stat.reason[reason] += 1
    if vcpu.trace.kvm_userspace_exit is not None:
        vcpu.trace.kvm_userspace_exit(vcpu.vcpu_id, reason, -min(ret, 0))
    return ret


def kvm_arch_vcpu_ioctl_run(vcpu: Vcpu, wants_to_run: bool) -> int:
    """The run loop. Returns 0 with an exit in kvm_run, or a negative errno."""
    run = vcpu.run_struct
    if vcpu.mmio_needed and run.exit_reason == KVM_EXIT_MMIO:
        kvm_handle_mmio_return(vcpu)
    pcpu = vcpu_load(vcpu)
    try:
        if not wants_to_run:
            return -errno.EINTR
        run.exit_reason = KVM_EXIT_UNKNOWN
        run.flags = 0
        cpu = vcpu.cpu
        state = vcpu.state
        clock = pcpu.clock
        stat = vcpu.stat
        trace = vcpu.trace
        timer = vcpu.arch_timer
        point = vcpu.point
        turn = vcpu.turn
        userspace_irqchip = not vcpu.vm.irqchip_in_kernel
        vgic = vcpu.vgic_cpu
        pmu = vcpu.pmu
        debug = vcpu.guest_debug
        ret = 1
        while ret > 0:
            if point is not None:
                point(sched.LOOP_TOP, vcpu)
            if turn.crowded or vcpu.twe or pcpu.ticks >= pcpu.resched_at:
                pcpu = cond_resched(vcpu, pcpu)
            if vcpu.signal_pending or vcpu.requests:
                ret = handle_work(vcpu)
                # It may have slept, and a CPU is not promised to be the same after that.
                pcpu = vcpu.pcpu or pcpu
            if point is not None:
                point(sched.BEFORE_IN_GUEST, vcpu)
            if pmu is not None:
                pmu.flush_hwstate()
            if vgic is not None:
                vgic.flush_hwstate()

            # From here on, who makes a request finds us IN_GUEST and kicks.
            vcpu.mode = h.IN_GUEST_MODE
            if point is not None:
                point(sched.IN_GUEST, vcpu)
            if (
                userspace_irqchip
                and ret > 0
                and (timer.should_notify_user() or pmu_emul.should_notify_user(vcpu))
            ):
                run.exit_reason = KVM_EXIT_INTR
                stat.notifications += 1
                ret = -errno.EINTR
            if debug is not None and ret > 0 and not vcpu.requests and debug.before_entry():
                ret = 0
            if ret <= 0 or vcpu.requests or vcpu.signal_pending:
                leave_guest_mode(vcpu)
                if userspace_irqchip:
                    timer.sync_user(pcpu)
                elif vgic is not None:
                    vgic.sync_hwstate()
                pcpu.local_irq_enable()
                continue

            if vcpu.hcr != vcpu.lines_in_hw:
                load_lines(vcpu)
            pcpu.enter(pmu)
            if trace.kvm_entry is not None:
                trace.kvm_entry(vcpu.vcpu_id, state.pc)

            code = cpu.run() if debug is None else debug.run()

            clock.leave(pcpu)
            leave_guest_mode(vcpu)
            if vcpu.lines_in_hw & HCR_VSE:
                sync_serror(vcpu)
            stat.exits += 1
            if pmu is not None:
                pmu.sync_hwstate()
            if userspace_irqchip:
                timer.sync_user(pcpu)
            elif vgic is not None:
                vgic.sync_hwstate()
            if point is not None:
                point(sched.AFTER_EXIT, vcpu)
            if code == EXIT_IRQ or pcpu.event_due():
                pcpu.local_irq_enable()
            if trace.kvm_exit is not None:
                trace.kvm_exit(vcpu.vcpu_id, code, state.esr_el2 >> 26, state.pc)
            ret = handle_exit(vcpu, code)
            if vcpu.pcpu is not pcpu:
                pcpu = vcpu.pcpu or pcpu

        if point is not None:
            point(sched.BEFORE_UPDATE_RUN, vcpu)
        if userspace_irqchip:
            timer.update_run()
            pmu_emul.update_run(vcpu)
        return ret
    finally:
        if vcpu.mode != h.OUTSIDE_GUEST_MODE:
            leave_guest_mode(vcpu)
        vcpu_put(vcpu)


def leave_guest_mode(vcpu: Vcpu) -> None:
    """Back from IN_GUEST_MODE, for all to see.

    Who waits for it made a request before looking at the mode: without a request, nobody waits.
    """
    vcpu.mode = h.OUTSIDE_GUEST_MODE
    if vcpu.requests:
        with vcpu.wait:
            vcpu.wait.notify_all()


def handle_work(vcpu: Vcpu) -> int:
    """Signals first, then requests."""
    if vcpu.signal_pending:
        return kvm_handle_signal_exit(vcpu)
    return check_vcpu_requests(vcpu)


def kvm_handle_signal_exit(vcpu: Vcpu) -> int:
    """A signal ends KVM_RUN; it is delivered by that."""
    with vcpu.wait:
        vcpu.signal_pending = False
    vcpu.run_struct.exit_reason = KVM_EXIT_INTR
    vcpu.stat.signal_exits += 1
    return -errno.EINTR


def check_vcpu_requests(vcpu: Vcpu) -> int:
    """What other threads asked for. Returns 1 to go on, 0 or a negative errno to leave."""
    if vcpu.requests & h.REQ_VM_DEAD:
        return -errno.EIO  # stays pending: a dead VM stays dead
    if vcpu.check_request(h.REQ_SLEEP):
        kvm_vcpu_sleep(vcpu)
    if vcpu.check_request(h.REQ_VCPU_RESET):
        kvm_reset_vcpu(vcpu)
    # This one only made sure that the lines are looked at before the next entry.
    vcpu.check_request(h.REQ_IRQ_PENDING | h.REQ_UNBLOCK)
    if vcpu.check_request(h.REQ_SUSPEND) and vcpu.mp_state == KVM_MP_STATE_SUSPENDED:
        return suspend(vcpu)
    return 1


def load_lines(vcpu: Vcpu) -> None:
    """HCR_EL2 goes to the hardware on entry."""
    hcr = vcpu.hcr
    state = vcpu.state
    state.hcr_vi = hcr >> 7 & 1
    state.hcr_vf = hcr >> 6 & 1
    state.hcr_vse = hcr >> 8 & 1
    vcpu.lines_in_hw = hcr
