"""The GICv2 for guests: its place, and its CPU interface for user space.

After vgic/vgic-v2.c and the GICC part of vgic/vgic-mmio-v2.c. The guest's own accesses to the CPU
interface go to the virtual one of the physical CPU, which stage 2 maps at the guest's GICC: the
engine's GICV window. User space saves and restores what that interface holds.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi.vgic import KVM_VGIC_V2_CPU_SIZE, KVM_VGIC_V2_DIST_SIZE
from armkvm.arch import gic as g
from armkvm.kvm.vgic import mmio_v2 as vgic_mmio_v2
from armkvm.kvm.vgic.dist import VGIC_ADDR_UNDEF
from armkvm.kvm.vgic.mmio import IMPLEMENTER_ARM, PRODUCT_ID_KVM, Region, VgicIoDevice

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

# Five bits of priority mask: user space has them as a small number, as in GICH_VMCR
PMR_UNUSED_BITS = 8 - g.PRI_BITS


def check_resources(vm: Vm) -> int:
    """vgic_v2_map_resources(), its checks. -ENXIO: a base is not set; -EINVAL: overlap."""
    dist = vm.vgic
    dist_base, cpu_base = dist.vgic_dist_base, dist.vgic_cpu_base
    if VGIC_ADDR_UNDEF in (dist_base, cpu_base):
        return -errno.ENXIO
    apart = (
        dist_base + KVM_VGIC_V2_DIST_SIZE <= cpu_base
        or cpu_base + KVM_VGIC_V2_CPU_SIZE <= dist_base
    )
    return 0 if apart else -errno.EINVAL


def map_resources(vm: Vm) -> int:
    """The distributor onto the bus, the virtual CPU interface into the guest's address space."""
    dist = vm.vgic
    for vcpu in vm.vcpus:
        vcpu.state.gicv_base = dist.vgic_cpu_base
        vcpu.state.gicv_size = KVM_VGIC_V2_CPU_SIZE
    dist.dist_iodev = VgicIoDevice(vgic_mmio_v2.DIST_REGISTERS, dist.vgic_dist_base)
    return vm.mmio_bus.register(dist.vgic_dist_base, KVM_VGIC_V2_DIST_SIZE, dist.dist_iodev)


def read_vcpuif(vcpu: Vcpu, addr: int, _length: int) -> int:
    """vgic_mmio_read_vcpuif(). Once it has run, the hardware has raised the binary points."""
    assert vcpu.vgic_cpu is not None
    vmcr = vcpu.vgic_cpu.vmcr.value
    match addr & 0xFF:
        case g.GICC_CTLR:
            return vmcr & g.ICH_VMCR_GICC_CTLR
        case g.GICC_PMR:
            return vmcr >> g.ICH_VMCR_PMR_SHIFT + PMR_UNUSED_BITS & 0x1F
        case g.GICC_BPR:
            return max(vmcr >> g.ICH_VMCR_BPR0_SHIFT & 7, 2 * vcpu.has_run_once)
        case g.GICC_ABPR:
            return max(vmcr >> g.ICH_VMCR_BPR1_SHIFT & 7, 3 * vcpu.has_run_once)
        case _:
            return PRODUCT_ID_KVM << 20 | 2 << 16 | IMPLEMENTER_ARM


def write_vcpuif(vcpu: Vcpu, addr: int, _length: int, val: int) -> None:
    """vgic_mmio_write_vcpuif()."""
    assert vcpu.vgic_cpu is not None
    reg = vcpu.vgic_cpu.vmcr
    match addr & 0xFF:
        case g.GICC_CTLR:
            reg.value = reg.value & ~g.ICH_VMCR_GICC_CTLR | val & g.ICH_VMCR_GICC_CTLR
        case g.GICC_PMR:
            shift = g.ICH_VMCR_PMR_SHIFT + PMR_UNUSED_BITS
            reg.value = reg.value & ~(0xFF << g.ICH_VMCR_PMR_SHIFT) | (val & 0x1F) << shift
        case g.GICC_BPR:
            shift = g.ICH_VMCR_BPR0_SHIFT
            reg.value = reg.value & ~(7 << shift) | (val & 7) << shift
        case g.GICC_ABPR:
            shift = g.ICH_VMCR_BPR1_SHIFT
            reg.value = reg.value & ~(7 << shift) | (val & 7) << shift


def read_apr(vcpu: Vcpu, addr: int, _length: int) -> int:
    """vgic_mmio_read_apr(): there is one register of active priorities."""
    assert vcpu.vgic_cpu is not None
    return vcpu.vgic_cpu.ap0r.value if addr >> 2 & 3 == 0 else 0


def write_apr(vcpu: Vcpu, addr: int, _length: int, val: int) -> None:
    """vgic_mmio_write_apr()."""
    assert vcpu.vgic_cpu is not None
    if addr >> 2 & 3 == 0:
        vcpu.vgic_cpu.ap0r.value = val


# For user space alone.
CPU_REGISTERS = [
    Region(g.GICC_CTLR, 4, read_vcpuif, write_vcpuif),
    Region(g.GICC_PMR, 4, read_vcpuif, write_vcpuif),
    Region(g.GICC_BPR, 4, read_vcpuif, write_vcpuif),
    Region(g.GICC_ABPR, 4, read_vcpuif, write_vcpuif),
    Region(g.GICC_APR, 16, read_apr, write_apr),
    Region(g.GICC_IIDR, 4, read_vcpuif, write_vcpuif),
]
