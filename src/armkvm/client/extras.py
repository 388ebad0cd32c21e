"""What our VMM wants of a KVM beyond the ABI, each thing with its reason.

`Vcpu`, `Vm` and `System` are KVM proper (kvm.py) with these extras, and what vmm is written
against: whatever is not here or there, it does not use. They are few, and most are there because
guest time is counted and the order of vCPUs is a function of the inputs; a KVM whose time is the
host's could offer each of them trivially, as their descriptions say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from armkvm.client.kvm import Kvm, KvmVcpu, KvmVm


class Stat(Protocol):
    """Counters of a vCPU, as KVM_GET_STATS_FD would tell them."""

    returns: int  # of KVM_RUN

    def as_dict(self) -> dict[str, Any]:
        """All, by name."""


class VcpuExtras(Protocol):
    """Of a vCPU."""

    @property
    def stat(self) -> Stat:
        """For --stats, and to know whether it has ever run."""

    @property
    def instructions(self) -> int:
        """Guest instructions retired, for --stats."""

    @property
    def blocking(self) -> bool:
        """It sleeps in a WFI, to which a saved guest has to return: KVM goes on behind it."""

    def run_raw(self) -> int:
        """KVM_RUN as the system call returns it, 0 or -errno: EINTR is no exception."""

    def held(self) -> AbstractContextManager[None]:
        """Inside, no other vCPU's thread is: devices are used in the same order in every run.

        A lock that KVM_RUN lets go of, where order does not matter.
        """

    def announce(self) -> None:
        """A new thread will run it: its place in that order is taken. Nothing, where none is."""


class VmExtras(Protocol):
    """Of a VM."""

    limit: int | None  # instructions of all vCPUs at which a KVM_RUN ends with EINTR, exactly

    @property
    def instructions(self) -> int:
        """Guest instructions retired by all vCPUs."""


class Clock(Protocol):
    """The host's clock as the guest sees it: what clock_gettime() is for others."""

    # Called when all vCPUs sleep, with the time (ns) at which the first one wakes, if any.
    idle: Callable[[int | None], None] | None

    @property
    def epoch_ns(self) -> int:
        """Guest time 0, since 1970 in ns."""

    def now(self) -> int:
        """Guest time in ns."""

    def wall_ns(self) -> int:
        """Guest time since 1970 in ns: CLOCK_REALTIME."""

    def host_ns(self) -> int:
        """CLOCK_MONOTONIC, for measuring how long a run took."""

    def skip_to(self, ns: int) -> None:
        """Be where the clock of a saved guest was, for one that goes on."""


class Timer(Protocol):
    """One-shot, in guest time."""

    def set(self, ns: int | None) -> None:
        """Arm it for a time, which may have passed; None disarms."""


class SystemExtras(Protocol):
    """Of /dev/kvm."""

    seed: int | None  # of the random numbers that KVM gives guests; None: its host's own

    @property
    def clock(self) -> Clock:
        """Which devices and the VMM's own deadlines go by."""

    def timer(self, expired: Callable[[], None]) -> Timer:
        """What timerfd is for others; `expired` is called inside a KVM_RUN and may kick a vCPU."""

    @property
    def host_kind(self) -> str:
        """What a guest was saved on: it goes on only on a host of the same kind."""


# KVM proper and the extras


class Vcpu(KvmVcpu, VcpuExtras, Protocol):
    """A vCPU for vmm."""


class Vm(KvmVm, VmExtras, Protocol):
    """A VM for vmm."""

    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """KVM_CREATE_VCPU."""


class System(Kvm, SystemExtras, Protocol):
    """/dev/kvm for vmm."""

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM."""
