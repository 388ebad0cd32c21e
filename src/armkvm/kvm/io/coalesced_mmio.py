"""Coalesced MMIO, after virt/kvm/coalesced_mmio.c: writes to a zone are queued, not reported.

The queue is a ring in the second of the pages that a vCPU shares with its user. A VM has one ring:
every vCPU shows the same page there (memory of the client's own is the client's to arrange). The
ring is user space's to scribble on, so its indices are checked each time.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from armkvm.abi.kvm import HOST_PAGE_SIZE, KVM_VCPU_MMAP_SIZE
from armkvm.abi.structs import KvmCoalescedMmio, KvmCoalescedMmioRing
from armkvm.kvm.file import Writable, fail

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

_HEAD, _ENTRY = ctypes.sizeof(KvmCoalescedMmioRing), ctypes.sizeof(KvmCoalescedMmio)
KVM_COALESCED_MMIO_MAX: Final = (HOST_PAGE_SIZE - _HEAD) // _ENTRY

_MREMAP_MAYMOVE_FIXED: Final = 1 | 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mremap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p,
)  # fmt: skip


@dataclass(eq=False)
class Zone:
    """struct kvm_coalesced_mmio_dev: one zone, a device on the MMIO bus."""

    coalesced: CoalescedMmio
    addr: int
    size: int
    pio: int

    def read(self, _vcpu: Vcpu, _addr: int, _length: int) -> int | None:
        """Reads need an answer."""
        return None

    def write(self, _vcpu: Vcpu, addr: int, length: int, value: int) -> bool:
        """Queue it; a full ring makes it an exit, on which user space empties the ring."""
        return self.coalesced.put(addr, length, value, self.pio)


class CoalescedMmio:
    """The zones and the ring of one VM."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.lock = threading.Lock()  # kvm->ring_lock
        self.zones: list[Zone] = []
        self._page: Writable | None = None
        self._head: KvmCoalescedMmioRing
        self._entries: ctypes.Array[KvmCoalescedMmio]

    def pages(self) -> mmap.mmap:
        """Fresh pages for a vCPU: kvm_run's own, and the ring's, shared with those before."""
        pages = mmap.mmap(-1, KVM_VCPU_MMAP_SIZE)
        if self._page is not None and isinstance(self._page, mmap.mmap):
            ring, own = (_address(m) + HOST_PAGE_SIZE for m in (self._page, pages))
            # An old size of 0 maps the same shared memory once more.
            if _libc.mremap(ring, 0, HOST_PAGE_SIZE, _MREMAP_MAYMOVE_FIXED, own) != own:
                fail(ctypes.get_errno())
        return pages

    def join(self, pages: Writable) -> None:
        """A vCPU's pages; the first one's hold the ring."""
        if self._page is None:
            self._page = pages
            self._head = KvmCoalescedMmioRing.from_buffer(pages, HOST_PAGE_SIZE)
            kind = KvmCoalescedMmio * KVM_COALESCED_MMIO_MAX
            self._entries = kind.from_buffer(pages, HOST_PAGE_SIZE + _HEAD)

    def put(self, addr: int, length: int, value: int, pio: int) -> bool:
        """coalesced_mmio_write(): False when there is no room or the ring makes no sense."""
        with self.lock:
            first, last = self._head.first, self._head.last
            if last >= KVM_COALESCED_MMIO_MAX:
                return False
            after = (last + 1) % KVM_COALESCED_MMIO_MAX
            if after == first:
                return False  # always one entry free
            entry = self._entries[last]
            entry.phys_addr, entry.len, entry.pio = addr, length, pio
            entry.data[:length] = (value & (1 << 8 * length) - 1).to_bytes(length, "little")
            self._head.last = after
            return True

    def register(self, addr: int, size: int, pio: int) -> None:
        """KVM_REGISTER_COALESCED_MMIO (api.rst 4.116). EINVAL, ENOSPC. Slots_lock held."""
        if pio not in (0, 1):
            fail(errno.EINVAL)
        zone = Zone(self, addr, size, pio)
        if not pio:  # nothing is ever written to the other bus
            ret = self.vm.mmio_bus.register(addr, size, zone)
            if ret:
                fail(-ret)
        self.zones.append(zone)

    def unregister(self, addr: int, size: int, pio: int) -> None:
        """KVM_UNREGISTER_COALESCED_MMIO: every zone that holds this range. EINVAL."""
        if pio not in (0, 1):
            fail(errno.EINVAL)
        for zone in list(self.zones):
            if zone.pio == pio and zone.addr <= addr and addr + size <= zone.addr + zone.size:
                self.zones.remove(zone)
                self.vm.mmio_bus.unregister(zone)


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
