"""Memory slots: guest physical memory as ranges of the caller's buffers.

After virt/kvm/kvm_main.c (__kvm_set_memory_region) with its order of checks. A slot is a list of
(offset, buffer) segments and may have holes: a guest access to a hole ends KVM_RUN with EFAULT, as
an unmapped user address does. A slot with a dirty log has a bitmap for each of its segments, which
the engine sets; whatever clears bits must flush the TLBs. A change happens as a whole or not at
all: slots and stage 2 change when nothing can fail any more. Left out: guest_memfd, several
address spaces, the dirty ring.
"""

from __future__ import annotations

import ctypes
import errno
from bisect import bisect_left, bisect_right
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
from armkvm.arch.word import M64
from armkvm.engine.stage2 import Backing
from armkvm.host.cpu import GuestMemory
from armkvm.kvm.file import Writable, fail


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

    @property
    def ipas(self) -> list[int]:
        """Where its segments begin."""
        return [self.base + s.offset for s in self.segments]

    def backing(self, segment: Segment) -> Backing:
        """What stage 2 has to know of one of its segments."""
        log = None if segment.log is None else ctypes.addressof(segment.log)
        ipa = self.base + segment.offset
        return Backing(ipa, segment.host, segment.size, self.readonly, log)

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
        # Sorted bases and the slots that begin there. A change is a new pair, so that a vCPU may
        # look while another thread changes slots.
        self._index: tuple[list[int], list[MemSlot]] = [], []
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
            at = bisect_right(slot.segments, ipa - slot.base, key=lambda s: s.offset) - 1
            if at >= 0:
                segment = slot.segments[at]
                offset = ipa - slot.base - segment.offset
                if offset < segment.size:
                    return segment.host + offset, slot, segment
        return None

    def find(self, ipa: int) -> MemSlot | None:
        """The slot that an address falls into."""
        bases, slots = self._index
        at = bisect_right(bases, ipa) - 1
        if at >= 0:
            slot = slots[at]
            if ipa < slot.base + slot.size:
                return slot
        return None

    def _overlapping(self, base: int, size: int) -> list[MemSlot]:
        """The slots that have part of a range."""
        bases, slots = self._index
        first = max(bisect_right(bases, base) - 1, 0)
        found = slots[first : bisect_left(bases, base + size)]
        return [slot for slot in found if base < slot.base + slot.size]

    def fault_level(self, ipa: int) -> int:
        """The level at which a 4 KiB stage-2 table would lack this address: 1, 2 or 3.

        As if every slot were mapped. A real table also lacks what the guest has not touched yet.
        """
        for level, shift in ((1, 30), (2, 21)):
            if not self._overlapping(ipa >> shift << shift, 1 << shift):
                return level
        return 3

    def all(self) -> tuple[MemSlot, ...]:
        """The slots in the order of their addresses."""
        return tuple(self._index[1])

    def set_region(
        self,
        slot: int,
        flags: int,
        base: int,
        size: int,
        userspace_addr: int,
        segments: tuple[Segment, ...],
    ) -> None:
        """Create, move, change or (size 0) delete a slot. EINVAL, EEXIST, EFAULT, ENOMEM."""
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
            self._change(old, None)
            return
        if old is not None:
            # Address, size and the read-only bit of a slot are fixed; it may move in guest memory.
            if (userspace_addr, size) != (old.userspace_addr, old.size):
                fail(errno.EINVAL)
            if (flags ^ old.flags) & KVM_MEM_READONLY:
                fail(errno.EINVAL)
            if (base, flags) == (old.base, old.flags):
                return
        if any(other is not old for other in self._overlapping(base, size)):
            fail(errno.EEXIST)
        if base + size > self.limit:
            fail(errno.EFAULT)
        if old is not None:
            segments = old.segments
        keep = old is not None and old.logged and old.base == base
        try:
            segments = tuple(self._with_log(s, flags, keep=keep) for s in segments)
            new = MemSlot(slot, base, size, flags, userspace_addr, segments)
            self._change(old, new)
        except MemoryError:
            fail(errno.ENOMEM)

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

    def _change(self, old: MemSlot | None, new: MemSlot | None) -> None:
        """A slot takes another's place, or one of them is None. OSError: nothing has changed."""
        self.stage2.replace(
            old.ipas if old else (),
            [new.backing(s) for s in new.segments] if new else (),
        )
        bases, slots = self._index[0].copy(), self._index[1].copy()
        if old:
            at = bisect_left(bases, old.base)
            del self._slots[old.slot], bases[at], slots[at]
        if new:
            at = bisect_left(bases, new.base)
            bases.insert(at, new.base)
            slots.insert(at, new)
            self._slots[new.slot] = new
        self._index = bases, slots

    def close(self) -> None:
        """Let go of the client's memory."""
        self.stage2.replace([b for slot in self.all() for b in slot.ipas], ())
        self._slots, self._index = {}, ([], [])

    def written(self) -> None:
        """User space may have written anywhere: code seen earlier must be read again."""
        self.stage2.written(0, self.limit)
