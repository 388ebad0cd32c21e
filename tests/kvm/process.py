"""The process that makes an ioctl, as KVM sees it: memory of its own."""

from __future__ import annotations

import errno
import mmap

from armkvm.kvm.file import NoContext, fail

BASE = 0x7F00_0000_0000


class ProcessMemory(NoContext):
    """One mapping at BASE."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, size)

    def offset(self, address: int, size: int) -> int:
        """Where in the mapping; EFAULT."""
        if size < 0 or not BASE <= address <= BASE + len(self.memory) - size:
            fail(errno.EFAULT)
        return address - BASE

    def read(self, address: int, size: int) -> bytes:
        """Copy from the process."""
        at = self.offset(address, size)
        return self.memory[at : at + size]

    def write(self, address: int, data: bytes) -> None:
        """Copy to the process."""
        at = self.offset(address, len(data))
        self.memory[at : at + len(data)] = data
