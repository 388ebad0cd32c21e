"""A client of armkvm's own KVM, in virtual time.

File descriptors are numbers in a table here, and KVM reaches this process's memory through a
context (kvm/file.py), so that every ioctl takes the path of a foreign program. What waits in the
original waits for a timer of the host: an alarm is one that kicks the vCPU, and a thread that
sleeps is one that lets a real second thread do its work, with time standing still meanwhile. So a
run has one outcome, at no cost of real time.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from armkvm.abi.ioctl import KVM_RUN
from armkvm.client.protocol import Argument, Bell, address
from armkvm.host.cpu import Backend
from armkvm.host.hrtimer import Hrtimer
from armkvm.host.pcpu import PhysicalCpu
from armkvm.kvm.file import File, NoContext, Writable, fail
from armkvm.kvm.system import System
from armkvm.kvm.vcpu import Vcpu

# Far above what a process's own descriptors reach: eventfds are real ones.
FIRST_FD = 1 << 20
# Nobody maps the lowest page.
LOWEST_ADDRESS = 4096
NS_PER_MS = 1_000_000
# What a client does between two KVM_RUNs takes time: a thousand ticks of the counter, and each run
# begins on such a mark.
BETWEEN_RUNS_NS = 16_000


class Memory(NoContext):
    """This process as KVM's context: its addresses and its file descriptors."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.mapped: dict[int, mmap.mmap] = {}
        self._next_fd = FIRST_FD

    def read(self, address: int, size: int) -> bytes:
        if address < LOWEST_ADDRESS:
            fail(errno.EFAULT)
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        if address < LOWEST_ADDRESS:
            fail(errno.EFAULT)
        ctypes.memmove(address, data, len(data))

    def share(self, address: int, size: int) -> Sequence[tuple[int, Writable]]:
        memory = self.mapped.get(address)
        return () if memory is None else ((0, memory),)

    def vcpu_pages(self, size: int) -> Writable | None:
        return None  # KVM's own are in this process already

    def install(self, file: File) -> int:
        fd = self._next_fd
        self._next_fd += 1
        self.files[fd] = file
        return fd

    def file(self, fd: int) -> object:
        """KVM's own file, or the number of a descriptor of this process."""
        if fd in self.files:
            return self.files[fd]
        os.fstat(fd)  # EBADF
        return fd


class Sleeper:
    """A thread that sleeps until a time of the host, then acts."""

    def __init__(self, client: InProcess, action: Callable[[], None], expires: int) -> None:
        self._client = client
        self._action = action
        self._timer = Hrtimer(self._wake)
        with client.idle_cpu() as pcpu:
            self._timer.start(pcpu.hrtimers, expires)

    def _wake(self, _now: int) -> None:
        thread = threading.Thread(target=self._action)
        thread.start()
        thread.join()

    def join(self) -> None:
        if self._timer.queued:
            self._client.sleep_until(self._timer.expires)


class InProcess:
    """One process whose /dev/kvm is armkvm's, on a host of the kind `host`."""

    def __init__(self, host: str = "nvhe-gicv2", backend: Backend | None = None) -> None:
        self.system = System(host, "virtual", backend=backend)
        self._memory = Memory()

    @property
    def open_files(self) -> int:
        """How many files of KVM this process holds."""
        return len(self._memory.files)

    def open(self) -> int:
        return self._memory.install(self.system)

    def ioctl(self, fd: int, cmd: int, arg: Argument = 0) -> int:
        where = arg if isinstance(arg, int) else address(arg)
        if cmd == KVM_RUN:
            self.sleep_until((self.system.clock.now() // BETWEEN_RUNS_NS + 1) * BETWEEN_RUNS_NS)
        return self._file(fd).ioctl(cmd, where, ctx=self._memory)

    def _file(self, fd: int) -> File:
        file = self._memory.files.get(fd)
        if file is None:
            fail(errno.EBADF)
        return file

    def close(self, fd: int) -> None:
        file = self._memory.files.pop(fd, None)
        if file is None:
            os.close(fd)
        else:
            file.close()

    def shared_pages(self, fd: int, size: int) -> mmap.mmap:
        vcpu = self._file(fd)
        if not isinstance(vcpu, Vcpu) or not isinstance(vcpu.pages, mmap.mmap):
            fail(errno.ENODEV)
        return vcpu.pages

    def memory(self, size: int) -> mmap.mmap:
        memory = mmap.mmap(-1, size)
        self._memory.mapped[address(memory)] = memory
        return memory

    def eventfd(self) -> int:
        return os.eventfd(0)

    @contextmanager
    def alarm(self, fd: int, milliseconds: int) -> Iterator[Bell]:
        bell = Bell()
        vcpu = self._file(fd)
        assert isinstance(vcpu, Vcpu)

        def ring(_now: int) -> None:
            bell.rang = True
            vcpu.kick()

        timer = Hrtimer(ring)
        with self.idle_cpu() as pcpu:
            timer.start(pcpu.hrtimers, self.system.clock.now() + milliseconds * NS_PER_MS)
        try:
            yield bell
        finally:
            timer.cancel()

    def after(self, milliseconds: int, action: Callable[[], None]) -> Sleeper:
        return Sleeper(self, action, self.system.clock.now() + milliseconds * NS_PER_MS)

    @contextmanager
    def idle_cpu(self) -> Iterator[PhysicalCpu]:
        """The CPU that the next vCPU to be loaded will get: all is quiet now."""
        pcpu = self.system.host.claim(None)
        try:
            yield pcpu
        finally:
            pcpu.lock.release()

    def sleep_until(self, ns: int) -> None:
        """No vCPU runs; time passes, and the host's timers expire in it."""
        clock = self.system.clock
        with self.idle_cpu() as pcpu:
            clock.load(pcpu)
            clock.advance(pcpu, ns - pcpu.ns)
            pcpu.hrtimers.run(clock.now())

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_exc: object) -> None:
        for file in reversed(list(self._memory.files.values())):
            file.close()
        self._memory = Memory()
