"""What must hold, with its source; and the monitor that watches an execution for it.

Each property is one sentence of the ABI or of the architecture. The monitor computes a timer's
output from the registers by itself, as the architecture defines it, and never asks the hypervisor
what it thinks. `seen` counts how often a property's trigger was met: one that was never met says
nothing, and a run whose scenario promised it fails as vacuous.

Kinds: *always* holds at every step; *eventually* holds when nobody can go on; *sometimes* is met
in at least one schedule.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armkvm.abi import kvm as k
from armkvm.arch.hcr import HCR_VF, HCR_VI
from armkvm.arch.timer import CTL_ENABLE, NEVER, NS_PER_TICK_SHIFT, armed
from armkvm.arch.word import M64
from armkvm.check.execution.actors import Violation
from armkvm.check.world.guest import guest_cpu
from armkvm.host.scripted import PSTATE_I, Mrs, Msr, Op, Wfi

if TYPE_CHECKING:
    from armkvm.check.world.world import World
    from armkvm.host.pcpu import PhysicalCpu
    from armkvm.kvm import Vcpu

BITS = (k.KVM_ARM_DEV_EL1_VTIMER, k.KVM_ARM_DEV_EL1_PTIMER)
TIMERS = k.KVM_ARM_DEV_EL1_VTIMER | k.KVM_ARM_DEV_EL1_PTIMER
OURS = k.KVM_ARM_DEV_EL1_VTIMER | k.KVM_ARM_DEV_EL1_PTIMER | k.KVM_ARM_DEV_PMU
LINES = HCR_VF | HCR_VI
STORM = 4  # exits in a row without an instruction in between


@dataclass(frozen=True)
class Property:
    """One sentence, and where it comes from."""

    name: str
    kind: str
    sentence: str
    source: str


_API = "api.rst 8.9 (KVM_CAP_ARM_USER_IRQ)"
PROPERTIES = {
    p.name: p
    for p in (
        Property("I0", "always", "Neither a guest nor user space makes the host fail or hang.",
                 "review of the 2017 patch: could an unprivileged user bring the host down?"),
        Property("I1", "always", "No guest instruction runs while a level differs from what user "
                 "space was told at that entry, nor while one is high and untold.", _API),
        Property("I2", "always", "On every return that is not immediate_exit's, the bits are the "
                 "outputs of that moment.", _API),
        Property("I3", "always", "A change of a level forces one return; a level that stays lets "
                 "the guest get on.", _API),
        Property("I4", "always", "A forced return is EINTR with KVM_EXIT_INTR; PC stands, and no "
                 "MMIO access is lost or done twice.", _API + ", 5 (kvm_run)"),
        Property("I5", "always", "The bits move only in VMs whose interrupt controller is in user "
                 "space; bits that mean nothing keep their values.", _API),
        Property("I6", "eventually", "WFI sleeps exactly while no line is high and no change of a "
                 "level is untold; a deadline, a line or a signal ends it.",
                 "kvm_arch_vcpu_runnable(), kvm_timer_blocking()"),
        Property("I7", "sometimes", "ENABLE and IMASK lower an output whose time has come; a low "
                 "output interrupts nobody.",
                 "Arm ARM D11.2.4"),
        Property("I8", "always", "What one VM does to a physical CPU's interrupts, the next VM "
                 "there does not find.", "d60d8b64280c"),
        Property("I9", "always", "An interrupt controller appears in the kernel only while no vCPU "
                 "is in an ioctl and none has ever run; then every vCPU has its private interrupts "
                 "and every enabled timer its mapping. Without one in the kernel a guest finds no "
                 "registers of a GICv3.", "7330672befe6, b3aa9283c0c5; 3e6245ebe7ef"),
        Property("I10", "always", "KVM_IRQ_LINE takes CPU lines without and PPIs with an interrupt "
                 "controller in the kernel, and drives those of the vCPU that it names.",
                 "api.rst 4.25"),
        Property("I11", "always", "Counters, CVAL and TVAL are what the architecture makes of "
                 "offset and time; TVAL is signed.", "Arm ARM D11.2.4; 8fa761624871"),
        Property("I12", "always", "A reset switches the timers off, keeps the lines that user "
                 "space drives, and the levels are told on the next run.",
                 "kvm_timer_vcpu_reset(), vcpu_reset_hcr() of 6.12"),
        Property("I13", "eventually", "A vCPU that is saved at any moment and restored elsewhere "
                 "loses no interrupt.", "1a74847885cc"),
        Property("I14", "eventually", "An enabled timer that is not masked and whose time has come "
                 "is delivered.", "245715cbe83c, b450dcce93bc"),
        Property("I15", "always", "No timer, reference or counter of the host outlives its VM.",
                 "f1d7231cede9, 38d7aacca092"),
    )
}  # fmt: skip


def output(vcpu: Vcpu, which: int, now: int) -> bool:
    """A timer's output at a host time in ns: ENABLE, not IMASK, condition met."""
    ctl, cval, offset = registers(vcpu, which)
    return armed(ctl) and cval <= (now >> NS_PER_TICK_SHIFT) - offset & M64


