"""Guest physical memory of one VM, and the decoded instructions that belong to it.

Stage 2 is a list of segments, sorted by address, that native code searches (native/walk.py). It
changes only while no CPU of the VM executes, and as a whole or not at all: whatever can fail comes
before the first change. Records of decoded instructions are found by host page (native/icache.py).
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armkvm.engine import layout
from armkvm.engine.hostmem import HostMemory

if TYPE_CHECKING:
    from armkvm.engine.cpu import Cpu, Engine

_ARENA_BYTES = 1 << 30  # virtual: pages are touched as guest code is
_PAGE = 4096
_EVERYTHING = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Backing:
    """[ipa, ipa + size) of the guest is at host address `host`, which its user keeps alive.

    All are multiples of 4096. `log` is the address of a bitmap, one bit a page, that records
    writes; it has to be zero-filled to whole bytes.
    """

    ipa: int
    host: int
    size: int
    readonly: bool = False
    log: int | None = None

    def words(self) -> ctypes.Array[ctypes.c_uint64]:
        """The segment as native code reads it."""
        flags = layout.SEG_READONLY * self.readonly | layout.SEG_LOGGED * (self.log is not None)
        fields = (self.ipa, self.size, self.host, flags, self.log or 0)
        return (ctypes.c_uint64 * (layout.SEG_SIZE // 8))(*fields)


class Stage2:
    """Guest physical memory of one VM, as segments of host memory.

    `arena`: bytes of address space for decoded instructions, 9 for each of the guest's. When they
    are used up, all are dropped and decoding begins anew. OSError (ENOMEM).
    """

    def __init__(self, engine: Engine, *, arena: int = _ARENA_BYTES) -> None:
        self.engine = engine
        self._table = HostMemory(layout.S2_SIZE)
        self.address = self._table.address
        self._words = (ctypes.c_uint64 * (layout.S2_SIZE // 8)).from_address(self.address)
        if arena < layout.PAGE_STRIDE + 64:
            raise ValueError(f"an arena of {arena} bytes holds no page of records")
        self._arena = HostMemory(arena)
        pages_bits = (2 * arena // layout.PAGE_STRIDE).bit_length()
        self._pages = HostMemory(layout.PAGES_ENTRY << pages_bits)
        self._ipas: list[int] = []
        self._segments: list[tuple[Backing, ctypes.Array[ctypes.c_uint64]]] = []
        self._capacity = 64
        self._index = HostMemory(self._capacity * layout.INDEX_ENTRY)
        self._cpus: list[Cpu] = []
        self._closed = False
        w = self._words
        w[layout.S2_INDEX // 8] = self._index.address
        w[layout.S2_PAGES // 8] = self._pages.address
        w[layout.S2_PAGES_SHIFT // 8] = 64 - pages_bits
        w[layout.S2_ARENA // 8] = (self._arena.address + 63) & ~63
        w[layout.S2_ARENA_END // 8] = self._arena.address + arena
        self.reset_records()

    def close(self) -> None:
        """Give the memory of translation and records back, when the last CPU is closed."""
        self._closed = True
        if not self._cpus:
            self._free()

    def _free(self) -> None:
        for memory in (self._arena, self._pages, self._index, self._table):
            memory.close()
        self._words = (ctypes.c_uint64 * (layout.S2_SIZE // 8))()
        self._ipas, self._segments = [], []

    # -- memory -----------------------------------------------------------------------------
    def map(
        self, ipa: int, host: int, size: int, *, readonly: bool = False, log: int | None = None
    ) -> None:
        """Add one segment."""
        self.replace((), [Backing(ipa, host, size, readonly, log)])

    def unmap(self, ipa: int, size: int) -> None:
        """Take away the segments that lie inside [ipa, ipa+size)."""
        inside = self._segments[bisect_left(self._ipas, ipa) : bisect_left(self._ipas, ipa + size)]
        self.replace([s.ipa for s, _ in inside if s.ipa + s.size <= ipa + size], ())

    def replace(self, gone: Sequence[int], new: Sequence[Backing]) -> None:
        """Take the segments at the addresses `gone` away and enter others in their place.

        Both are in order, and nothing lies between the first and the last of either. All of it
        happens, or nothing: OSError and MemoryError leave stage 2 as it was.
        """
        for b in new:
            if (b.ipa | b.host | b.size) & (_PAGE - 1) or b.size <= 0:
                raise ValueError("stage 2 maps whole pages")
        entered = [(b, b.words()) for b in new]
        self._reserve(len(self._ipas) + len(new))
        # From here on nothing fails.
        if gone:
            at = bisect_left(self._ipas, gone[0])
            removed = self._segments[at : at + len(gone)]
            assert [b.ipa for b, _ in removed] == list(gone)
            self._splice(at, len(gone), [])
            for b, _ in removed:
                self._drop(b.host, b.size)
            for cpu in self._cpus:
                cpu.state.segment_hint = 0
            self.flush()
        if new:
            self._splice(bisect_left(self._ipas, new[0].ipa), 0, entered)

    def _reserve(self, count: int) -> None:
        """Room for so many segments in the index."""
        if count > self._capacity:
            capacity = 2 * count
            index = HostMemory(capacity * layout.INDEX_ENTRY)
            ctypes.memmove(index.address, self._index.address, len(self._ipas) * layout.INDEX_ENTRY)
            self._words[layout.S2_INDEX // 8] = index.address
            self._index.close()
            self._index, self._capacity = index, capacity

    def _splice(
        self, at: int, gone: int, new: list[tuple[Backing, ctypes.Array[ctypes.c_uint64]]]
    ) -> None:
        entry = layout.INDEX_ENTRY
        here, rest = self._index.address + at * entry, len(self._ipas) - at - gone
        ctypes.memmove(here + len(new) * entry, here + gone * entry, rest * entry)
        rows = (ctypes.c_uint64 * (2 * len(new))).from_address(here)
        for i, (b, words) in enumerate(new):
            rows[2 * i], rows[2 * i + 1] = b.ipa, ctypes.addressof(words)
        self._ipas[at : at + gone] = [b.ipa for b, _ in new]
        self._segments[at : at + gone] = new
        self._words[layout.S2_COUNT // 8] = len(self._ipas)

    # -- decoded instructions ---------------------------------------------------------------
    def written(self, ipa: int, size: int) -> None:
        """Somebody wrote guest memory: drop what was decoded of it. No CPU may be running."""
        if not self._ipas or (ipa <= self._ipas[0] and self._ipas[-1] < ipa + size):
            self._drop(0, _EVERYTHING)
            return
        first = max(bisect_right(self._ipas, ipa) - 1, 0)
        for b, _ in self._segments[first : bisect_left(self._ipas, ipa + size)]:
            start = max(ipa, b.ipa) & -_PAGE
            end = min(ipa + size, b.ipa + b.size)
            if start < end:
                self._drop(b.host + start - b.ipa, -(-(end - start) // _PAGE) * _PAGE)

    def _drop(self, host: int, size: int) -> None:
        if self._cpus:
            self.engine.drop_range(self._cpus[0].address, host, size)
        else:
            self.reset_records()

    def reset_records(self) -> None:
        """Drop every decoded instruction; no CPU of the VM may be running."""
        self._pages.clear()
        self._words[layout.S2_ARENA_NEXT // 8] = self._words[layout.S2_ARENA // 8]
        self.flush()

    def flush(self) -> None:
        """Drop every TLB entry, so that writes are logged anew; no CPU of the VM may be running."""
        for cpu in self._cpus:
            self.engine.flush_all(cpu.address)

    # -- CPUs -------------------------------------------------------------------------------
    def enter(self, cpu: Cpu) -> None:
        """A CPU joins the VM; no other may be running, here and in `forget`."""
        if len(self._cpus) == layout.MAX_CPUS:
            raise ValueError(f"more than {layout.MAX_CPUS} CPUs")
        self._cpus.append(cpu)
        self._publish_cpus()

    def forget(self, cpu: Cpu) -> None:
        """A CPU goes away."""
        self._cpus.remove(cpu)
        self._publish_cpus()
        if self._closed and not self._cpus:
            self._free()

    def _publish_cpus(self) -> None:
        for i, cpu in enumerate(self._cpus):
            self._words[layout.S2_CPU_LIST // 8 + i] = cpu.address
        self._words[layout.S2_NCPUS // 8] = len(self._cpus)
