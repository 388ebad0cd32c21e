"""The ITS as a KVM device: its attributes, after vgic/vgic-its.c.

Documentation/virt/kvm/devices/arm-vgic-its.rst describes them; the order of checks and the errors
are the code's: CTRL_INIT has nothing to do, and a CTRL attribute that is none does nothing. Closing
the file leaves the ITS to its VM.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.abi import vgic as a
from armkvm.arch import its as g
from armkvm.kvm.file import Value, VmFile, fail, load_int
from armkvm.kvm.ioctl import ioctl, pointer, to_pointer
from armkvm.kvm.vgic import its_tables
from armkvm.kvm.vgic.dist import INITIAL_PROPBASER, VGIC_ADDR_UNDEF
from armkvm.kvm.vgic.its import Its
from armkvm.kvm.vgic.its_mmio import ItsIoDevice, Register, find_register
from armkvm.kvm.vgic.v3 import SZ_64K, check_iorange

if TYPE_CHECKING:
    from armkvm.kvm.vm import Vm

_CTRL = (
    a.KVM_DEV_ARM_VGIC_CTRL_INIT,
    a.KVM_DEV_ARM_ITS_CTRL_RESET,
    a.KVM_DEV_ARM_ITS_SAVE_TABLES,
    a.KVM_DEV_ARM_ITS_RESTORE_TABLES,
)


class VgicIts(VmFile):
    """KVM_DEV_TYPE_ARM_VGIC_ITS: the file descriptor of KVM_CREATE_DEVICE."""

    UNKNOWN_IOCTL = errno.ENOTTY

    def __init__(self, vm: Vm) -> None:
        """vgic_its_create(); the caller holds vm.lock."""
        super().__init__()
        self.vm = vm
        self.its = Its(vm)
        with vm.config_lock:
            vm.its.append(self.its)
            if vm.irqchip_in_kernel:
                vm.vgic.propbaser = INITIAL_PROPBASER

    @ioctl(nr.KVM_HAS_DEVICE_ATTR, st.KvmDeviceAttr)
    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR. ENXIO; EINVAL: not the start of a register."""
        self._alive()
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_ADDR:
                known = attr == a.KVM_VGIC_ITS_ADDR_TYPE
            case a.KVM_DEV_ARM_VGIC_GRP_CTRL:
                known = attr in _CTRL
            case a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
                _check_alignment(attr)
                known = find_register(attr) is not None
            case _:
                known = False
        if not known:
            fail(errno.ENXIO)

    @ioctl(nr.KVM_SET_DEVICE_ATTR, st.KvmDeviceAttr, value=pointer("addr"))
    def set_device_attr(self, group: int, attr: int, value: Value = 0) -> None:
        """KVM_SET_DEVICE_ATTR.

        ENXIO: no such group or register, no address yet. ENODEV: no such address. EINVAL, EEXIST,
        E2BIG, ENOSPC: where it shall be. EBUSY: a vCPU is running. EINVAL, EEXIST, EFAULT, ENOMEM:
        what is in the tables.
        """
        self._alive()
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_ADDR:
                if attr != a.KVM_VGIC_ITS_ADDR_TYPE:
                    fail(errno.ENODEV)
                self._place(load_int(value, 8))
            case a.KVM_DEV_ARM_VGIC_GRP_CTRL:
                self._ctrl(attr)
            case a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
                self._write_reg(attr, load_int(value, 8))
            case _:
                fail(errno.ENXIO)

    @ioctl(nr.KVM_GET_DEVICE_ATTR, st.KvmDeviceAttr, ret=to_pointer("addr", lambda _args: 8))
    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR. ENXIO, ENODEV, EINVAL, EBUSY, as above."""
        self._alive()
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_ADDR:
                if attr != a.KVM_VGIC_ITS_ADDR_TYPE:
                    fail(errno.ENODEV)
                return self.its.base
            case a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
                with self._register(attr) as register:
                    return register.read(self.its, attr, register.width)
            case _:
                return fail(errno.ENXIO)

    def _place(self, base: int) -> None:
        """vgic_register_its_iodev(): onto the bus, once."""
        vm, its = self.vm, self.its
        with vm.slots_lock:
            ret = check_iorange(vm, its.base, base, SZ_64K, a.KVM_VGIC_V3_ITS_SIZE)
            if not ret:
                device = ItsIoDevice(its, base)
                ret = vm.mmio_bus.register(base, a.KVM_VGIC_V3_ITS_SIZE, device)
            if ret:
                fail(-ret)
            its.base = base

    def _ctrl(self, attr: int) -> None:
        """vgic_its_ctrl()."""
        if attr == a.KVM_DEV_ARM_VGIC_CTRL_INIT:
            return
        with self._all_at_rest(), self.its.its_lock:
            match attr:
                case a.KVM_DEV_ARM_ITS_CTRL_RESET:
                    self.its.reset()
                case a.KVM_DEV_ARM_ITS_SAVE_TABLES:
                    its_tables.save(self.its)
                case a.KVM_DEV_ARM_ITS_RESTORE_TABLES:
                    its_tables.restore(self.its)

    # registers

    @contextmanager
    def _register(self, offset: int) -> Iterator[Register]:
        """vgic_its_attr_regs_access()."""
        _check_alignment(offset)
        with self._all_at_rest():
            register = find_register(offset)
            if self.its.base == VGIC_ADDR_UNDEF or register is None:
                fail(errno.ENXIO)
            yield register

    def _write_reg(self, offset: int, value: int) -> None:
        with self._register(offset) as register:
            write = register.uaccess_write or register.write
            write(self.its, offset, register.width, value)

    @contextmanager
    def _all_at_rest(self) -> Iterator[None]:
        """EBUSY while any vCPU is inside an ioctl. Memory slots stay, for tables and queue."""
        vm = self.vm
        with vm.lock, vm.all_vcpus_locked(), vm.slots_lock, vm.config_lock:
            yield


def _check_alignment(offset: int) -> None:
    """Registers of 64 bits are accessed as a whole. EINVAL."""
    short = offset < g.GITS_TYPER or offset >= g.GITS_PIDR4
    if offset % (4 if short else 8):
        fail(errno.EINVAL)
