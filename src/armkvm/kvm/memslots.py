"""Memory slots: guest physical memory as ranges of the caller's buffers.

After virt/kvm/kvm_main.c (__kvm_set_memory_region) with its order of checks. A slot is a list of
(offset, buffer) segments and may have holes: a guest access to a hole ends KVM_RUN with EFAULT, as
an unmapped user address does. A slot with a dirty log has a bitmap for each of its segments, which
the engine sets; whatever clears bits must flush the TLBs. Left out: guest_memfd, several address
spaces, the dirty ring.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from armkvm.abi.kvm import (
    KVM_MEM_LOG_DIRTY_PAGES,
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
    log: Any = None  # one bit a page: written

    @property
    def first_page(self) -> int:
        """Its first page in the slot."""
        return self.offset >> PAGE_SHIFT


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

    @property
    def logged(self) -> bool:
        """It has a dirty log."""
        return bool(self.flags & KVM_MEM_LOG_DIRTY_PAGES)

    @property
    def pages(self) -> int:
        """Its size in pages."""
        return self.size >> PAGE_SHIFT

    def dirty(self) -> int:
        """The dirty log, bit n for page n."""
        return sum(int.from_bytes(s.log, "little") << s.first_page for s in self.segments if s.log)

    def clean(self, mask: int) -> None:
        """Clear the bits that are set in `mask`."""
        for s in self.segments:
            if s.log:
                kept = int.from_bytes(s.log, "little") & ~(mask >> s.first_page)
                ctypes.memmove(s.log, kept.to_bytes(len(s.log), "little"), len(s.log))


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
        self.initially_set = False  # KVM_DIRTY_LOG_INITIALLY_SET

    def logged(self, slot: int) -> MemSlot:
        """The slot with a dirty log. EINVAL: no such number. ENOENT: no slot, or no log."""
        if slot >> 16 or slot & 0xFFFF >= KVM_USER_MEM_SLOTS:
            fail(errno.EINVAL)
        found = self._slots.get(slot)
        if found is None or not found.logged:
            fail(errno.ENOENT)
        return found

    def read_guest(self, ipa: int, size: int) -> bytes | None:
        """kvm_read_guest(), within a page; None where no memory is."""
        host = self._host(ipa)
        return None if host is None else ctypes.string_at(host[0], size)

    def write_guest(self, ipa: int, data: bytes) -> bool:
        """kvm_write_guest(), within a page: False where no memory is, or only to read."""
        host = self._host(ipa)
        if host is None or host[1].readonly:
            return False
        ctypes.memmove(host[0], data, len(data))
        segment = host[2]
        if segment.log is not None:
            page = ipa - host[1].base - segment.offset >> PAGE_SHIFT
            segment.log[page >> 3] = bytes([segment.log[page >> 3][0] | 1 << (page & 7)])
        return True

    def _host(self, ipa: int) -> tuple[int, MemSlot, Segment] | None:
        slot = self.find(ipa)
        if slot is not None:
            for segment in slot.segments:
                offset = ipa - slot.base - segment.offset
                if 0 <= offset < segment.size:
                    return segment.host + offset, slot, segment
        return None

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
        if flags & ~(KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES):
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
            if (userspace_addr, size) != (old.userspace_addr, old.size):
                fail(errno.EINVAL)
            if (flags ^ old.flags) & KVM_MEM_READONLY:
                fail(errno.EINVAL)
            if (base, flags) == (old.base, old.flags):
                return
        for other in self._by_address:
            if other is not old and base < other.base + other.size and other.base < base + size:
                fail(errno.EEXIST)
        if base + size > self.limit:
            fail(errno.EFAULT)
        if old is not None:
            segments = old.segments
            self._remove(old)
        keep = old is not None and old.logged and old.base == base
        segments = tuple(self._with_log(s, flags, keep=keep) for s in segments)
        self._insert(MemSlot(slot, base, size, flags, userspace_addr, segments))

    def _with_log(self, segment: Segment, flags: int, *, keep: bool) -> Segment:
        if not flags & KVM_MEM_LOG_DIRTY_PAGES:
            return replace(segment, log=None)
        if keep:
            return segment
        log = ctypes.create_string_buffer((segment.size >> PAGE_SHIFT) + 63 >> 6 << 3)
        if self.initially_set:
            ones = (1 << (segment.size >> PAGE_SHIFT)) - 1
            ctypes.memmove(log, ones.to_bytes(len(log), "little"), len(log))
        return replace(segment, log=log)

    def _insert(self, new: MemSlot) -> None:
        for segment in new.segments:
            self.stage2.map(
                new.base + segment.offset, segment.host, segment.size, readonly=new.readonly,
                log=None if segment.log is None else ctypes.addressof(segment.log),
            )  # fmt: skip
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
