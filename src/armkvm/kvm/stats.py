"""Counters of one vCPU, after struct kvm_vcpu_stat of arm64 and with exits by class and reason.

Plain integers that only the vCPU's own thread writes; other processes see those that the kernel has
too in binary_stats.py. `exits` counts returns from guest code; `returns` counts returns of KVM_RUN.
"""

from __future__ import annotations

from typing import Final

from armkvm.abi.kvm import EXIT_NAMES
from armkvm.arch.esr import EC_NAMES

HALT_POLL_HIST_COUNT: Final = 32
# Lists, and what has to do with the host's time.
_NOT_PLAIN: Final = "ec", "reason", "halt_wakeup", "halt_wait_ns", "halt_wait_hist"


class VcpuStat:
    """The counters."""

    __slots__ = (
        "ec", "exits", "halt_wait_hist", "halt_wait_ns", "halt_wakeup", "hvc_exit_stat",
        "irq_exits", "limit_exits", "mmio_exit_kernel",
        "mmio_exit_user", "notifications", "reason", "returns", "signal_exits", "wfe_exit_stat",
        "wfi_exit_stat",
    )  # fmt: skip

    def __init__(self) -> None:
        self.exits = 0  # returns from guest code
        self.irq_exits = 0  # of these, for a host interrupt or a kick
        self.limit_exits = 0  # of these, at the instruction limit
        self.hvc_exit_stat = 0
        self.wfe_exit_stat = 0
        self.wfi_exit_stat = 0
        self.mmio_exit_user = 0
        self.mmio_exit_kernel = 0
        self.signal_exits = 0  # KVM_RUN ended by a signal
        self.notifications = 0  # KVM_RUN ended because a level changed
        self.returns = 0
        self.halt_wakeup = 0  # sleeps in WFI that something ended
        self.halt_wait_ns = 0  # how long they were, and how many of which length: bucket n
        self.halt_wait_hist = [0] * HALT_POLL_HIST_COUNT  # is for less than 1 << n ns
        self.ec = [0] * 64  # traps by exception class
        self.reason = [0] * 64  # returns of KVM_RUN by exit reason

    def slept(self, ns: int) -> None:
        """A sleep in WFI is over."""
        self.halt_wakeup += 1
        self.halt_wait_ns += ns
        self.halt_wait_hist[min(ns.bit_length(), HALT_POLL_HIST_COUNT - 1)] += 1

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """All counters by name, for --stats."""
        plain: dict[str, int | dict[str, int]] = {
            name: getattr(self, name) for name in self.__slots__ if name not in _NOT_PLAIN
        }
        plain["traps"] = {EC_NAMES.get(ec, f"EC_{ec:#x}"): n for ec, n in enumerate(self.ec) if n}
        plain["exit_reasons"] = {
            EXIT_NAMES.get(reason, f"#{reason}"): n for reason, n in enumerate(self.reason) if n
        }
        return plain
