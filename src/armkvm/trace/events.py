"""The trace events: names, fields and wording of Linux 6.12.

Each row says what a listener of kvm/trace.py is called with (after the vCPU's number, where it gets
one) in the kernel's names, how TP_printk words it, and the flags that ftrace shows at the place
where the kernel has the event: interrupts off, hard interrupt, depth of preempt_disable. The
wording is what arm64's trace_arm.h, trace_handle_exit.h and vgic/trace.h, and the generic
trace/events/kvm.h, give tracefs. Left out: events that 6.12 defines and never emits
(kvm_mmio_emulate), and those of what KVM here has not (nested guests, caches).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from armkvm.abi import kvm as k
from armkvm.arch.esr import EC_NAMES
from armkvm.host.cpu import EXIT_IRQ, EXIT_TRAP

EXCEPTION_TYPES: Final = {EXIT_IRQ: "IRQ", EXIT_TRAP: "TRAP"}
# Exit reasons that 6.12's kvm_trace_exit_reason knows; later ones are printed as numbers.
LAST_NAMED_REASON: Final = 30
TIMER_INDEX: Final = {"vtimer": 0, "ptimer": 1}
LINE_TYPES: Final = {
    k.KVM_ARM_IRQ_TYPE_CPU: "CPU",
    k.KVM_ARM_IRQ_TYPE_PPI: "VGIC PPI",
    k.KVM_ARM_IRQ_TYPE_SPI: "VGIC SPI",
}

IRQS_ON, PREEMPT_OFF, IRQS_OFF, HARDIRQ = ".....", "...1.", "d..1.", "d.h1."


@dataclass(frozen=True)
class Event:
    """One kind of event. `fields` in the order of the listener's arguments; `=x` is an address."""

    fields: tuple[str, ...]
    text: Callable[..., str]
    flags: str = IRQS_ON
    of_vcpu: bool = True  # the first argument of the listener is the vCPU's number


def user_exit(reason: int, error: int) -> str:
    """What kvm_userspace_exit calls a return of KVM_RUN with that exit reason and errno."""
    if error:
        return "restart" if error == errno.EINTR else "error"
    if reason <= LAST_NAMED_REASON and reason in k.EXIT_NAMES:
        return f"KVM_EXIT_{k.EXIT_NAMES[reason]}"
    return f"{reason:#x}"


def exception_type(code: int) -> str:
    """Why guest code ended."""
    return EXCEPTION_TYPES.get(code, f"{code:#x}")


def exception_class(ec: int) -> str:
    """ESR_EL2.EC by name."""
    return EC_NAMES.get(ec, f"{ec:#x}")


def _exit(code: int, ec: int, pc: int) -> str:
    ec = ec if code == EXIT_TRAP else 0
    return f"{exception_type(code)}: HSR_EC: 0x{ec:04x} ({exception_class(ec)}), PC: 0x{pc:016x}"


def _userspace_exit(reason: int, error: int) -> str:
    return f"reason {user_exit(reason, error)} ({error or reason})"


def _state(ctl: int, cval: int, timer: str) -> str:
    return f"CTL: {ctl:#08x} CVAL: {cval:#16x} arch_timer_ctx_index: {TIMER_INDEX[timer]}"


def _sys_access(pc: int, name: str, encoding: tuple[int, ...], is_write: bool) -> str:
    numbers = ",".join(map(str, encoding))
    return f"PC: {pc:x} {name} ({numbers}) {'write' if is_write else 'read'}"