def registers(vcpu: Vcpu, which: int) -> tuple[int, int, int]:
    """CTL, CVAL and offset: the hardware's while the timer is loaded.

    And while the guest runs, whatever the hypervisor believes: it is the hardware that it programs.
    """
    ctx = vcpu.arch_timer.timers[which]
    if ctx.loaded_on is None and not (ctx.direct and guest_cpu(vcpu).entered):
        return ctx.ctl, ctx.cval, ctx.offset.value
    s = vcpu.state
    if which == 0:
        return s.cntv_ctl, s.cntv_cval, s.cntvoff
    return s.cntp_ctl, s.cntp_cval, s.cntpoff


def next_rise(vcpu: Vcpu, now: int) -> int:
    """When the next output rises by itself, in ns."""
    due = NEVER
    state = vcpu.state
    for which, ctx in enumerate(vcpu.arch_timer.timers):
        if ctx.loaded_on is None:
            ctl = ctx.ctl
        else:
            ctl = state.cntp_ctl if which else state.cntv_ctl
        if armed(ctl):
            _ctl, cval, offset = registers(vcpu, which)
            ns = (cval + offset & M64) << NS_PER_TICK_SHIFT
            if now < ns < due:
                due = ns
    return due


def overflow(vcpu: Vcpu) -> bool:
    """The PMU's output (Arm ARM D13.3): PMCR.E, and a counter's overflow flag and enable."""
    pmu = vcpu.pmu
    return pmu is not None and bool(pmu.pmcr & 1 and pmu.pmovs & pmu.pminten)


def levels(vcpu: Vcpu, now: int) -> int:
    """device_irq_level as it should be."""
    timers = sum(bit for which, bit in enumerate(BITS) if output(vcpu, which, now))
    return timers | (k.KVM_ARM_DEV_PMU if overflow(vcpu) else 0)


class _Watched:
    """What the monitor remembers of one vCPU."""

    __slots__ = ("emulated", "exits", "expected", "pc", "told")

    def __init__(self) -> None:
        self.told = 0  # the word at the start of KVM_RUN
        self.expected: int | None = None  # what update_run has to write
        self.exits = 0  # since the last instruction
        self.pc = 0
        self.emulated = False  # its last operation is one that the hypervisor steps over


