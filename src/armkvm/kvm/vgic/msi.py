"""A message-signalled interrupt on its way to an ITS, after vgic/vgic-irqfd.c and vgic-its.c.

It is a write of `data`, the EventID, to an ITS's GITS_TRANSLATER by the device `devid`. User space
sends one by KVM_SIGNAL_MSI, an eventfd by a route. Any address in the ITS's frame will do, as 6.12
has it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from armkvm.abi.kvm import KVM_MSI_VALID_DEVID
from armkvm.kvm.file import fail
from armkvm.kvm.vgic.its import Its
from armkvm.kvm.vgic.its_mmio import ItsIoDevice

if TYPE_CHECKING:
    from armkvm.kvm.vm import Vm


class Msi(NamedTuple):
    """struct kvm_msi."""

    address: int
    data: int
    flags: int
    devid: int


def send(vm: Vm, msi: Msi) -> int:
    """kvm_set_msi(): 1 if it was delivered, 0 if the guest has no use for it.

    ENODEV: no ITS; EINVAL: no device id, or another address; EBUSY: switched off.
    """
    if not vm.irqchip_in_kernel or not vm.vgic.has_its:
        fail(errno.ENODEV)
    if not msi.flags & KVM_MSI_VALID_DEVID:
        fail(errno.EINVAL)
    return _its_at(vm, msi.address).inject(msi.devid, msi.data)


def _its_at(vm: Vm, address: int) -> Its:
    """__vgic_doorbell_to_its(): who is first on the bus there. EINVAL."""
    for where in vm.mmio_bus.ranges:
        if where.addr <= address < where.addr + where.length:
            if isinstance(where.device, ItsIoDevice):
                return where.device.its
            break
    return fail(errno.EINVAL)
