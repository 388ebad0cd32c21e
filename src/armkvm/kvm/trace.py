"""Trace events: the kernel's names and fields (arch/arm64/kvm/trace_arm.h, trace/events/kvm.h).

An event that nobody listens to is None, and a call site costs one test. A listener is called in
the vCPU's thread with the fields as positional arguments, in the order given here. Left out: the
formats; whoever writes a trace file knows them.
"""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[..., None]


class Trace:
    """One slot an event."""

    __slots__ = (
        "kvm_entry",  # vcpu_id, pc
        "kvm_exit",  # vcpu_id, code, ec, pc
        "kvm_get_timer_map",  # vcpu_id, direct_vtimer, direct_ptimer, emul_vtimer, emul_ptimer
        "kvm_guest_fault",  # vcpu_id, pc, esr, far, ipa
        "kvm_hvc_arm64",  # vcpu_id, pc, x0, imm
        "kvm_irq_line",  # type, vcpu_idx, num, level
        "kvm_mmio",  # vcpu_id, "read" | "write" | "unsatisfied-read", len, phys_addr, value
        "kvm_mmio_nisv",  # vcpu_id, pc, esr, far, ipa
        "kvm_sys_access",  # vcpu_id, pc, name, (op0, op1, CRn, CRm, op2), is_write
        "kvm_timer_emulate",  # vcpu_id, timer, should_fire
        "kvm_timer_hrtimer_expire",  # vcpu_id, timer
        "kvm_timer_restore_state",  # vcpu_id, timer, ctl, cval
        "kvm_timer_save_state",  # vcpu_id, timer, ctl, cval
        "kvm_timer_update_irq",  # vcpu_id, irq, level
        "kvm_userspace_exit",  # vcpu_id, reason, errno
        "kvm_vcpu_wakeup",  # vcpu_id, ns, waited
        "kvm_wfx_arm64",  # vcpu_id, pc, is_wfe
        "vgic_update_irq_pending",  # vcpu_id, irq, level
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, None)

    kvm_entry: Listener | None
    kvm_exit: Listener | None
    kvm_get_timer_map: Listener | None
    kvm_guest_fault: Listener | None
    kvm_hvc_arm64: Listener | None
    kvm_irq_line: Listener | None
    kvm_mmio: Listener | None
    kvm_mmio_nisv: Listener | None
    kvm_sys_access: Listener | None
    kvm_timer_emulate: Listener | None
    kvm_timer_hrtimer_expire: Listener | None
    kvm_timer_restore_state: Listener | None
    kvm_timer_save_state: Listener | None
    kvm_timer_update_irq: Listener | None
    kvm_userspace_exit: Listener | None
    kvm_vcpu_wakeup: Listener | None
    kvm_wfx_arm64: Listener | None
    vgic_update_irq_pending: Listener | None
