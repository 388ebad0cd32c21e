"""An Interrupt Translation Service: struct vgic_its of vgic/vgic-its.c, and how MSIs find LPIs.

A device, by DeviceID, has an Interrupt Translation Table: for each EventID an LPI and a collection.
A collection has a target vCPU. The guest makes all three by commands (its_commands.py); its tables
in memory are only touched where KVM has to: where an entry must have room, and for save and restore
(its_tables.py). Translation is two look-ups in dictionaries, so there is no cache of translations.

`cmd_lock` guards the command queue's registers, `its_lock` devices and collections; the first is
the outer one, and both lie outside the vgic's. A guest may map what it likes: more than MAX_ITES
translations or the DeviceIDs and collections that GITS_TYPER allows there are not (ENOMEM).
Left out: GICv4.
"""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from armkvm.arch import its as g
from armkvm.kvm.file import fail
from armkvm.kvm.vgic import lpi
from armkvm.kvm.vgic.dist import VGIC_ADDR_UNDEF, queue_irq
from armkvm.kvm.vgic.irq import VgicIrq
from armkvm.kvm.vgic.v3 import SZ_64K

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

ENTRY_SIZE: Final = 8  # of all tables, by revision 0 of the ABI
EVENT_ID_BITS: Final = 16
DEVICE_ID_BITS: Final = 17
COLLECTION_ID_BITS: Final = 16
MAX_ITES: Final = 1 << 17  # twice as many as there are LPIs

L1_ADDRESS: Final = 0xF_FFFF_FFFF_0000  # of an entry of an indirect table's first level
_INITIAL_BASER = (
    g.CACHE_RAWB << g.BASER_INNER_SHIFT
    | g.INNER_SHAREABLE << g.SHAREABILITY_SHIFT
    | g.GITS_BASER_PAGE_SIZE_64K
    | ENTRY_SIZE - 1 << g.GITS_BASER_ENTRY_SIZE_SHIFT
)


