"""KVM_GET_STATS_FD: the file's layout, as a program without our headers reads it, and its life."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import struct

import pytest
from tests.engine import a64
from tests.kvm.native import Native, out
from tests.kvm.rig import IO, Ops, Rig, fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi.caps import Cap
from armkvm.host.scripted import Hvc, ScriptedCpu, Store, Wfi
from armkvm.kvm.binary_stats import StatsFile
from armkvm.kvm.file import File

VCPU_NAMES = (
    "halt_successful_poll", "halt_attempted_poll", "halt_poll_invalid", "halt_wakeup",
    "halt_poll_success_ns", "halt_poll_fail_ns", "halt_wait_ns", "halt_poll_success_hist",
    "halt_poll_fail_hist", "halt_wait_hist", "blocking", "hvc_exit_stat", "wfe_exit_stat",
    "wfi_exit_stat", "mmio_exit_user", "mmio_exit_kernel", "signal_exits", "exits",
)  # fmt: skip


class Reader:
    """api.rst 4.133, from a descriptor."""

    def __init__(self, file: StatsFile) -> None:
        self.fd = file.fileno()
        head = os.pread(self.fd, 24, 0)
        self.flags, self.name_size, count, id_at, descs_at, self.data_at = struct.unpack(
            "<6I", head
        )
        self.name = os.pread(self.fd, self.name_size, id_at).rstrip(b"\0").decode()
        size = 16 + self.name_size
        raw = os.pread(self.fd, count * size, descs_at)
        self.descs = {
            raw[at + 16 : at + size].rstrip(b"\0").decode(): struct.unpack_from("<IhHII", raw, at)
            for at in range(0, count * size, size)
        }
        self.blocks = [(0, 24), (id_at, self.name_size), (descs_at, len(raw))]

    def values(self, name: str) -> list[int]:
        _flags, _exponent, size, offset, _bucket = self.descs[name]
        return list(struct.unpack(f"<{size}Q", os.pread(self.fd, 8 * size, self.data_at + offset)))

    def __getitem__(self, name: str) -> int:
        return self.values(name)[0]


def guest(_cpu: ScriptedCpu) -> Ops:
    yield Hvc((0x8400_0000,))
    yield Store(IO)
    while True:
        yield Wfi()
        yield Store(IO)


@pytest.mark.parametrize("of", ["vm", "vcpu"])
def test_the_blocks_are_as_the_kernel_lays_them_out(of: str) -> None:
    rig = Rig(guest)
    assert rig.system.check_extension(Cap.BINARY_STATS_FD) == 1
    with (rig.vm if of == "vm" else rig.vcpu).get_stats_fd() as file:
        stats = Reader(file)
        assert stats.name == f"kvm-{os.getpid()}" + ("" if of == "vm" else "/vcpu-0")
        assert (stats.flags, stats.name_size) == (0, 48)
        total = sum(desc[2] for desc in stats.descs.values()) * 8
        blocks = [*stats.blocks, (stats.data_at, total)]
        assert all(at % 8 == 0 for at, _size in blocks)
        ends = [0, *(at + size for at, size in blocks)]
        assert [at for at, _size in blocks] == ends[:-1]  # one after the other
        assert os.fstat(file.fileno()).st_size == ends[-1]
        assert os.pread(file.fileno(), 100, ends[-1]) == b""
        offset = 0
        for flags, exponent, size, at, bucket_size in stats.descs.values():
            assert (at, bucket_size, flags >> 8) == (offset, 0, 0)
            assert exponent == (-9 if flags >> 4 == 2 else 0)  # seconds
            offset += 8 * size


def test_what_there_is() -> None:
    rig = Rig(guest)
    with rig.vm.get_stats_fd() as vm, rig.vcpu.get_stats_fd() as vcpu:
        assert list(Reader(vm).descs) == ["remote_tlb_flush", "remote_tlb_flush_requests"]
        descs = Reader(vcpu).descs
        assert tuple(descs) == VCPU_NAMES
        assert [name for name, desc in descs.items() if desc[2] == 32] == [
            name for name in VCPU_NAMES if name.endswith("_hist")
        ]
        assert {desc[0] & 15 for name, desc in descs.items() if name.endswith("_hist")} == {4}
        assert descs["blocking"][0] == 0x41  # an instant truth value


def test_the_counters_are_those_of_the_moment() -> None:
    rig = Rig(guest)
    assert rig.stored() == 0
    with rig.vcpu.get_stats_fd() as file:
        stats = Reader(file)
        assert [stats[name] for name in ("exits", "hvc_exit_stat", "mmio_exit_user")] == [2, 1, 1]
        slept = 5_000_000
        began = rig.system.clock.now()
        timer = rig.system.timer(lambda: rig.line(1))
        timer.set(began + slept)
        seen = []

        def asleep(due: int | None) -> None:
            assert due is not None
            seen.append((stats["blocking"], stats["wfi_exit_stat"]))

        rig.system.clock.idle = asleep
        assert rig.stored() == 0
        assert seen == [(1, 1)]  # while it sleeps in KVM_RUN
        assert [stats[name] for name in ("blocking", "halt_wakeup", "wfi_exit_stat")] == [0, 1, 1]
        assert 0 <= slept - stats["halt_wait_ns"] < 200_000
        length = stats["halt_wait_ns"]
        bucket = [n for n, count in enumerate(stats.values("halt_wait_hist")) if count]
        assert bucket == [length.bit_length()]  # [1 << n - 1, 1 << n)
        rig.line(0)
        rig.vcpu.kick()
        fails(errno.EINTR, rig.vcpu.run)
        assert stats["signal_exits"] == 1


def test_only_to_read() -> None:
    """And no way through /proc to more."""
    rig = Rig(guest)
    with rig.vcpu.get_stats_fd() as file:
        fd = file.fileno()
        fails(errno.EBADF, lambda: os.write(fd, b"x"))
        fails(errno.EINVAL, lambda: os.ftruncate(fd, 0))
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        try:
            for action in (
                lambda: os.pwrite(again, b"x", 0),
                lambda: os.ftruncate(again, 0),
                lambda: mmap.mmap(again, 0),
            ):
                fails(errno.EPERM, action)
        finally:
            os.close(again)
        fails(errno.ENOTTY, lambda: file.ioctl(nr.KVM_GET_STATS_FD))


def test_each_descriptor_has_its_own_life() -> None:
    """A copy can be read when the VM is gone, and so can the number of descriptors be counted."""
    gc.collect()  # what earlier tests have left is not to go meanwhile
    before = len(os.listdir("/proc/self/fd"))
    with Native([a64.hvc(0), out(0)]) as m:
        first, second = m.vcpu.get_stats_fd(), m.vcpu.get_stats_fd()
        vm = m.vm.get_stats_fd()
        assert os.read(first.fileno(), 24) == os.read(second.fileno(), 24)  # two positions
        second.close()
        m.stored()
    fails(errno.EBADF, m.vcpu.get_stats_fd)
    fails(errno.EBADF, m.vm.get_stats_fd)
    assert Reader(first)["hvc_exit_stat"] == 1
    assert Reader(vm)["remote_tlb_flush"] == 0
    first.close()
    vm.close()
    m.system.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_by_number() -> None:
    """The argument is not looked at."""

    class Process:
        def install(self, file: File) -> int:
            assert isinstance(file, StatsFile)
            self.file = file
            return 7

    rig, client = Rig(guest), Process()
    for of in (rig.vm, rig.vcpu):
        assert of.ioctl(nr.KVM_GET_STATS_FD, 0x1234, ctx=client) == 7  # type: ignore[arg-type]
        assert Reader(client.file).name.startswith("kvm-")
        client.file.close()


def test_mmio_that_kvm_answers_is_counted_apart() -> None:
    def touches_the_distributor(_cpu: ScriptedCpu) -> Ops:
        yield Store(0x800_0000)
        yield Store(IO)

    rig = Rig(touches_the_distributor)
    device = rig.vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V2)
    assert device is not None
    device.set_device_attr(0, 0, 0x800_0000)
    device.set_device_attr(0, 1, 0x801_0000)
    device.set_device_attr(4, 0)
    assert rig.stored() == 0
    with rig.vcpu.get_stats_fd() as file:
        stats = Reader(file)
        assert [stats[name] for name in ("mmio_exit_kernel", "mmio_exit_user")] == [1, 1]
