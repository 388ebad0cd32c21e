"""What a vCPU and its user see of each other: struct kvm_run, and the ring that follows it.

Views of the same memory, made once: reaching through a union builds an object each time, and the
run loop reads them at every entry. The page is user space's to scribble on, at any time and from
any thread. Left out: what is behind the second page (dirty ring).
"""

from __future__ import annotations

import ctypes
import errno

from armkvm.abi.kvm import KVM_VCPU_MMAP_SIZE
from armkvm.abi.structs import KvmRun, KvmRunMmio, KvmSyncRegs
from armkvm.kvm.file import Writable, fail

MMIO_DATA = KvmRun.mmio.offset + KvmRunMmio.data.offset
IRQ_LEVEL = KvmRun.s.offset + KvmSyncRegs.device_irq_level.offset

_BY_SIZE = (ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64)


class RunPage:
    """The pages of one vCPU."""

    __slots__ = ("data", "irq_level", "mmio", "pages", "run")

    def __init__(self, pages: Writable) -> None:
        """`pages` is writable memory of KVM_VCPU_MMAP_SIZE bytes. EINVAL: smaller; EFAULT."""
        try:
            if memoryview(pages).nbytes < KVM_VCPU_MMAP_SIZE:
                fail(errno.EINVAL)
            self.run: KvmRun = KvmRun.from_buffer(pages)
        except TypeError:  # no buffer, or one that cannot be written
            fail(errno.EFAULT)
        self.pages = pages
        self.mmio: KvmRunMmio = self.run.mmio
        # mmio.data as a number of 1 << n bytes.
        self.data = tuple(kind.from_buffer(pages, MMIO_DATA) for kind in _BY_SIZE)
        # s.regs.device_irq_level: bits KVM_ARM_DEV_*, as user space has been told.
        self.irq_level = ctypes.c_uint64.from_buffer(pages, IRQ_LEVEL)
