"""KVM proper, one method an ioctl: what a VMM may expect of any /dev/kvm, at the ABI's level.

Named as the ioctls of linux/kvm.h, so that `armkvm.kvm` offers it as it is, and whoever has another
KVM behind file descriptors can offer it too. An ioctl fails with OSError and KVM's errno. What no
ioctl says is on the vCPU: the pages that mmap() shows, and a signal to the thread in KVM_RUN. Left
out: ioctls that our VMM does not make. What it wants beyond all this is in extras.py.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Protocol

from armkvm.abi.structs import KvmRun, KvmVcpuEvents


class KvmDevice(Protocol):
    """An interrupt controller in the kernel: Documentation/virt/kvm/devices."""

    def set_device_attr(self, group: int, attr: int, value: int = 0) -> None:
        """KVM_SET_DEVICE_ATTR."""

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR."""

    def close(self) -> None:
        """Close the file."""


class KvmVcpu(Protocol):
    """The file of KVM_CREATE_VCPU."""

    @property
    def vcpu_id(self) -> int:
        """As it was created."""

    @property
    def run_struct(self) -> KvmRun:
        """The first page that mmap() shows."""

    @property
    def irq_level(self) -> ctypes.c_uint64:
        """device_irq_level in that page: KVM_ARM_DEV_* of what is high."""

    def arm_vcpu_init(self, *, features: int) -> None:
        """KVM_ARM_VCPU_INIT, for the preferred target."""

    def run(self) -> None:
        """KVM_RUN."""

    def kick(self) -> None:
        """A signal to its thread: KVM_RUN ends with EINTR, this one or the next."""

    def get_one_reg(self, reg_id: int) -> int:
        """KVM_GET_ONE_REG."""

    def set_one_reg(self, reg_id: int, value: int) -> None:
        """KVM_SET_ONE_REG."""

    def get_reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST."""

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE."""

    def set_mp_state(self, mp_state: int) -> None:
        """KVM_SET_MP_STATE."""

    def get_vcpu_events(self) -> KvmVcpuEvents:
        """KVM_GET_VCPU_EVENTS."""

    def set_vcpu_events(self, events: KvmVcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS."""

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR."""

    def set_device_attr(self, group: int, attr: int, value: int = 0) -> None:
        """KVM_SET_DEVICE_ATTR."""

    def close(self) -> None:
        """Close the file."""


class KvmVm(Protocol):
    """The file of KVM_CREATE_VM."""

    def set_user_memory_region(
        self,
        slot: int,
        guest_phys_addr: int,
        memory_size: int,
        memory: mmap.mmap | None = None,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION, with memory of this process; size 0 takes the slot away."""

    def create_vcpu(self, vcpu_id: int) -> KvmVcpu:
        """KVM_CREATE_VCPU."""

    def create_device(self, kind: int) -> KvmDevice | None:
        """KVM_CREATE_DEVICE; None only when KVM_CREATE_DEVICE_TEST is asked for."""

    def irq_line(self, irq: int, level: int) -> None:
        """KVM_IRQ_LINE, from any thread."""

    def close(self) -> None:
        """Close the file."""


class Kvm(Protocol):
    """The file of /dev/kvm."""

    def create_vm(self) -> KvmVm:
        """KVM_CREATE_VM, of the default type."""

    def close(self) -> None:
        """Close the file."""
