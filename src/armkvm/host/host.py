"""The host as KVM finds it at initialisation: what kind of machine, how many CPUs.

Two kinds are reproduced from the real thing (Linux 6.12 under QEMU's EL2): an nVHE host with a
GICv2, where the physical timer is emulated, and a VHE host with a GICv3, where it is the
hardware's. The third kind is a host whose interrupt controller has no active state (Raspberry Pi 2
and 3): a timer that screams is silenced by disabling its per-CPU interrupt instead.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from armkvm.abi.kvm import (
    KVM_DEV_TYPE_ARM_VGIC_ITS,
    KVM_DEV_TYPE_ARM_VGIC_V2,
    KVM_DEV_TYPE_ARM_VGIC_V3,
)
from armkvm.host.clock import Clock
from armkvm.host.hrtimer import HrtimerBase
from armkvm.host.pcpu import PerCpuIrq, PhysicalCpu
from armkvm.host.sched import Deterministic, Scheduler
from armkvm.host.turn import Turn


@dataclass(frozen=True)
class HostKind:
    """Properties of a host that KVM's behaviour depends on."""

    name: str
    vhe: bool
    gic: str  # "gicv2", "gicv3" or "" for a controller that is no GIC
    gic_active_state: bool
    ipa_limit: int  # bits of guest physical address
    max_vcpus: int
    breakpoints: int = 6
    watchpoints: int = 4
    el1_32bit: bool = False  # EL1 has AArch32
    ras: bool = False  # the RAS extension: a virtual SError has a syndrome

    @property
    def vgic_types(self) -> tuple[int, ...]:
        """Device types of in-kernel interrupt controllers: those of the host's own kind."""
        if self.gic == "gicv2":
            return (KVM_DEV_TYPE_ARM_VGIC_V2,)
        if self.gic == "gicv3":
            return (KVM_DEV_TYPE_ARM_VGIC_V3, KVM_DEV_TYPE_ARM_VGIC_ITS)
        return ()


KINDS = {
    kind.name: kind
    for kind in (
        HostKind("nvhe-gicv2", False, "gicv2", True, ipa_limit=44, max_vcpus=8, el1_32bit=True),
        HostKind("vhe-gicv3", True, "gicv3", True, ipa_limit=40, max_vcpus=512, ras=True),
        HostKind("nvhe-nogic", False, "", False, ipa_limit=44, max_vcpus=8, el1_32bit=True),
    )
}


class Host:
    """One host: its kind, clock, scheduler and physical CPUs.

    One vCPU has the turn at any moment, and all of them share the first CPU unless something
    holds it. Time is the same everywhere, so one queue holds the timers of all CPUs: the vCPU that
    runs is left when a timer of one that sleeps expires.
    """

    cpu_type = PhysicalCpu

    def __init__(self, kind: str, clock: Clock, sched: Scheduler | None = None) -> None:
        self.kind = KINDS[kind]
        self.clock = clock
        self.sched: Scheduler = sched or Deterministic()
        self.hrtimers = HrtimerBase()
        self.turn = Turn(clock, self.hrtimers)
        self.pcpus: list[PhysicalCpu] = []
        self._lock = threading.Lock()
        self._cpu_up()

    def claim(self, last: PhysicalCpu | None) -> PhysicalCpu:
        """A CPU for a thread that is about to run a vCPU: where it ran last, else a free one.

        The host never runs out: a new CPU comes up when all are taken. Which one it is matters to
        nothing but what earlier vCPUs left on it.
        """
        if last is not None and last.lock.acquire(False):
            return last
        with self._lock:
            for pcpu in self.pcpus:
                if pcpu.lock.acquire(False):
                    return pcpu
            pcpu = self._cpu_up()
            pcpu.lock.acquire()
            return pcpu

    def _cpu_up(self) -> PhysicalCpu:
        """Another CPU, with the per-CPU interrupts as kvm_timer_hyp_init() set them up."""
        pcpu = self.cpu_type(len(self.pcpus), self.clock, hrtimers=self.hrtimers)
        for irq in (pcpu.vtimer_irq, pcpu.ptimer_irq):
            irq.handler = self.timer_handler
            irq.forwarded = self.kind.gic_active_state
        self.pcpus.append(pcpu)
        return pcpu

    def timer_handler(self, irq: PerCpuIrq) -> None:
        """The handler of the guest timers' interrupts: the running vCPU's business."""
        vcpu = irq.pcpu.vcpu
        if vcpu is not None:
            vcpu.arch_timer.handler(irq)
