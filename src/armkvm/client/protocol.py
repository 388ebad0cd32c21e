"""What the cases need of a process that uses KVM: files, memory, and time.

An ioctl has the kernel's number and byte layout, and pointers are addresses of this process, so a
case reads as its C original would. Two processes offer this: `inprocess.InProcess`, whose /dev/kvm
is armkvm's, and `device.Device`, on the kernel's. Time is the guest's: real on a device, counted
in armkvm.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Argument = int | ctypes.Structure


class Bell:
    """What an alarm leaves behind."""

    def __init__(self) -> None:
        self.rang = False


class Thread(Protocol):
    """A second thread of the client."""

    def join(self) -> None:
        """Wait until it has done its work."""


class Client(Protocol):
    """One process."""

    def open(self) -> int:
        """A file descriptor of /dev/kvm."""

    def ioctl(self, fd: int, cmd: int, arg: Argument = 0) -> int:
        """One ioctl; a structure is passed by its address. OSError as the kernel has it."""

    def close(self, fd: int) -> None:
        """Close a file descriptor."""

    def shared_pages(self, fd: int, size: int) -> mmap.mmap:
        """The pages that a vCPU shares with its user, `size` bytes."""

    def memory(self, size: int) -> mmap.mmap:
        """Fresh anonymous memory, `size` bytes."""

    def eventfd(self) -> int:
        """A new eventfd, at zero."""

    def alarm(self, fd: int, milliseconds: int) -> AbstractContextManager[Bell]:
        """SIGALRM to the thread that is in KVM_RUN of vCPU `fd`, unless the block ends before."""

    def after(self, milliseconds: int, action: Callable[[], None]) -> Thread:
        """A thread that sleeps, then acts. Signals are not for it."""


def address(buffer: ctypes.Structure | ctypes._SimpleCData[int] | mmap.mmap) -> int:
    """Where in this process a structure, a number or mapped memory lies."""
    if isinstance(buffer, mmap.mmap):
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    return ctypes.addressof(buffer)
