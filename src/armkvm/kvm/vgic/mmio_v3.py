"""The GICv3 distributor's and redistributors' registers, after vgic/vgic-mmio-v3.c (IHI 0069,
12.9 to 12.11). And SGIs, which a GICv3 sends by a system register.

Private interrupts are the redistributors': in the distributor their places read as zero. There are
LPIs as soon as the VM has an ITS; their tables are lpi.py's.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

from armkvm.arch import its
from armkvm.kvm.vgic import lpi
from armkvm.kvm.vgic import mmio as mm
from armkvm.kvm.vgic.dist import queue_irq
from armkvm.kvm.vgic.mmio import ACCESS_8, ACCESS_32, ACCESS_64, Region, Write, per_irq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

GICD_CTLR, GICD_TYPER, GICD_IIDR, GICD_TYPER2 = 0x0, 0x4, 0x8, 0xC
GICD_CTLR_ENABLE_SS_G1, GICD_CTLR_ARE_NS, GICD_CTLR_DS = 1 << 1, 1 << 4, 1 << 6
INTERRUPT_ID_BITS_SPIS = 10
GICD_TYPER_LPIS = 1 << 17
GICR_TYPER_PLPIS, GICR_TYPER_LAST = 1 << 0, 1 << 4
GICR_CTLR_ENABLE_LPIS, GICR_CTLR_CES, GICR_CTLR_IR = 1 << 0, 1 << 1, 1 << 2
KVM_VGIC_IMP_REV_3 = 3
PIDR2_GICV3 = 0x3B
RD, SGI = 0x0, 0x1_0000  # the two frames of a redistributor
MPIDR_AFF = 0xFF_00FF_FFFF


def mpidr_aff(vcpu: Vcpu) -> int:
    """kvm_vcpu_get_mpidr_aff()."""
    return int(vcpu.state.mpidr_el1) & MPIDR_AFF


def mpidr_to_vcpu(vm: Vm, mpidr: int) -> Vcpu | None:
    """kvm_mpidr_to_vcpu()."""
    for vcpu in vm.vcpus:
        if mpidr_aff(vcpu) == mpidr & MPIDR_AFF:
            return vcpu
    return None


# -- distributor ------------------------------------------------------------------------------


def read_misc(vcpu: Vcpu, addr: int, _length: int) -> int:
    """GICD_CTLR, GICD_TYPER, GICD_IIDR, GICD_TYPER2."""
    dist = vcpu.vm.vgic
    match addr & 0xC:
        case 0x0:
            enabled = GICD_CTLR_ENABLE_SS_G1 if dist.enabled else 0
            return enabled | GICD_CTLR_ARE_NS | GICD_CTLR_DS
        case 0x4:
            lines = dist.nr_irqs // 32 - 1
            if dist.has_its:
                return lines | (lpi.INTERRUPT_ID_BITS_ITS - 1) << 19 | GICD_TYPER_LPIS
            return lines | (INTERRUPT_ID_BITS_SPIS - 1) << 19
        case 0x8:
            return mm.iidr(dist.implementation_rev)
        case _:
            return 0


def write_misc(vcpu: Vcpu, addr: int, _length: int, val: int) -> None:
    """GICD_CTLR."""
    dist = vcpu.vm.vgic
    if addr & 0xC == GICD_CTLR:
        with dist.lock:
            was_enabled = dist.enabled
            dist.enabled = bool(val & GICD_CTLR_ENABLE_SS_G1)
            if dist.enabled and not was_enabled:
                dist.kick_vcpus()


def uaccess_write_misc(vcpu: Vcpu, addr: int, length: int, val: int) -> int:
    """GICD_TYPER2 and GICD_IIDR must be what they are."""
    match addr & 0xC:
        case 0x0:
            vcpu.vm.vgic.enabled = bool(val & GICD_CTLR_ENABLE_SS_G1)
        case 0x8:
            return mm.uaccess_write_iidr(vcpu, val)
        case 0xC:
            return -errno.EINVAL if val != read_misc(vcpu, addr, length) else 0
    return 0


def read_irouter(vcpu: Vcpu, addr: int, length: int) -> int:
    """GICD_IROUTER: there is no Aff3, the upper word is zero."""
    irq = vcpu.vm.vgic.get_irq(vcpu, mm.intid_of(addr, 64))
    return 0 if irq is None or addr & 4 else mm.extract_bytes(irq.mpidr, addr, length)


def write_irouter(vcpu: Vcpu, addr: int, _length: int, val: int) -> None:
    """GICD_IROUTER."""
    dist = vcpu.vm.vgic
    irq = dist.get_irq(vcpu, mm.intid_of(addr, 64))
    if irq is None or addr & 4:
        return
    with dist.lock:
        irq.mpidr = val & 0xFF_FFFF
        irq.target_vcpu = mpidr_to_vcpu(vcpu.vm, irq.mpidr)


def uaccess_write_pending(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """ISPENDR, by user space: sets and clears the latch, whatever the configuration."""
    with vcpu.vm.vgic.lock:
        for i, irq in mm.fields(vcpu, addr, 1, length):
            irq.pending_latch = bool(val >> i & 1)
            if irq.pending_latch:
                queue_irq(irq)


def read_idregs(_vcpu: Vcpu, addr: int, _length: int) -> int:
    """GICD_PIDR2, GICR_PIDR2, where every frame has it: GICv3."""
    return PIDR2_GICV3 if addr & 0xFFFF == its.GITS_PIDR2 else 0


# -- redistributor ----------------------------------------------------------------------------


def read_rd_ctlr(vcpu: Vcpu, _addr: int, _length: int) -> int:
    """GICR_CTLR."""
    enabled = GICR_CTLR_ENABLE_LPIS if lpi.lpis_enabled(vcpu) else 0
    if vcpu.vm.vgic.implementation_rev >= KVM_VGIC_IMP_REV_3:
        return enabled | GICR_CTLR_IR | GICR_CTLR_CES
    return enabled


def write_rd_ctlr(vcpu: Vcpu, _addr: int, _length: int, val: int) -> None:
    """GICR_CTLR.EnableLPIs, if there is an ITS."""
    wanted = bool(val & GICR_CTLR_ENABLE_LPIS)
    if not vcpu.vm.vgic.has_its or wanted == lpi.lpis_enabled(vcpu):
        return
    if not wanted:
        lpi.disable(vcpu)
        return
    with suppress(OSError):  # a pending table that is nowhere
        lpi.enable(vcpu)


def _is_last(vcpu: Vcpu) -> bool:
    """vgic_mmio_vcpu_rdist_is_last(): the last redistributor of a contiguous stretch."""
    vgic = vcpu.vgic_cpu
    if vgic is None or vgic.rdreg is None:
        return False
    region = vgic.rdreg
    if vgic.rdreg_index < region.free_index - 1:
        return False
    if region.count and vgic.rdreg_index == region.count - 1:
        end = region.base + region.size(vcpu.vm)
        return not any(r.base == end and r.free_index for r in vcpu.vm.vgic.rd_regions)
    return True


def read_typer(vcpu: Vcpu, addr: int, length: int) -> int:
    """GICR_TYPER."""
    value = (mpidr_aff(vcpu) & 0xFF_FFFF) << 32 | (vcpu.vcpu_id & 0xFFFF) << 8
    if vcpu.vm.vgic.has_its:
        value |= GICR_TYPER_PLPIS
    if _is_last(vcpu):
        value |= GICR_TYPER_LAST
    return mm.extract_bytes(value, addr, length)


def read_rd_iidr(_vcpu: Vcpu, _addr: int, _length: int) -> int:
    """GICR_IIDR."""
    return mm.iidr(0)


# RES0 bits of the two registers
_PROPBASER_RES0 = 0x1F << 59 | 0xF << 52 | 3 << 5
_PENDBASER_RES0 = 1 << 63 | 7 << 59 | 0xF << 52 | 0xF << 12 | 0x7F
_PTZ = 1 << 62


# RES0 bits of the two registers
_PROPBASER_RES0 = 0x1F << 59 | 0xF << 52 | 3 << 5
_PENDBASER_RES0 = 1 << 63 | 7 << 59 | 0xF << 52 | 0xF << 12 | 0x7F


def _sanitised(reg: int) -> int:
    return mm.sanitised(reg, its.RBASER_INNER_SHIFT, its.RBASER_OUTER_SHIFT)


def read_propbase(vcpu: Vcpu, addr: int, length: int) -> int:
    """GICR_PROPBASER: one for all."""
    return mm.extract_bytes(vcpu.vm.vgic.propbaser, addr, length)


def write_propbase(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """GICR_PROPBASER: not while LPIs are on."""
    dist = vcpu.vm.vgic
    if lpi.lpis_enabled(vcpu):
        return
    reg = mm.update_64bit_reg(dist.propbaser, addr, length, val)
    dist.propbaser = _sanitised(reg) & ~_PROPBASER_RES0


def read_pendbase(vcpu: Vcpu, addr: int, length: int) -> int:
    """GICR_PENDBASER."""
    assert vcpu.vgic_cpu is not None
    return mm.extract_bytes(vcpu.vgic_cpu.pendbaser & ~its.GICR_PENDBASER_PTZ, addr, length)


def write_pendbase(vcpu: Vcpu, addr: int, length: int, val: int) -> None:
    """GICR_PENDBASER: not while LPIs are on."""
    vgic = vcpu.vgic_cpu
    assert vgic is not None
    if vgic.lpis_enabled:
        return
    reg = mm.update_64bit_reg(vgic.pendbaser, addr, length, val)
    vgic.pendbaser = _sanitised(reg) & ~_PENDBASER_RES0


def write_invlpi(vcpu: Vcpu, addr: int, _length: int, val: int) -> None:
    """GICR_INVLPIR: the configuration of one LPI has changed in memory."""
    irq = vcpu.vm.vgic.lpis.get(val & 0xFFFF_FFFF)
    if irq is None or addr & 4 or not lpi.lpis_enabled(vcpu):
        return
    with suppress(OSError):
        lpi.read_config(vcpu.vm, irq)


def write_invall(vcpu: Vcpu, addr: int, _length: int, _val: int) -> None:
    """GICR_INVALLR: that of all which target this redistributor."""
    if not addr & 4 and lpi.lpis_enabled(vcpu):
        lpi.invalidate_all(vcpu)


# -- SGIs -------------------------------------------------------------------------------------


def dispatch_sgi(vcpu: Vcpu, reg: int, *, allow_group1: bool) -> None:
    """vgic_v3_dispatch_sgi(): what a write to ICC_SGI1R_EL1 and its kin sends."""
    vm = vcpu.vm
    if reg >> 40 & 1:
        targets = [other for other in vm.vcpus if other is not vcpu]
    else:
        cluster = (reg >> 48 & 0xFF) << 32 | (reg >> 32 & 0xFF) << 16 | (reg >> 16 & 0xFF) << 8
        found = (mpidr_to_vcpu(vm, cluster | aff0) for aff0 in range(16) if reg >> aff0 & 1)
        targets = [target for target in found if target is not None]
    with vm.vgic.lock:
        for target in targets:
            irq = vm.vgic.irq(target, reg >> 24 & 0xF)
            # A write for group 0 generates nothing else; one for group 1 either.
            if not irq.group or allow_group1:
                irq.pending_latch = True
                queue_irq(irq)
    for target in targets:
        vcpu.turn.hand_over(target.task)


# -- the tables -------------------------------------------------------------------------------

_BYTES = ACCESS_8 | ACCESS_32
_LONG = ACCESS_64 | ACCESS_32


def _shared(
    offset: int,
    bits: int,
    read: mm.Read,
    write: Write,
    access: int = ACCESS_32,
    uaccess_read: mm.Read | None = None,
    uaccess_write: Write | None = None,
) -> list[Region]:
    return per_irq(
        offset,
        bits,
        read,
        write,
        access=access,
        uaccess_read=uaccess_read,
        uaccess_write=uaccess_write,
        private=False,
    )


DIST_REGISTERS: list[Region] = [
    Region(GICD_CTLR, 16, read_misc, write_misc, uaccess_write=uaccess_write_misc),
    Region(0x10, 4, mm.read_rao, mm.write_wi),  # GICD_STATUSR
    *_shared(0x080, 1, mm.read_group, mm.write_group),
    *_shared(0x100, 1, mm.read_enable, mm.write_senable, uaccess_write=mm.uaccess_write_senable),
    *_shared(0x180, 1, mm.read_enable, mm.write_cenable),
    *_shared(0x200, 1, mm.read_pending, mm.write_spending,
             uaccess_read=mm.uaccess_read_pending, uaccess_write=uaccess_write_pending),
    *_shared(0x280, 1, mm.read_pending, mm.write_cpending,
             uaccess_read=mm.read_raz, uaccess_write=mm.write_wi),
    *_shared(0x300, 1, mm.read_active, mm.write_sactive,
             uaccess_read=mm.uaccess_read_active, uaccess_write=mm.uaccess_write_sactive),
    *_shared(0x380, 1, mm.read_active, mm.write_cactive,
             uaccess_read=mm.uaccess_read_active, uaccess_write=mm.uaccess_write_cactive),
    *_shared(0x400, 8, mm.read_priority, mm.write_priority, access=_BYTES),
    *_shared(0x800, 8, mm.read_raz, mm.write_wi, access=_BYTES),  # GICD_ITARGETSR
    *_shared(0xC00, 2, mm.read_config, mm.write_config),
    *_shared(0xD00, 1, mm.read_raz, mm.write_wi),  # GICD_IGRPMODR
    *_shared(0x6000, 64, read_irouter, write_irouter, access=_LONG),
    Region(0xFFD0, 48, read_idregs, mm.write_wi),
]  # fmt: skip

RD_REGISTERS: list[Region] = [
    Region(RD + 0x000, 4, read_rd_ctlr, write_rd_ctlr),
    Region(RD + 0x004, 4, read_rd_iidr, mm.write_wi),
    Region(RD + 0x008, 8, read_typer, mm.write_wi, _LONG),
    Region(RD + 0x010, 4, mm.read_raz, mm.write_wi),  # GICR_STATUSR
    Region(RD + 0x014, 4, mm.read_raz, mm.write_wi),  # GICR_WAKER: always awake
    Region(RD + 0x070, 8, read_propbase, write_propbase, _LONG),
    Region(RD + 0x078, 8, read_pendbase, write_pendbase, _LONG),
    Region(RD + 0x0A0, 8, mm.read_raz, write_invlpi, _LONG),
    Region(RD + 0x0B0, 8, mm.read_raz, write_invall, _LONG),
    Region(RD + 0x0C0, 4, mm.read_raz, mm.write_wi),  # GICR_SYNCR: never busy
    Region(RD + 0xFFD0, 48, read_idregs, mm.write_wi),
    Region(SGI + 0x080, 4, mm.read_group, mm.write_group),
    Region(SGI + 0x100, 4, mm.read_enable, mm.write_senable,
           uaccess_write=mm.uaccess_write_senable),
    Region(SGI + 0x180, 4, mm.read_enable, mm.write_cenable),
    Region(SGI + 0x200, 4, mm.read_pending, mm.write_spending,
           uaccess_read=mm.uaccess_read_pending, uaccess_write=uaccess_write_pending),
    Region(SGI + 0x280, 4, mm.read_pending, mm.write_cpending,
           uaccess_read=mm.read_raz, uaccess_write=mm.write_wi),
    Region(SGI + 0x300, 4, mm.read_active, mm.write_sactive,
           uaccess_read=mm.uaccess_read_active, uaccess_write=mm.uaccess_write_sactive),
    Region(SGI + 0x380, 4, mm.read_active, mm.write_cactive,
           uaccess_read=mm.uaccess_read_active, uaccess_write=mm.uaccess_write_cactive),
    Region(SGI + 0x400, 32, mm.read_priority, mm.write_priority, _BYTES),
    Region(SGI + 0xC00, 8, mm.read_config, mm.write_config),
    Region(SGI + 0xD00, 4, mm.read_raz, mm.write_wi),  # GICR_IGRPMODR0
    Region(SGI + 0xE00, 4, mm.read_raz, mm.write_wi),  # GICR_NSACR
]  # fmt: skip
