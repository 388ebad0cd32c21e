"""The log's words: what is printed of an errno, of a KVM_RUN and of an ioctl.

The format is the ground truth's after its times have been taken out: ``t=`` stands before the
alarm's mark. Everything is numbers of the API, nothing is interpretation.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmRun
from armkvm.arch.word import M64
from armkvm.client.protocol import Bell

IO = 0x1000_0000  # the guests' MMIO; addresses are printed relative to it
RAM = 0x4000_0000  # the guests' memory, likewise

# What a step writes into exit_reason to see whether KVM touched it.
UNTOUCHED = 0xDEAD

# The names that the log knows; any other errno is E and its number.
_ERRNOS = (
    "EINTR", "ENOEXEC", "EBUSY", "ENXIO", "EINVAL", "ENODEV", "EEXIST", "ENOSYS", "EPERM", "EFAULT",
    "ENOENT", "ENOTTY", "EAGAIN", "E2BIG", "EIO", "EOPNOTSUPP", "EBADF", "ENOMEM",
)  # fmt: skip
_ERRNO_NAMES: dict[int, str] = {0: "0"} | {getattr(errno, name): name for name in _ERRNOS}

_EXIT_NAMES: dict[int, str] = {
    reason: k.EXIT_NAMES[reason]
    for reason in (
        k.KVM_EXIT_UNKNOWN, k.KVM_EXIT_HYPERCALL, k.KVM_EXIT_DEBUG, k.KVM_EXIT_MMIO,
        k.KVM_EXIT_FAIL_ENTRY, k.KVM_EXIT_INTR, k.KVM_EXIT_INTERNAL_ERROR,
        k.KVM_EXIT_SYSTEM_EVENT, k.KVM_EXIT_ARM_NISV,
    )
} | {UNTOUCHED: "(untouched)"}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a system call returned: -1 and an errno, or a value."""

    ret: int
    errno: int = 0

    def __str__(self) -> str:
        return f"ret={self.ret} errno={error_name(self.errno)}"


def error_name(code: int) -> str:
    """0, or the errno's name."""
    return _ERRNO_NAMES.get(code, f"E{code}")


def exit_name(reason: int) -> str:
    """An exit reason without its prefix."""
    return _EXIT_NAMES.get(reason, f"#{reason}")


def run_line(number: int, answer: Answer, run: KvmRun, bell: Bell, pc: int) -> str:
    """One KVM_RUN: what it returned, what is in kvm_run, and the PC afterwards."""
    alarm = " SIGALRM" if bell.rang else ""
    return (
        f"   #{number:<2} ret={answer.ret:<2} errno={error_name(answer.errno):<7}"
        f" exit={exit_name(run.exit_reason):<12} irq_level={run.s_regs.device_irq_level:x}"
        f" t={alarm}{_details(run)} pc=+{relative(pc, RAM)}"
    )


def _details(run: KvmRun) -> str:
    match run.exit_reason:
        case k.KVM_EXIT_MMIO:
            mmio = run.mmio
            way, data = ("W", mmio.value) if mmio.is_write else ("R", 0)
            # All eight bytes of data: those above `len` are whatever was there.
            return f" MMIO {way} +{relative(mmio.phys_addr, IO)} len={mmio.len} data={data:#x}"
        case k.KVM_EXIT_SYSTEM_EVENT:
            event = run.system_event
            return f" type={event.type} ndata={event.ndata} data0={event.data[0]:x}"
        case k.KVM_EXIT_ARM_NISV:
            return f" esr_iss={run.arm_nisv.esr_iss:x} ipa={run.arm_nisv.fault_ipa:x}"
        case k.KVM_EXIT_INTERNAL_ERROR:
            return f" suberr={run.internal.suberror}"
        case k.KVM_EXIT_FAIL_ENTRY:
            entry = run.fail_entry
            return f" hw={entry.hardware_entry_failure_reason:x} cpu={entry.cpu}"
        case _:
            return ""


def relative(address: int, base: int) -> str:
    """An address as a 64-bit offset, wrapping below the base."""
    return f"{address - base & M64:#x}"
