"""The registers of an ITS and its command queue, after vgic/vgic-its.c (IHI 0069, 12.19).

The frame on the bus is the control frame and, 64 KiB further on, the translation frame. A device's
write to GITS_TRANSLATER comes as KVM_SIGNAL_MSI, with its DeviceID (msi.py); a CPU that writes
there has none, and nothing happens. Commands are done while GITS_CWRITER or GITS_CTLR is written,
as in KVM, but a queue that would take seconds is done in parts: the rest waits for the next access
to GITS_CREADR, GITS_CWRITER or GITS_CTLR, which a guest makes to see how far the ITS is. In between
KVM_RUN can be kicked.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armkvm.arch import its as g
from armkvm.kvm.file import fail
from armkvm.kvm.vgic import its_commands
from armkvm.kvm.vgic.its import DEVICE_ID_BITS, ENTRY_SIZE, EVENT_ID_BITS, CommandError, Its
from armkvm.kvm.vgic.mmio import (
    ACCESS_32,
    ACCESS_64,
    IMPLEMENTER_ARM,
    PRODUCT_ID_KVM,
    extract_bytes,
    sanitised,
    update_64bit_reg,
)
from armkvm.kvm.vgic.mmio_v3 import PIDR2_GICV3

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

ABI_REVISION = 0
_IIDR_REVISION_SHIFT, _IIDR_REVISION_MASK = 12, 0xF
_IIDR_PRODUCT_SHIFT = 24
_IDREGS = {
    g.GITS_PIDR0: 0x92,
    g.GITS_PIDR1: 0xB4,
    g.GITS_PIDR2: PIDR2_GICV3,
    g.GITS_PIDR4: 0x40,  # a page of 64 KiB that software sees
    g.GITS_CIDR0: 0x0D,
    g.GITS_CIDR1: 0xF0,
    g.GITS_CIDR2: 0x05,
    g.GITS_CIDR3: 0xB1,
}
_CBASER_ALIGN = 0xF000
_QUEUE_OFFSET = 0xF_FFE0
WORK_AT_ONCE = 1 << 17  # LPIs and translations that one access goes through: a second

Read = Callable[[Its, int, int], int]
Write = Callable[[Its, int, int, int], None]


# -- the command queue ------------------------------------------------------------------------


def _queue_size(its: Its) -> int:
    return (its.cbaser & 0xFF) + 1 << 12


def _process_commands(its: Its) -> None:
    """vgic_its_process_commands(): up to GITS_CWRITER, if the ITS is on. cmd_lock is held.

    What cannot be read or done is passed over (IHI 0069 5.3: command errors).
    """
    if not its.enabled:
        return
    queue = its.cbaser & g.GITS_CBASER_ADDRESS
    left = WORK_AT_ONCE
    while its.cwriter != its.creadr and left > 0:
        raw = its.vm.memslots.read_guest(queue + its.creadr, g.CMD_SIZE)
        left -= 1
        if raw is not None:
            command = its_commands.decode(raw)
            left -= its_commands.work(its, command)
            with suppress(CommandError, OSError):
                its_commands.execute(its, command)
        its.creadr = (its.creadr + g.CMD_SIZE) % _queue_size(its)


def _read_ctlr(its: Its, _addr: int, _length: int) -> int:
    with its.cmd_lock:
        _process_commands(its)
        quiescent = g.GITS_CTLR_QUIESCENT if its.creadr == its.cwriter else 0
        return quiescent | (g.GITS_CTLR_ENABLE if its.enabled else 0)


def _write_ctlr(its: Its, _addr: int, _length: int, val: int) -> None:
    """It cannot be switched on while a table or the queue is not valid."""
    with its.cmd_lock:
        enable = bool(val & g.GITS_CTLR_ENABLE)
        valid = its.device_baser & its.collection_baser & its.cbaser & g.BASER_VALID
        if enable and not its.enabled and not valid:
            return
        its.enabled = enable
        _process_commands(its)


def _read_cbaser(its: Its, addr: int, length: int) -> int:
    return extract_bytes(its.cbaser, addr, length)


def _write_cbaser(its: Its, addr: int, length: int, val: int) -> None:
    """The queue is empty afterwards."""
    if its.enabled:
        return
    with its.cmd_lock:
        reg = update_64bit_reg(its.cbaser, addr, length, val)
        reg = sanitised(reg, g.BASER_INNER_SHIFT, g.BASER_OUTER_SHIFT)
        its.cbaser = reg & ~_CBASER_ALIGN
        its.creadr = its.cwriter = 0


def _read_cwriter(its: Its, addr: int, length: int) -> int:
    return extract_bytes(its.cwriter, addr, length)


def _write_cwriter(its: Its, addr: int, length: int, val: int) -> None:
    with its.cmd_lock:
        offset = update_64bit_reg(its.cwriter, addr, length, val) & _QUEUE_OFFSET
        if offset < _queue_size(its):
            its.cwriter = offset
            _process_commands(its)


def _read_creadr(its: Its, addr: int, length: int) -> int:
    with its.cmd_lock:
        _process_commands(its)
        return extract_bytes(its.creadr, addr, length)


def _uaccess_write_creadr(its: Its, _addr: int, _length: int, val: int) -> None:
    """EBUSY while the ITS is on, EINVAL beyond the queue."""
    with its.cmd_lock:
        if its.enabled:
            fail(errno.EBUSY)
        offset = val & _QUEUE_OFFSET
        if offset >= _queue_size(its):
            fail(errno.EINVAL)
        its.creadr = offset


# -- tables -----------------------------------------------------------------------------------


def _read_baser(its: Its, addr: int, length: int) -> int:
    match addr - g.GITS_BASER >> 3:
        case 0:
            return extract_bytes(its.device_baser, addr, length)
        case 1:
            return extract_bytes(its.collection_baser, addr, length)
        case _:
            return 0


def _write_baser(its: Its, addr: int, length: int, val: int) -> None:
    """Devices may have a table of two levels. What a table held goes with its valid bit."""
    if its.enabled:
        return
    match addr - g.GITS_BASER >> 3:
        case 0:
            its.device_baser = _new_baser(its.device_baser, addr, length, val)
            if not its.device_baser & g.BASER_VALID:
                with its.its_lock:
                    its.free_devices()
        case 1:
            reg = _new_baser(its.collection_baser, addr, length, val)
            its.collection_baser = reg & ~g.GITS_BASER_INDIRECT
            if not its.collection_baser & g.BASER_VALID:
                with its.its_lock:
                    its.free_collections()


def _new_baser(old: int, addr: int, length: int, val: int) -> int:
    """Type and entry size stay; pages are of 64 KiB."""
    reg = update_64bit_reg(old, addr, length, val)
    reg = reg & ~g.GITS_BASER_RO_MASK | old & g.GITS_BASER_RO_MASK
    reg = sanitised(reg, g.BASER_INNER_SHIFT, g.BASER_OUTER_SHIFT)
    return reg & ~g.GITS_BASER_PAGE_SIZE_MASK | g.GITS_BASER_PAGE_SIZE_64K


# -- identification ---------------------------------------------------------------------------


def _read_typer(_its: Its, addr: int, length: int) -> int:
    """Physical LPIs; PTA is 0: a target is a vCPU's id."""
    reg = g.GITS_TYPER_PLPIS
    reg |= DEVICE_ID_BITS - 1 << g.GITS_TYPER_DEVBITS_SHIFT
    reg |= EVENT_ID_BITS - 1 << g.GITS_TYPER_IDBITS_SHIFT
    reg |= ENTRY_SIZE - 1 << g.GITS_TYPER_ITT_ENTRY_SIZE_SHIFT
    return extract_bytes(reg, addr, length)


