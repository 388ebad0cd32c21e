"""Stolen time, after arch/arm64/kvm/pvtime.c (Arm DEN0057).

User space gives each vCPU a structure of 64 bytes in guest memory; the guest finds it by an SMCCC
call. It holds how long the vCPU was ready to run while others had its CPU.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from armkvm.abi.kvm import KVM_ARM_VCPU_PVTIME_IPA
from armkvm.arch.word import M64
from armkvm.kvm.file import fail

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

INVALID_GPA: Final = M64
_STOLEN_TIME = 8  # offset in struct pvclock_vcpu_stolen_time


class StealTime:
    """vcpu->arch.steal: where the structure is, and what it says."""

    __slots__ = ("base", "run_delay", "written")

    def __init__(self) -> None:
        self.base = INVALID_GPA
        self.run_delay = 0  # ns: current->sched_info.run_delay
        self.written = 0


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
        steal.written = steal.run_delay
        vcpu.memslots.write_guest(steal.base, bytes(64))
    return steal.base


def update_stolen_time(vcpu: Vcpu) -> None:
    """kvm_update_stolen_time(), on the way into the guest after others had the CPU."""
    steal = vcpu.steal
    if steal.base == INVALID_GPA or steal.run_delay == steal.written:
        return
    now = struct.unpack("<Q", vcpu.memslots.read_guest(steal.base + _STOLEN_TIME, 8) or bytes(8))
    stolen = now[0] + steal.run_delay - steal.written & M64
    steal.written = steal.run_delay
    vcpu.memslots.write_guest(steal.base + _STOLEN_TIME, struct.pack("<Q", stolen))
