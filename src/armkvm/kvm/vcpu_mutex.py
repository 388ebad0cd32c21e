"""vcpu->mutex: held during every ioctl of a vCPU; a vCPU that was closed goes with its last ioctl.

The kernel counts references to a file, so that one which is closed while another thread is in an
ioctl of it is released when that ioctl ends. Here, closing tries to destroy the vCPU and gives up
if the mutex is held; then whoever releases it destroys it. Whichever comes first, `closed` was set
before both, so one of the two does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu


class VcpuMutex:
    """The mutex of one vCPU. `lock` is the bare lock."""

    __slots__ = ("_vcpu", "lock")

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self.lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        """mutex_lock(), or mutex_trylock()."""
        return self.lock.acquire(blocking)

    def release(self) -> None:
        """mutex_unlock(), and what fput() does with the last reference."""
        self.lock.release()
        if self._vcpu.closed:
            self._vcpu.destroy()

    def locked(self) -> bool:
        """A thread is in an ioctl."""
        return self.lock.locked()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_exc: object) -> None:
        self.release()
