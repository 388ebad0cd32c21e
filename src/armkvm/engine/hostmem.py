"""Memory of this process at an address, given back when its owner says so.

For what native code works in: reserved at once, touched as needed, zero at first. Python's mmap
objects cannot give back a part and outlive their last user in a cycle; these do not.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_NORESERVE = 0x4000
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def mapped(size: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """The address of a new mapping, of a file or of none. OSError."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = _libc.mmap(None, size, protection, flags, fd, offset)
    if address is None or address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(address)


def anonymous(size: int) -> int:
    """The address of fresh memory."""
    return mapped(size, _ANONYMOUS)


def unmap(address: int, size: int) -> None:
    """It is nobody's any more."""
    _libc.munmap(address, size)


class HostMemory:
    """At least `size` bytes, in whole pages of the host. OSError (ENOMEM) where there are none."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.address = anonymous(self.size)
        self._release = self._on_release()

    def _on_release(self) -> weakref.finalize[..., HostMemory]:
        release = weakref.finalize(self, unmap, self.address, self.size)
        release.atexit = False
        return release

    def clear(self) -> None:
        """Zero all of it, and give the pages back. Once closed, its addresses may be another's."""
        if self._release.alive:
            _libc.madvise(self.address, self.size, mmap.MADV_DONTNEED)

    def trim(self, size: int) -> None:
        """Give back what lies behind the first `size` bytes; they stay until the last user goes."""
        kept = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if kept < self.size:
            self._release.detach()
            unmap(self.address + kept, self.size - kept)
            self.size = kept
            self._release = self._on_release()

    def close(self) -> None:
        """Give it back. Nothing may use it any more."""
        self._release()
