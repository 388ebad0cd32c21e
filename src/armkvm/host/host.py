"""The host as KVM finds it at initialisation: what kind of machine, how many CPUs.

Two kinds are reproduced from the real thing (Linux 6.12 under QEMU's EL2): an nVHE host with a
GICv2, where the physical timer is emulated, and a VHE host with a GICv3, where it is the
hardware's. The third kind is a host whose interrupt controller has no active state (Raspberry Pi 2
and 3): a timer that screams is silenced by disabling its per-CPU interrupt instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from armkvm.abi.kvm import (
    KVM_DEV_TYPE_ARM_VGIC_ITS,
    KVM_DEV_TYPE_ARM_VGIC_V2,
    KVM_DEV_TYPE_ARM_VGIC_V3,
)
from armkvm.host.clock import Clock
from armkvm.host.hrtimer import HrtimerBase
from armkvm.host.pcpu import PerCpuHandler, PhysicalCpu
from armkvm.host.random import Random
from armkvm.host.sched import Deterministic, Scheduler
from armkvm.host.turn import Turn

# MIDR_EL1 of the hosts' CPUs, from their Technical Reference Manuals: Arm's, r1p0, r4p1, r0p4.
CORTEX_A57 = 0x411F_D070
CORTEX_A76 = 0x414F_D0B1
CORTEX_A53 = 0x410F_D034


@dataclass(frozen=True)
class HostKind:
    """Properties of a host that KVM's behaviour depends on."""

    name: str
    vhe: bool
    gic: str  # "gicv2", "gicv3" or "" for a controller that is no GIC
    gic_active_state: bool
    ipa_limit: int  # bits of guest physical address
    max_vcpus: int
    midr: int  # MIDR_EL1: whose CPUs they are, which, and their revision
    ctr: int = 0x8444_C004  # CTR_EL0: lines of 64 bytes; new code takes cleaning, invalidation
    ras: bool = False  # the RAS extension: a virtual SError has a syndrome

    @property
    def vgic_types(self) -> tuple[int, ...]:
        """Device types of in-kernel interrupt controllers: those of the host's own kind."""
        if self.gic == "gicv2":
            return (KVM_DEV_TYPE_ARM_VGIC_V2,)
        if self.gic == "gicv3":
            return (KVM_DEV_TYPE_ARM_VGIC_V3, KVM_DEV_TYPE_ARM_VGIC_ITS)
        return ()


_A57 = HostKind("nvhe-gicv2", False, "gicv2", True, ipa_limit=44, max_vcpus=8, midr=CORTEX_A57)
_A76 = HostKind(
    "vhe-gicv3", True, "gicv3", True, ipa_limit=40, max_vcpus=512, midr=CORTEX_A76, ras=True
)
_A53 = HostKind("nvhe-nogic", False, "", False, ipa_limit=44, max_vcpus=8, midr=CORTEX_A53)
KINDS = {kind.name: kind for kind in (_A57, _A76, _A53)}


Claim = Callable[[PhysicalCpu | None], PhysicalCpu]


@dataclass
class HostParts:
    """What a host is made of. Its own way of making them is `usual`; a checker brings others.

    `pcpus` are the CPUs that are up. `claim` picks one for a thread that is about to run a vCPU,
    told where that ran last, and returns it with its lock held.
    """

    hrtimers: HrtimerBase
    turn: Turn
    pcpus: list[PhysicalCpu]
    claim: Claim | None = None  # Host.claim_free

    @classmethod
    def usual(cls, clock: Clock) -> HostParts:
        """One CPU, and one queue of timers for all that come up later."""
        hrtimers = HrtimerBase()
        first = PhysicalCpu(0, clock, hrtimers=hrtimers)
        return cls(hrtimers, Turn(clock, hrtimers), [first])


class Host:
    """One host: its kind, clock, scheduler and physical CPUs.

    One vCPU has the turn at any moment, and all of them share the first CPU unless something
    holds it. Time is the same everywhere, so one queue holds the timers of all CPUs: the vCPU that
    runs is left when a timer of one that sleeps expires.
    """

    def __init__(
        self,
        kind: str,
        clock: Clock,
        sched: Scheduler | None = None,
        parts: HostParts | None = None,
        seed: int | None = None,
    ) -> None:
        parts = parts or HostParts.usual(clock)
        self.kind = KINDS[kind]
        self.clock = clock
        # In virtual time a run is a function of its inputs, of which the seed is one.
        self.random = Random(0 if seed is None and clock.jumps else seed)
        self.sched: Scheduler = sched or Deterministic()
        self.hrtimers = parts.hrtimers
        self.turn = parts.turn
        self.pcpus = parts.pcpus
        self.claim = parts.claim or self.claim_free
        self._lock = threading.Lock()
        self._handler: PerCpuHandler | None = None
        self._forwarded = False

    def claim_free(self, last: PhysicalCpu | None) -> PhysicalCpu:
        """Where the thread ran last, else a free CPU.

        The host never runs out: a new CPU comes up when all are taken. Which one it is matters to
        nothing but what earlier vCPUs left on it.
        """
        if last is not None and last.lock.acquire(False):
            return last
        with self._lock:
            for pcpu in self.pcpus:
                if pcpu.lock.acquire(False):
                    return pcpu
            pcpu = PhysicalCpu(len(self.pcpus), self.clock, hrtimers=self.hrtimers)
            self._set_up(pcpu)
            self.pcpus.append(pcpu)
            pcpu.lock.acquire()
            return pcpu

    def request_percpu_irq(self, handler: PerCpuHandler, *, forwarded: bool) -> None:
        """Who takes the guest timers' interrupts, on every CPU that is up or comes up.

        `forwarded` (irq_set_vcpu_affinity): the guest deactivates them, not the host.
        """
        self._handler, self._forwarded = handler, forwarded
        for pcpu in self.pcpus:
            self._set_up(pcpu)

    def _set_up(self, pcpu: PhysicalCpu) -> None:
        for irq in (pcpu.vtimer_irq, pcpu.ptimer_irq):
            irq.handler = self._handler
            irq.forwarded = self._forwarded
