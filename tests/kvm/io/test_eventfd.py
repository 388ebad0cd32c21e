"""KVM_IOEVENTFD: writes that count, and stay in the kernel."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator

import pytest
from tests.engine import a64
from tests.kvm.native import IO, Native, out
from tests.kvm.rig import fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi.caps import Cap
from armkvm.abi.structs import KvmIoeventfd
from armkvm.kvm.file import NoContext

MATCH, DEASSIGN = k.KVM_IOEVENTFD_FLAG_DATAMATCH, k.KVM_IOEVENTFD_FLAG_DEASSIGN


class Descriptors(NoContext):
    """A client whose descriptors are this process's."""

    def file(self, fd: int) -> object:
        os.fstat(fd)
        return fd


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def ioeventfd(m: Native, fd: int, offset: int, length: int, flags: int = 0, data: int = 0) -> None:
    arg = KvmIoeventfd(addr=IO + offset, len=length, fd=fd, flags=flags, datamatch=data)
    m.vm.ioctl(nr.KVM_IOEVENTFD, 0, arg, Descriptors())


def counted(fd: int) -> int:
    return os.eventfd_read(fd) if select.select([fd], [], [], 0)[0] else 0


def test_a_write_counts_without_an_exit(event: int) -> None:
    with Native(a64.movz(1, 7), out(1, 0x10), out(1, 0x10), out(1, 0x18)) as m:
        ioeventfd(m, event, 0x10, 8)
        assert m.stored() == (0x18, 7)
        assert counted(event) == 2
        assert m.vcpu.stat.mmio_exit_kernel == 2


def test_length_and_value_must_match(event: int) -> None:
    other = os.eventfd(0, os.EFD_NONBLOCK)
    with Native(a64.movz(1, 7), a64.movz(2, 8), out(1, 0x10), out(2, 0x10), out(1, 0x20)) as m:
        ioeventfd(m, event, 0x10, 8, MATCH, 7)
        ioeventfd(m, other, 0x10, 8, MATCH, 9)
        ioeventfd(m, other, 0x20, 4)
        assert m.stored() == (0x10, 8)
        assert m.stored() == (0x20, 7)
        assert (counted(event), counted(other)) == (1, 0)
    os.close(other)


def test_any_length(event: int) -> None:
    with Native(out(31, 0x10), a64.add(1, 28, 0x10), a64.strw(31, 1), out(31, 0)) as m:
        assert m.vm.check_extension(Cap.IOEVENTFD_ANY_LENGTH) == 1
        ioeventfd(m, event, 0x10, 0)
        assert m.stored()[0] == 0
        assert counted(event) == 2


def test_taken_away_again(event: int) -> None:
    with Native(out(31, 0x10)) as m:
        ioeventfd(m, event, 0x10, 8)
        fails(errno.ENOENT, lambda: ioeventfd(m, event, 0x10, 4, DEASSIGN))
        fails(errno.ENOENT, lambda: ioeventfd(m, event, 0x10, 8, DEASSIGN | MATCH))
        ioeventfd(m, event, 0x10, 8, DEASSIGN)
        fails(errno.ENOENT, lambda: ioeventfd(m, event, 0x10, 8, DEASSIGN))
        assert m.stored()[0] == 0x10


def test_what_is_refused(event: int) -> None:
    read_end, write_end = os.pipe()
    with Native(a64.NOP) as m:
        for length in (3, 5, 16):
            fails(errno.EINVAL, lambda n=length: ioeventfd(m, event, 0, n))  # type: ignore[misc]
        fails(errno.EINVAL, lambda: ioeventfd(m, event, (1 << 64) - IO - 2, 4))
        fails(errno.EINVAL, lambda: ioeventfd(m, event, 0, 4, 1 << 4))
        fails(errno.EINVAL, lambda: ioeventfd(m, event, 0, 0, MATCH))
        fails(errno.EINVAL, lambda: ioeventfd(m, read_end, 0, 4))
        fails(errno.EBADF, lambda: ioeventfd(m, 9999, 0, 4))
        ioeventfd(m, event, 0, 4)
        fails(errno.EEXIST, lambda: ioeventfd(m, event, 0, 4))
        fails(errno.EEXIST, lambda: ioeventfd(m, event, 0, 0))
        fails(errno.EEXIST, lambda: ioeventfd(m, event, 0, 4, MATCH, 1))
        ioeventfd(m, event, 0, 8)
    os.close(read_end)
    os.close(write_end)


def test_a_full_counter_stops_nobody(event: int) -> None:
    os.eventfd_write(event, (1 << 64) - 2)
    with Native(out(31, 0x10), out(31, 0)) as m:
        ioeventfd(m, event, 0x10, 8)
        assert m.stored()[0] == 0
        assert counted(event) == (1 << 64) - 2


def test_no_descriptor_is_left(event: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Native(a64.NOP) as m:
        ioeventfd(m, event, 0x10, 8)
        fails(errno.EINVAL, lambda: ioeventfd(m, 0, 0, 4))
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before
