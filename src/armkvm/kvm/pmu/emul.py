"""The guest's PMU, after arch/arm64/kvm/pmu-emul.c: PMUv3 with up to six event counters.

Every register access traps (sys_regs: pmu/regs.py). Where the kernel backs a counter with a perf
event, ours is backed by the number of instructions that the vCPU has retired, at EL0, at EL1 or
both, those that trapped and were emulated included: CPU_CYCLES counts instructions too, one a
cycle. SW_INCR and CHAIN are done here. Overflow is an hrtimer, the host PMU's interrupt: it is set
anew at each entry for the instruction at which the next counter overflows, so counters and
interrupts are a function of instructions. In a mode of the clock where an instruction's time is an
estimate, the interrupt may come late, as on hardware.

With the interrupt controller in user space the output is bit KVM_ARM_DEV_PMU of device_irq_level,
under the timers' protocol. Left out: other events (they count nothing), nested virtualisation.

Departure from 6.12: the output does not depend on PMCNTENSET (as architected, and since 6.13).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from armkvm.abi.kvm import KVM_ARM_DEV_PMU
from armkvm.arch.word import M64
from armkvm.host.clock import ONE
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm.kvm_host import REQ_IRQ_PENDING
from armkvm.kvm.vgic.dist import inject_irq

if TYPE_CHECKING:
    from armkvm.host.pcpu import PhysicalCpu
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

CYCLE_IDX: Final = 31
MAX_COUNTERS: Final = 6  # PMCR_EL0.N of the host's PMU: a VM has as many, or fewer
PMUVER: Final = 1  # ID_AA64DFR0_EL1.PMUVer: PMUv3 of Armv8.0
NR_EVENTS: Final = 1 << 10  # as this version numbers them

PMCR_E, PMCR_P, PMCR_C, PMCR_LC, PMCR_LP = 1 << 0, 1 << 1, 1 << 2, 1 << 6, 1 << 7
PMCR_MASK: Final = 0xFF
PMCR_N_SHIFT: Final = 11

EXCLUDE_EL1, EXCLUDE_EL0 = 1 << 31, 1 << 30
EVTYPER_MASK: Final = EXCLUDE_EL1 | EXCLUDE_EL0 | NR_EVENTS - 1

SW_INCR, INST_RETIRED, CPU_CYCLES, CHAIN = 0x00, 0x08, 0x11, 0x1E
COUNTED = (INST_RETIRED, CPU_CYCLES)
PMCEID0: Final = 1 << SW_INCR | 1 << INST_RETIRED | 1 << CPU_CYCLES | 1 << CHAIN

# A counter of the other exception level does not move now: look again after so many instructions.
LOOK_AGAIN: Final = 1000


class Pmu:
    """struct kvm_pmu, and the registers that the kernel keeps among the vCPU's."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.created = False  # KVM_ARM_VCPU_PMU_V3_INIT
        self.irq_num = 0
        self.irq_level = False
        self.pmcr = self.pmselr = self.pmuserenr = 0
        self.pmcnten = self.pminten = self.pmovs = 0
        self.evcntr = [0] * 32  # at the last `fold`; 31 is PMCCNTR
        self.evtyper = [0] * 32  # 31 is PMCCFILTR
        self._since: dict[int, int] = {}  # of the counters that count: `_position` at that time
        # Begun since the last entry: the instruction that did that is not theirs to count.
        self._fresh: set[int] = set()
        self.hrtimer = Hrtimer(self._expire)

    @property
    def implemented(self) -> int:
        """kvm_pmu_valid_counter_mask(): the cycle counter, and as many as PMCR_EL0.N says."""
        return 1 << CYCLE_IDX | (1 << self.vcpu.vm.pmcr_n) - 1

    @property
    def irq_initialized(self) -> bool:
        """User space has set an interrupt number."""
        return self.irq_num != 0

    # what counts, and how far it has come

    def event(self, idx: int) -> int:
        """What a counter is set to count."""
        return CPU_CYCLES if idx == CYCLE_IDX else self.evtyper[idx] & NR_EVENTS - 1

    def _counts(self, idx: int) -> bool:
        """The counter has, in the kernel's words, a perf event, and it is enabled."""
        event = self.event(idx)
        allowed = self.vcpu.vm.pmu_filter
        return (
            event in COUNTED
            and bool(self.pmcr & PMCR_E)
            and bool(self.pmcnten >> idx & 1)
            and (allowed is None or bool(allowed[event]))
        )

    def _position(self, idx: int) -> int:
        """Instructions retired so far at the exception levels that the counter counts."""
        state = self.vcpu.state
        count: int = state.count
        excluded = self.evtyper[idx] & (EXCLUDE_EL1 | EXCLUDE_EL0)
        if not excluded:
            return count
        if excluded == EXCLUDE_EL1 | EXCLUDE_EL0:
            return 0
        el0: int = state.el0_count
        if state.el == 0:
            el0 += count - state.mode_count
        return el0 if excluded == EXCLUDE_EL1 else count - el0

    def _width(self, idx: int) -> int:
        """Bits after which the counter overflows."""
        return 64 if idx == CYCLE_IDX and self.pmcr & PMCR_LC else 32

    def _until_overflow(self, idx: int) -> int:
        """Instructions until it overflows, at the earliest; exact at a level that it counts."""
        size = 1 << self._width(idx)
        passed = self._position(idx) - self._since[idx]
        left = max(size - self.evcntr[idx] % size - passed, 0)
        excluded = EXCLUDE_EL0 if self.vcpu.state.el == 0 else EXCLUDE_EL1
        return max(left, LOOK_AGAIN) if self.evtyper[idx] & excluded else left

    def fold(self) -> None:
        """Bring the counter registers up to date, with the overflows of the time since."""
        for idx in sorted(self._since):
            now = self._position(idx)
            passed, self._since[idx] = now - self._since[idx], now
            self._add(idx, passed)

    def _add(self, idx: int, n: int) -> None:
        before = self.evcntr[idx]
        after = before + n
        self.evcntr[idx] = after & (M64 if idx == CYCLE_IDX else 0xFFFF_FFFF)
        width = self._width(idx)
        overflows = (after >> width) - (before >> width)
        if overflows:
            self.pmovs |= 1 << idx
            if not idx & 1 and idx + 1 < CYCLE_IDX:
                self.increment(1 << idx + 1, CHAIN, overflows)

    def increment(self, mask: int, event: int, n: int = 1) -> None:
        """kvm_pmu_counter_increment(): SW_INCR and CHAIN, on the counters in `mask`."""
        if self.pmcr & PMCR_E:
            for idx in bits(mask & self.pmcnten & self.implemented & ~(1 << CYCLE_IDX)):
                if self.event(idx) == event:
                    self._add(idx, n)

    def reprogram(self) -> None:
        """What counts may have changed. The caller has called `fold` before the change."""
        counting = {idx for idx in bits(self.implemented) if self._counts(idx)}
        self._fresh |= counting - self._since.keys()
        self._since = {idx: self._position(idx) for idx in sorted(counting)}

    def retire_emulated(self) -> None:
        """An instruction that trapped was emulated: it retires and takes its cycle like others."""
        if not self._since:
            return
        elsewhere = EXCLUDE_EL0 if self.vcpu.state.el == 0 else EXCLUDE_EL1
        for idx in self._since:
            if idx not in self._fresh and not self.evtyper[idx] & elsewhere:
                self._add(idx, 1)

    # the output

    def overflow_status(self) -> bool:
        """kvm_pmu_overflow_status(): the interrupt's level."""
        return bool(self.pmcr & PMCR_E and self.pmovs & self.pminten)

    def update_state(self) -> None:
        """kvm_pmu_update_state(): pass a change of the output on."""
        level = self.overflow_status()
        if level != self.irq_level:
            self.irq_level = level
            if self.vcpu.vm.irqchip_in_kernel:
                self._inject(level)

    def _inject(self, level: bool) -> None:
        inject_irq(self.vcpu.vm, self.vcpu, self.irq_num, level, self)

    # around the guest

    def flush_hwstate(self) -> None:
        """kvm_pmu_flush_hwstate(), before the guest."""
        self._fresh.clear()
        self.update_state()

    def set_deadline(self, pcpu: PhysicalCpu) -> None:
        """The host PMU gets its deadline, at the entry itself, where the clock has been set.

        Any earlier, and a clock that follows the host's could be past it when the guest is
        entered: the guest would be left at once, and the next time again.
        """
        if self._since:
            expires = pcpu.ns + self._deadline(pcpu)
            if not self.hrtimer.queued or self.hrtimer.expires != expires:
                self.hrtimer.start(pcpu.hrtimers, expires)
        elif self.hrtimer.queued:
            self.hrtimer.cancel()

    def _deadline(self, pcpu: PhysicalCpu) -> int:
        """Nanoseconds, rounded up: at that time, the instructions have retired."""
        left = min(self._until_overflow(idx) for idx in self._since)
        return left * pcpu.mult + ONE - 1 >> 16

    def sync_hwstate(self) -> None:
        """kvm_pmu_sync_hwstate(), after the guest."""
        self.update_state()

    def _expire(self, now: int) -> int | None:
        """kvm_pmu_perf_overflow(): the host PMU's interrupt. It may be early, never wrong."""
        vcpu = self.vcpu
        pcpu = vcpu.pcpu
        if pcpu is None or not self._since:
            return None  # the next entry sets it anew
        self.fold()
        if self.overflow_status() and not self.irq_level:
            vcpu.make_request(REQ_IRQ_PENDING)
        return now + max(self._deadline(pcpu), 1)

    # life

    def reset(self, unknown: int) -> None:
        """kvm_reset_sys_regs() as far as it concerns us: most of it resets to something UNKNOWN."""
        self._since = {}
        self.hrtimer.cancel()
        self.pmcr = 0  # LC is not RES1: EL0 has AArch32 on these hosts, if not in their guests
        self.pmselr = unknown & 0x1F
        self.pmuserenr = 0
        self.pmcnten = self.pminten = self.pmovs = unknown & self.implemented
        self.evcntr = [unknown & 0xFFFF_FFFF] * CYCLE_IDX + [unknown]
        self.evtyper = [unknown & EVTYPER_MASK] * CYCLE_IDX + [0]

    def enable(self) -> int:
        """kvm_arm_pmu_v3_enable(), on the first run. Returns 0 or a negative errno."""
        if not self.created:
            return -errno.EINVAL
        vm = self.vcpu.vm
        if vm.irqchip_in_kernel:
            if not irq_is_ppi(self.irq_num) and not _valid_spi(vm, self.irq_num):
                return -errno.EINVAL
        elif self.irq_initialized:
            return -errno.EINVAL
        # kvm_vcpu_reload_pmu(): user space may have lowered PMCR_EL0.N, which stays from now on.
        self.pmovs &= self.implemented
        self.pminten &= self.implemented
        self.pmcnten &= self.implemented
        self.reprogram()
        return 0


# The interrupt controller in user space. A vCPU without the feature has an output too: it is low.


def should_notify_user(vcpu: Vcpu) -> bool:
    """kvm_pmu_should_notify_user(), for a VM without an interrupt controller in the kernel."""
    pmu = vcpu.pmu
    level = pmu is not None and pmu.irq_level
    return level != bool(vcpu.irq_level.value & KVM_ARM_DEV_PMU)


def update_run(vcpu: Vcpu) -> None:
    """kvm_pmu_update_run(): write our bit, leave the others."""
    pmu = vcpu.pmu
    told = vcpu.irq_level.value
    high = pmu is not None and pmu.irq_level
    level = told | KVM_ARM_DEV_PMU if high else told & ~KVM_ARM_DEV_PMU
    if level != told:
        vcpu.irq_level.value = level


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, lowest first."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def irq_is_ppi(irq: int) -> bool:
    """A private interrupt of a CPU."""
    return 16 <= irq < 32


def irq_is_spi(irq: int) -> bool:
    """A shared interrupt, as far as the number tells."""
    return 32 <= irq <= 1019


def _valid_spi(vm: Vm, irq: int) -> bool:
    return irq_is_spi(irq) and irq < vm.vgic.nr_irqs
