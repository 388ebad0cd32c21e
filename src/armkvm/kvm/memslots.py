"""Memory slots: guest physical memory as ranges of the caller's buffers.

After virt/kvm/kvm_main.c (__kvm_set_memory_region) with its order of checks. A slot is a list of
(offset, buffer) segments and may have holes: a guest access to a hole ends KVM_RUN with EFAULT, as
an unmapped user address does. Left out: guest_memfd, several address spaces, the dirty log.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from armkvm.abi.kvm import (
    KVM_MEM_MAX_NR_PAGES,
    KVM_MEM_READONLY,
    KVM_USER_MEM_SLOTS,
    PAGE_SHIFT,
    PAGE_SIZE,
)
from armkvm.host.cpu import GuestMemory
from armkvm.kvm.file import Writable, fail

M64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Segment:
    """A backed run of a slot: `size` bytes at host address `host`; `owner` keeps it alive."""

    offset: int
    host: int
    size: int
    owner: Any


@dataclass(slots=True)
class MemSlot:
    """One slot, addresses in bytes."""

    slot: int
    base: int
    size: int
    flags: int
    userspace_addr: int
    segments: tuple[Segment, ...]

    @property
    def readonly(self) -> bool:
        """Guest writes are MMIO exits."""
        return bool(self.flags & KVM_MEM_READONLY)


def segments_of(
    memory: Writable | Sequence[tuple[int, Writable]], size: int
) -> tuple[Segment, ...]:
    """The segments of a slot of `size` bytes from a buffer or from (offset, buffer) pairs.

    EINVAL if they are not whole pages inside the slot, in order and apart, page-aligned in our own
    memory (mmap gives such buffers), and writable.
    """
    pairs: Sequence[tuple[int, Any]]
    pairs = memory if isinstance(memory, list | tuple) else [(0, memory)]
    segments = []
    end = 0
    for offset, buffer in pairs:
        try:
            view = memoryview(buffer).cast("B")
            owner = (ctypes.c_char * len(view)).from_buffer(view)
        except (TypeError, ValueError):
            fail(errno.EINVAL)
        length = min(len(view), size - offset)
        host = ctypes.addressof(owner)
        if offset < end or (offset | length | host) % PAGE_SIZE or length <= 0:
            fail(errno.EINVAL)
        segments.append(Segment(offset, host, length, owner))
        end = offset + length
    return tuple(segments)


class MemSlots:
    """The slots of one VM."""

    def __init__(self, stage2: GuestMemory, ipa_bits: int) -> None:
        self.stage2 = stage2
        self.limit = 1 << ipa_bits
        self._slots: dict[int, MemSlot] = {}
        self._by_address: tuple[MemSlot, ...] = ()

    def find(self, ipa: int) -> MemSlot | None:
        """The slot that an address falls into."""
        for slot in self._by_address:
            if slot.base <= ipa < slot.base + slot.size:
                return slot
        return None

    def fault_level(self, ipa: int) -> int:
        """The level at which a 4 KiB stage-2 table would lack this address: 1, 2 or 3.

        As if every slot were mapped. A real table also lacks what the guest has not touched yet.
        """
        for level, shift in ((1, 30), (2, 21)):
            block = ipa >> shift
            if not any(
                s.base >> shift <= block <= s.base + s.size - 1 >> shift for s in self._by_address
            ):
                return level
        return 3

    def all(self) -> tuple[MemSlot, ...]:
        """The slots in the order of their addresses."""
        return self._by_address

    def set_region(
        self,
        slot: int,
        flags: int,
        base: int,
        size: int,
        userspace_addr: int,
        segments: tuple[Segment, ...],
    ) -> None:
        """Create, move, change or (size 0) delete a slot. EINVAL, EEXIST, EFAULT."""
        if flags & ~KVM_MEM_READONLY:
            fail(errno.EINVAL)
        if (size | base | userspace_addr) & PAGE_SIZE - 1:
            fail(errno.EINVAL)
        if slot >> 16 or slot & 0xFFFF >= KVM_USER_MEM_SLOTS:
            fail(errno.EINVAL)
        if base + size > M64 or size >> PAGE_SHIFT > KVM_MEM_MAX_NR_PAGES:
            fail(errno.EINVAL)
        old = self._slots.get(slot)
        if size == 0:
            if old is None:
                fail(errno.EINVAL)
            self._remove(old)
            return
        if old is not None:
            # Address, size and the read-only bit of a slot are fixed; it may move in guest memory.
            changed = (userspace_addr, size, flags) != (old.userspace_addr, old.size, old.flags)
            if changed:
                fail(errno.EINVAL)
            if base == old.base:
                return
        for other in self._by_address:
            if other is not old and base < other.base + other.size and other.base < base + size:
                fail(errno.EEXIST)
        if base + size > self.limit:
            fail(errno.EFAULT)
        if old is not None:
            segments = old.segments
            self._remove(old)
        self._insert(MemSlot(slot, base, size, flags, userspace_addr, segments))

    def _insert(self, new: MemSlot) -> None:
        for segment in new.segments:
            self.stage2.map(
                new.base + segment.offset, segment.host, segment.size, readonly=new.readonly
            )
        self._slots[new.slot] = new
        self._order()

    def _remove(self, old: MemSlot) -> None:
        for segment in old.segments:
            self.stage2.unmap(old.base + segment.offset, segment.size)
        del self._slots[old.slot]
        self._order()

    def _order(self) -> None:
        self._by_address = tuple(sorted(self._slots.values(), key=lambda s: s.base))

    def written(self) -> None:
        """User space may have written anywhere: code seen earlier must be read again."""
        for slot in self._by_address:
            for segment in slot.segments:
                self.stage2.written(slot.base + segment.offset, segment.size)
