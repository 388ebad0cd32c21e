"""The commands of an ITS, after vgic/vgic-its.c (IHI 0069, 5.3).

A command is four words. What the guest gets wrong is a CommandError, what KVM cannot do an OSError;
the queue goes on after either (its_mmio.py). The work for one is bounded: by the translations that
there can be (MAPD, MAPC), by the LPIs (INVALL, MOVALL), else by a constant. MOVALL moves all LPIs
there are, whatever they target, as 6.12 does. Left out: commands of GICv4, which nobody knows here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from armkvm.arch import its as g
from armkvm.arch.gic import FIRST_LPI
from armkvm.kvm.file import fail
from armkvm.kvm.vgic import lpi
from armkvm.kvm.vgic.its import (
    ENTRY_SIZE,
    EVENT_ID_BITS,
    Collection,
    CommandError,
    Ite,
    Its,
    ItsDevice,
)


class Command(NamedTuple):
    """Its fields, wherever a command has them."""

    number: int
    device_id: int
    event_id: int
    size: int  # bits of EventID
    intid: int
    collection_id: int
    itt_addr: int
    target: int
    valid: bool
    second_target: int


def decode(raw: bytes) -> Command:
    """A command as it is in the queue."""
    w0, w1, w2, w3 = (int.from_bytes(raw[at : at + 8], "little") for at in range(0, g.CMD_SIZE, 8))
    return Command(
        number=w0 & 0xFF,
        device_id=w0 >> 32,
        event_id=w1 & 0xFFFF_FFFF,
        size=(w1 & 0x1F) + 1,
        intid=w1 >> 32,
        collection_id=w2 & 0xFFFF,
        itt_addr=w2 & 0xF_FFFF_FFFF_FF00,
        target=w2 >> 16 & 0xFFFF_FFFF,
        valid=bool(w2 >> 63),
        second_target=w3 >> 16 & 0xFFFF_FFFF,
    )


def execute(its: Its, command: Command) -> None:
    """vgic_its_handle_command(). CommandError, OSError."""
    handler = _HANDLERS.get(command.number)
    if handler is None:
        fail(errno.ENODEV)
    with its.its_lock:
        handler(its, command)


def work(its: Its, command: Command) -> int:
    """How many LPIs or translations a command goes through, at most."""
    match command.number:
        case g.CMD_INVALL | g.CMD_MOVALL:
            return len(its.vm.vgic.lpis) if its.vm.irqchip_in_kernel else 0
        case g.CMD_MAPC:
            return its.ites
        case g.CMD_MAPD:
            device = its.devices.get(command.device_id)
            return len(device.ites) if device else 0
        case _:
            return 0


def _found(its: Its, cmd: Command, error: int) -> Ite:
    ite = its.find_ite(cmd.device_id, cmd.event_id)
    if ite is None:
        raise CommandError(error)
    return ite


def _mapped(its: Its, cmd: Command, error: int) -> Collection:
    """The collection of a command that wants one with a target."""
    collection = its.collections.get(cmd.collection_id)
    if collection is None or collection.target is None:
        raise CommandError(error)
    return collection


def _mapd(its: Its, cmd: Command) -> None:
    """A device gets an ITT, a new one, or none."""
    entry = its.device_entry(cmd.device_id)
    if entry is None:
        raise CommandError(g.E_MAPD_DEVICE_OOR)
    if cmd.valid and cmd.size > EVENT_ID_BITS:
        raise CommandError(g.E_MAPD_ITTSIZE_OOR)
    device = its.devices.get(cmd.device_id)
    if device is not None:
        its.free_device(device)
    if cmd.valid:
        its.devices[cmd.device_id] = ItsDevice(cmd.device_id, cmd.itt_addr, cmd.size)
    else:
        its.write_entry(entry, 0)


def _mapc(its: Its, cmd: Command) -> None:
    """A collection gets a target, a new one, or none."""
    if not cmd.valid:
        its.free_collection(cmd.collection_id)
        return
    if its.vm.find_vcpu(cmd.target) is None:
        raise CommandError(g.E_MAPC_PROCNUM_OOR)
    collection = its.collections.get(cmd.collection_id)
    if collection is None:
        collection = _new_collection(its, cmd.collection_id)
        collection.target = cmd.target
        return
    collection.target = cmd.target
    for ite in its.ites_of(collection):
        _retarget(its, ite)


def _new_collection(its: Its, collection_id: int) -> Collection:
    if its.collection_entry(collection_id) is None:
        raise CommandError(g.E_MAPC_COLLECTION_OOR)
    collection = its.collections[collection_id] = Collection(collection_id)
    return collection


def _retarget(its: Its, ite: Ite) -> None:
    """update_affinity_ite(): where it is on an ap_list, the vCPU there hands it over."""
    with its.vm.vgic.lock:
        ite.irq.target_vcpu = its.target(ite.collection)


def _mapti(its: Its, cmd: Command) -> None:
    """An event of a device becomes an LPI; MAPI: the one of that number."""
    device = its.devices.get(cmd.device_id)
    if device is None:
        raise CommandError(g.E_MAPTI_UNMAPPED_DEVICE)
    if its.event_entry(device, cmd.event_id) is None:
        raise CommandError(g.E_MAPTI_ID_OOR)
    intid = cmd.intid if cmd.number == g.CMD_MAPTI else cmd.event_id
    if not FIRST_LPI <= intid < lpi.max_intid(its.vm):
        raise CommandError(g.E_MAPTI_PHYSICALID_OOR)
    if cmd.event_id in device.ites:
        return  # UNPREDICTABLE
    known = its.collections.get(cmd.collection_id)
    collection = known or _new_collection(its, cmd.collection_id)
    try:
        its.add_ite(device, cmd.event_id, intid, collection)
    except OSError:
        if known is None:
            del its.collections[collection.id]
        raise


def _movi(its: Its, cmd: Command) -> None:
    """An event goes to another collection."""
    ite = _found(its, cmd, g.E_MOVI_UNMAPPED_INTERRUPT)
    if not ite.mapped:
        raise CommandError(g.E_MOVI_UNMAPPED_COLLECTION)
    ite.collection = _mapped(its, cmd, g.E_MOVI_UNMAPPED_COLLECTION)
    _retarget(its, ite)


def _discard(its: Its, cmd: Command) -> None:
    """An event becomes nothing; its LPI, if pending, with it."""
    ite = _found(its, cmd, g.E_DISCARD_UNMAPPED_INTERRUPT)
    if not ite.mapped:
        raise CommandError(g.E_DISCARD_UNMAPPED_INTERRUPT)
    device = its.devices[cmd.device_id]
    its.free_ite(device, ite)
    its.write_entry(device.itt_addr + cmd.event_id * ENTRY_SIZE, 0)


def _clear(its: Its, cmd: Command) -> None:
    """An LPI is not pending any more."""
    ite = _found(its, cmd, g.E_CLEAR_UNMAPPED_INTERRUPT)
    with its.vm.vgic.lock:
        ite.irq.pending_latch = False


def _int(its: Its, cmd: Command) -> None:
    """As if the device had sent its message."""
    its.trigger(cmd.device_id, cmd.event_id)


def _inv(its: Its, cmd: Command) -> None:
    """The configuration of one LPI has changed in memory."""
    lpi.read_config(its.vm, _found(its, cmd, g.E_INV_UNMAPPED_INTERRUPT).irq)


def _invall(its: Its, cmd: Command) -> None:
    """That of all of a collection; of all on its target, here."""
    vcpu = its.target(_mapped(its, cmd, g.E_INVALL_UNMAPPED_COLLECTION))
    if vcpu is not None:
        lpi.invalidate_all(vcpu)


def _movall(its: Its, cmd: Command) -> None:
    """All LPIs go from one redistributor to another."""
    vm = its.vm
    source, target = vm.find_vcpu(cmd.target), vm.find_vcpu(cmd.second_target)
    if source is None or target is None:
        raise CommandError(g.E_MOVALL_PROCNUM_OOR)
    if source is not target:
        for irq in lpi.all_lpis(vm):
            with vm.vgic.lock:
                irq.target_vcpu = target


def _sync(_its: Its, _cmd: Command) -> None:
    """All that came before is done."""


_HANDLERS: dict[int, Callable[[Its, Command], None]] = {
    g.CMD_MAPD: _mapd,
    g.CMD_MAPC: _mapc,
    g.CMD_MAPTI: _mapti,
    g.CMD_MAPI: _mapti,
    g.CMD_MOVI: _movi,
    g.CMD_DISCARD: _discard,
    g.CMD_INT: _int,
    g.CMD_CLEAR: _clear,
    g.CMD_INV: _inv,
    g.CMD_INVALL: _invall,
    g.CMD_MOVALL: _movall,
    g.CMD_SYNC: _sync,
}
