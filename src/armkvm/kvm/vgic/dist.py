"""The distributor of the vgic, and how interrupts get to a vCPU: after arch/arm64/kvm/vgic/vgic.c.

What drives an input, a device in the kernel or KVM_IRQ_LINE, comes to `inject_irq`: the interrupt
goes onto its target's ap_list (`queue_irq`), and that vCPU is told. A timer's is *mapped* to the
physical interrupt behind it, which the guest then deactivates as well. Left out: see irq.py.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from armkvm.abi.kvm import KVM_DEV_TYPE_ARM_VGIC_V2
from armkvm.arch import its as g
from armkvm.arch.word import M64
from armkvm.kvm.kvm_host import REQ_IRQ_PENDING
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, VGIC_NR_SGIS, VgicIrq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vgic.mmio import VgicIoDevice
    from armkvm.kvm.vm import Vm

VGIC_NR_IRQS_LEGACY: Final = 256
VGIC_ADDR_UNDEF: Final = M64
KVM_VGIC_IMP_REV_LATEST: Final = 3
# GICR_PROPBASER once there is an ITS: inner shareable, read-allocate write-back
INITIAL_PROPBASER: Final = (
    g.INNER_SHAREABLE << g.SHAREABILITY_SHIFT | g.CACHE_RAWB << g.RBASER_INNER_SHIFT
)


class VgicDist:
    """struct vgic_dist: the distributor, one a VM."""

    def __init__(self, vm: Vm, model: int) -> None:
        self.vm = vm
        self.lock = threading.RLock()
        self.vgic_model = model
        self.is_v2 = model == KVM_DEV_TYPE_ARM_VGIC_V2
        self.initialized = False
        self.ready = False
        self.enabled = False
        self.nr_spis = 0
        self.spis: list[VgicIrq] = []
        self.vgic_dist_base = VGIC_ADDR_UNDEF
        self.vgic_cpu_base = VGIC_ADDR_UNDEF
        self.rd_regions: list[Any] = []
        self.implementation_rev = 0
        self.v2_groups_user_writable = False
        self.propbaser = INITIAL_PROPBASER if vm.its else 0
        self.lpis: dict[int, VgicIrq] = {}  # lpi_xa: those that exist
        self.dist_iodev: VgicIoDevice | None = None
        # kvm_register_irq_ack_notifier(): called with the pin when a guest ends an SPI's level
        self.ack_notifiers: list[Callable[[int], None]] = []

    @property
    def has_its(self) -> bool:
        """vgic_has_its(): so there are LPIs."""
        return not self.is_v2 and bool(self.vm.its)

    @property
    def nr_irqs(self) -> int:
        """INTIDs that exist."""
        return self.nr_spis + VGIC_NR_PRIVATE_IRQS

    def get_irq(self, vcpu: Vcpu | None, intid: int) -> VgicIrq | None:
        """vgic_get_irq(); the vCPU is for private interrupts."""
        if intid < VGIC_NR_PRIVATE_IRQS:
            if vcpu is None or vcpu.vgic_cpu is None:
                return None
            return vcpu.vgic_cpu.private_irqs[intid]
        if intid < self.nr_irqs and self.spis:
            return self.spis[intid - VGIC_NR_PRIVATE_IRQS]
        return self.lpis.get(intid)

    def irq(self, vcpu: Vcpu, intid: int) -> VgicIrq:
        """The same where it is known to exist."""
        irq = self.get_irq(vcpu, intid)
        assert irq is not None
        return irq

    def drop_lpi(self, irq: VgicIrq) -> None:
        """vgic_put_irq(): an LPI that nothing refers to any more is gone. Lock held."""
        if irq.references or irq.vcpu is not None:
            return
        if self.lpis.get(irq.intid) is irq:
            del self.lpis[irq.intid]

    def kick_vcpus(self) -> None:
        """vgic_kick_vcpus(): the distributor was switched on."""
        for vcpu in self.vm.vcpus:
            if vcpu.vgic_cpu is not None and vcpu.vgic_cpu.pending_irq():
                announce(vcpu)


def announce(vcpu: Vcpu) -> None:
    """Request and kick: the vCPU must look at its ap_list before guest code goes on."""
    if vcpu.pcpu is not None and vcpu.pid == get_ident():
        return  # it is loaded and we are its thread: it looks before it enters
    vcpu.make_request(REQ_IRQ_PENDING)
    vcpu.vcpu_kick()


def queue_irq(irq: VgicIrq) -> None:
    """vgic_queue_irq_unlock(): onto its vCPU's ap_list, if it belongs there. Lock held.

    Kick also if it is on the list already: an edge-triggered interrupt causes no maintenance
    interrupt, the vCPU may have ended it and would see this new edge at some later exit only.
    """
    vcpu = irq.target_oracle()
    if vcpu is None:
        return
    if irq.vcpu is None:
        assert vcpu.vgic_cpu is not None
        vcpu.vgic_cpu.ap_list.append(irq)
        irq.vcpu = vcpu
    announce(vcpu)


def inject_irq(vm: Vm, vcpu: Vcpu | None, intid: int, level: bool, owner: object = None) -> int:
    """kvm_vgic_inject_irq(): drive an input. 0, -EBUSY (not initialised), -EINVAL."""
    dist = vm.vgic
    if not dist.initialized:
        ret = vm.vgic_lazy_init()
        if ret:
            return ret
    if vcpu is None and intid < VGIC_NR_PRIVATE_IRQS:
        return -errno.EINVAL
    if vm.trace.vgic_update_irq_pending is not None:
        vm.trace.vgic_update_irq_pending(vcpu.vcpu_id if vcpu else 0, intid, level)
    irq = dist.get_irq(vcpu, intid)
    if irq is None:
        return -errno.EINVAL
    with dist.lock:
        # Lines of in-kernel devices are driven by their owner only.
        if irq.owner is not owner:
            return 0
        if irq.level_config:
            if irq.line_level == level:
                return 0
            irq.line_level = level
        elif level:
            irq.pending_latch = True
        else:
            return 0
        queue_irq(irq)
    return 0


def map_phys_irq(vcpu: Vcpu, host_irq: int, vintid: int, level: Callable[[], bool]) -> None:
    """kvm_vgic_map_phys_irq(): the guest deactivates the physical interrupt too."""
    dist = vcpu.vm.vgic
    with dist.lock:
        irq = dist.irq(vcpu, vintid)
        irq.hw = True
        irq.hwintid = host_irq
        irq.get_input_level = level


def reset_mapped_irq(vcpu: Vcpu, vintid: int) -> None:
    """kvm_vgic_reset_mapped_irq(): the VM starts over."""
    dist = vcpu.vm.vgic
    irq = dist.get_irq(vcpu, vintid)
    if irq is not None and irq.hw:
        with dist.lock:
            irq.active = irq.pending_latch = irq.line_level = False


def set_owner(vcpu: Vcpu, intid: int, owner: object) -> int:
    """kvm_vgic_set_owner(). 0, -EAGAIN (not initialised), -EINVAL, -EEXIST."""
    dist = vcpu.vm.vgic
    if not dist.initialized:
        return -errno.EAGAIN
    if not VGIC_NR_SGIS <= intid < dist.nr_irqs:
        return -errno.EINVAL
    irq = dist.irq(vcpu, intid)
    with dist.lock:
        if irq.owner is not None and irq.owner is not owner:
            return -errno.EEXIST
        irq.owner = owner
    return 0


def map_is_active(vcpu: Vcpu, vintid: int) -> bool:
    """kvm_vgic_map_is_active()."""
    dist = vcpu.vm.vgic
    if not dist.initialized:
        return False
    irq = dist.irq(vcpu, vintid)
    return irq.hw and irq.active
