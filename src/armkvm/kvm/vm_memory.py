"""What a VM has at guest physical addresses: memory slots, their dirty logs, and what takes writes
in the kernel (ioeventfd, coalesced MMIO). The ioctls of virt/kvm/kvm_main.c about them.
"""

from __future__ import annotations

import errno
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.kvm.file import Call, File, Handler, Writable, fail
from armkvm.kvm.memslots import MemSlots, segments_of

if TYPE_CHECKING:
    from armkvm.host.cpu import GuestMemory
    from armkvm.kvm.io.coalesced_mmio import CoalescedMmio
    from armkvm.kvm.io.eventfd import IoEventFds

Read = Callable[[int], bytes]  # so many bytes of the client's; EFAULT


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

    def _set_user_memory_region(self, call: Call) -> int:
        region = call.struct(st.KvmUserspaceMemoryRegion)
        memory = None
        if region.memory_size:
            memory = call.ctx.share(region.userspace_addr, region.memory_size)
        self.set_user_memory_region(
            region.slot,
            region.guest_phys_addr,
            region.memory_size,
            memory,
            region.flags,
            userspace_addr=region.userspace_addr,
        )
        return 0

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

    def _get_dirty_log(self, call: Call) -> int:
        args = call.struct(st.KvmDirtyLog)
        call.ctx.write(args.dirty_bitmap, self.get_dirty_log(args.slot))
        return 0

    def clear_dirty_log(self, slot: int, first_page: int, num_pages: int, read: Read) -> None:
        """KVM_CLEAR_DIRTY_LOG: clear what is set in the bitmap that `read(bytes)` returns.

        It begins at `first_page`, a multiple of 64. EINVAL, ENOENT.
        """
        self._alive()
        with self.slots_lock:
            if first_page & 63:
                fail(errno.EINVAL)
            found = self.memslots.logged(slot)
            rest = found.pages - first_page
            if rest < 0 or num_pages > rest or (num_pages < rest and num_pages & 63):
                fail(errno.EINVAL)
            mask = int.from_bytes(read(num_pages + 63 >> 6 << 3), "little") & (1 << num_pages) - 1
            with self.halted():
                found.clean(mask << first_page)
                self.stage2.flush()

    def _clear_dirty_log(self, call: Call) -> int:
        args = call.struct(st.KvmClearDirtyLog)
        self.clear_dirty_log(
            args.slot, args.first_page, args.num_pages,
            lambda size: call.ctx.read(args.dirty_bitmap, size),
        )  # fmt: skip
        return 0

    def _ioeventfd(self, call: Call) -> int:
        self._alive()
        args = call.struct(st.KvmIoeventfd)
        with self.slots_lock:
            self.ioeventfds.ioctl(args, call.ctx)
        return 0

    def register_coalesced_mmio(self, addr: int, size: int, pio: int = 0) -> None:
        """KVM_REGISTER_COALESCED_MMIO: writes there go to the ring. EINVAL, ENOSPC."""
        self._alive()
        with self.slots_lock:
            self.coalesced_mmio.register(addr, size, pio)

    def unregister_coalesced_mmio(self, addr: int, size: int, pio: int = 0) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO. EINVAL."""
        self._alive()
        with self.slots_lock:
            self.coalesced_mmio.unregister(addr, size, pio)

    def _register_coalesced_mmio(self, call: Call) -> int:
        zone = call.struct(st.KvmCoalescedMmioZone)
        self.register_coalesced_mmio(zone.addr, zone.size, zone.pio)
        return 0

    def _unregister_coalesced_mmio(self, call: Call) -> int:
        zone = call.struct(st.KvmCoalescedMmioZone)
        self.unregister_coalesced_mmio(zone.addr, zone.size, zone.pio)
        return 0

    def memory_written(self, guest_phys_addr: int, size: int) -> None:
        """Not in KVM, whose hardware snoops: user space wrote guest memory that may hold code."""
        with self.halted():
            self.stage2.written(guest_phys_addr, size)

    def written(self) -> None:
        """User space may have written anywhere."""
        with self.slots_lock, self.halted():
            self.memslots.written()

    IOCTLS: ClassVar[dict[int, Handler]] = {
        nr.KVM_SET_USER_MEMORY_REGION: _set_user_memory_region,
        nr.KVM_GET_DIRTY_LOG: _get_dirty_log,
        nr.KVM_CLEAR_DIRTY_LOG: _clear_dirty_log,
        nr.KVM_REGISTER_COALESCED_MMIO: _register_coalesced_mmio,
        nr.KVM_UNREGISTER_COALESCED_MMIO: _unregister_coalesced_mmio,
        nr.KVM_IOEVENTFD: _ioeventfd,
    }
