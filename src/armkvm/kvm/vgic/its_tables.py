"""What an ITS holds, in the guest's tables and back: revision 0 of the ABI, after vgic/vgic-its.c.

Documentation/virt/kvm/devices/arm-vgic-its.rst has the layouts: entries of 8 bytes for a device
(DTE), a collection (CTE) and a translation (ITE). Entries of devices and translations are indexed
and say how far on the next one is, collections stand one behind the other and end with an invalid
one. A translation whose collection is gone can do nothing and is left out, its entry cleared; 6.12
would follow a null pointer there.

Restored tables may hold anything. A scan only moves forward, and MAX_SCANNED entries are all that
one restore looks at (ENOMEM): tables may overlap, so their size says nothing. A restore that fails
leaves no collection, and no device if it came to these.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from armkvm.abi.kvm import PAGE_SIZE
from armkvm.arch import its as g
from armkvm.arch.gic import FIRST_LPI
from armkvm.kvm.file import fail
from armkvm.kvm.vgic.its import (
    ENTRY_SIZE,
    EVENT_ID_BITS,
    L1_ADDRESS,
    Collection,
    Its,
    ItsDevice,
    table_of,
)
from armkvm.kvm.vgic.v3 import SZ_64K

MAX_SCANNED: Final = 1 << 23

_ENTRY_VALID = 1 << 63
_NEXT_DEVICE_SHIFT, _MAX_NEXT_DEVICE = 49, (1 << 14) - 1
_NEXT_EVENT_SHIFT, _MAX_NEXT_EVENT = 48, (1 << 16) - 1
_ITT_ADDR_SHIFT, _ITT_ADDR_MASK = 5, (1 << 44) - 1  # of bits [51:8] of the address
_EVENT_BITS_MASK = 0x1F
_INTID_SHIFT, _TARGET_SHIFT, _ID_MASK = 16, 16, 0xFFFF
_UNMAPPED = 0xFFFF_FFFF  # the target of a collection without one


def save(its: Its) -> None:
    """vgic_its_save_tables_v0(). EINVAL, EFAULT."""
    if its.device_baser & g.BASER_VALID:
        _save_devices(its)
    if its.collection_baser & g.BASER_VALID:
        _save_collections(its)


def restore(its: Its) -> None:
    """vgic_its_restore_tables_v0(). EINVAL, EEXIST (a collection is there), EFAULT, ENOMEM."""
    try:
        if its.collection_baser & g.BASER_VALID:
            _restore_collections(its)
        if its.device_baser & g.BASER_VALID:
            _restore_devices(its)
    except OSError:
        its.free_collections()
        raise


# -- saving -----------------------------------------------------------------------------------


def _steps(ids: Sequence[int], most: int) -> list[int]:
    """How far from each entry to the next one; 0 from the last."""
    return [min(b - a, most) for a, b in pairwise(ids)] + [0]


def _save_devices(its: Its) -> None:
    devices = [its.devices[device_id] for device_id in sorted(its.devices)]
    steps = _steps([device.id for device in devices], _MAX_NEXT_DEVICE)
    for device, step in zip(devices, steps, strict=False):
        at = its.device_entry(device.id)
        if at is None:
            fail(errno.EINVAL)
        _save_itt(its, device)
        entry = _ENTRY_VALID | step << _NEXT_DEVICE_SHIFT | device.event_id_bits - 1
        its.write_entry(at, entry | device.itt_addr >> 8 << _ITT_ADDR_SHIFT)


def _save_itt(its: Its, device: ItsDevice) -> None:
    kept = []
    for event_id, ite in sorted(device.ites.items()):
        if ite.collection is None:
            its.write_entry(device.itt_addr + event_id * ENTRY_SIZE, 0)
        else:
            kept.append((event_id, ite.irq.intid, ite.collection.id))
    steps = _steps([event_id for event_id, _, _ in kept], _MAX_NEXT_EVENT)
    for (event_id, intid, collection_id), step in zip(kept, steps, strict=False):
        entry = step << _NEXT_EVENT_SHIFT | intid << _INTID_SHIFT | collection_id
        its.write_entry(device.itt_addr + event_id * ENTRY_SIZE, entry)


def _save_collections(its: Its) -> None:
    size, gpa = table_of(its.collection_baser)
    for collection in its.collections.values():
        target = _UNMAPPED if collection.target is None else collection.target
        its.write_entry(gpa, _ENTRY_VALID | target << _TARGET_SHIFT | collection.id)
        gpa += ENTRY_SIZE
    if len(its.collections) * ENTRY_SIZE < size:
        its.write_entry(gpa, 0)


# -- restoring --------------------------------------------------------------------------------


def _restore_collections(its: Its) -> None:
    """Up to the first entry that is not valid, or the end of the table."""
    size, base = table_of(its.collection_baser)
    for gpa in range(base, base + size, ENTRY_SIZE):
        raw = its.vm.memslots.read_guest(gpa, ENTRY_SIZE)
        if raw is None:
            fail(errno.EFAULT)
        entry = int.from_bytes(raw, "little")
        if not entry & _ENTRY_VALID:
            return
        _restore_collection(its, entry)


def _restore_collection(its: Its, entry: int) -> None:
    target = entry >> _TARGET_SHIFT & 0xFFFF_FFFF
    collection_id = entry & _ID_MASK
    if target != _UNMAPPED and its.vm.find_vcpu(target) is None:
        fail(errno.EINVAL)
    if collection_id in its.collections:
        fail(errno.EEXIST)
    if its.collection_entry(collection_id) is None:
        fail(errno.EINVAL)
    mapped = None if target == _UNMAPPED else target
    its.collections[collection_id] = Collection(collection_id, mapped)


def _restore_devices(its: Its) -> None:
    try:
        _Scan(its).devices()
    except OSError:
        its.free_devices()
        raise


class _Scan:
    """One pass over the device table and the tables that it leads to."""

    def __init__(self, its: Its) -> None:
        self.its = its
        self.left = MAX_SCANNED

    def _table(self, base: int, size: int, first: int, visit: Callable[[int, int], int]) -> bool:
        """scan_its_table(): `visit` gets index and entry and says how far the next one is.

        0 is the last one, and ends the scan with False; True: there may be more in another table.
        """
        at, page = 0, -1
        words: tuple[int, ...] = ()
        while at < size:
            self.left -= 1
            if self.left < 0:
                fail(errno.ENOMEM)
            gpa = base + at
            if gpa // PAGE_SIZE != page:
                page, words = gpa // PAGE_SIZE, self._page(gpa // PAGE_SIZE * PAGE_SIZE)
            step = visit(first + at // ENTRY_SIZE, words[gpa % PAGE_SIZE // ENTRY_SIZE])
            if not step:
                return False
            at += step * ENTRY_SIZE
        return True

    def _page(self, gpa: int) -> tuple[int, ...]:
        raw = self.its.vm.memslots.read_guest(gpa, PAGE_SIZE)
        if raw is None:
            fail(errno.EFAULT)
        return struct.unpack(f"<{PAGE_SIZE // ENTRY_SIZE}Q", raw)

    def devices(self) -> None:
        """vgic_its_restore_device_tables()."""
        size, base = table_of(self.its.device_baser)
        indirect = self.its.device_baser & g.GITS_BASER_INDIRECT
        self._table(base, size, 0, self._second_level if indirect else self._device)

    def _second_level(self, index: int, entry: int) -> int:
        """handle_l1_dte()."""
        if not entry & _ENTRY_VALID:
            return 1
        first = index * SZ_64K // ENTRY_SIZE
        return int(self._table(entry & L1_ADDRESS, SZ_64K, first, self._device))

    def _device(self, device_id: int, entry: int) -> int:
        """vgic_its_restore_dte()."""
        if not entry & _ENTRY_VALID:
            return 1
        its = self.its
        itt_addr = (entry >> _ITT_ADDR_SHIFT & _ITT_ADDR_MASK) << 8
        event_id_bits = (entry & _EVENT_BITS_MASK) + 1
        if event_id_bits > EVENT_ID_BITS or its.device_entry(device_id) is None:
            fail(errno.EINVAL)
        old = its.devices.get(device_id)
        if old is not None:
            its.free_device(old)
        device = its.devices[device_id] = ItsDevice(device_id, itt_addr, event_id_bits)
        self._table(
            itt_addr, ENTRY_SIZE << event_id_bits, 0,
            lambda event_id, ite: self._translation(device, event_id, ite),
        )  # fmt: skip
        return entry >> _NEXT_DEVICE_SHIFT & _MAX_NEXT_DEVICE

    def _translation(self, device: ItsDevice, event_id: int, entry: int) -> int:
        """vgic_its_restore_ite()."""
        intid = entry >> _INTID_SHIFT & 0xFFFF_FFFF
        if not intid:
            return 1
        step = entry >> _NEXT_EVENT_SHIFT
        collection = self.its.collections.get(entry & _ID_MASK)
        if intid < FIRST_LPI or event_id + step >> device.event_id_bits or collection is None:
            fail(errno.EINVAL)
        if self.its.event_entry(device, event_id) is None:
            fail(errno.EINVAL)
        self.its.add_ite(device, event_id, intid, collection)
        return step
