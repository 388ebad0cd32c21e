"""The ITS device: it can be made and placed, and translates nothing (vgic/vgic-its.c).

LPIs are not implemented, so the distributor does not claim them, and a guest that is told of an
ITS finds no registers. Left out: everything else.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.abi.vgic import (
    KVM_DEV_ARM_VGIC_GRP_ADDR,
    KVM_VGIC_ITS_ADDR_TYPE,
    KVM_VGIC_V3_ITS_SIZE,
)
from armkvm.kvm.file import File, Value, fail, load_int
from armkvm.kvm.ioctl import ioctl, pointer, to_pointer
from armkvm.kvm.vgic.dist import VGIC_ADDR_UNDEF
from armkvm.kvm.vgic.v3 import SZ_64K, check_iorange

if TYPE_CHECKING:
    from armkvm.kvm.vm import Vm


class VgicIts(File):
    """KVM_DEV_TYPE_ARM_VGIC_ITS."""

    UNKNOWN_IOCTL = errno.ENOTTY

    def __init__(self, vm: Vm) -> None:
        super().__init__()
        self.vm = vm
        self.base = VGIC_ADDR_UNDEF

    @ioctl(nr.KVM_HAS_DEVICE_ATTR, st.KvmDeviceAttr)
    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR. ENXIO."""
        if group != KVM_DEV_ARM_VGIC_GRP_ADDR or attr != KVM_VGIC_ITS_ADDR_TYPE:
            fail(errno.ENXIO)

    @ioctl(nr.KVM_SET_DEVICE_ATTR, st.KvmDeviceAttr, value=pointer("addr"))
    def set_device_attr(self, group: int, attr: int, value: Value = 0) -> None:
        """KVM_SET_DEVICE_ATTR: the address. ENXIO, ENODEV, EEXIST, EINVAL, E2BIG."""
        if group != KVM_DEV_ARM_VGIC_GRP_ADDR:
            fail(errno.ENXIO)
        if attr != KVM_VGIC_ITS_ADDR_TYPE:
            fail(errno.ENODEV)
        base = load_int(value, 8)
        ret = check_iorange(self.vm, self.base, base, SZ_64K, KVM_VGIC_V3_ITS_SIZE)
        if ret:
            fail(-ret)
        self.base = base

    @ioctl(nr.KVM_GET_DEVICE_ATTR, st.KvmDeviceAttr, ret=to_pointer("addr", lambda _args: 8))
    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR: the address. ENXIO."""
        self.has_device_attr(group, attr)
        return self.base
