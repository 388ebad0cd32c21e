"""Making a vgic, initialising it, giving it its place: after vgic/vgic-init.c.

Three stages. *Created*: the VM has an interrupt controller in the kernel, vCPUs may still come.
*Initialised*: the number of interrupts and vCPUs is fixed; a GICv2 gets there by itself at the
first use, a GICv3 when user space says so. *Ready*: its registers are on the bus, at the first run
of a vCPU; a VM that fails here is dead.

That creation needs all vCPUs at rest and none that has ever run answers the question of 2017, what
happens if a VM that has run with its interrupt controller in user space gets one in the kernel.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi.kvm import KVM_DEV_TYPE_ARM_VGIC_V2, KVM_VGIC_V2_MAX_CPUS, KVM_VGIC_V3_MAX_CPUS
from armkvm.arch.gic import ICH_HCR_EN
from armkvm.kvm.file import fail
from armkvm.kvm.vgic import v2 as vgic_v2
from armkvm.kvm.vgic import v3 as vgic_v3
from armkvm.kvm.vgic.cpu import VgicCpu
from armkvm.kvm.vgic.dist import KVM_VGIC_IMP_REV_LATEST, VGIC_NR_IRQS_LEGACY, VgicDist
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, VgicIrq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm


def create(vm: Vm, model: int) -> None:
    """kvm_vgic_create(); the caller holds vm.lock.

    ENODEV (the host cannot), EBUSY (a vCPU is in an ioctl), EEXIST, EBUSY (a vCPU has run),
    E2BIG (more vCPUs than the model allows), in this order.
    """
    if model not in vm.host.kind.vgic_types:
        fail(errno.ENODEV)
    with vm.all_vcpus_locked(), vm.config_lock:
        if vm.irqchip_in_kernel:
            fail(errno.EEXIST)
        if any(vcpu.has_run_once for vcpu in vm.vcpus):
            fail(errno.EBUSY)
        v2 = model == KVM_DEV_TYPE_ARM_VGIC_V2
        limit = KVM_VGIC_V2_MAX_CPUS if v2 else KVM_VGIC_V3_MAX_CPUS
        if len(vm.vcpus) > limit:
            fail(errno.E2BIG)
        vm.max_vcpus = limit
        vm.vgic = VgicDist(vm, model)
        vm.irqchip_in_kernel = True
        for vcpu in vm.vcpus:
            vcpu.vgic_cpu = VgicCpu(vcpu)


def vcpu_init(vcpu: Vcpu) -> None:
    """kvm_vgic_vcpu_init(): a new vCPU of a VM that may have a vgic. EINVAL, ENOSPC."""
    if not vcpu.vm.irqchip_in_kernel:
        return
    vcpu.vgic_cpu = VgicCpu(vcpu)
    if not vcpu.vm.vgic.is_v2:
        with vcpu.vm.slots_lock:
            ret = vgic_v3.register_redist_iodev(vcpu)
        if ret:
            fail(-ret)


def vgic_init(vm: Vm) -> int:
    """vgic_init(): fix the sizes. The caller holds config_lock. 0 or a negative errno."""
    dist = vm.vgic
    if dist.initialized:
        return 0
    if vm.created_vcpus != len(vm.vcpus):
        return -errno.EBUSY  # a vCPU is being made
    if not dist.nr_spis:
        dist.nr_spis = VGIC_NR_IRQS_LEGACY - VGIC_NR_PRIVATE_IRQS
    first = vm.vcpus[0] if vm.vcpus else None
    group = 0 if dist.is_v2 else 1
    dist.spis = [VgicIrq(VGIC_NR_PRIVATE_IRQS + i, first, group) for i in range(dist.nr_spis)]
    for vcpu in vm.vcpus:
        vgic = vcpu.vgic_cpu
        assert vgic is not None
        # Nothing but zeroes: the binary points read as their smallest values then.
        vgic.vmcr.value = vgic.ap0r.value = vgic.ap1r.value = 0
        vgic.hcr.value = ICH_HCR_EN
        if not dist.is_v2:
            vgic_v3.enable(vcpu)
    if not dist.implementation_rev:
        dist.implementation_rev = KVM_VGIC_IMP_REV_LATEST
    vm.irqfds.routing = None  # kvm_vgic_setup_default_irq_routing(): what was set before is lost
    dist.initialized = True
    return 0


def vgic_lazy_init(vm: Vm) -> int:
    """vgic_lazy_init(): a GICv2 is initialised by its first use, a GICv3 never by itself."""
    if vm.vgic.initialized:
        return 0
    if not vm.vgic.is_v2:
        return -errno.EBUSY
    with vm.config_lock:
        return vgic_init(vm)


def map_resources(vm: Vm) -> int:
    """kvm_vgic_map_resources(), at a vCPU's first run: onto the bus. A failure kills the VM.

    -ENXIO: a base is not set; -EINVAL: frames overlap; -EBUSY: a GICv3 is not initialised.
    """
    dist = vm.vgic
    if dist.ready:
        return 0
    with vm.slots_lock:
        with vm.config_lock:
            ret = _map_resources(vm)
            dist.ready = not ret
        if ret:
            vm.kill()
        return ret


def _map_resources(vm: Vm) -> int:
    """The same with the locks held. Another vCPU may have been first."""
    dist = vm.vgic
    if dist.ready:
        return 0
    if dist.is_v2:
        return vgic_v2.check_resources(vm) or vgic_init(vm) or vgic_v2.map_resources(vm)
    return vgic_v3.check_resources(vm) or vgic_v3.map_resources(vm)
