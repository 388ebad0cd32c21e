"""The recorder: listens to a VM's trace events and hands them on with time and task.

An event belongs to the thread that it happens in, as in ftrace. A thread is named after the vCPU it
ran last; its PID is its place in the order in which threads first had an event, so that the bytes
of a trace do not depend on the host. After what may move them, the lines are looked at (lines.py).

The writer streams; nothing is kept here but a few words a thread. When it cannot write (a full
disk), recording ends and `close` says why: the guest is not to suffer from it. Left out: several
VMs of one system in one recording.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, get_ident
from typing import Protocol

from armkvm.kvm import Vcpu, Vm
from armkvm.trace.events import EVENTS
from armkvm.trace.lines import Lines

# Events that only the thread in KVM_RUN of that vCPU can have.
OWN = frozenset((
    "kvm_entry", "kvm_exit", "kvm_get_timer_map", "kvm_timer_restore_state", "kvm_userspace_exit",
))  # fmt: skip
# Events after which a line may be at another level than before. kvm_irq_line is not among them: it
# comes before the line moves, which is seen when the vCPU is loaded next, at the same guest time.
MOVING = frozenset(("kvm_entry", "kvm_exit", "kvm_timer_update_irq", "kvm_userspace_exit"))


class Task:
    """A thread, as ftrace shows one."""

    __slots__ = ("comm", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.comm = "vmm"


class Writer(Protocol):
    """A form of trace file. Times in guest ns. All methods may raise OSError."""

    def event(
        self, ns: int, task: Task, cpu: int, name: str, vcpu_id: int, fields: tuple[object, ...]
    ) -> None: ...
    def counter(self, ns: int, task: Task, cpu: int, name: str, value: int) -> None: ...
    def close(self) -> None: ...


class Recorder:
    """Records from its making to `close`. A context manager."""

    def __init__(self, vm: Vm, writer: Writer) -> None:
        self.vm = vm
        self.error: OSError | None = None
        self._writer = writer
        self._clock = vm.clock
        self._lock = Lock()  # console and VMM threads drive lines too
        self._tasks: dict[int, Task] = {}
        self._lines: dict[int, Lines] = {}
        self._closed = False
        for name in EVENTS:
            setattr(vm.trace, name, self._listener(name))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop. OSError if the file could not be written; it is closed all the same."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._detach()
            try:
                self._writer.close()
            except OSError as error:
                self.error = self.error or error
        if self.error is not None:
            raise self.error

    def _detach(self) -> None:
        for name in EVENTS:
            setattr(self.vm.trace, name, None)

    def _listener(self, name: str) -> Callable[..., None]:
        of_vcpu, own, moving = EVENTS[name].of_vcpu, name in OWN, name in MOVING
        # kvm_irq_line names the vCPU second, and may name one that does not exist.
        where = 0 if of_vcpu else 1

        def listener(*args: object) -> None:
            vcpu_id = args[where]
            assert isinstance(vcpu_id, int)
            with self._lock:
                if self._closed or self.error is not None:
                    return
                try:
                    self._record(name, vcpu_id, args[1:] if of_vcpu else args, own, moving)
                except OSError as error:
                    self.error = error
                    self._detach()

        return listener

    def _record(
        self, name: str, vcpu_id: int, fields: tuple[object, ...], own: bool, moving: bool
    ) -> None:
        me = get_ident()
        task = self._tasks.get(me)
        if task is None:
            task = self._tasks[me] = Task(len(self._tasks) + 1)
        if own:
            task.comm = f"vcpu-{vcpu_id}"
        lines = self._lines.get(vcpu_id)
        if lines is None:
            vcpu = self.vm.find_vcpu(vcpu_id)
            if vcpu is not None:
                lines = self._lines[vcpu_id] = Lines(vcpu)
        cpu = 0 if lines is None else _cpu(lines.vcpu)
        ns = self._clock.now()
        self._writer.event(ns, task, cpu, name, vcpu_id, fields)
        if moving and lines is not None:
            for counter, value in lines.moved():
                self._writer.counter(ns, task, cpu, counter, value)


def _cpu(vcpu: Vcpu) -> int:
    pcpu = vcpu.last_pcpu
    return 0 if pcpu is None else pcpu.number
