"""Stolen time, after arch/arm64/kvm/pvtime.c (Arm DEN0057).

User space gives each vCPU a structure of 64 bytes in guest memory; the guest finds it by an SMCCC
call. It holds how long the vCPU was ready to run while others had its CPU: while other vCPUs had
the turn, and in realtime also while the client's thread waited for a CPU of the machine below, in
KVM_RUN or between two of them. In counted time the machine below steals nothing: time stands, and
what the guest sees stays a function of guest time. Left out: time between a wake-up and the turn.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Final

from armkvm.abi.kvm import KVM_ARM_VCPU_PVTIME_IPA
from armkvm.arch.word import M64
from armkvm.kvm.file import THIS_PROCESS, Context, fail

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

INVALID_GPA: Final = M64
LOOK_EVERY_NS: Final = 1_000_000
_STOLEN_TIME = 8  # offset in struct pvclock_vcpu_stolen_time


class StealTime:
    """vcpu->arch.steal: where the structure is, what it says, and what was counted."""

    __slots__ = ("base", "client", "looked_at", "run_delay", "seen", "thread", "written")

    def __init__(self) -> None:
        self.base = INVALID_GPA
        self.run_delay = 0  # ns: of all that is stolen
        self.written = 0  # of these, what the guest has been told or will not be
        self.client: Context = THIS_PROCESS  # who is in KVM_RUN
        self.thread = 0  # whose run_delay was `seen`, ns, at the time `looked_at`, ns
        self.seen = 0
        self.looked_at = -LOOK_EVERY_NS


def has_attr(attr: int) -> None:
    """ENXIO."""
    if attr != KVM_ARM_VCPU_PVTIME_IPA:
        fail(errno.ENXIO)


def get_attr(vcpu: Vcpu, attr: int) -> int:
    """kvm_arm_pvtime_get_attr(): the address, all ones if there is none. ENXIO."""
    has_attr(attr)
    return vcpu.steal.base


def set_attr(vcpu: Vcpu, attr: int, read: Callable[[int], bytes]) -> None:
    """kvm_arm_pvtime_set_attr(). EINVAL: not aligned, or no memory. EEXIST: set before."""
    has_attr(attr)
    ipa = int.from_bytes(read(8), "little")
    if ipa & 63:
        fail(errno.EINVAL)
    if vcpu.steal.base != INVALID_GPA:
        fail(errno.EEXIST)
    if vcpu.memslots.find(ipa) is None:
        fail(errno.EINVAL)
    vcpu.steal.base = ipa


def init_stolen_time(vcpu: Vcpu) -> int:
    """kvm_init_stolen_time(): revision 0, no attributes, nothing stolen yet. The address."""
    steal = vcpu.steal
    if steal.base != INVALID_GPA:
        _look_at_thread(vcpu)
        steal.written = steal.run_delay
        vcpu.memslots.write_guest(steal.base, bytes(64))
    return steal.base


def record_steal(vcpu: Vcpu) -> None:
    """KVM_REQ_RECORD_STEAL, when a vCPU that has the structure comes onto its CPU.

    Not each time: to look costs as much as an exit, and what is not seen now is seen later.
    """
    if vcpu.now() - vcpu.steal.looked_at >= LOOK_EVERY_NS:
        vcpu.steal.run_delay += _look_at_thread(vcpu)
        update_stolen_time(vcpu)


def stolen_by_others(vcpu: Vcpu, ns: int) -> None:
    """Other vCPUs had the turn meanwhile. If the thread was late to come back, that is in it."""
    steal = vcpu.steal
    steal.run_delay += ns
    if steal.base != INVALID_GPA:
        _look_at_thread(vcpu)
        update_stolen_time(vcpu)


def _look_at_thread(vcpu: Vcpu) -> int:
    """How much longer the thread has waited than when we looked last; 0 for another thread."""
    steal = vcpu.steal
    thread, before = steal.thread, steal.seen
    steal.thread, steal.looked_at = get_ident(), vcpu.now()
    steal.seen = vcpu.vm.clock.waited(steal.client.run_delay)
    return max(steal.seen - before, 0) if steal.thread == thread else 0


def update_stolen_time(vcpu: Vcpu) -> None:
    """kvm_update_stolen_time(): add to what the structure says."""
    steal = vcpu.steal
    if steal.base == INVALID_GPA or steal.run_delay == steal.written:
        return
    now = struct.unpack("<Q", vcpu.memslots.read_guest(steal.base + _STOLEN_TIME, 8) or bytes(8))
    stolen = now[0] + steal.run_delay - steal.written & M64
    steal.written = steal.run_delay
    vcpu.memslots.write_guest(steal.base + _STOLEN_TIME, struct.pack("<Q", stolen))
