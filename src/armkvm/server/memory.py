"""A client's memory and kvm_run's pages: files that both processes map."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
import weakref
from contextlib import suppress
from typing import Any

from armkvm.engine import hostmem
from armkvm.kvm.file import fail
from armkvm.server.truncated import GUARD

_F_ADD_SEALS, _F_SEAL_SHRINK = 1033, 2
_IN_CLOSE_WRITE = 0x8

_libc = ctypes.CDLL(None, use_errno=True)


def map_file(fd: int, size: int, offset: int) -> Any:
    """`size` bytes of a client's file as a buffer. OSError.

    A memfd cannot shrink after that. Another file can: what is gone then reads as zeros.
    """
    if size <= 0 or size % mmap.PAGESIZE or offset % mmap.PAGESIZE or (offset | size) >> 62:
        fail(errno.EFAULT)
    with suppress(OSError):  # no memfd, or one that is sealed against seals
        fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_SHRINK)
    if os.fstat(fd).st_size < offset + size:
        fail(errno.EFAULT)
    address = hostmem.mapped(size, mmap.MAP_SHARED, fd, offset)
    # Python's own mmap would keep a descriptor for each.
    buffer = (ctypes.c_char * size).from_address(address)
    weakref.finalize(buffer, _unmap, address, size, GUARD.add(address, size)).atexit = False
    return buffer


def _unmap(address: int, size: int, guarded: int | None) -> None:
    GUARD.remove(guarded)
    hostmem.unmap(address, size)


class Pages:
    """kvm_run's pages of a vCPU: a file without a name. `fd` is the client's, `map` ours."""

    def __init__(self, size: int) -> None:
        self.fd = _unnamed()
        try:
            os.ftruncate(self.fd, size)
            # Opened once more: the client's descriptor is then the only one of its open file, and
            # when that is closed and unmapped for the last time, it shows.
            own = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self.map = mmap.mmap(own, size)
            finally:
                os.close(own)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def path(self) -> str:
        """Where this process finds it."""
        return f"/proc/self/fd/{self.fd}"

    def close(self) -> None:
        """Our copy of the client's descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _unnamed() -> int:
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open("/dev/shm", flags, 0o600)
    except OSError:
        return os.open(tempfile.gettempdir(), flags, 0o600)


class Closings:
    """Tells of files that a client has closed and unmapped for the last time (inotify)."""

    def __init__(self) -> None:
        self.fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            fail(ctypes.get_errno())

    def watch(self, path: str) -> int:
        """Watch a file; the number by which `read` names it."""
        number = _libc.inotify_add_watch(self.fd, path.encode(), _IN_CLOSE_WRITE)
        if number < 0:
            fail(ctypes.get_errno())
        return int(number)

    def read(self) -> list[int]:
        """The numbers of those that were closed since."""
        closed = []
        with suppress(BlockingIOError):
            data = os.read(self.fd, 1 << 16)
            while data:
                number, mask = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
                length = int.from_bytes(data[12:16], "little")
                if mask & _IN_CLOSE_WRITE:
                    closed.append(number)
                data = data[16 + length :]
        return closed

    def forget(self, number: int) -> None:
        """Watch it no longer."""
        _libc.inotify_rm_watch(self.fd, number)

    def close(self) -> None:
        """Watch nothing."""
        os.close(self.fd)
