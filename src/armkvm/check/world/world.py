"""What surrounds the hypervisor while it is checked: host, clock, turns, and the host's own actors.

The host has a fixed number of physical CPUs, and vCPUs run on several of them at once: the turn
that makes production deterministic (host/turn.py) gives way to the explorer. Time stands unless the
actor *time* moves it to the next deadline, which it may do between any two steps: a deadline can
fall anywhere. Further actors are the host's timer interrupt (*hrtimer*) and, where a scenario asks
for it, its scheduler (*sched*), which interrupts a running vCPU and takes its CPU away.

Left out: the tick; time that passes without reaching a deadline, which changes no level.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from armkvm.arch.timer import NEVER, NS_PER_TICK_SHIFT
from armkvm.check.execution.actors import SHARED, Actor, Execution
from armkvm.check.execution.locks import belongs
from armkvm.check.world.guest import CheckBackend, Guest, guest_cpu
from armkvm.check.world.properties import Monitor, next_rise
from armkvm.host import sched
from armkvm.host.clock import Clock
from armkvm.host.host import HostParts
from armkvm.host.hrtimer import HrtimerBase
from armkvm.host.pcpu import PhysicalCpu
from armkvm.host.turn import Task, Turn
from armkvm.kvm import System, Vcpu, Vm

if TYPE_CHECKING:
    from armkvm.check.world.timeline import Recorder

START_NS = 1 << 20
PSCI_FEATURES = 1 << 2  # KVM_ARM_VCPU_PSCI_0_2


class CheckClock(Clock):
    """Time that stands."""

    mode = "check"
    jumps = True

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        super().__init__(0)
        self.time = START_NS

    @property
    def ns(self) -> int:
        """The time, for host and kvm: who has read it depends on it."""
        self.execution.touched |= SHARED
        return self.time

    @ns.setter
    def ns(self, ns: int) -> None:
        self.time = ns

    def load(self, pcpu: PhysicalCpu) -> None:
        """A vCPU comes to a CPU."""

    def enter(self, pcpu: PhysicalCpu) -> None:
        """Before guest code: nothing to tell, the guest asks us."""

    def leave(self, pcpu: PhysicalCpu) -> None:
        """After guest code."""

    def advance(self, pcpu: PhysicalCpu, ns: int) -> None:
        """The hypervisor's work takes no time of its own."""

    def work(self, ns: int) -> None:
        """The host works: somebody else may come in between."""
        self.execution.point("host-works")

    def sleep(self, cond: threading.Condition, deadline: int | None) -> int:
        """Nobody idles here: the actor *time* lets it pass."""
        return self.ns


class CheckPcpu(PhysicalCpu):
    """A physical CPU that has no time of its own."""

    @property
    def ns(self) -> int:
        """The clock's."""
        return self.clock.ns

    @ns.setter
    def ns(self, ns: int) -> None:
        pass


class CheckHrtimers(HrtimerBase):
    """The host's timers, whoever's CPU takes their interrupt."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self.execution = execution

    def run(self, now: int) -> int:
        """Expire what is due."""
        self.execution.interrupted += 1
        try:
            return super().run(now)
        finally:
            self.execution.interrupted -= 1


class FreeTask(Task):
    """What turns know of a vCPU."""

    __slots__ = ("gone", "vcpu")

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.vcpu: Vcpu | None = None
        self.gone = False


class FreeTurn(Turn):
    """host/turn.py with nobody's turn: whoever has a CPU runs.

    The turn that hands itself on is not explored: tests/host/test_turn.py asks after each step
    whether it is in one of its legal states.
    """

    def __init__(self, world: World, timers: HrtimerBase) -> None:
        super().__init__(world.clock, timers)
        self.slice_ns = -1  # who is asked to give way has used its time up
        self.world = world
        self.resched: set[Actor] = set()

    @property
    def crowded(self) -> bool:
        """The scheduler wants this thread's CPU."""
        return self.world.execution.current in self.resched

    @crowded.setter
    def crowded(self, crowded: bool) -> None:
        """Nobody counts who is runnable."""

    def join(self) -> FreeTask:
        """A vCPU was created."""
        return FreeTask()

    def leave(self, task: Task) -> None:
        """A vCPU is gone."""
        _free(task).gone = True

    def forget(self, task: Task) -> None:
        """A vCPU was dropped: with its world."""

    def announce(self, task: Task) -> None:
        """A thread is about to run it."""

    def take(self, task: Task) -> None:
        """At once; the CPU is another matter."""
        if _free(task).gone:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def give(self, task: Task) -> None:
        """Nothing to give."""

    def pass_on(self, task: Task) -> None:
        """Its CPU is free for others."""
        self.resched.discard(self.world.execution.current)

    def hand_over(self, task: Task) -> None:
        """The target of an interrupt that has no CPU gets the sender's: at once, or later."""
        execution, target = self.world.execution, _free(task).vcpu
        execution.touch(target)
        sender = execution.current
        if sender is None or target is None or target.pcpu is not None:
            return
        if self.world.running(sender) in (None, target):
            return
        if all(pcpu.lock.locked() for pcpu in self.world.host.pcpus):
            if execution.choose(["goes on", "hands over"]):
                self.resched.add(sender)

    def sleep(self, task: Task) -> None:
        """Until woken."""
        free = _free(task)
        if not free.woken:
            self.world.execution.block(lambda: free.woken or free.gone, "asleep")

    def wake(self, task: Task) -> None:
        """From any thread."""
        self.world.execution.touch(_free(task).vcpu)
        task.woken = True

    @contextmanager
    def time_stands(self) -> Iterator[None]:
        """Time passes as the explorer says, never by itself."""
        yield