def _read_iidr(_its: Its, _addr: int, _length: int) -> int:
    revision = ABI_REVISION << _IIDR_REVISION_SHIFT
    return PRODUCT_ID_KVM << _IIDR_PRODUCT_SHIFT | revision | IMPLEMENTER_ARM


def _uaccess_write_iidr(_its: Its, _addr: int, _length: int, val: int) -> None:
    """The revision of the tables' layout: there is one. EINVAL."""
    if val >> _IIDR_REVISION_SHIFT & _IIDR_REVISION_MASK != ABI_REVISION:
        fail(errno.EINVAL)


def _read_idregs(_its: Its, addr: int, _length: int) -> int:
    return _IDREGS.get(addr, 0)


def _write_wi(_its: Its, _addr: int, _length: int, _val: int) -> None:
    """Read-only."""


# -- the frame --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Register:
    """struct vgic_register_region of an ITS."""

    offset: int
    length: int
    read: Read
    write: Write
    access: int = ACCESS_32
    uaccess_write: Write | None = None

    @property
    def width(self) -> int:
        """Bytes of an access by user space."""
        return 8 if self.access & ACCESS_64 else 4


_LONG = ACCESS_64 | ACCESS_32

REGISTERS = (
    Register(g.GITS_CTLR, 4, _read_ctlr, _write_ctlr),
    Register(g.GITS_IIDR, 4, _read_iidr, _write_wi, uaccess_write=_uaccess_write_iidr),
    Register(g.GITS_TYPER, 8, _read_typer, _write_wi, _LONG),
    Register(g.GITS_CBASER, 8, _read_cbaser, _write_cbaser, _LONG),
    Register(g.GITS_CWRITER, 8, _read_cwriter, _write_cwriter, _LONG),
    Register(g.GITS_CREADR, 8, _read_creadr, _write_wi, _LONG, _uaccess_write_creadr),
    Register(g.GITS_BASER, 0x40, _read_baser, _write_baser, _LONG),
    Register(g.GITS_PIDR4, 0x30, _read_idregs, _write_wi),
)


def find_register(offset: int) -> Register | None:
    """vgic_find_mmio_region()."""
    for register in REGISTERS:
        if register.offset <= offset < register.offset + register.length:
            return register
    return None


class ItsIoDevice:
    """struct vgic_io_device of an ITS, on the bus."""

    def __init__(self, its: Its, base: int) -> None:
        self.its = its
        self.base = base

    def _find(self, offset: int, length: int) -> Register | None:
        register = find_register(offset)
        if register is None or offset % length:
            return None
        return register if length in (4, 8) and register.access & length else None

    def read(self, _vcpu: Vcpu, addr: int, length: int) -> int | None:
        """By the guest."""
        offset = addr - self.base
        register = self._find(offset, length)
        if register is None:
            return 0
        return register.read(self.its, offset, length) & (1 << 8 * length) - 1

    def write(self, _vcpu: Vcpu, addr: int, length: int, value: int) -> bool:
        """By the guest."""
        offset = addr - self.base
        register = self._find(offset, length)
        if register is not None:
            register.write(self.its, offset, length, value)
        return True
