"""A client of a real /dev/kvm: system calls, signals and threads of this process.

The C original armed ITIMER_REAL around each KVM_RUN; so does this. Python runs its handler when
the system call has returned, and ioctl() is not among the calls that it restarts after EINTR.
Needs Linux on arm64; nothing here is imported elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from armkvm.abi.caps import Cap
from armkvm.abi.ioctl import KVM_CHECK_EXTENSION, KVM_GET_API_VERSION
from armkvm.abi.kvm import KVM_API_VERSION
from armkvm.client.protocol import Argument, Bell


class Device:
    """The process itself, for a /dev/kvm at `path`. Use it from the main thread only: signals."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        self.path = path
        self._bell = Bell()
        self._previous = signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, _number: int, _frame: object) -> None:
        self._bell.rang = True

    def identify(self) -> None:
        """ENODEV if it is no KVM, or another architecture's: its answers would mean nothing."""
        fd = self.open()
        try:
            try:
                version = self.ioctl(fd, KVM_GET_API_VERSION)
            except OSError:
                version = -1
            if version != KVM_API_VERSION:
                raise OSError(errno.ENODEV, "not a KVM device", self.path)
            # Every arm64 KVM has PSCI 0.2 since Linux 3.16, no other architecture's has.
            if self.ioctl(fd, KVM_CHECK_EXTENSION, Cap.ARM_PSCI_0_2) <= 0:
                raise OSError(errno.ENODEV, "a KVM, but not an arm64 host's", self.path)
        finally:
            self.close(fd)

    def open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, fd: int, cmd: int, arg: Argument = 0) -> int:
        # A structure goes in and out through fcntl's own buffer: none here is above its 1024 bytes.
        return fcntl.ioctl(fd, cmd, arg)

    def close(self, fd: int) -> None:
        os.close(fd)

    def shared_pages(self, fd: int, size: int) -> mmap.mmap:
        return mmap.mmap(fd, size)

    def memory(self, size: int) -> mmap.mmap:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def eventfd(self) -> int:
        return os.eventfd(0)

    @contextmanager
    def alarm(self, fd: int, milliseconds: int) -> Iterator[Bell]:
        self._bell = Bell()
        signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
        try:
            yield self._bell
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def after(self, milliseconds: int, action: Callable[[], None]) -> threading.Thread:
        def work() -> None:
            # The alarm is for the thread in KVM_RUN.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(milliseconds / 1000)
            action()

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_exc: object) -> None:
        signal.signal(signal.SIGALRM, self._previous)