class Monitor:
    """Watches one execution."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: Counter[str] = Counter()
        self.ignored: frozenset[str] = frozenset()
        self.restored = False  # a guest goes on from what was saved: a loss is that of I13
        self.owes_nobody = False  # also what fairness would owe a vCPU
        self._of: dict[Vcpu, _Watched] = {}
        world.system.trace.kvm_vcpu_wakeup = self._woken
        world.system.trace.kvm_exit = self._exit

    def _watched(self, vcpu: Vcpu) -> _Watched:
        found = self._of.get(vcpu)
        if found is None:
            found = self._of[vcpu] = _Watched()
        return found

    def fail(self, prop: str, detail: str) -> None:
        """A finding: the execution ends here."""
        if prop in self.ignored:
            return
        self.world.execution.fail(Violation(prop, detail))

    def find(self, prop: str, detail: str) -> None:
        """A finding when the execution is over."""
        raise Violation(prop, detail)

    def key(self) -> tuple[object, ...]:
        """What later verdicts depend on."""
        watched = (self._of.get(vcpu) for vcpu in self.world.vcpus)
        return tuple(w and (w.told, w.expected, w.exits, w.pc, w.emulated) for w in watched)

    # KVM_RUN

    def before_run(self, vcpu: Vcpu) -> None:
        """User space calls."""
        w = self._watched(vcpu)
        w.told = vcpu.irq_level.value
        w.expected = None
        pending = vcpu.mmio_needed and vcpu.run_struct.exit_reason == k.KVM_EXIT_MMIO
        w.pc = vcpu.state.pc + 4 * pending
        guest_cpu(vcpu).stop_pc = w.pc

    def before_update(self, vcpu: Vcpu) -> None:
        """Nothing comes between this and kvm_timer_update_run()."""
        now = self.world.clock.ns
        self._watched(vcpu).expected = levels(vcpu, now)
        for which in (0, 1):
            ctl, cval, offset = registers(vcpu, which)
            if cval <= (now >> NS_PER_TICK_SHIFT) - offset & M64 and cval and ctl != CTL_ENABLE:
                self.seen["I7"] += 1

    def after_run(self, vcpu: Vcpu, ret: int) -> None:
        """KVM_RUN has returned."""
        w = self._watched(vcpu)
        bits = vcpu.irq_level.value
        if bits & ~OURS != w.told & ~OURS:
            self.fail("I5", f"bits {w.told:#x} became {bits:#x}")
        if bits & ~OURS:
            self.seen["I5"] += 1
        if vcpu.vm.irqchip_in_kernel:
            if bits != w.told:
                self.fail("I5", f"a VM with a vgic was told {bits:#x}")
            self.seen["I5"] += 1
        elif w.expected is not None:
            self.seen["I2"] += 1
            if bits & OURS != w.expected:
                self.fail("I2", f"told {bits & OURS:#x}, the outputs were {w.expected:#x}")
        if ret == -errno.EINTR:
            self._interrupted(vcpu, w, bits)
        elif ret < 0 and ret not in (-errno.ENOEXEC, -errno.EIO, -errno.EBADF, -errno.EBUSY,
                                     -errno.ENXIO, -errno.EINVAL, -errno.ENODEV):  # fmt: skip
            self.fail("I4", f"KVM_RUN failed with {errno.errorcode.get(-ret, ret)}")

    def _interrupted(self, vcpu: Vcpu, w: _Watched, bits: int) -> None:
        immediate = vcpu.run_struct.immediate_exit
        pc = vcpu.state.pc
        stopped, begins = guest_cpu(vcpu).stop_pc, guest_cpu(vcpu).entries
        if pc not in (w.pc, stopped, stopped + 4 * w.emulated) and pc not in begins:
            self.fail("I4", f"PC moved from {stopped:#x} to {pc:#x} without an instruction")
        self.seen["I4"] += 1
        if immediate:
            return
        if vcpu.run_struct.exit_reason != k.KVM_EXIT_INTR:
            self.fail("I4", f"EINTR with exit_reason {vcpu.run_struct.exit_reason}")
        if bits != w.told:
            self.seen["I3"] += 1
            w.exits = 0
        else:
            w.exits += 1
            if w.exits > STORM:
                self.fail("I3", f"{w.exits} returns in a row that tell nothing new")

    # the guest

    def instruction(self, vcpu: Vcpu, op: Op, entry: bool) -> None:
        """A guest instruction is about to execute."""
        w = self._watched(vcpu)
        now = self.world.clock.ns
        actual = levels(vcpu, now)
        pcpu = vcpu.pcpu
        assert pcpu is not None
        w.emulated = isinstance(op, Wfi | Msr | Mrs)
        w.pc = -1  # from here on it counts where the guest stops
        if vcpu.vm.irqchip_in_kernel:
            self._entered_with_vgic(vcpu, pcpu, actual)
        else:
            told = vcpu.irq_level.value & OURS
            if actual & ~told:
                self.fail("I1", f"the guest runs with {actual:#x} high, told {told:#x}")
            if entry:
                self.seen["I1"] += 1
                if actual != told:
                    self.fail("I1", f"entered with outputs {actual:#x}, told {told:#x}")
            if not actual & 1 and (entry and self._silenced(pcpu)):
                self.fail("I8", "the host's timer interrupt is masked, the timer is low")
            if self._lines(vcpu) != vcpu.hcr & LINES and not self.world.lines_in_flight:
                self.fail("I6", "the guest runs on and does not see its line")
        if entry:
            self.seen["I8"] += 1
        w.exits = 0

    def _lines(self, vcpu: Vcpu) -> int:
        return int(vcpu.state.hcr_vi << 7 | vcpu.state.hcr_vf << 6)

    @staticmethod
    def _silenced(pcpu: PhysicalCpu) -> bool:
        return pcpu.vtimer_irq.active or not pcpu.vtimer_irq.enabled

    def _entered_with_vgic(self, vcpu: Vcpu, pcpu: PhysicalCpu, actual: int) -> None:
        """The host's interrupt is masked only for a guest that has the virtual one."""
        vgic = vcpu.vgic_cpu
        if vgic is None:
            return
        if not pcpu.vtimer_irq.enabled:
            self.fail("I8", "the host's timer interrupt is disabled, the VM has a vgic")
        for which, bit in enumerate(BITS):
            irq = vgic.private_irqs[vcpu.arch_timer.timers[which].irq]
            if actual & bit and vgic.dist.enabled and irq.enabled:
                if irq.vcpu is None and not any(lr.value for lr in vgic.lrs) and not irq.active:
                    self.fail("I14", "a timer is high and the vgic has not been told")

    def acknowledged(self, vcpu: Vcpu, intid: int) -> None:
        """A guest takes an interrupt from the vgic."""
        actual = levels(vcpu, self.world.clock.ns)
        for which, bit in enumerate(BITS):
            if intid == vcpu.arch_timer.timers[which].irq:
                self.seen["I7"] += 1
                if not actual & bit:
                    self.fail("I7", f"interrupt {intid}, and its timer is low")

    def _exit(self, _vcpu_id: int, code: int, _ec: int, _pc: int) -> None:
        """An exit to the hypervisor."""
        vcpu = self._mine()
        if vcpu is not None and code == 0:
            w = self._watched(vcpu)
            w.exits += 1
            if w.exits > STORM + 2:
                self.fail("I3", f"{w.exits} host interrupts, and the guest gets nowhere")

    def _mine(self) -> Vcpu | None:
        actor = self.world.execution.current
        return self.world._running.get(actor) if actor is not None else None

    # sleeping

    def reason_to_run(self, vcpu: Vcpu) -> str:
        """Why a vCPU must not sleep."""
        if vcpu.signal_pending:
            return "a signal is pending"
        if vcpu.closed or vcpu.vm.vm_dead:
            return "it is closed"
        if vcpu.stopped or vcpu.pause:
            return ""
        if vcpu.hcr & LINES:
            return "a line is high"
        if vcpu.vm.irqchip_in_kernel:
            vgic = vcpu.vgic_cpu
            if vgic is not None and vgic.pending_irq():
                return "the vgic has an interrupt"
            return ""
        now = self.world.clock.ns
        told = vcpu.irq_level.value & OURS
        actual = levels(vcpu, now)
        if actual != told:
            return f"outputs are {actual:#x}, told {told:#x}"
        return ""

    def sleeps(self, vcpu: Vcpu) -> None:
        """A vCPU is about to sleep."""
        self.seen["I6"] += 1

    def _woken(self, vcpu_id: int, _ns: int, waited: bool) -> None:
        """kvm_vcpu_halt() is over."""
        if waited or self.world.execution.over:
            return
        vcpu = self._mine()
        if vcpu is not None and vcpu.vcpu_id == vcpu_id and vcpu.pcpu is not None:
            if not self.reason_to_run(vcpu):
                self.fail("I6", "WFI does not sleep, and there is no reason why")

    def quiet(self, for_good: bool) -> None:
        """No thread can go on: who sleeps now sleeps with reason, or is lost."""
        if self.world.hrtimer_due() or ("I6" in self.ignored and not for_good):
            return  # its interrupt comes first
        for vcpu in self.world._running.values():
            why = self.reason_to_run(vcpu)
            if why:
                prop = "I13" if self.restored else "I6"
                raise Violation(prop, f"vCPU {vcpu.vcpu_id} sleeps for good, but {why}")
        if for_good:
            waiting = [f"{a.name} ({a.why or a.place})" for a in self.world.execution.actors
                       if not a.done and not a.host]  # fmt: skip
            locked = [a for a in self.world.execution.actors if a.why == "waits for a lock"]
            if locked:
                raise Violation("I0", f"nobody can go on: {', '.join(waiting)}")
            prop = "I13" if self.restored else "I14"
            raise Violation(prop, f"nothing will ever happen again: {', '.join(waiting)}")

    def owed(self) -> int:
        """vCPUs, as bits, that have a timer high, interrupts open, and have not taken it."""
        if self.owes_nobody:
            return 0
        now = self.world.clock.time
        return sum(
            1 << n
            for n, vcpu in enumerate(self.world.vcpus)
            if not vcpu.cpu.pstate & PSTATE_I and levels(vcpu, now) & TIMERS
        )

    # at every step

    def step(self) -> None:
        """Between any two steps: what the vgic's creation has to keep."""
        for vm in self.world.vms:
            if not vm.irqchip_in_kernel:
                continue
            for vcpu in vm.vcpus:
                if vcpu.vgic_cpu is None:
                    self.fail("I9", f"a vgic, and vCPU {vcpu.vcpu_id} has no private interrupts")
                elif vcpu.arch_timer.enabled:
                    irq = vcpu.vgic_cpu.private_irqs[vcpu.arch_timer.vtimer.irq]
                    if not irq.hw:
                        self.fail("I9", f"vCPU {vcpu.vcpu_id}'s timer is enabled and not mapped "
                                  "to the vgic that came later")  # fmt: skip

    # the end

    def closed(self) -> None:
        """All files are closed."""
        host = self.world.host
        self.seen["I15"] += 1
        if host.hrtimers.timers:
            raise Violation("I15", f"{len(host.hrtimers.timers)} timers are still armed")
        for pcpu in host.pcpus:
            if pcpu.state is not None or pcpu.vcpu is not None:
                raise Violation("I15", f"CPU {pcpu.number} still has a guest's state installed")
            if pcpu.lock.locked():
                raise Violation("I15", f"CPU {pcpu.number} is still taken")
        for name, value in getattr(host, "static_keys", {}).items():
            if value:
                raise Violation("I15", f"static key {name} is {value} with no VM left")
