"""Interrupts of the in-kernel vgic and how they get to a vCPU, after arch/arm64/kvm/vgic/vgic.c.

An interrupt that is pending and enabled, or active, is on the ap_list of one vCPU. Entering the
guest writes the list's first members to the list registers (`VgicCpu.flush_hwstate`); leaving it
reads back what the guest has done to them (`VgicCpu.sync_hwstate`). In between, guest and virtual
CPU interface settle everything without us.

One lock per VM (`VgicDist.lock`) stands for the kernel's lock of each interrupt and each ap_list.
Left out: LPIs, GICv4, GICv5.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from armkvm.abi.kvm import KVM_DEV_TYPE_ARM_VGIC_V2
from armkvm.arch.gic import (
    ICH_HCR_EN,
    ICH_HCR_EOICOUNT_SHIFT,
    ICH_HCR_LRENPIE,
    ICH_HCR_UIE,
    ICH_LR_ACTIVE,
    ICH_LR_CPUID_SHIFT,
    ICH_LR_EOI,
    ICH_LR_GROUP,
    ICH_LR_HW,
    ICH_LR_PENDING,
    ICH_LR_PHYS_ID_SHIFT,
    ICH_LR_PRIORITY_SHIFT,
    ICH_LR_STATE,
    ICH_VMCR_PMR_SHIFT,
    NR_LR,
    PRI_BITS,
)
from armkvm.host.cpu import word
from armkvm.kvm.kvm_host import REQ_IRQ_PENDING

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vgic.mmio import VgicIoDevice
    from armkvm.kvm.vm import Vm

VGIC_NR_SGIS: Final = 16
VGIC_NR_PRIVATE_IRQS: Final = 32
VGIC_NR_IRQS_LEGACY: Final = 256
VGIC_MAX_RESERVED: Final = 1023
INTID_MASK: Final = 0x3FF  # without the source of a GICv2's SGI; there are no LPIs
VGIC_ADDR_UNDEF: Final = (1 << 64) - 1
KVM_VGIC_IMP_REV_LATEST: Final = 3


class VgicIrq:
    """struct vgic_irq."""

    __slots__ = (
        "active", "active_source", "enabled", "get_input_level", "group", "hw", "hwintid", "intid",
        "level_config", "line_level", "mpidr", "owner", "pending_latch", "priority", "source",
        "target_vcpu", "targets", "vcpu",
    )  # fmt: skip

    def __init__(self, intid: int, target_vcpu: Vcpu | None, group: int) -> None:
        self.intid = intid
        self.vcpu: Vcpu | None = None  # whose ap_list it is on
        self.target_vcpu = target_vcpu
        # SGIs are edge-triggered, PPIs level-sensitive; SPIs begin as level-sensitive.
        self.level_config = intid >= VGIC_NR_SGIS
        self.enabled = intid < VGIC_NR_SGIS
        self.group = group
        self.priority = 0
        self.line_level = False
        self.pending_latch = False
        self.active = False
        self.source = 0  # GICv2 SGIs: CPUs that have sent it
        self.active_source = 0
        self.targets = 0  # GICv2: CPU mask; GICv3: affinity
        self.mpidr = 0
        # Mapped to a physical interrupt
        self.hw = False
        self.hwintid = 0
        self.get_input_level: Callable[[], bool] | None = None
        self.owner: object = None  # the in-kernel device that drives it

    def is_pending(self) -> bool:
        """irq_is_pending()."""
        return self.pending_latch or (self.level_config and self.line_level)

    def is_mapped_level(self) -> bool:
        """vgic_irq_is_mapped_level()."""
        return self.hw and self.level_config

    def lr_count(self) -> int:
        """vgic_irq_get_lr_count(): an SGI from several sources takes a list register for each."""
        if self.intid < VGIC_NR_SGIS and self.source:
            return self.source.bit_count() + self.active
        return int(self.is_pending() or self.active)

    def target_oracle(self) -> Vcpu | None:
        """vgic_target_oracle(): whose ap_list it belongs on now, if on any."""
        if self.active:
            return self.vcpu or self.target_vcpu
        if self.enabled and self.is_pending():
            target = self.target_vcpu
            if target is not None and not target.vm.vgic.enabled:
                return None
            return target
        return None

    def phys_line_level(self) -> bool:
        """vgic_get_phys_line_level()."""
        return self.get_input_level is not None and self.get_input_level()

    def set_phys_active(self, active: bool) -> None:
        """vgic_irq_set_phys_active(), on the physical CPU where its vCPU is loaded.

        A vCPU that is not loaded gets the right state from its timer's load.
        """
        pcpu = self.target_vcpu.pcpu if self.target_vcpu is not None else None
        if pcpu is not None:
            for host_irq in (pcpu.vtimer_irq, pcpu.ptimer_irq):
                if host_irq.hwirq == self.hwintid:
                    host_irq.set_active(active)


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
        self.propbaser = 0
        self.dist_iodev: VgicIoDevice | None = None
        # kvm_register_irq_ack_notifier(): called with the pin when a guest ends an SPI's level
        self.ack_notifiers: list[Callable[[int], None]] = []

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
        return None

    def irq(self, vcpu: Vcpu, intid: int) -> VgicIrq:
        """The same where it is known to exist."""
        irq = self.get_irq(vcpu, intid)
        assert irq is not None
        return irq

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


class VgicCpu:
    """struct vgic_cpu: a vCPU's private interrupts, its ap_list, its virtual CPU interface.

    The interface's registers live in the CPU's state, loaded or not: load and put move nothing.
    """

    def __init__(self, vcpu: Vcpu) -> None:
        dist = vcpu.vm.vgic
        state = vcpu.state
        self.vcpu = vcpu
        self.dist: VgicDist = dist
        self.lock = dist.lock
        self.private_irqs = [
            VgicIrq(intid, vcpu, 0 if dist.is_v2 else 1) for intid in range(VGIC_NR_PRIVATE_IRQS)
        ]
        for irq in self.private_irqs:
            if dist.is_v2:
                irq.targets = 1 << vcpu.vcpu_id & 0xFF
        self.ap_list: list[VgicIrq] = []
        self.in_lrs: list[VgicIrq] = []  # what each list register holds
        self.lrs = tuple(word(state, f"ich_lr{i}") for i in range(NR_LR))
        self.hcr = word(state, "ich_hcr")
        self.vmcr = word(state, "ich_vmcr")
        self.ap0r = word(state, "ich_ap0r")
        self.ap1r = word(state, "ich_ap1r")
        self._deactivated = word(state, "phys_deactivated")
        self._counted_id = word(state, "ich_counted_id")
        # GICv3
        self.rd_iodev: VgicIoDevice | None = None
        self.rdreg: Any = None
        self.rdreg_index = 0
        self.pendbaser = 0
        self.num_pri_bits = PRI_BITS
        self.num_id_bits = 1  # 24 bits

    def pending_irq(self) -> bool:
        """kvm_vgic_vcpu_pending_irq(): there is an interrupt that the guest would take."""
        if not self.dist.enabled or not self.ap_list:
            return False
        pmr = self.vmcr.value >> ICH_VMCR_PMR_SHIFT & 0xFF
        with self.lock:
            return any(
                irq.enabled and not irq.active and irq.priority < pmr and irq.is_pending()
                for irq in self.ap_list
            )

    # entry

    def flush_hwstate(self) -> None:
        """kvm_vgic_flush_hwstate(): list registers for the guest."""
        if not self.ap_list:
            return  # then no list register is in use either
        with self.lock:
            self._flush_lr_state()

    def _flush_lr_state(self) -> None:
        """vgic_flush_lr_state()."""
        ap_list = self.ap_list
        hcr = ICH_HCR_EN
        multi_sgi = False
        if len(ap_list) > 1 or ap_list[0].source:
            counts = [irq.lr_count() for irq in ap_list]
            multi_sgi = max(counts) > 1
            if multi_sgi or sum(counts) > NR_LR:
                ap_list.sort(key=_order)
        count = 0
        limit = 0xFF
        vcpu = self.vcpu
        in_lrs: list[VgicIrq] = []
        for irq in ap_list:
            # All sources of an SGI must be seen before anything of lower priority: leave that out.
            if multi_sgi and irq.priority > limit and not irq.active:
                continue
            val = self._populate_lr(irq) if irq.target_oracle() is vcpu else None
            if val is not None:
                self.lrs[count].value = val
                in_lrs.append(irq)
                count += 1
                if irq.source:
                    limit = irq.priority
            if count == NR_LR:
                if irq is not ap_list[-1]:
                    hcr |= ICH_HCR_UIE  # come back when they are nearly empty
                break
        if count < len(ap_list) and any(irq.active and irq not in in_lrs for irq in ap_list):
            hcr |= ICH_HCR_LRENPIE  # come back when the guest ends one that no list register has
        self.in_lrs = in_lrs
        self.hcr.value = hcr

    def _populate_lr(self, irq: VgicIrq) -> int | None:
        """vgic_v3_populate_lr(): what one interrupt looks like to the virtual CPU interface."""
        val = irq.intid | irq.priority << ICH_LR_PRIORITY_SHIFT
        if irq.group:
            val |= ICH_LR_GROUP
        allow_pending = True
        v2_sgi = irq.intid < VGIC_NR_SGIS and self.dist.is_v2
        if irq.active:
            val |= ICH_LR_ACTIVE
            if v2_sgi:
                val |= irq.active_source << ICH_LR_CPUID_SHIFT
                if irq.lr_count() > 1:
                    allow_pending = False
                    val |= ICH_LR_EOI
        if irq.hw:
            val |= ICH_LR_HW | irq.hwintid << ICH_LR_PHYS_ID_SHIFT
            # Never pending and active: the pending state is the physical distributor's.
            if irq.active:
                allow_pending = False
        elif irq.level_config:
            # When the guest ends it, we sample the line again; with both states that is not told.
            val |= ICH_LR_EOI
            if irq.active:
                allow_pending = False
        if allow_pending and irq.is_pending():
            val |= ICH_LR_PENDING
            if not irq.level_config:
                irq.pending_latch = False
            if v2_sgi:
                if not irq.source:
                    return None  # pending, from nobody: user space made it so
                source = (irq.source & -irq.source).bit_length() - 1
                val |= source << ICH_LR_CPUID_SHIFT
                irq.source &= irq.source - 1
                if irq.source:
                    irq.pending_latch = True
                    val |= ICH_LR_EOI
            # Of a mapped interrupt we see rising edges only: lower the line, so that a new one
            # can come; fold_lr_state samples it.
            if irq.hw and irq.level_config:
                irq.line_level = False
        return val

    # exit

    def sync_hwstate(self) -> None:
        """kvm_vgic_sync_hwstate(): take back what the guest has done to the list registers."""
        if not self.ap_list:
            return
        bits = self._deactivated.value
        if bits:
            self._deactivated.value = 0
            self._physically_deactivated(bits)
        with self.lock:
            for irq, lr in zip(self.in_lrs, self.lrs, strict=False):
                self._fold_lr(irq, lr.value)
                lr.value = 0
            if self.hcr.value >> ICH_HCR_EOICOUNT_SHIFT:
                self._end_outside_lrs(self._counted_id.value & INTID_MASK)
            self.in_lrs = []
            self.hcr.value = ICH_HCR_EN
            self._prune_ap_list()

    def _physically_deactivated(self, bits: int) -> None:
        """The guest has deactivated interrupts of the physical CPU it ran on."""
        pcpu = self.vcpu.pcpu
        assert pcpu is not None
        for host_irq in (pcpu.vtimer_irq, pcpu.ptimer_irq):
            if bits >> host_irq.hwirq & 1:
                host_irq.set_active(False)

    def _end_outside_lrs(self, intid: int) -> None:
        """vgic_v3_deactivate() of Linux 6.19: as if the interrupt had been in a list register."""
        for irq in self.ap_list:
            if irq.intid == intid and irq.active and irq not in self.in_lrs:
                lr = self._populate_lr(irq)
                if irq.hw:
                    self._physically_deactivated(1 << irq.hwintid)
                self._fold_lr(irq, (lr or 0) & ~ICH_LR_ACTIVE)
                return

    def _fold_lr(self, irq: VgicIrq, val: int) -> None:
        """vgic_v3_fold_lr_state(), one list register."""
        intid = irq.intid
        cpuid = val >> ICH_LR_CPUID_SHIFT & 7
        dist = self.dist
        v2_sgi = intid < VGIC_NR_SGIS and dist.is_v2
        ended = val & (ICH_LR_STATE | ICH_LR_EOI | ICH_LR_HW) == ICH_LR_EOI
        if ended and intid >= VGIC_NR_PRIVATE_IRQS:
            for notify in dist.ack_notifiers:
                notify(intid - VGIC_NR_PRIVATE_IRQS)
        active = bool(val & ICH_LR_ACTIVE)
        deactivated = irq.active and not active
        irq.active = active
        if active and v2_sgi:
            irq.active_source = cpuid
        if irq.level_config:
            # Soft pending state goes when the interrupt has been taken.
            if not val & ICH_LR_STATE:
                irq.pending_latch = False
            if irq.hw:
                self._resample(irq, deactivated, bool(val & ICH_LR_PENDING))
        elif val & ICH_LR_PENDING:
            irq.pending_latch = True
            if v2_sgi:
                irq.source |= 1 << cpuid

    def _resample(self, irq: VgicIrq, deactivated: bool, lr_pending: bool) -> None:
        """vgic_irq_handle_resampling(): is the line of a mapped interrupt still high?

        If the guest has not taken the interrupt, or has ended one that came again meanwhile, the
        device's state may have changed since. A line found low must be able to interrupt again.
        """
        if lr_pending or (deactivated and irq.line_level):
            irq.line_level = irq.phys_line_level()
            if not irq.line_level:
                irq.set_phys_active(False)

    def _prune_ap_list(self) -> None:
        """vgic_prune_ap_list(): drop what is settled, hand over what has another target."""
        vcpu = self.vcpu
        kept: list[VgicIrq] = []
        moved: list[tuple[Vcpu, VgicIrq]] = []
        for irq in self.ap_list:
            target = irq.target_oracle()
            if target is vcpu:
                kept.append(irq)
            elif target is None:
                irq.vcpu = None
            else:
                moved.append((target, irq))
        self.ap_list = kept
        for target, irq in moved:
            assert target.vgic_cpu is not None
            irq.vcpu = target
            target.vgic_cpu.ap_list.append(irq)
            announce(target)


def _order(irq: VgicIrq) -> tuple[int, int, bool]:
    """vgic_irq_cmp() of Linux 6.19: what can be taken, then what is active, then the rest.

    Both by priority, mapped ones first. In 6.12 the active ones come first, and once there are as
    many as list registers nothing is delivered until the guest deactivates one.
    """
    if irq.active:
        return 1, irq.priority, not irq.hw
    if irq.enabled and irq.is_pending():
        return 0, irq.priority, not irq.hw
    return 2, 0, False
