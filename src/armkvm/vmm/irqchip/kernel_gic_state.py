"""What a vgic holds, through its device attributes: taking it, and giving it to another one.

Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst and, with the order in which an ITS
must be restored, arm-vgic-its.rst. The order of the registers is the
one in which they must be written to a vgic that is initialised but has not run yet: the distributor
is switched on first, because what becomes pending while it is off goes to nobody; an interrupt's
target, priority and configuration come before its states. It must not have run: from the first run
on a timer's interrupt is mapped to a physical one, whose active state user space cannot set.

What KVM does not give: the source of an active SGI of a GICv2 (KVM takes CPU 0), and on a GICv2
whether a level-sensitive interrupt is pending by its line or by a write to GICD_ISPENDR. The lines
are driven again by whoever drives them, so bits of lines that are high are left out here.

What an ITS has mapped, and which LPIs are pending, KVM writes to the guest's tables in memory
(`save_tables`) and reads there: memory is saved after that, and restored before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from armkvm.abi import vgic as a
from armkvm.arch import gic as g
from armkvm.arch import its as i

# One register: group and attribute of KVM_SET_DEVICE_ATTR, and its value.
if TYPE_CHECKING:
    from armkvm.client.kvm import KvmDevice

Register = tuple[int, int, int]


PRIVATE, SGIS = 32, 16  # interrupts of each vCPU; the first of these are SGIs
ALL = 0xFFFF_FFFF

CTLR, IIDR = 0x000, 0x008
IGROUPR, ISENABLER, ICENABLER, ISPENDR, ISACTIVER = 0x080, 0x100, 0x180, 0x200, 0x300
IPRIORITYR, ITARGETSR, ICFGR = 0x400, 0x800, 0xC00
SPENDSGIR = 0xF20
IROUTER = 0x6000
GICC_REGISTERS = (g.GICC_CTLR, g.GICC_PMR, g.GICC_BPR, g.GICC_ABPR, g.GICC_APR)
GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER, SGI_BASE = 0x000, 0x070, 0x078, 0x1_0000
# GITS_CBASER first, it resets the two that follow; GITS_CTLR after the tables are restored.
ITS_REGISTERS = (
    i.GITS_CBASER, i.GITS_CREADR, i.GITS_CWRITER, i.GITS_BASER, i.GITS_BASER + 8, i.GITS_IIDR,
    i.GITS_CTLR,
)  # fmt: skip
# op0 3, op1 0: (CRn, CRm, op2) of ICC_SRE, CTLR, PMR, BPR0, BPR1, AP0R0, AP1R0, IGRPEN0, IGRPEN1
ICC_REGISTERS = (
    (12, 12, 5), (12, 12, 4), (4, 6, 0), (12, 8, 3), (12, 12, 3), (12, 8, 4), (12, 9, 0),
    (12, 12, 6), (12, 12, 7),
)  # fmt: skip


def _array(base: int, bits: int, first: int, last: int) -> Iterator[int]:
    """The words of a register array that hold interrupts `first` to `last` - 1."""
    return iter(range(base + first * bits // 8, base + last * bits // 8, 4))


def _states(base: int, first: int, last: int, *, routing: bool = False) -> Iterator[int]:
    """Offsets of the arrays, in the order of writing; `routing`: GICv2's targets."""
    yield from _array(base + IGROUPR, 1, first, last)
    yield from _array(base + IPRIORITYR, 8, first, last)
    if routing:
        yield from _array(base + ITARGETSR, 8, first, last)
    yield from _array(base + ICFGR, 2, first, last)
    for name in (ISENABLER, ISACTIVER, ISPENDR):
        yield from _array(base + name, 1, first, last)


def _v2(cpus: int, nr_irqs: int) -> Iterator[tuple[int, int]]:
    dist = a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS
    yield dist, IIDR  # tells that we know of groups
    yield dist, CTLR
    for offset in _states(0, PRIVATE, nr_irqs, routing=True):
        yield dist, offset
    for cpu in range(cpus):
        bank = cpu << a.KVM_DEV_ARM_VGIC_CPUID_SHIFT
        for offset in (*_states(0, 0, PRIVATE), *range(SPENDSGIR, SPENDSGIR + SGIS, 4)):
            yield dist, bank | offset
        for offset in GICC_REGISTERS:
            yield a.KVM_DEV_ARM_VGIC_GRP_CPU_REGS, bank | offset


