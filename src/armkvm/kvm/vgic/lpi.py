"""LPIs: how they come and go, and their tables in guest memory, after vgic/vgic-its.c, vgic-v3.c.

An LPI exists while an ITS maps it, or while it is still on an ap_list (`VgicDist.drop_lpi`). The
configuration table (GICR_PROPBASER, one for all redistributors) has a byte for each with priority
and enable; it is read when the LPI is mapped and when the guest invalidates it. The pending table
(GICR_PENDBASER, one a redistributor) has a bit for each; it is read when the LPI is mapped and when
the redistributor's LPIs are switched on, and written for user space only. Guest memory may be
missing there: EFAULT, and who is not an ioctl ignores that.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from armkvm.arch import its as g
from armkvm.arch.gic import FIRST_LPI
from armkvm.kvm.file import fail
from armkvm.kvm.vgic.dist import INITIAL_PROPBASER, VgicDist, queue_irq
from armkvm.kvm.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

INTERRUPT_ID_BITS_ITS: Final = 16


def lpis_enabled(vcpu: Vcpu) -> bool:
    """vgic_lpis_enabled()."""
    return vcpu.vgic_cpu is not None and vcpu.vgic_cpu.lpis_enabled


def max_intid(vm: Vm) -> int:
    """max_lpis_propbaser(): LPIs are below it."""
    propbaser = vm.vgic.propbaser if vm.irqchip_in_kernel else INITIAL_PROPBASER
    id_bits = (propbaser & g.GICR_PROPBASER_IDBITS) + 1
    return 1 << min(id_bits, INTERRUPT_ID_BITS_ITS)


def all_lpis(vm: Vm) -> list[VgicIrq]:
    """Those that exist, in the order of their numbers."""
    if not vm.irqchip_in_kernel:
        return []
    lpis = vm.vgic.lpis
    with vm.vgic.lock:
        return [lpis[intid] for intid in sorted(lpis)]


# -- coming and going -------------------------------------------------------------------------


def add(vm: Vm, intid: int, target: Vcpu | None) -> VgicIrq:
    """vgic_add_lpi(): one more translation names it. EFAULT; ENXIO: there is no GICv3."""
    if not vm.has_gicv3:
        fail(errno.ENXIO)
    dist = vm.vgic
    with dist.lock:
        irq = dist.lpis.get(intid)
        if irq is not None:
            irq.references += 1
            return irq
        irq = VgicIrq(intid, target, 1)
        irq.references = 1
        dist.lpis[intid] = irq
    try:
        read_config(vm, irq)
        _take_pending(vm, irq)
    except OSError:
        put(dist, irq)
        raise
    return irq


def put(dist: VgicDist, irq: VgicIrq) -> None:
    """A translation is gone. What is on its way to a guest arrives all the same."""
    with dist.lock:
        irq.references -= 1
        dist.drop_lpi(irq)


# -- the configuration table ------------------------------------------------------------------


def read_config(vm: Vm, irq: VgicIrq, only: Vcpu | None = None) -> None:
    """update_lpi_config(): priority and enable; `only` if it targets this vCPU. EFAULT."""
    table = vm.vgic.propbaser & g.GICR_PROPBASER_ADDRESS
    prop = _read_byte(vm, table + irq.intid - FIRST_LPI)
    with vm.vgic.lock:
        if only is None or irq.target_vcpu is only:
            irq.priority = prop & g.LPI_PROP_PRIORITY
            irq.enabled = bool(prop & g.LPI_PROP_ENABLED)
            queue_irq(irq)


def invalidate_all(vcpu: Vcpu) -> None:
    """vgic_its_invall(): the configuration of all that target a vCPU."""
    vm = vcpu.vm
    for irq in all_lpis(vm):
        if irq.target_vcpu is vcpu:
            try:
                read_config(vm, irq, vcpu)
            except OSError:
                continue  # no memory there: as it was


# -- the pending tables -----------------------------------------------------------------------


def _pending_bit(vcpu: Vcpu, irq: VgicIrq) -> tuple[int, int]:
    """Where an LPI's bit is in a vCPU's table: the byte's address, and a mask."""
    assert vcpu.vgic_cpu is not None
    table = vcpu.vgic_cpu.pendbaser & g.GICR_PENDBASER_ADDRESS
    return table + irq.intid // 8, 1 << irq.intid % 8


def _take_pending(vm: Vm, irq: VgicIrq) -> None:
    """vgic_v3_lpi_sync_pending_status(): a bit in the table is consumed. EFAULT."""
    vcpu = irq.target_vcpu
    if vcpu is None:
        return
    at, mask = _pending_bit(vcpu, irq)
    byte = _read_byte(vm, at)
    with vm.vgic.lock:
        irq.pending_latch = bool(byte & mask)
        queue_irq(irq)
    if byte & mask:
        _write_byte(vm, at, byte & ~mask)


def enable(vcpu: Vcpu) -> None:
    """vgic_enable_lpis(): GICR_CTLR.EnableLPIs was set. EFAULT."""
    vgic = vcpu.vgic_cpu
    assert vgic is not None
    vgic.lpis_enabled = True
    if vgic.pendbaser & g.GICR_PENDBASER_PTZ:
        return  # the guest says that the table is zero
    vm = vcpu.vm
    for irq in all_lpis(vm):
        at, mask = _pending_bit(vcpu, irq)
        byte = _read_byte(vm, at)
        with vm.vgic.lock:
            if irq.target_vcpu is vcpu:
                irq.pending_latch = bool(byte & mask)
            queue_irq(irq)


def disable(vcpu: Vcpu) -> None:
    """vgic_flush_pending_lpis(): EnableLPIs was cleared; none reaches this vCPU any more."""
    vgic = vcpu.vgic_cpu
    assert vgic is not None
    with vgic.lock:
        flushed = [irq for irq in vgic.ap_list if irq.intid >= FIRST_LPI]
        vgic.ap_list = [irq for irq in vgic.ap_list if irq.intid < FIRST_LPI]
        for irq in flushed:
            irq.vcpu = None
            vgic.dist.drop_lpi(irq)
        vgic.lpis_enabled = False


def save_pending_tables(vm: Vm) -> None:
    """vgic_v3_save_pending_tables(). ENXIO: the vgic is not initialised; EFAULT."""
    if not vm.vgic.initialized:
        fail(errno.ENXIO)
    for irq in all_lpis(vm):
        vcpu = irq.target_vcpu
        if vcpu is None:
            continue
        at, mask = _pending_bit(vcpu, irq)
        byte = _read_byte(vm, at)
        if bool(byte & mask) != irq.pending_latch:
            _write_byte(vm, at, byte ^ mask)


# -- guest memory -----------------------------------------------------------------------------


def _read_byte(vm: Vm, gpa: int) -> int:
    data = vm.memslots.read_guest(gpa, 1)
    if data is None:
        fail(errno.EFAULT)
    return data[0]


def _write_byte(vm: Vm, gpa: int, value: int) -> None:
    if not vm.memslots.write_guest(gpa, bytes([value])):
        fail(errno.EFAULT)
