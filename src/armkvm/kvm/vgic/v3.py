"""The GICv3 for guests: redistributor regions and resources, after vgic/vgic-v3.c and the
redistributor part of vgic/vgic-mmio-v3.c.

The CPU interface is ICC_* system registers, which the engine handles without an exit. A region of
redistributors holds a fixed number of them, in order of vCPU creation, or (the old way, count 0) as
many as there are vCPUs. LPIs are lpi.py's. Left out: GICv4.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armkvm.abi.vgic import KVM_VGIC_V3_DIST_SIZE, KVM_VGIC_V3_REDIST_SIZE
from armkvm.arch.gic import ICC_SRE_DFB, ICC_SRE_DIB, ICC_SRE_SRE
from armkvm.arch.word import M64
from armkvm.kvm.vgic import mmio_v3 as vgic_mmio_v3
from armkvm.kvm.vgic.dist import INITIAL_PROPBASER, VGIC_ADDR_UNDEF
from armkvm.kvm.vgic.mmio import VgicIoDevice

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

SZ_64K = 0x1_0000
SRE_EL1 = ICC_SRE_DIB | ICC_SRE_DFB | ICC_SRE_SRE  # system registers, no bypass
# GICR_PENDBASER begins as GICR_PROPBASER does: inner shareable, read-allocate write-back
INITIAL_PENDBASER = INITIAL_PROPBASER


@dataclass
class RedistRegion:
    """struct vgic_redist_region."""

    index: int
    base: int
    count: int  # 0: as many as vCPUs
    free_index: int = 0

    def size(self, vm: Vm) -> int:
        """vgic_v3_rd_region_size(): in bytes."""
        return (self.count or len(vm.vcpus)) * KVM_VGIC_V3_REDIST_SIZE


def check_iorange(vm: Vm, present: int, addr: int, alignment: int, size: int) -> int:
    """vgic_check_iorange(). 0, -EEXIST (set already), -EINVAL (alignment), -E2BIG."""
    if present != VGIC_ADDR_UNDEF:
        return -errno.EEXIST
    if addr % alignment or size % alignment or addr + size > M64:
        return -errno.EINVAL
    return -errno.E2BIG if addr + size > vm.memslots.limit else 0


def _overlap(vm: Vm, base: int, size: int) -> bool:
    """vgic_v3_rdist_overlap()."""
    return any(base + size > r.base and base < r.base + r.size(vm) for r in vm.vgic.rd_regions)


def check_base(vm: Vm) -> bool:
    """vgic_v3_check_base(): what is set so far lies in the address space and apart."""
    dist = vm.vgic
    for region in dist.rd_regions:
        if check_iorange(vm, VGIC_ADDR_UNDEF, region.base, SZ_64K, region.size(vm)):
            return False
    if dist.vgic_dist_base == VGIC_ADDR_UNDEF:
        return True
    return not _overlap(vm, dist.vgic_dist_base, KVM_VGIC_V3_DIST_SIZE)


def _alloc_redist_region(vm: Vm, index: int, base: int, count: int) -> int:
    """vgic_v3_alloc_redist_region()."""
    dist = vm.vgic
    size = (count or len(vm.vcpus)) * KVM_VGIC_V3_REDIST_SIZE
    if base + size >> 64:
        return -errno.EINVAL
    if not dist.rd_regions:
        if index:
            return -errno.EINVAL
    else:
        last = dist.rd_regions[-1]
        if not count:
            return -errno.EINVAL if last.count else -errno.EEXIST
        if index != last.index + 1:
            return -errno.EINVAL
    dist_base = dist.vgic_dist_base
    if (
        not count
        and dist_base != VGIC_ADDR_UNDEF
        and dist_base + KVM_VGIC_V3_DIST_SIZE > base
        and dist_base < base + size
    ):
        return -errno.EINVAL
    if _overlap(vm, base, size):
        return -errno.EINVAL
    ret = check_iorange(vm, VGIC_ADDR_UNDEF, base, SZ_64K, size)
    if not ret:
        dist.rd_regions.append(RedistRegion(index, base, count))
    return ret


def set_redist_base(vm: Vm, index: int, base: int, count: int) -> int:
    """vgic_v3_set_redist_base(): a region, filled with the vCPUs there are. slots_lock held."""
    with vm.config_lock:
        ret = _alloc_redist_region(vm, index, base, count)
    if ret:
        return ret
    for n, vcpu in enumerate(vm.vcpus):
        ret = register_redist_iodev(vcpu)
        if ret:
            # Those of other regions stay where they are.
            region = region_from_index(vm, index)
            for earlier in vm.vcpus[:n]:
                if earlier.vgic_cpu is not None and earlier.vgic_cpu.rdreg is region:
                    _unregister_redist_iodev(earlier)
            vm.vgic.rd_regions = [r for r in vm.vgic.rd_regions if r.index != index]
            return ret
    return 0


def region_from_index(vm: Vm, index: int) -> RedistRegion | None:
    """vgic_v3_rdist_region_from_index()."""
    for region in vm.vgic.rd_regions:
        if region.index == index:
            assert isinstance(region, RedistRegion)
            return region
    return None


def register_redist_iodev(vcpu: Vcpu) -> int:
    """vgic_register_redist_iodev(): a vCPU's redistributor, once a region has room for it."""
    vm, vgic = vcpu.vm, vcpu.vgic_cpu
    assert vgic is not None
    if vgic.rd_iodev is not None:
        return 0
    free = [r for r in vm.vgic.rd_regions if not r.count or r.free_index < r.count]
    if not free:
        return 0  # its turn comes when a base is set
    if not check_base(vm):
        return -errno.EINVAL
    region = free[0]
    vgic.rdreg, vgic.rdreg_index = region, region.free_index
    base = region.base + region.free_index * KVM_VGIC_V3_REDIST_SIZE
    device = VgicIoDevice(vgic_mmio_v3.RD_REGISTERS, base, vcpu)
    ret = vm.mmio_bus.register(base, KVM_VGIC_V3_REDIST_SIZE, device)
    if ret:
        vgic.rdreg = None
    else:
        vgic.rd_iodev = device
        region.free_index += 1
    return ret