def _v3(mpidrs: list[int], nr_irqs: int, *, lpis: bool) -> Iterator[tuple[int, int]]:
    dist, redist = a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, a.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS
    yield dist, IIDR
    yield dist, CTLR
    for intid in range(PRIVATE, nr_irqs):
        yield dist, IROUTER + 8 * intid
    for offset in _states(0, PRIVATE, nr_irqs):
        yield dist, offset
    banks = [_affinity(mpidr) << a.KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT for mpidr in mpidrs]
    for bank in banks:
        for base in (GICR_PROPBASER, GICR_PENDBASER):
            yield redist, bank | base
            yield redist, bank | base + 4
        if lpis:
            yield redist, bank | GICR_CTLR
        for offset in _states(SGI_BASE, 0, PRIVATE):
            yield redist, bank | offset
        for crn, crm, op2 in ICC_REGISTERS:
            yield a.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, bank | 3 << 14 | crn << 7 | crm << 3 | op2
        yield a.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, bank
    for intid in range(PRIVATE, nr_irqs, 32):
        yield a.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, banks[0] | intid


def _affinity(mpidr: int) -> int:
    """Aff3.Aff2.Aff1.Aff0 in 32 bits."""
    return mpidr >> 8 & 0xFF00_0000 | mpidr & 0xFF_FFFF


def save_tables(device: KvmDevice, its: KvmDevice | None) -> None:
    """Into guest memory, before that is saved: what an ITS has mapped, and the pending LPIs."""
    if its is not None:
        ctrl = a.KVM_DEV_ARM_VGIC_GRP_CTRL
        its.set_device_attr(ctrl, a.KVM_DEV_ARM_ITS_SAVE_TABLES)
        device.set_device_attr(ctrl, a.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)


def save(
    device: KvmDevice, its: KvmDevice | None, version: int, mpidrs: list[int], high: set[int]
) -> list[Register]:
    """Everything a vgic holds, and its ITS; no vCPU is in KVM_RUN.

    `high` names the lines that are high and will be driven again: INTID, and for a private one
    its vCPU's number in bits [63:32].
    """
    nr_irqs = device.get_device_attr(a.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0)
    if version == 3:
        registers = _v3(mpidrs, nr_irqs, lpis=its is not None)
        return [(*at, device.get_device_attr(*at)) for at in registers] + _save_its(its)
    saved: list[Register] = []
    for group, attr in _v2(len(mpidrs), nr_irqs):
        value = device.get_device_attr(group, attr)
        offset = attr & a.KVM_DEV_ARM_VGIC_OFFSET_MASK
        if group == a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS and ISPENDR <= offset < ISPENDR + 0x80:
            first = (offset - ISPENDR) * 8
            bank = attr & ~a.KVM_DEV_ARM_VGIC_OFFSET_MASK
            if first < SGIS:
                value &= ~0xFFFF  # SPENDSGIR has the SGIs, by source
            for n in range(32):
                if bank | first + n in high and not _is_edge(device, bank, first + n):
                    value &= ~(1 << n)
        saved.append((group, attr, value))
    return saved


def _save_its(its: KvmDevice | None) -> list[Register]:
    if its is None:
        return []
    return [(_ITS, offset, its.get_device_attr(_ITS, offset)) for offset in ITS_REGISTERS]


def _is_edge(device: KvmDevice, bank: int, intid: int) -> bool:
    at = bank | ICFGR + intid // 16 * 4
    word = device.get_device_attr(a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, at)
    return bool(word >> intid % 16 * 2 & 2)


def restore(device: KvmDevice, its: KvmDevice | None, registers: list[Register]) -> None:
    """Write what `save` returned; guest memory is there. OSError as the attributes have it."""
    for group, attr, value in registers:
        if group == _ITS:
            _restore_its(its, attr, value)
            continue
        offset = attr & a.KVM_DEV_ARM_VGIC_OFFSET_MASK
        if group in _WITH_ENABLES and offset & 0xFFFF in range(ISENABLER, ISENABLER + 0x80):
            # What is not enabled any more may be enabled from reset on, as SGIs are.
            device.set_device_attr(group, attr - ISENABLER + ICENABLER, ALL)
        if group == _REDIST and not value and offset & ~4 == GICR_PROPBASER:
            continue  # never written; KVM would make attributes of the zero
        device.set_device_attr(group, attr, value)


def _restore_its(its: KvmDevice | None, offset: int, value: int) -> None:
    if its is None:
        raise ValueError("an ITS")
    if offset == i.GITS_CBASER and not value:
        return  # never written, as above
    if offset == i.GITS_CTLR:
        its.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, a.KVM_DEV_ARM_ITS_RESTORE_TABLES)
    its.set_device_attr(_ITS, offset, value)


_ITS = a.KVM_DEV_ARM_VGIC_GRP_ITS_REGS
_REDIST = a.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS
_WITH_ENABLES = (a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, _REDIST)
