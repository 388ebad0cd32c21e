"""The bus of devices in the kernel: struct kvm_io_bus of virt/kvm/kvm_main.c.

An access belongs to a device if it lies wholly inside the device's range; the first one in order
of address that takes it ends the search. Changes go to a new list, so that a vCPU may look while
another thread registers. Left out: PIO, coalesced zones.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

NR_IOBUS_DEVS = 1000


class IoDevice(Protocol):
    """A device in the kernel: struct kvm_io_device_ops."""

    def read(self, vcpu: Vcpu, addr: int, length: int) -> int | None:
        """The value, or None to let another device or user space answer."""

    def write(self, vcpu: Vcpu, addr: int, length: int, value: int) -> bool:
        """Whether the device took it."""


class IoRange(NamedTuple):
    """Where a device is."""

    addr: int
    length: int
    device: IoDevice


class IoBus:
    """One VM's bus."""

    def __init__(self) -> None:
        self.ranges: list[IoRange] = []

    def register(self, addr: int, length: int, device: IoDevice) -> int:
        """kvm_io_bus_register_dev(): 0 or -ENOSPC."""
        if len(self.ranges) >= NR_IOBUS_DEVS:
            return -errno.ENOSPC
        ranges = [*self.ranges, IoRange(addr, length, device)]
        ranges.sort(key=lambda r: r.addr)
        self.ranges = ranges
        return 0

    def unregister(self, device: IoDevice) -> None:
        """kvm_io_bus_unregister_dev()."""
        self.ranges = [r for r in self.ranges if r.device is not device]

    def read(self, vcpu: Vcpu, addr: int, length: int) -> int | None:
        """kvm_io_bus_read(); None: nobody there."""
        for r in self.ranges:
            if r.addr <= addr and addr + length <= r.addr + r.length:
                value = r.device.read(vcpu, addr, length)
                if value is not None:
                    return value
        return None

    def write(self, vcpu: Vcpu, addr: int, length: int, value: int) -> bool:
        """kvm_io_bus_write(); False: nobody there."""
        for r in self.ranges:
            if r.addr <= addr and addr + length <= r.addr + r.length:
                if r.device.write(vcpu, addr, length, value):
                    return True
        return False
