"""What a VM has at guest physical addresses: memory slots, their dirty logs, and what takes writes
in the kernel (ioeventfd, coalesced MMIO). The ioctls of virt/kvm/kvm_main.c about them.
"""

from __future__ import annotations

import errno
import threading
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.kvm.file import THIS_PROCESS, Call, Context, File, Value, Writable, fail, load_int
from armkvm.kvm.ioctl import Source, caller, ioctl, pointer
from armkvm.kvm.memslots import MemSlots, segments_of

if TYPE_CHECKING:
    from armkvm.host.cpu import GuestMemory
    from armkvm.kvm.io.coalesced_mmio import CoalescedMmio
    from armkvm.kvm.io.eventfd import IoEventFds


def _share(call: Call, region: st.KvmUserspaceMemoryRegion) -> Any:
    size = region.memory_size
    return call.ctx.share(region.userspace_addr, size) if size else None


def _is_memory(memory: object) -> None:
    """A buffer or pairs; what is in a buffer, segments_of() looks at. EFAULT."""
    if isinstance(memory, list | tuple):
        for pair in memory:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], int):
                fail(errno.EFAULT)


def _put_dirty_log(call: Call, args: st.KvmDirtyLog, bitmap: bytes) -> None:
    call.ctx.write(args.dirty_bitmap, bitmap)


_MEMORY = Source(_share, _is_memory)


class VmMemory(File):
    """The part of a VM that is about addresses."""

    slots_lock: threading.Lock
    stage2: GuestMemory
    memslots: MemSlots
    manual_dirty_log_protect: int
    coalesced_mmio: CoalescedMmio
    ioeventfds: IoEventFds

    @abstractmethod
    def halted(self) -> AbstractContextManager[None]:
        """No vCPU executes guest code meanwhile."""

    @abstractmethod
    def _alive(self) -> None:
        """EBADF, EIO."""

    @ioctl(nr.KVM_SET_USER_MEMORY_REGION, st.KvmUserspaceMemoryRegion, memory=_MEMORY)
    def set_user_memory_region(
        self,
        slot: int,
        guest_phys_addr: int,
        memory_size: int,
        memory: Writable | Sequence[tuple[int, Writable]] | None = None,
        flags: int = 0,
        *,
        userspace_addr: int | None = None,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION. Size 0 deletes the slot.

        `memory` is a writable, page-aligned buffer (mmap), or (offset, buffer) segments of whole
        pages with holes between them. `userspace_addr` is the client's address of it, where that
        matters. EINVAL, EEXIST (overlap), EFAULT (beyond the guest's address space).
        """
        self._alive()
        segments = segments_of(memory, memory_size) if memory_size and memory is not None else ()
        if userspace_addr is None:
            userspace_addr = segments[0].host if segments else 0
        with self.slots_lock, self.halted():
            self.memslots.set_region(
                slot, flags, guest_phys_addr, memory_size, userspace_addr, segments
            )

    @ioctl(nr.KVM_SET_USER_MEMORY_REGION2, st.KvmUserspaceMemoryRegion2, memory=_MEMORY)
    def set_user_memory_region2(
        self,
        slot: int,
        guest_phys_addr: int,
        memory_size: int,
        memory: Writable | Sequence[tuple[int, Writable]] | None = None,
        flags: int = 0,
        *,
        userspace_addr: int | None = None,
        guest_memfd: int = 0,
        guest_memfd_offset: int = 0,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION2: the same; EINVAL for KVM_MEM_GUEST_MEMFD, as on arm64."""
        del guest_memfd, guest_memfd_offset  # looked at with that flag only
        self.set_user_memory_region(
            slot, guest_phys_addr, memory_size, memory, flags, userspace_addr=userspace_addr
        )

    @ioctl(nr.KVM_GET_DIRTY_LOG, st.KvmDirtyLog, ret=_put_dirty_log)
    def get_dirty_log(self, slot: int) -> bytes:
        """KVM_GET_DIRTY_LOG: a bitmap of whole 64-bit words, bit n for page n of the slot.

        The log begins anew, unless KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 leaves that to
        `clear_dirty_log`. EINVAL, ENOENT.
        """
        self._alive()
        with self.slots_lock:
            found = self.memslots.logged(slot)
            if self.manual_dirty_log_protect:
                dirty = found.dirty()
            else:
                with self.halted():
                    dirty = found.dirty()
                    found.clean(dirty)
                    self.stage2.flush()
            return dirty.to_bytes(found.pages + 63 >> 6 << 3, "little")

    @ioctl(nr.KVM_CLEAR_DIRTY_LOG, st.KvmClearDirtyLog, bitmap=pointer("dirty_bitmap"))
    def clear_dirty_log(self, slot: int, first_page: int, num_pages: int, bitmap: Value) -> None:
        """KVM_CLEAR_DIRTY_LOG: clear what is set in `bitmap`, whole 64-bit words of it.

        It begins at `first_page`, a multiple of 64. EINVAL, ENOENT, EFAULT (too short).
        """
        self._alive()
        with self.slots_lock:
            if first_page & 63:
                fail(errno.EINVAL)
            found = self.memslots.logged(slot)
            rest = found.pages - first_page
            if rest < 0 or num_pages > rest or (num_pages < rest and num_pages & 63):
                fail(errno.EINVAL)
            mask = load_int(bitmap, num_pages + 63 >> 6 << 3) & (1 << num_pages) - 1
            with self.halted():
                found.clean(mask << first_page)
                self.stage2.flush()

    @ioctl(nr.KVM_IOEVENTFD, st.KvmIoeventfd, len_="len", ctx=caller)
    def ioeventfd(
        self,
        fd: int,
        addr: int,
        len_: int,
        datamatch: int = 0,
        flags: int = 0,
        *,
        ctx: Context = THIS_PROCESS,
    ) -> None:
        """KVM_IOEVENTFD: a write of `len_` bytes counts an eventfd of `ctx`, or no longer does.

        `datamatch` is looked at with KVM_IOEVENTFD_FLAG_DATAMATCH. EINVAL, EBADF, EEXIST, ENOENT,
        ENOSPC.
        """
        self._alive()
        args = st.KvmIoeventfd(datamatch=datamatch, addr=addr, len=len_, fd=fd, flags=flags)
        with self.slots_lock:
            self.ioeventfds.ioctl(args, ctx)

    @ioctl(nr.KVM_REGISTER_COALESCED_MMIO, st.KvmCoalescedMmioZone)
    def register_coalesced_mmio(self, addr: int, size: int, pio: int = 0) -> None:
        """KVM_REGISTER_COALESCED_MMIO: writes there go to the ring. EINVAL, ENOSPC."""
        self._alive()
        with self.slots_lock:
            self.coalesced_mmio.register(addr, size, pio)

    @ioctl(nr.KVM_UNREGISTER_COALESCED_MMIO, st.KvmCoalescedMmioZone)
    def unregister_coalesced_mmio(self, addr: int, size: int, pio: int = 0) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO. EINVAL."""
        self._alive()
        with self.slots_lock:
            self.coalesced_mmio.unregister(addr, size, pio)

    def memory_written(self, guest_phys_addr: int, size: int) -> None:
        """Not in KVM, whose hardware snoops: user space wrote guest memory that may hold code.

        EBADF, EIO: as of any ioctl.
        """
        self._alive()
        with self.halted():
            self.stage2.written(guest_phys_addr, size)

    def written(self) -> None:
        """User space may have written anywhere."""
        with self.slots_lock, self.halted():
            self.memslots.written()