class CommandError(Exception):
    """What GITS_TYPER.SEIS would report: a command that the guest got wrong. KVM ignores it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ITS command error {code:#x}")
        self.code = code


@dataclass(eq=False, slots=True)
class Collection:
    """struct its_collection."""

    id: int
    target: int | None = None  # a vCPU's id, if it is mapped


@dataclass(eq=False, slots=True)
class Ite:
    """struct its_ite: what an event of a device becomes."""

    event_id: int
    irq: VgicIrq
    collection: Collection | None  # None: the collection was unmapped since

    @property
    def mapped(self) -> bool:
        """Its collection has a target."""
        return self.collection is not None and self.collection.target is not None


@dataclass(eq=False, slots=True)
class ItsDevice:
    """struct its_device."""

    id: int
    itt_addr: int
    event_id_bits: int
    ites: dict[int, Ite] = field(default_factory=dict)


class Its:
    """struct vgic_its. It lives as long as its VM."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.base = VGIC_ADDR_UNDEF
        self.cmd_lock = threading.Lock()
        self.its_lock = threading.Lock()
        self.enabled = False
        self.cbaser = self.creadr = self.cwriter = 0
        device, collection = g.GITS_BASER_TYPE_DEVICE, g.GITS_BASER_TYPE_COLLECTION
        self.device_baser = _INITIAL_BASER | device << g.GITS_BASER_TYPE_SHIFT
        self.collection_baser = _INITIAL_BASER | collection << g.GITS_BASER_TYPE_SHIFT
        self.devices: dict[int, ItsDevice] = {}
        self.collections: dict[int, Collection] = {}
        self.ites = 0  # of all devices

    # its_lock is held in all that follows but `inject`

    def find_ite(self, device_id: int, event_id: int) -> Ite | None:
        """find_ite()."""
        device = self.devices.get(device_id)
        return None if device is None else device.ites.get(event_id)

    def target(self, collection: Collection | None) -> Vcpu | None:
        """collection_to_vcpu(): the vCPU of a collection that is mapped."""
        if collection is None or collection.target is None:
            return None
        return self.vm.find_vcpu(collection.target)

    def add_ite(self, device: ItsDevice, event_id: int, intid: int, collection: Collection) -> None:
        """An event becomes an LPI. ENOMEM, and what lpi.add() says."""
        if self.ites >= MAX_ITES:
            fail(errno.ENOMEM)
        irq = lpi.add(self.vm, intid, self.target(collection))
        device.ites[event_id] = Ite(event_id, irq, collection)
        self.ites += 1

    def free_ite(self, device: ItsDevice, ite: Ite) -> None:
        """its_free_ite()."""
        del device.ites[ite.event_id]
        self.ites -= 1
        lpi.put(self.vm.vgic, ite.irq)

    def free_device(self, device: ItsDevice) -> None:
        """vgic_its_free_device(), with its translations."""
        for ite in list(device.ites.values()):
            self.free_ite(device, ite)
        del self.devices[device.id]

    def free_devices(self) -> None:
        """vgic_its_free_device_list()."""
        for device in list(self.devices.values()):
            self.free_device(device)

    def ites_of(self, collection: Collection) -> list[Ite]:
        """The translations that go to a collection."""
        return [
            ite
            for device in self.devices.values()
            for ite in device.ites.values()
            if ite.collection is collection
        ]

    def free_collection(self, collection_id: int) -> None:
        """vgic_its_free_collection(): its translations go nowhere, also if it is mapped again."""
        collection = self.collections.pop(collection_id, None)
        if collection is not None:
            for ite in self.ites_of(collection):
                ite.collection = None

    def free_collections(self) -> None:
        """vgic_its_free_collection_list()."""
        self.collections.clear()
        for device in self.devices.values():
            for ite in device.ites.values():
                ite.collection = None

    # tables in guest memory

    def device_entry(self, device_id: int) -> int | None:
        """vgic_its_check_id(): where a device's table entry is; None where it has no room."""
        if device_id >> DEVICE_ID_BITS:
            return None
        return self._entry(self.device_baser, device_id)

    def collection_entry(self, collection_id: int) -> int | None:
        """The same for a collection, as if its table were indexed."""
        if collection_id >> COLLECTION_ID_BITS:
            return None
        return self._entry(self.collection_baser, collection_id)

    def _entry(self, baser: int, index: int) -> int | None:
        size, base = table_of(baser)
        if baser & g.GITS_BASER_INDIRECT:
            entries = SZ_64K // ENTRY_SIZE  # of a table of the second level
            first, index = divmod(index, entries)
            if first >= size // ENTRY_SIZE:
                return None
            raw = self.vm.memslots.read_guest(base + first * ENTRY_SIZE, ENTRY_SIZE)
            pointer = 0 if raw is None else int.from_bytes(raw, "little")
            if not pointer & g.BASER_VALID:
                return None
            size, base = SZ_64K, pointer & L1_ADDRESS
        if index >= size // ENTRY_SIZE:
            return None
        return self.visible(base + index * ENTRY_SIZE)

    def visible(self, gpa: int) -> int | None:
        """kvm_is_visible_gfn(): the address, if it lies in a memory slot."""
        return None if self.vm.memslots.find(gpa) is None else gpa

    def event_entry(self, device: ItsDevice, event_id: int) -> int | None:
        """vgic_its_check_event_id(): where an event's table entry is, if it has room."""
        if event_id >> device.event_id_bits:
            return None
        return self.visible(device.itt_addr + event_id * ENTRY_SIZE)

    def write_entry(self, gpa: int, value: int) -> None:
        """vgic_its_write_entry_lock(). EFAULT."""
        if not self.vm.memslots.write_guest(gpa, value.to_bytes(ENTRY_SIZE, "little")):
            fail(errno.EFAULT)

    # interrupts

    def trigger(self, device_id: int, event_id: int) -> None:
        """vgic_its_trigger_msi(). EBUSY: ITS or redistributor are off; CommandError: unmapped."""
        if not self.enabled:
            fail(errno.EBUSY)
        ite = self.find_ite(device_id, event_id)
        vcpu = None if ite is None else self.target(ite.collection)
        if ite is None or vcpu is None:
            raise CommandError(g.E_INT_UNMAPPED_INTERRUPT)
        if not lpi.lpis_enabled(vcpu):
            fail(errno.EBUSY)
        with self.vm.vgic.lock:
            ite.irq.pending_latch = True
            queue_irq(ite.irq)

    def inject(self, device_id: int, event_id: int) -> int:
        """A device's message: 1 if it was delivered, 0 if the guest has no use for it. EBUSY."""
        with self.its_lock:
            try:
                self.trigger(device_id, event_id)
            except CommandError:
                return 0
        return 1

    def reset(self) -> None:
        """vgic_its_reset(): as it was made, at its address."""
        self.enabled = False
        self.cbaser = self.creadr = self.cwriter = 0
        self.device_baser &= ~g.BASER_VALID
        self.collection_baser &= ~g.BASER_VALID
        self.free_devices()
        self.free_collections()


def table_of(baser: int) -> tuple[int, int]:
    """Size in bytes and address of the table of a GITS_BASER<n>, with pages of 64 KiB."""
    size = ((baser & g.GITS_BASER_SIZE_MASK) + 1) * SZ_64K
    return size, baser & 0xFFFF_FFFF_0000 | (baser >> 12 & 0xF) << 48
