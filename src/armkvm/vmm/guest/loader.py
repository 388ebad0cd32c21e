"""Where a kernel, its initrd and its device tree go in guest memory.

Mirrors Documentation/arch/arm64/booting.rst: the rules for the placement of the device tree
(section 2) and of the initrd (section 4); and QEMU's docs/system/arm/virt.rst, which promises
bare-metal guests the device tree at the start of memory. What a kernel may be is in kernel.py. The
result is a description; whoever owns the guest's memory writes it there.

Files are hostile: a file is read, a packed one unpacked, to the size of the guest's memory at most,
and nothing lies outside of that memory or over something else.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from armkvm.vmm.board import RAM_BASE
from armkvm.vmm.errors import GuestError
from armkvm.vmm.guest.kernel import Kernel, Segment, recognise
from armkvm.vmm.guest.unpack import MIB, Data

DTB_SIZE_MAX = 2 * MIB  # booting.rst section 2
# As QEMU does: leave this much below the device tree for a kernel that does not tell its size.
DTB_OFFSET = 128 * MIB
FILE_MAX = 1 << 30  # of a file that is not for the memory of a machine


@dataclass(frozen=True)
class Image:
    """What to write, where to start, and where there is room for a device tree of 2 MiB."""

    kind: str  # "Image", "ELF" or "flat"
    segments: tuple[Segment, ...]
    entry: int
    dtb_address: int
    initrd: tuple[int, int] | None  # first address, first address behind

    def dtb_place(self, size: int) -> int:
        """Where a device tree of `size` bytes goes; its address is in x0.

        For what is not Linux that is the start of memory if nothing else lies there: QEMU's
        bare-metal guests know no other way.
        """
        low = min(segment.address for segment in self.segments)
        return RAM_BASE if self.kind != "Image" and RAM_BASE + size <= low else self.dtb_address


def read(path: str | Path, what: str, most: int = FILE_MAX) -> bytearray:
    """A whole file of at most `most` bytes, or what comes through a pipe until it is closed.

    `what` names it in the error line ("kernel", "initrd"). Raises GuestError.
    """
    try:
        # O_NONBLOCK: opening a FIFO does not wait for somebody to write to it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb", 0) as file:
            os.set_blocking(file.fileno(), True)
            status = os.fstat(file.fileno())
            data = bytearray()
            if not stat.S_ISREG(status.st_mode) or status.st_size <= most:
                while len(data) <= most and (chunk := file.read(min(MIB, most + 1 - len(data)))):
                    data += chunk
                if len(data) <= most:
                    if not data and stat.S_ISFIFO(status.st_mode):
                        raise GuestError(f"cannot read the {what} {path}: nobody writes to it")
                    return data
    except OSError as error:
        reason = error.strerror or str(error)
        raise GuestError(f"cannot read the {what} {path}: {reason}") from None
    raise GuestError(f"the {what} {path} has more than {_mib(most)}, which is more than fits")


def load(
    kernel: Data, initrd: Data | None = None, *, mem_bytes: int, flat: bool = False
) -> Image:
    """Place everything in ``mem_bytes`` of memory from RAM_BASE. Raises GuestError.

    ``flat``: the kernel is a flat binary, whatever it looks like.
    """
    found = recognise(kernel, mem_bytes, flat=flat)
    _check(found)
    ram_end = RAM_BASE + mem_bytes
    dtb = _up(max(found.end, RAM_BASE + min(DTB_OFFSET, mem_bytes // 2)), DTB_SIZE_MAX)
    end = dtb + DTB_SIZE_MAX
    if end > ram_end:
        raise GuestError(
            f"the memory is too small: the kernel needs {_mib(end - RAM_BASE)}, "
            f"the machine has {_mib(mem_bytes)}"
        )
    segments = found.segments
    place = None
    if initrd:
        place = (end, end + len(initrd))
        if place[1] > ram_end:
            raise GuestError(
                f"the initrd does not fit: it has {_mib(len(initrd))}, "
                f"{_mib(ram_end - end)} of memory are left"
            )
        segments += (Segment(end, initrd, len(initrd)),)
    return Image(found.kind, segments, found.entry, dtb, place)


def _check(kernel: Kernel) -> None:
    """No segment lies below the memory or over another one."""
    end = RAM_BASE
    for segment in sorted(kernel.segments, key=lambda segment: segment.address):
        if segment.address < RAM_BASE:
            raise GuestError(
                f"the kernel wants to be loaded at {segment.address:#x}, below the memory "
                f"at {RAM_BASE:#x}"
            )
        if segment.address < end:
            raise GuestError(f"segments of the kernel overlap at {segment.address:#x}")
        end = segment.end


def _up(value: int, alignment: int) -> int:
    return (value + alignment - 1) & -alignment


def _mib(size: int) -> str:
    return f"{max(size, 0) / MIB:.4g} MiB"
