"""One interrupt of the in-kernel vgic: struct vgic_irq, and what follows from its state alone.

An interrupt that is pending and enabled, or active, belongs on the ap_list of one vCPU
(`target_oracle`): dist.py puts it there, cpu.py takes it from there to the guest and back.

One lock per VM (`VgicDist.lock`) stands for the kernel's lock of each interrupt and each ap_list.
An LPI lives as long as an ITS maps it or it is on an ap_list (lpi.py). Left out: GICv4, GICv5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from armkvm.arch.gic import FIRST_LPI

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

VGIC_NR_SGIS: Final = 16
VGIC_NR_PRIVATE_IRQS: Final = 32
VGIC_MAX_RESERVED: Final = 1023


class VgicIrq:
    """struct vgic_irq."""

    __slots__ = (
        "active", "active_source", "enabled", "get_input_level", "group", "hw", "hwintid", "intid",
        "level_config", "line_level", "mpidr", "owner", "pending_latch", "priority", "references",
        "source", "target_vcpu", "targets", "vcpu",
    )  # fmt: skip

    def __init__(self, intid: int, target_vcpu: Vcpu | None, group: int) -> None:
        self.intid = intid
        self.vcpu: Vcpu | None = None  # whose ap_list it is on
        self.target_vcpu = target_vcpu
        # SGIs and LPIs are edge-triggered, PPIs level-sensitive; SPIs begin as level-sensitive.
        self.level_config = VGIC_NR_SGIS <= intid < FIRST_LPI
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
        self.references = 0  # LPIs: translations that name it

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
