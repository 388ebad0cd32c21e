"""The vgic's memory-mapped registers: what GICv2 and GICv3 share, after vgic/vgic-mmio.c.

A device is a sorted list of register regions. A region says how many bits an interrupt has in it,
which access sizes it takes, and which functions read and write it, for the guest and for user
space. What no region takes reads as zero and ignores writes.

`addr` in these functions is the offset from the device's base. Left out: GICv4 SGIs.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from armkvm.arch import its as g
from armkvm.arch.gic import PRI_BITS
from armkvm.arch.word import M64
from armkvm.kvm.vgic.dist import queue_irq
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, VGIC_NR_SGIS, VgicIrq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

ACCESS_8, ACCESS_32, ACCESS_64 = 1, 4, 8  # widths in bytes, and flags
PRODUCT_ID_KVM: Final = 0x4B
IMPLEMENTER_ARM: Final = 0x43B
GICD_IIDR_REVISION_SHIFT: Final = 12
GICD_IIDR_REVISION_MASK: Final = 0xF000

Read = Callable[["Vcpu", int, int], int]
Write = Callable[["Vcpu", int, int, int], int | None]  # user space's may return a negative errno


@dataclass(frozen=True)
class Region:
    """struct vgic_register_region."""

    offset: int
    length: int
    read: Read
    write: Write
    access: int = ACCESS_32
    bits_per_irq: int = 0
    uaccess_read: Read | None = None
    uaccess_write: Write | None = None


def per_irq(
    offset: int,
    bits: int,
    read: Read,
    write: Write,
    *,
    access: int = ACCESS_32,
    uaccess_read: Read | None = None,
    uaccess_write: Write | None = None,
    private: bool = True,
) -> list[Region]:
    """A register array for 1024 interrupts. Without `private` the first 32 have none here."""
    rest = (read, write, access, bits, uaccess_read, uaccess_write)
    if private:
        return [Region(offset, bits * 1024 // 8, *rest)]
    split = bits * VGIC_NR_PRIVATE_IRQS // 8
    return [
        Region(offset, split, read_raz, write_wi, access, bits),
        Region(offset + split, bits * (1024 - VGIC_NR_PRIVATE_IRQS) // 8, *rest),
    ]


class VgicIoDevice:
    """struct vgic_io_device: a frame of registers."""

    def __init__(
        self, regions: Sequence[Region], base: int = 0, redist_vcpu: Vcpu | None = None
    ) -> None:
        self.regions = sorted(regions, key=lambda r: r.offset)
        self._offsets = [r.offset for r in self.regions]
        self.base = base
        self.redist_vcpu = redist_vcpu

    def find(self, vcpu: Vcpu, addr: int, length: int) -> Region | None:
        """vgic_get_mmio_region(): the region of an access of this width, if it is one."""
        i = bisect_right(self._offsets, addr) - 1
        if i < 0:
            return None
        region = self.regions[i]
        if addr >= region.offset + region.length:
            return None
        if length not in (1, 4, 8) or not region.access & length or addr % length:
            return None
        if region.bits_per_irq and intid_of(addr, region.bits_per_irq) >= vcpu.vm.vgic.nr_irqs:
            return None
        return region

    def read(self, vcpu: Vcpu, addr: int, length: int) -> int | None:
        """dispatch_mmio_read(): by the guest."""
        addr -= self.base
        region = self.find(vcpu, addr, length)
        if region is None:
            return 0
        return region.read(self.redist_vcpu or vcpu, addr, length) & (1 << 8 * length) - 1

    def write(self, vcpu: Vcpu, addr: int, length: int, value: int) -> bool:
        """dispatch_mmio_write(): by the guest."""
        addr -= self.base
        region = self.find(vcpu, addr, length)
        if region is not None:
            region.write(self.redist_vcpu or vcpu, addr, length, value)
        return True

    def uaccess_read(self, vcpu: Vcpu, addr: int) -> int:
        """vgic_uaccess_read(): 32 bits, by user space."""
        region = self.find(vcpu, addr, 4)
        if region is None:
            return 0
        return (region.uaccess_read or region.read)(vcpu, addr, 4) & 0xFFFF_FFFF

    def uaccess_write(self, vcpu: Vcpu, addr: int, value: int) -> int:
        """vgic_uaccess_write(). 0 or a negative errno."""
        region = self.find(vcpu, addr, 4)
        if region is None:
            return 0
        return (region.uaccess_write or region.write)(vcpu, addr, 4, value) or 0


def intid_of(addr: int, bits: int) -> int:
    """VGIC_ADDR_TO_INTID(): the first interrupt of an address in an array of 1024."""
    return (addr & bits * 1024 // 8 - 1) * 8 // bits


def fields(vcpu: Vcpu, addr: int, bits: int, length: int) -> Iterator[tuple[int, VgicIrq]]:
    """The interrupts of an access, with the position of each one's field."""
    dist = vcpu.vm.vgic
    first = intid_of(addr, bits)
    for i in range(length * 8 // bits):
        irq = dist.get_irq(vcpu, first + i)
        if irq is not None:
            yield i * bits, irq


def _set_bits(vcpu: Vcpu, addr: int, length: int, val: int) -> Iterator[VgicIrq]:
    """The interrupts whose bit is set."""
    for i, irq in fields(vcpu, addr, 1, length):
        if val >> i & 1:
            yield irq


def extract_bytes(reg: int, addr: int, length: int) -> int:
    """Part of a 64-bit register."""
    return reg >> 8 * (addr & 7) & (1 << 8 * length) - 1


def update_64bit_reg(reg: int, addr: int, length: int, val: int) -> int:
    """A 64-bit register of which a half or the whole is written."""
    shift = (addr & 4) * 8
    mask = (1 << 8 * length) - 1
    return (reg & ~(mask << shift) | (val & mask) << shift) & M64


def sanitised(reg: int, inner_shift: int, outer_shift: int) -> int:
    """vgic_sanitise_*baser(): a table's memory is not outer shareable, and cacheable inside."""
    if reg >> g.SHAREABILITY_SHIFT & 3 == g.OUTER_SHAREABLE:
        reg = reg & ~(3 << g.SHAREABILITY_SHIFT) | g.INNER_SHAREABLE << g.SHAREABILITY_SHIFT
    if reg >> inner_shift & 7 in (g.CACHE_NCNB, g.CACHE_NC):
        reg = reg & ~(7 << inner_shift) | g.CACHE_RAWB << inner_shift
    if reg >> outer_shift & 7 not in (g.OUTER_SAME_AS_INNER, g.CACHE_NC):
        reg &= ~(7 << outer_shift)
    return reg


def read_raz(_vcpu: Vcpu, _addr: int, _length: int) -> int:
    """Reads as zero."""
    return 0


def read_rao(_vcpu: Vcpu, _addr: int, _length: int) -> int:
    """Reads as ones."""
    return M64


def write_wi(_vcpu: Vcpu, _addr: int, _length: int, _val: int) -> None:
    """Ignores writes."""


def _is_v2_sgi(vcpu: Vcpu, irq: VgicIrq) -> bool:
    return irq.intid < VGIC_NR_SGIS and vcpu.vm.vgic.is_v2


# -- group, enable ----------------------------------------------------------------------------


def read_group(vcpu: Vcpu, addr: int, length: int) -> int:
    """IGROUPR."""
    return sum(irq.group << i for i, irq in fields(vcpu, addr, 1, length))


def write_group(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """IGROUPR."""
    with vcpu.vm.vgic.lock:
        for i, irq in fields(vcpu, addr, 1, length):
            irq.group = val >> i & 1
            queue_irq(irq)


def read_enable(vcpu: Vcpu, addr: int, length: int) -> int:
    """ISENABLER, ICENABLER."""
    return sum(irq.enabled << i for i, irq in fields(vcpu, addr, 1, length))


def write_senable(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ISENABLER, by the guest."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            if irq.is_mapped_level():
                # The device may have changed its mind while the interrupt was disabled.
                was_high = irq.line_level
                irq.line_level = irq.phys_line_level()
                if not irq.active and was_high and not irq.line_level:
                    irq.set_phys_active(False)
            irq.enabled = True
            queue_irq(irq)


def write_cenable(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ICENABLER."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            irq.enabled = False


def uaccess_write_senable(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ISENABLER, by user space."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            irq.enabled = True
            queue_irq(irq)


# -- pending ----------------------------------------------------------------------------------


def read_pending(vcpu: Vcpu, addr: int, length: int) -> int:
    """ISPENDR, ICPENDR, by the guest."""
    return sum(irq.is_pending() << i for i, irq in fields(vcpu, addr, 1, length))


def uaccess_read_pending(vcpu: Vcpu, addr: int, length: int) -> int:
    """ISPENDR of a GICv3, by user space: the latch alone. LEVEL_INFO has the lines."""
    return sum(irq.pending_latch << i for i, irq in fields(vcpu, addr, 1, length))


def write_spending(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ISPENDR, by the guest. A GICv2 ignores it for SGIs."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            if _is_v2_sgi(vcpu, irq):
                continue
            irq.pending_latch = True
            if irq.hw:
                irq.set_phys_active(True)
            queue_irq(irq)


def uaccess_write_spending(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ISPENDR of a GICv2, by user space: an SGI gets its own CPU as the source."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            irq.pending_latch = True
            if _is_v2_sgi(vcpu, irq):
                irq.source |= 1 << vcpu.vcpu_id
            queue_irq(irq)


def write_cpending(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ICPENDR, by the guest."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            if _is_v2_sgi(vcpu, irq):
                continue
            irq.pending_latch = False
            # Setting and clearing must not leave the physical interrupt masked.
            if irq.hw and not irq.active:
                irq.set_phys_active(False)


def uaccess_write_cpending(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ICPENDR of a GICv2, by user space: an SGI loses all its sources."""
    with vcpu.vm.vgic.lock:
        for irq in _set_bits(vcpu, addr, length, val):
            if _is_v2_sgi(vcpu, irq):
                irq.source = 0
            irq.pending_latch = False


# -- active -----------------------------------------------------------------------------------


@contextmanager
def _active_access(vcpu: Vcpu, addr: int) -> Iterator[None]:
    """vgic_access_active_prepare(): list registers hold active states, so the guest must stand
    still. A GICv2's private interrupts are its own vCPU's, which is here."""
    if vcpu.vm.vgic.is_v2 and intid_of(addr, 1) < VGIC_NR_PRIVATE_IRQS:
        yield
        return
    with vcpu.vm.config_lock, vcpu.vm.halted():
        yield


def uaccess_read_active(vcpu: Vcpu, addr: int, length: int) -> int:
    """ISACTIVER, ICACTIVER: the virtual state, also of mapped interrupts."""
    return sum(irq.active << i for i, irq in fields(vcpu, addr, 1, length))


def read_active(vcpu: Vcpu, addr: int, length: int) -> int:
    """The same, by the guest."""
    with _active_access(vcpu, addr):
        return uaccess_read_active(vcpu, addr, length)


def _change_active(vcpu: Vcpu, irq: VgicIrq, active: bool, requester: Vcpu | None) -> None:
    """vgic_mmio_change_active(). User space does not touch the physical side."""
    if irq.hw:
        if requester is not None:
            irq.active = active
            irq.set_phys_active(active)
    else:
        irq.active = active
        if active and _is_v2_sgi(vcpu, irq):
            # Which CPU sent it is not known: take the one that asks.
            irq.active_source = requester.vcpu_id if requester is not None else 0
    if irq.active:
        queue_irq(irq)


def _write_active(active: bool) -> tuple[Write, Write]:
    def by_guest(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
        with _active_access(vcpu, addr), vcpu.vm.vgic.lock:
            for irq in _set_bits(vcpu, addr, length, val):
                _change_active(vcpu, irq, active, vcpu)

    def by_user(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
        with vcpu.vm.vgic.lock:
            for irq in _set_bits(vcpu, addr, length, val):
                _change_active(vcpu, irq, active, None)

    return by_guest, by_user


write_sactive, uaccess_write_sactive = _write_active(True)
write_cactive, uaccess_write_cactive = _write_active(False)


# -- priority, configuration, level -----------------------------------------------------------


def read_priority(vcpu: Vcpu, addr: int, length: int) -> int:
    """IPRIORITYR."""
    return sum(irq.priority << i for i, irq in fields(vcpu, addr, 8, length))


def write_priority(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """IPRIORITYR: five bits. An interrupt in a list register keeps its priority there."""
    with vcpu.vm.vgic.lock:
        for i, irq in fields(vcpu, addr, 8, length):
            irq.priority = val >> i & 0xFF & -(1 << 8 - PRI_BITS)


def read_config(vcpu: Vcpu, addr: int, length: int) -> int:
    """ICFGR."""
    return sum(2 << i for i, irq in fields(vcpu, addr, 2, length) if not irq.level_config)


def write_config(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ICFGR: of SPIs only."""
    with vcpu.vm.vgic.lock:
        for i, irq in fields(vcpu, addr, 2, length):
            if irq.intid >= VGIC_NR_PRIVATE_IRQS:
                irq.level_config = not val >> i & 2


def _lines(vcpu: Vcpu, intid: int) -> Iterator[tuple[int, VgicIrq]]:
    dist = vcpu.vm.vgic
    for i in range(32):
        irq = dist.get_irq(vcpu, intid + i)
        if irq is not None and irq.intid >= VGIC_NR_SGIS:
            yield i, irq


def read_irq_line_level_info(vcpu: Vcpu, intid: int) -> int:
    """vgic_read_irq_line_level_info(): 32 lines from `intid` on."""
    return sum(1 << i for i, irq in _lines(vcpu, intid) if irq.level_config and irq.line_level)


def write_irq_line_level_info(vcpu: Vcpu, intid: int, val: int) -> None:
    """vgic_write_irq_line_level_info(): whatever the configuration, which may be restored later."""
    with vcpu.vm.vgic.lock:
        for i, irq in _lines(vcpu, intid):
            irq.line_level = bool(val >> i & 1)
            if irq.line_level:
                queue_irq(irq)


def iidr(implementation_rev: int) -> int:
    """GICD_IIDR."""
    revision = implementation_rev << GICD_IIDR_REVISION_SHIFT
    return PRODUCT_ID_KVM << 24 | revision | IMPLEMENTER_ARM


def uaccess_write_iidr(vcpu: Vcpu, val: int) -> int:
    """GICD_IIDR, by user space: all but the revision must match, and 6.12 leaves that alone."""
    if (iidr(vcpu.vm.vgic.implementation_rev) ^ val) & ~GICD_IIDR_REVISION_MASK:
        return -errno.EINVAL
    return 0
