"""The state of an execution as a number: two executions with the same one have the same future.

Named field by field, so that what is in it can be read, and tested: test_snapshot.py fails when kvm
or host get an attribute that is neither here nor among those that do not matter.
With it goes where each actor stands: its stack's code positions and the plain values in its frames.

Where guests have no end, moments are told from the present one and those in the past are all one,
so that what repeats is the same state. Left out: counters that nobody acts on (statistics), traces.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from armkvm.abi.kvm import KVM_EXIT_INTR, KVM_EXIT_UNKNOWN
from armkvm.arch.timer import NEVER, NS_PER_TICK_SHIFT
from armkvm.check.execution.place import position
from armkvm.check.world.guest import RUN_REGS, RUN_UNION
from armkvm.host.scripted import State
from armkvm.kvm.kvm_host import kvm_get_running_vcpu

if TYPE_CHECKING:
    from armkvm.check.world.world import World
    from armkvm.host.pcpu import PhysicalCpu
    from armkvm.kvm import Vcpu, Vm

# Attributes by class: in the key as they are, in the key in some other form, and without influence.
VCPU: Final = (
    "hcr", "requests", "signal_pending", "mode", "pid", "ran_once", "blocking", "lines_in_hw",
    "mmio_needed", "esr", "initialized", "features", "mp_state", "pause", "reset_state",
    "closed", "twe", "_destroyed",
)  # fmt: skip
VM: Final = (
    "closed", "created_vcpus", "max_vcpus", "features", "irqchip_in_kernel", "vm_dead",
    "counter_offset_set", "timer_ppis_immutable", "nisv_to_user", "system_suspend", "psci_version",
    "_references",
)  # fmt: skip
PCPU: Final = ("number", "stale")
IRQ: Final = (
    "active", "active_source", "enabled", "group", "hw", "line_level", "pending_latch", "priority",
    "source",
)  # fmt: skip
# Its counters do not count here: they would with instructions, which take no time.
PMU: Final = ("created", "irq_level", "pmcr", "pmcnten", "pminten", "pmovs")
DIST: Final = ("initialized", "ready", "enabled", "nr_spis", "vgic_dist_base", "vgic_cpu_base")

_vcpu, _vm = attrgetter(*VCPU), attrgetter(*VM)
_pcpu, _irq, _dist = attrgetter(*PCPU), attrgetter(*IRQ), attrgetter(*DIST)
_pmu = attrgetter(*PMU)
# The count of instructions, which take no time here, and moments.
_COUNT, *_DEADLINES = (
    getattr(State, name).offset for name in ("count", "cntv_cval", "cntp_cval", "hyp_deadline_ns")
)
_ZERO = bytes(8)
When = Callable[[int], int]
_NO_UNION = (KVM_EXIT_UNKNOWN, KVM_EXIT_INTR)


def key(world: World) -> int:
    """The state, as the hash of all of it."""
    return hash(parts(world))


def parts(world: World) -> tuple[object, ...]:
    """All of it."""
    execution = world.execution
    current = execution.current
    when = relative(world.clock.time) if world.endless else absolute
    return (
        when(world.clock.time),
        tuple([_vm_key(vm) for vm in world.vms]),
        tuple([_vcpu_key(vcpu, when) for vcpu in world.vcpus]),
        tuple([_pcpu_key(pcpu, world, when) for pcpu in world.host.pcpus]),
        # Where one that runs or has ended stood before, nobody asks; the first is at position(2).
        tuple([
            (a.done, a.started, a.why, a is current or a.done or a.position)
            for a in execution.actors
        ]),
        position(),
        tuple([vmm.key() for vmm in world.vmms]),
        world.monitor.key(),
        world.lines_in_flight,
        tuple([a.number for a in sorted(world.turn.resched, key=_number)]),
        tuple([when(t.expires) for t in world.host.hrtimers.timers]),
        tuple(getattr(world.host, "static_keys", {}).items()),
    )  # fmt: skip


def _number(actor: Any) -> int:
    number: int = actor.number
    return number


def absolute(ns: int) -> int:
    """A moment as it is."""
    return ns


def relative(now: int) -> When:
    """A moment from now; the past is all one."""
    return lambda ns: NEVER if ns >= NEVER else max(ns - now, 0)


def _state(vcpu: Vcpu, when: When) -> object:
    """The registers; deadlines among them as moments."""
    image = bytearray(vcpu.state)
    image[_COUNT : _COUNT + 8] = _ZERO
    if when is absolute:
        return bytes(image)
    for at in _DEADLINES:
        image[at : at + 8] = _ZERO
    s = vcpu.state
    return (
        bytes(image),
        when(s.hyp_deadline_ns),
        when(s.cntv_cval + s.cntvoff << NS_PER_TICK_SHIFT),
        when(s.cntp_cval + s.cntpoff << NS_PER_TICK_SHIFT),
    )


def _vcpu_key(vcpu: Vcpu, when: When) -> tuple[object, ...]:
    timer = vcpu.arch_timer
    cpu: Any = vcpu.cpu
    run = vcpu.run_struct
    return (
        _vcpu(vcpu),
        _state(vcpu, when),
        bytes(memoryview(vcpu.pages)[:RUN_UNION]),
        None if run.exit_reason in _NO_UNION else bytes(memoryview(vcpu.pages)[RUN_UNION:RUN_REGS]),
        vcpu.irq_level.value,
        cpu.key(),
        tuple([
            (
                t.level,
                # What was saved before the registers went to the hardware is read by nobody.
                None if t.loaded_on is not None else t.ctl,
                None
                if t.loaded_on is not None
                else when(t.cval + t.offset.value << NS_PER_TICK_SHIFT),
                when(t.hrtimer.expires) if t.hrtimer.queued else -1,
            )
            for t in timer.timers
        ]),
        timer.enabled,
        when(timer.bg_timer.expires) if timer.bg_timer.queued else -1,
        vcpu.pcpu.number if vcpu.pcpu else -1,
        vcpu.last_pcpu.number if vcpu.last_pcpu else -1,
        vcpu.task.woken and (vcpu.blocking or vcpu.stopped or vcpu.pause),
        vcpu.mutex.locked(),
        _vgic_key(vcpu) if vcpu.vgic_cpu is not None else None,
        _pmu(vcpu.pmu) if vcpu.pmu is not None else None,
    )  # fmt: skip


def _vgic_key(vcpu: Vcpu) -> tuple[object, ...]:
    vgic = vcpu.vgic_cpu
    assert vgic is not None
    return (
        tuple([(irq.intid, _irq(irq)) for irq in vgic.private_irqs if irq.hw or irq.enabled]),
        tuple([irq.intid for irq in vgic.ap_list]),
        tuple([irq.intid for irq in vgic.in_lrs]),
    )


def _vm_key(vm: Vm) -> tuple[object, ...]:
    return (
        _vm(vm),
        vm.voffset.value,
        vm.poffset.value,
        tuple(vm.timer_ppi),
        len(vm.vcpus),
        vm.lock.locked(),
        vm.config_lock.locked(),
        vm.slots_lock.locked(),
        vm.halt_lock.locked(),
        len(vm.mmio_bus.ranges),
        _dist(vm.vgic) if vm.irqchip_in_kernel else None,
    )


def _pcpu_key(pcpu: PhysicalCpu, world: World, when: When) -> tuple[object, ...]:
    v, p = pcpu.vtimer_irq, pcpu.ptimer_irq
    loaded = kvm_get_running_vcpu(pcpu)
    return (
        _pcpu(pcpu),
        when(pcpu._deadline),
        loaded.vcpu_id if loaded is not None else -1,
        _whose(pcpu.state, world),
        v.enabled, v.active, p.enabled, p.active,
        pcpu.lock.locked(),
    )  # fmt: skip


def _whose(state: object, world: World) -> int:
    """The vCPU whose registers a physical CPU has."""
    if state is None:
        return -1
    for n, vcpu in enumerate(world.vcpus):
        if vcpu.state is state:
            return n
    return -2