EVENTS: Final[dict[str, Event]] = {
    "kvm_entry": Event(("=vcpu_pc",), lambda pc: f"PC: 0x{pc:016x}", IRQS_OFF),
    "kvm_exit": Event(("ret", "=esr_ec", "=vcpu_pc"), _exit, PREEMPT_OFF),
    "kvm_guest_fault": Event(
        ("=vcpu_pc", "=hsr", "=hxfar", "=ipa"),
        lambda pc, hsr, far, ipa: f"ipa {ipa:#x}, hsr {hsr:#08x}, hxfar {far:#08x}, pc {pc:#016x}",
    ),
    "kvm_hvc_arm64": Event(
        ("=vcpu_pc", "=r0", "=imm"),
        lambda pc, r0, imm: f"HVC at 0x{pc:016x} (r0: 0x{r0:016x}, imm: 0x{imm:x})",
    ),
    "kvm_irq_line": Event(
        ("type", "vcpu_idx", "irq_num", "level"),
        lambda kind, vcpu, num, level: (
            f"Inject {LINE_TYPES.get(kind, 'UNKNOWN')} interrupt ({kind}), "
            f"vcpu->idx: {vcpu}, num: {num}, level: {level:d}"
        ),
        of_vcpu=False,
    ),
    "kvm_mmio": Event(
        ("type", "len", "=gpa", "=val"),
        lambda kind, size, gpa, val: f"mmio {kind} len {size} gpa 0x{gpa:x} val 0x{val:x}",
    ),
    "kvm_mmio_nisv": Event(
        ("=vcpu_pc", "=esr", "=far", "=ipa"),
        lambda pc, esr, far, ipa: (
            f"ipa {ipa:#016x}, esr {esr:#016x}, far {far:#016x}, pc {pc:#016x}"
        ),
    ),
    "kvm_get_timer_map": Event(
        ("direct_vtimer", "direct_ptimer", "emul_vtimer", "emul_ptimer"),
        lambda dv, dp, ev, ep: f"dv: {dv}, dp: {dp}, ev: {ev}, ep: {ep}",
    ),
    "kvm_timer_emulate": Event(
        ("timer", "should_fire"),
        lambda timer, fire: (
            f"arch_timer_ctx_index: {TIMER_INDEX[timer]} (should_fire: {int(fire)})"
        ),
    ),
    "kvm_timer_hrtimer_expire": Event(
        ("timer",), lambda timer: f"arch_timer_ctx_index: {TIMER_INDEX[timer]}", HARDIRQ
    ),
    "kvm_timer_restore_state": Event(
        ("timer", "ctl", "=cval"), lambda timer, ctl, cval: _state(ctl, cval, timer), IRQS_OFF
    ),
    "kvm_timer_save_state": Event(
        ("timer", "ctl", "=cval"),
        lambda timer, ctl, cval: "   " + _state(ctl, cval, timer),
        IRQS_OFF,
    ),
    "kvm_timer_update_irq": Event(
        ("irq", "level"), lambda irq, level: f"IRQ {irq}, level {int(level)}"
    ),
    "kvm_userspace_exit": Event(("reason", "errno"), _userspace_exit),
    "kvm_vcpu_wakeup": Event(
        ("ns", "waited"),
        lambda ns, waited: f"{'wait' if waited else 'poll'} time {ns} ns, polling valid",
    ),
    "kvm_wfx_arm64": Event(
        ("=vcpu_pc", "is_wfe"),
        lambda pc, is_wfe: f"guest executed wf{'e' if is_wfe else 'i'} at: 0x{pc:016x}",
    ),
    "kvm_sys_access": Event(("=vcpu_pc", "name", "encoding", "is_write"), _sys_access),
    "vgic_update_irq_pending": Event(
        ("irq", "level"), lambda irq, level: f"IRQ {irq}, level: {int(level)}"
    ),
}

# Events whose wording begins with the vCPU's number: it is a field of theirs in the kernel too.
NAMES_VCPU: Final = frozenset(
    ("kvm_timer_update_irq", "kvm_get_timer_map", "vgic_update_irq_pending")
)


def wording(name: str, vcpu_id: int, fields: tuple[object, ...]) -> str:
    """The event as tracefs prints it behind its name."""
    text = EVENTS[name].text(*fields)
    return f"VCPU: {vcpu_id}, {text}" if name in NAMES_VCPU else text
