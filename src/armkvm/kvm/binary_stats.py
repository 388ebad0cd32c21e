"""KVM_GET_STATS_FD (api.rst 4.133), after virt/kvm/binary_stats.c: statistics as a file.

A header, the name of the VM or vCPU, descriptors, and an array of words: the kernel's layout. The
file is an ordinary one in memory, for which each call opens a descriptor that only reads: it can be
given to any process, and outlives the VM with the last values. KVM brings it up to date whenever
the vCPU comes off its CPU, as at the end of each KVM_RUN, and out of a WFI; where nobody has asked,
nothing is done. What a kernel counts when it polls stays 0: nobody polls here. So do the VM's: of
what an arm64 host does, nothing counts as a remote TLB flush.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from typing import ClassVar, Final, NamedTuple

from armkvm.kvm.file import File
from armkvm.kvm.stats import HALT_POLL_HIST_COUNT, VcpuStat

NAME_SIZE: Final = 48  # KVM_STATS_NAME_SIZE
HEADER: Final = struct.Struct("<6I")  # flags, name_size, num_desc, id, desc and data offset
DESC: Final = struct.Struct(f"<IhHII{NAME_SIZE}s")  # flags, exponent, size, offset, bucket_size

_F_SEAL_FUTURE_WRITE: Final = 0x10  # Linux 5.1; Python has no name for it

CUMULATIVE, INSTANT, LOG_HIST = 0, 1, 4  # KVM_STATS_TYPE_*
NONE, SECONDS, BOOLEAN = 0 << 4, 2 << 4, 4 << 4  # KVM_STATS_UNIT_*
NANO: Final = -9


class Desc(NamedTuple):
    """One statistic: `size` words of this name."""

    name: str
    flags: int = CUMULATIVE | NONE
    exponent: int = 0
    size: int = 1


VM_DESCS: Final = (Desc("remote_tlb_flush"), Desc("remote_tlb_flush_requests"))
_HISTOGRAM: Final = LOG_HIST | SECONDS, NANO, HALT_POLL_HIST_COUNT
VCPU_DESCS: Final = (
    Desc("halt_successful_poll"), Desc("halt_attempted_poll"), Desc("halt_poll_invalid"),
    Desc("halt_wakeup"),
    Desc("halt_poll_success_ns", CUMULATIVE | SECONDS, NANO),
    Desc("halt_poll_fail_ns", CUMULATIVE | SECONDS, NANO),
    Desc("halt_wait_ns", CUMULATIVE | SECONDS, NANO),
    Desc("halt_poll_success_hist", *_HISTOGRAM), Desc("halt_poll_fail_hist", *_HISTOGRAM),
    Desc("halt_wait_hist", *_HISTOGRAM),
    Desc("blocking", INSTANT | BOOLEAN),
    Desc("hvc_exit_stat"), Desc("wfe_exit_stat"), Desc("wfi_exit_stat"), Desc("mmio_exit_user"),
    Desc("mmio_exit_kernel"), Desc("signal_exits"), Desc("exits"),
)  # fmt: skip


def _head(name: str, descs: tuple[Desc, ...]) -> bytes:
    """All but the data."""
    desc_offset = HEADER.size + NAME_SIZE
    data_offset = desc_offset + len(descs) * DESC.size
    head = HEADER.pack(0, NAME_SIZE, len(descs), HEADER.size, desc_offset, data_offset)
    head += name.encode().ljust(NAME_SIZE, b"\0")
    offset = 0
    for desc in descs:
        flags, exponent, size = desc.flags, desc.exponent, desc.size
        head += DESC.pack(flags, exponent, size, offset, 0, desc.name.encode())
        offset += 8 * size
    return head


class StatsFile(File):
    """A descriptor of statistics: read it with os.pread(file.fileno(), ...)."""

    UNKNOWN_IOCTL: ClassVar[int] = errno.ENOTTY

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def fileno(self) -> int:
        """A descriptor of this process, open as long as the file is."""
        return self._fd

    def release(self) -> None:
        os.close(self._fd)


class BinaryStats:
    """What the descriptors show: one for a VM, one for a vCPU, made when somebody asks."""

    def __init__(self, name: str, descs: tuple[Desc, ...]) -> None:
        """OSError: no descriptor, no memory."""
        head = _head(name, descs)
        self._words = struct.Struct(f"<{sum(desc.size for desc in descs)}Q")
        self._data = len(head)
        self._fd = os.memfd_create("kvm-stats", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(self._fd, head + bytes(self._words.size))
            self._map = mmap.mmap(self._fd, self._data + self._words.size)
            # Nobody who gets a descriptor can write, or change the size under our feet.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(self._fd)
            raise

    def open(self) -> StatsFile:
        """A new descriptor, with a position of its own."""
        return StatsFile(os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC))

    def show(self, words: tuple[int, ...]) -> None:
        """These are the values now."""
        self._words.pack_into(self._map, self._data, *words)

    def close(self) -> None:
        """The values stay as they are, for who has a descriptor."""
        self._map.close()
        os.close(self._fd)


_HISTOGRAM_OF_NOBODY: Final = (0,) * HALT_POLL_HIST_COUNT


def vcpu_words(stat: VcpuStat, blocking: bool) -> tuple[int, ...]:
    """The words of VCPU_DESCS."""
    return (
        0, 0, 0, stat.halt_wakeup, 0, 0, stat.halt_wait_ns,
        *_HISTOGRAM_OF_NOBODY, *_HISTOGRAM_OF_NOBODY, *stat.halt_wait_hist,
        int(blocking),
        stat.hvc_exit_stat, stat.wfe_exit_stat, stat.wfi_exit_stat, stat.mmio_exit_user,
        stat.mmio_exit_kernel, stat.signal_exits, stat.exits,
    )  # fmt: skip
