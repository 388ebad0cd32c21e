"""The GICv2 distributor's registers, after vgic/vgic-mmio-v2.c (IHI 0048, 4.3).

The CPU interface's registers for user space are in v2.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armkvm.kvm.vgic import mmio as mm
from armkvm.kvm.vgic.dist import queue_irq
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS
from armkvm.kvm.vgic.mmio import ACCESS_8, ACCESS_32, Region, per_irq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

GICD_ENABLE = 1
GIC_DIST_CTRL, GIC_DIST_CTR, GIC_DIST_IIDR = 0x0, 0x4, 0x8


def read_misc(vcpu: Vcpu, addr: int, _length: int) -> int:
    """GICD_CTLR, GICD_TYPER, GICD_IIDR."""
    dist = vcpu.vm.vgic
    match addr & 0xC:
        case 0x0:
            return GICD_ENABLE if dist.enabled else 0
        case 0x4:
            return dist.nr_irqs // 32 - 1 | (len(vcpu.vm.vcpus) - 1) << 5
        case _:
            return mm.iidr(dist.implementation_rev)


def write_misc(vcpu: Vcpu, addr: int, _length: int, val: int) -> None:
    """GICD_CTLR."""
    dist = vcpu.vm.vgic
    if addr & 0xC == GIC_DIST_CTRL:
        with dist.lock:
            was_enabled = dist.enabled
            dist.enabled = bool(val & GICD_ENABLE)
            if dist.enabled and not was_enabled:
                dist.kick_vcpus()


def uaccess_write_misc(vcpu: Vcpu, addr: int, length: int, val: int) -> int:
    """GICD_IIDR tells that user space knows of groups; from then on it may write them."""
    if addr & 0xC == GIC_DIST_IIDR:
        ret = mm.uaccess_write_iidr(vcpu, val)
        if not ret:
            vcpu.vm.vgic.v2_groups_user_writable = True
        return ret
    write_misc(vcpu, addr, length, val)
    return 0


def uaccess_write_group(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """IGROUPR, by user space."""
    if vcpu.vm.vgic.v2_groups_user_writable:
        mm.write_group(vcpu, addr, length, val)


def write_sgir(source: Vcpu, _addr: int, _length: int, val: int) -> None:
    """GICD_SGIR: send an SGI."""
    dist, vcpus = source.vm.vgic, source.vm.vcpus
    match val >> 24 & 3:
        case 0:
            targets = val >> 16 & 0xFF
        case 1:
            targets = (1 << len(vcpus)) - 1 & ~(1 << source.vcpu_id)
        case 2:
            targets = 1 << source.vcpu_id
        case _:
            return
    sent = [vcpu for i, vcpu in enumerate(vcpus) if targets >> i & 1]
    with dist.lock:
        for vcpu in sent:
            irq = dist.irq(vcpu, val & 0xF)
            irq.pending_latch = True
            irq.source |= 1 << source.vcpu_id
            queue_irq(irq)
    for vcpu in sent:
        source.turn.hand_over(vcpu.task)


def read_target(vcpu: Vcpu, addr: int, length: int) -> int:
    """ITARGETSR."""
    return sum(irq.targets << i for i, irq in mm.fields(vcpu, addr, 8, length))


def write_target(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ITARGETSR: of SPIs. The lowest CPU of the mask gets it, the first where there is none."""
    vcpus = vcpu.vm.vcpus
    with vcpu.vm.vgic.lock:
        for i, irq in mm.fields(vcpu, addr, 8, length):
            if irq.intid >= VGIC_NR_PRIVATE_IRQS:
                irq.targets = val >> i & (1 << len(vcpus)) - 1 & 0xFF
                lowest = (irq.targets & -irq.targets).bit_length() - 1
                irq.target_vcpu = vcpus[max(lowest, 0)]


def read_sgipend(vcpu: Vcpu, addr: int, length: int) -> int:
    """GICD_SPENDSGIR, GICD_CPENDSGIR: the sources of pending SGIs."""
    dist = vcpu.vm.vgic
    first = addr & 0xF
    return sum(dist.irq(vcpu, first + i).source << 8 * i for i in range(length))


def write_sgipendc(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """GICD_CPENDSGIR."""
    dist = vcpu.vm.vgic
    with dist.lock:
        for i in range(length):
            irq = dist.irq(vcpu, (addr & 0xF) + i)
            irq.source &= ~(val >> 8 * i & 0xFF)
            if not irq.source:
                irq.pending_latch = False


def write_sgipends(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """GICD_SPENDSGIR."""
    dist = vcpu.vm.vgic
    with dist.lock:
        for i in range(length):
            irq = dist.irq(vcpu, (addr & 0xF) + i)
            irq.source |= val >> 8 * i & 0xFF
            if irq.source:
                irq.pending_latch = True
                queue_irq(irq)


_BYTES = ACCESS_8 | ACCESS_32

DIST_REGISTERS: list[Region] = [
    Region(GIC_DIST_CTRL, 12, read_misc, write_misc, uaccess_write=uaccess_write_misc),
    *per_irq(0x080, 1, mm.read_group, mm.write_group, uaccess_write=uaccess_write_group),
    *per_irq(0x100, 1, mm.read_enable, mm.write_senable, uaccess_write=mm.uaccess_write_senable),
    *per_irq(0x180, 1, mm.read_enable, mm.write_cenable),
    *per_irq(0x200, 1, mm.read_pending, mm.write_spending,
             uaccess_write=mm.uaccess_write_spending),
    *per_irq(0x280, 1, mm.read_pending, mm.write_cpending,
             uaccess_write=mm.uaccess_write_cpending),
    *per_irq(0x300, 1, mm.read_active, mm.write_sactive, uaccess_read=mm.uaccess_read_active,
             uaccess_write=mm.uaccess_write_sactive),
    *per_irq(0x380, 1, mm.read_active, mm.write_cactive, uaccess_read=mm.uaccess_read_active,
             uaccess_write=mm.uaccess_write_cactive),
    *per_irq(0x400, 8, mm.read_priority, mm.write_priority, access=_BYTES),
    *per_irq(0x800, 8, read_target, write_target, access=_BYTES),
    *per_irq(0xC00, 2, mm.read_config, mm.write_config),
    Region(0xF00, 4, mm.read_raz, write_sgir),
    Region(0xF10, 16, read_sgipend, write_sgipendc, _BYTES),
    Region(0xF20, 16, read_sgipend, write_sgipends, _BYTES),
]  # fmt: skip
