"""The lines around a vCPU's timers, as counters: what the protocol of device_irq_level is about.

For each timer: its output (`level`), the bit that user space was last shown (`reported`), and
whether the host's interrupt is kept from firing (`host irq masked`; direct timers only). For the
vCPU: its IRQ and FIQ inputs as user space drives them. A guest moves a timer's output without an
exit, so the level is that of the moment at which the hypervisor could first see it.
"""

from __future__ import annotations

from collections.abc import Iterator

from armkvm.abi.kvm import KVM_ARM_DEV_EL1_PTIMER, KVM_ARM_DEV_EL1_VTIMER
from armkvm.arch.hcr import HCR_VF, HCR_VI
from armkvm.kvm import Vcpu

LEVEL, REPORTED, MASKED = "level", "reported", "host irq masked"
IRQ, FIQ = "irq line", "fiq line"


class Lines:
    """The lines of one vCPU; all are low until `moved` has said otherwise."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        name = f"vcpu{vcpu.vcpu_id}"
        timer = vcpu.arch_timer
        self._names = [
            *(f"{name} {ctx.name} {what}" for ctx in timer.timers for what in (LEVEL, REPORTED)),
            f"{name} {IRQ}",
            f"{name} {FIQ}",
            *(f"{name} {ctx.name} {MASKED}" for ctx in timer.timers if ctx.direct),
        ]
        self._values = [0] * len(self._names)

    def moved(self) -> Iterator[tuple[str, int]]:
        """Name and value of those that differ from the last time."""
        last = self._values
        # While the vCPU is on no CPU there is no host interrupt of its timers: these stay.
        now = self._sample()
        for i, value in enumerate(now):
            if value != last[i]:
                last[i] = value
                yield self._names[i], value

    def _sample(self) -> list[int]:
        vcpu = self.vcpu
        timer = vcpu.arch_timer
        told = vcpu.irq_level.value
        values = [
            int(timer.vtimer.should_fire()),
            int(bool(told & KVM_ARM_DEV_EL1_VTIMER)),
            int(timer.ptimer.should_fire()),
            int(bool(told & KVM_ARM_DEV_EL1_PTIMER)),
            int(bool(vcpu.hcr & HCR_VI)),
            int(bool(vcpu.hcr & HCR_VF)),
        ]
        pcpu = vcpu.pcpu
        if pcpu is not None:
            values.append(int(pcpu.vtimer_irq.masked))
            if timer.direct_ptimer is not None:
                values.append(int(pcpu.ptimer_irq.masked))
        return values