def _unregister_redist_iodev(vcpu: Vcpu) -> None:
    """vgic_unregister_redist_iodev()."""
    vgic = vcpu.vgic_cpu
    if vgic is not None and vgic.rd_iodev is not None:
        vcpu.vm.mmio_bus.unregister(vgic.rd_iodev)
        vgic.rd_iodev = vgic.rdreg = None


def enable(vcpu: Vcpu) -> None:
    """vgic_v3_enable(): the CPU interface, in system registers."""
    assert vcpu.vgic_cpu is not None
    vcpu.vgic_cpu.pendbaser = INITIAL_PENDBASER
    vcpu.state.icc_sre = SRE_EL1


def check_resources(vm: Vm) -> int:
    """vgic_v3_map_resources(), its checks. -ENXIO, -EINVAL, -EBUSY (not initialised)."""
    dist = vm.vgic
    if any(vcpu.vgic_cpu is None or vcpu.vgic_cpu.rd_iodev is None for vcpu in vm.vcpus):
        return -errno.ENXIO
    if dist.vgic_dist_base == VGIC_ADDR_UNDEF:
        return -errno.ENXIO
    if not check_base(vm):
        return -errno.EINVAL
    return 0 if dist.initialized else -errno.EBUSY


def map_resources(vm: Vm) -> int:
    """The distributor onto the bus; the redistributors are there."""
    dist = vm.vgic
    dist.dist_iodev = VgicIoDevice(vgic_mmio_v3.DIST_REGISTERS, dist.vgic_dist_base)
    return vm.mmio_bus.register(dist.vgic_dist_base, KVM_VGIC_V3_DIST_SIZE, dist.dist_iodev)
