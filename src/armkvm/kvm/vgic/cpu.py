"""A vCPU's interrupts and its list registers: vgic/vgic.c's way into the guest and out of it.

Entering the guest writes the first members of the ap_list to the list registers
(`VgicCpu.flush_hwstate`); leaving it reads back what the guest has done to them
(`VgicCpu.sync_hwstate`). In between, guest and virtual CPU interface settle everything without us.
What one list register looks like is vgic-v3.c's, for a GICv2 too. Left out: see irq.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
from armkvm.kvm.vgic.dist import VgicDist, announce
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, VGIC_NR_SGIS, VgicIrq

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vgic.mmio import VgicIoDevice

INTID_MASK: Final = 0x3FF  # without the source of a GICv2's SGI; LPIs are never deactivated
PRIORITY_MASK: Final = 0xFF & -(1 << 8 - PRI_BITS)  # what a list register has of a priority


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
        self.lpis_enabled = False  # GICR_CTLR.EnableLPIs
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
            if self.ap_list:  # another vCPU may have switched its LPIs off
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
        val = irq.intid | (irq.priority & PRIORITY_MASK) << ICH_LR_PRIORITY_SHIFT
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
        if not self.ap_list and not self.in_lrs:
            return  # LPIs may have left the list meanwhile: GICR_CTLR of another vCPU
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
                self.dist.drop_lpi(irq)
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