def _free(task: Task) -> FreeTask:
    assert isinstance(task, FreeTask)
    return task


class World:
    """One host, and what runs on it."""

    def __init__(
        self,
        execution: Execution,
        *,
        kind: str = "nvhe-gicv2",
        cpus: int = 1,
        migrate: bool = False,
        resched: int = 0,
        endless: bool = False,
    ) -> None:
        self.execution = execution
        self.migrate = migrate
        self.endless = endless
        self.clock = CheckClock(execution)
        self.backend = CheckBackend(self)
        hrtimers = CheckHrtimers(execution)
        self.turn = FreeTurn(self, hrtimers)
        pcpus: list[PhysicalCpu] = [
            CheckPcpu(n, self.clock, tick_period=NEVER, hrtimers=hrtimers) for n in range(cpus)
        ]
        parts = HostParts(hrtimers, self.turn, pcpus, self.claim)
        self.system = System(kind, self.clock, backend=self.backend, sched=self, parts=parts)
        self.host = self.system.host
        self.vms: list[Vm] = []
        self.vcpus: list[Vcpu] = []
        self.vmms: list[Any] = []  # whatever of user space has a key()
        self.hooks: dict[str, Callable[[Any], None]] = {}  # by point: what a variant does there
        self.monitor = Monitor(self)
        self.at_end: list[Callable[[], None]] = []  # what a scenario checks when all is done
        self.recorder: Recorder | None = None  # for a timeline
        execution.quiet = self._quiet
        execution.seen = self._seen
        self.owed = -1  # since the last choice, all the way: see armkvm.check.explorer.liveness
        self.lines_in_flight = 0  # threads inside KVM_IRQ_LINE
        self._running: dict[Actor, Vcpu] = {}
        self.scheduler: Actor | None = None
        self._resched = resched

    # building

    def vm(self) -> Vm:
        """KVM_CREATE_VM."""
        vm = self.system.create_vm()
        belongs(vm, vm.lock, vm.config_lock, vm.slots_lock, vm.halt_lock)
        self.vms.append(vm)
        return vm

    def vcpu(
        self,
        vm: Vm,
        script: Guest,
        irq: Guest | None = None,
        *,
        init: bool = True,
        number: int = 0,
        off: bool = False,
    ) -> Vcpu:
        """KVM_CREATE_VCPU with what the guest will do."""
        self.backend.next = (script, irq)
        vcpu = vm.create_vcpu(number, bytearray(8192))
        guest_cpu(vcpu).vcpu = vcpu
        belongs(vcpu, vcpu.mutex.lock, vcpu.wait)
        _free(vcpu.task).vcpu = vcpu
        self.vcpus.append(vcpu)
        if init:
            vcpu.arm_vcpu_init(features=PSCI_FEATURES | off)
        return vcpu

    def settle(self) -> None:
        """Some time before the guests begin, and the host's actors."""
        self.clock.time += 1000 << NS_PER_TICK_SHIFT
        add = self.execution.add
        add("hrtimer", self._hrtimer, host=True, ready=self.hrtimer_due)
        add("time", self._time, host=True, ready=self._deadline_ahead)
        if self._resched:
            self.scheduler = add("sched", self._sched, host=True, ready=lambda: bool(self._running))

    @property
    def ticks(self) -> int:
        """The host's counter."""
        return self.clock.ns >> NS_PER_TICK_SHIFT

    # sched.Scheduler

    def point(self, name: str, what: Any) -> None:
        """A named point of host and kvm."""
        hook = self.hooks.get(name)
        if hook is not None and not self.execution.over:
            hook(what)
        self.execution.point(name, what)
        if not self.execution.over:
            if name == sched.BEFORE_UPDATE_RUN:
                self.monitor.before_update(what)
            elif name == sched.BEFORE_SLEEP:
                self.monitor.sleeps(what)

    def claim(self, last: PhysicalCpu | None) -> PhysicalCpu:
        """A free CPU: the last one if it is free, or any where threads migrate."""
        execution = self.execution
        pcpus = self.host.pcpus
        if execution.over:
            return last or pcpus[0]
        if all(p.lock.locked() for p in pcpus):
            execution.block(lambda: any(not p.lock.locked() for p in pcpus), "waits for a CPU")
        free = sorted((p for p in pcpus if not p.lock.locked()), key=lambda p: p is not last)
        index = 0
        if self.migrate:
            index = execution.choose([f"CPU{p.number}" for p in free])
        chosen = free[index]
        chosen.lock.acquire()
        return chosen

    # user space

    def run(self, vcpu: Vcpu) -> int:
        """KVM_RUN, watched."""
        execution = self.execution
        self.monitor.before_run(vcpu)
        actor = execution.current
        assert actor is not None
        self._running[actor] = vcpu
        try:
            ret = vcpu.run_raw()
        finally:
            self._running.pop(actor, None)
        if self.recorder is not None:
            self.recorder.returned(vcpu, ret)
        self.monitor.after_run(vcpu, ret)
        return ret

    def running(self, actor: Actor) -> Vcpu | None:
        """Whose KVM_RUN this thread is in."""
        return self._running.get(actor)

    def idle(self, vcpu: Vcpu) -> bool:
        """No thread is in KVM_RUN on it, and none will be."""
        return all(a.done for a in self.execution.actors if a.name == "vcpu")

    def owns(self, vcpu: Vcpu) -> None:
        """From now on this thread works for a vCPU, and for no other."""
        actor = self.execution.current
        assert actor is not None
        actor.owns = vcpu

    def irq_line(self, vcpu: Vcpu, level: bool, num: int = 0) -> None:
        """KVM_IRQ_LINE on a vCPU's own line."""
        self.lines_in_flight += 1
        try:
            vcpu.vm.irq_line(vcpu.vcpu_id << 16 | num, int(level))
        finally:
            self.lines_in_flight -= 1

    def ioctl(self, name: str, call: Callable[[], Any]) -> int:
        """Another ioctl, at any moment: 0 or an errno."""
        self.execution.point(name, None)
        try:
            call()
        except OSError as error:
            if self.recorder is not None:
                self.recorder.note(f"{name} = -{errno.errorcode.get(error.errno or 0)}")
            return error.errno or -1
        return 0

    # the host's actors

    def _time(self) -> None:
        while True:
            self.clock.time = self.next_deadline()
            self.execution.block(self._deadline_ahead, "time passes")

    def _deadline_ahead(self) -> bool:
        return self.next_deadline() != NEVER

    def next_deadline(self) -> int:
        """The moment to which time passes next, in ns."""
        now = self.clock.time
        due = min((t.expires for t in self.host.hrtimers.timers if t.expires > now), default=NEVER)
        for vcpu in self.vcpus:
            if not vcpu._destroyed:
                due = min(due, next_rise(vcpu, now))
        return due

    def _hrtimer(self) -> None:
        while True:
            self.host.hrtimers.run(self.clock.time)
            self.execution.block(self.hrtimer_due, "host timer interrupt")

    def hrtimer_due(self) -> bool:
        """The host's timer interrupt is pending."""
        return self.host.hrtimers.next_ns <= self.clock.time

    def _sched(self) -> None:
        for _ in range(self._resched):
            running = list(self._running)
            index = self.execution.choose([a.name for a in running])
            self.turn.resched.add(running[index])
            self._running[running[index]].cpu.kick()
            self.execution.block(lambda: bool(self._running), "schedules")

    # watching

    @property
    def fair(self) -> int:
        """Those whom a fair scheduler does not forget."""
        return sum(a.bit for a in self.execution.actors if a is not self.scheduler)

    @property
    def owing(self) -> int:
        """What can be owed: by each vCPU; or only, by all, that they end."""
        return (1 << len(self.vcpus)) - 1 if self.endless else 1

    def leave_state(self) -> None:
        """A choice is made: from here to the next one, who moves and what stays owed."""
        self.owed = -1
        self.execution.moved = 0

    def _seen(self, actor: Actor, what: str) -> None:
        self.monitor.step()
        if self.endless:
            self.owed &= self.monitor.owed()
        if self.recorder is not None:
            self.recorder.seen(actor, what)

    def _quiet(self, for_good: bool) -> None:
        self.monitor.quiet(for_good)

    def close(self) -> None:
        """Everything is over: user space closes its files."""
        for check in self.at_end:
            check()
        for vcpu in self.vcpus:
            vcpu.close()
        for vm in self.vms:
            vm.close()
        self.monitor.closed()
