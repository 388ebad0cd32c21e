"""What a client says, and what comes of it, also when it lies."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as any_of
from tests.engine import a64
from tests.server.peer import MMIO, RAM, SIZE, Gone, Peer, Shared

from armkvm.abi import ioctl as nr
from armkvm.abi import regs
from armkvm.abi import structs as st
from armkvm.kvm import System
from armkvm.server.server import Server
from armkvm.server.wire import REQUEST, Ask

DEVICE = 0x1000_0000
STORES = (*a64.mov(1, DEVICE), a64.str_(0, 1, 0), a64.add(0, 0, 1), a64.b(-2))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with System("vhe-gicv3", "realtime") as kvm:
        with Server(kvm, f"@armkvm-test-{os.getpid()}") as made:
            made.start()
            yield made


@pytest.fixture
def peer(server: Server) -> Iterator[Peer]:
    with Peer(server.address) as one:
        yield one


def identity_of(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def settle(server: Server, files: int) -> None:
    """Wait until clients have so many descriptors: closing them is noticed by another thread."""
    while server.open_files != files:
        time.sleep(0.01)


def test_a_guest_runs(peer: Peer, server: Server) -> None:
    vcpu = peer.vcpu(*STORES)
    for value in (0, 1, 2):
        assert peer.run(vcpu) == 0
        run = peer.exit_of(vcpu)
        assert (run.exit_reason, run.mmio.phys_addr, run.mmio.value) == (MMIO, DEVICE, value)
    os.close(vcpu)
    peer.pages[vcpu].close()
    settle(server, 0)


def test_a_copy_of_a_descriptor_is_as_good(peer: Peer, server: Server) -> None:
    vcpu = peer.vcpu(*STORES)
    copy = os.dup(vcpu)
    os.close(vcpu)
    time.sleep(0.05)
    assert peer.run(copy) == 0
    os.close(copy)
    assert server.open_files == 1  # it is still mapped
    peer.pages[vcpu].close()
    settle(server, 0)


def test_another_process_may_not_use_it(peer: Peer, server: Server) -> None:
    """KVM's files belong to the process that made them, whoever has a descriptor."""
    vcpu = peer.vcpu(*STORES)
    script = (
        "import sys; from tests.server.peer import Peer; from armkvm.abi import ioctl as nr;"
        f"print(Peer({server.address!r}).ioctl(int(sys.argv[1]), nr.KVM_RUN))"
    )
    command = [sys.executable, "-c", script, str(vcpu)]
    done = subprocess.run(command, pass_fds=[vcpu], capture_output=True, text=True, check=True)
    assert int(done.stdout) == -errno.EIO
    assert peer.run(vcpu) == 0


def test_statistics_are_a_file_of_the_clients_own(peer: Peer, server: Server) -> None:
    """It reads them without the server, also when the vCPU is gone."""
    files = server.open_files
    vcpu = peer.vcpu(*STORES)
    stats = peer.ioctl(vcpu, nr.KVM_GET_STATS_FD)
    data = struct.unpack("<6I", os.pread(stats, 24, 0))[5]
    for exits in (0, 1, 2):
        assert struct.unpack("<Q", os.pread(stats, 8, data + 110 * 8)) == (exits,)
        assert peer.run(vcpu) == 0
    os.close(vcpu)
    peer.pages[vcpu].close()
    settle(server, files)
    assert struct.unpack("<Q", os.pread(stats, 8, data + 110 * 8)) == (3,)
    os.close(stats)


def test_an_ioctl_may_read_what_its_number_says_it_returns(peer: Peer) -> None:
    """KVM_ARM_GET_REG_WRITABLE_MASKS was EFAULT: its structure never came."""
    kvm = peer.open()
    vm = peer.ioctl(kvm, nr.KVM_CREATE_VM)
    masks = (ctypes.c_uint64 * 192)()
    where = st.RegMaskRange(addr=ctypes.addressof(masks))
    assert peer.ioctl(vm, nr.KVM_ARM_GET_REG_WRITABLE_MASKS, where) == 0
    assert masks[6 << 3 | 1] & 0xF  # ID_AA64ISAR1_EL1.DPB
    where.range = 1
    assert peer.ioctl(vm, nr.KVM_ARM_GET_REG_WRITABLE_MASKS, where) == -errno.EINVAL
    os.close(vm)
    os.close(kvm)


def test_a_descriptor_of_something_else(peer: Peer) -> None:
    assert peer.ioctl(peer.ram_fd, nr.KVM_CREATE_VM) == -errno.ENOTTY


# -- cancelling -----------------------------------------------------------------------------


def test_a_signal_ends_a_run(peer: Peer, server: Server) -> None:
    vcpu = peer.vcpu(a64.B_SELF)
    identity = identity_of(vcpu)

    def cancel() -> None:
        time.sleep(0.05)
        with Peer(server.address) as other:
            other.send(Ask.CANCEL, identity=identity, seq=peer.seq)

    thread = threading.Thread(target=cancel)
    thread.start()
    assert peer.run(vcpu) == -errno.EINTR
    thread.join()


def test_a_cancellation_that_overtakes_its_run(peer: Peer, server: Server) -> None:
    vcpu = peer.vcpu(a64.B_SELF)
    identity = identity_of(vcpu)
    with Peer(server.address) as other:
        other.send(Ask.CANCEL, identity=identity, seq=peer.seq + 1)
        other.open()  # it has been read
    assert peer.run(vcpu) == -errno.EINTR


def test_one_that_an_exit_has_won_against_ends_nothing(peer: Peer, server: Server) -> None:
    vcpu = peer.vcpu(*STORES)
    identity = identity_of(vcpu)
    with Peer(server.address) as other:
        for value in range(50):
            assert peer.run(vcpu) == 0
            assert peer.exit_of(vcpu).mmio.value == value
            other.send(Ask.CANCEL, identity=identity, seq=peer.seq)
            other.open()


# -- memory ---------------------------------------------------------------------------------


def lies(peer: Peer, other_fd: int) -> list[Shared]:
    whole = (peer.address, SIZE, 0, peer.ram_fd)
    return [
        [(peer.address, SIZE, 0, other_fd)],  # no memory
        [(peer.address, SIZE, 0x1000, peer.ram_fd)],  # beyond its end
        [(peer.address, SIZE + 0x1000, 0, peer.ram_fd)],  # more than was asked for
        [(peer.address - 0x1000, SIZE, 0, peer.ram_fd)],
        [(peer.address, 0, 0, peer.ram_fd)],
        [(peer.address, 0x800, 0, peer.ram_fd)],
        [(peer.address, 0x1000, 1, peer.ram_fd)],
        [(peer.address, 1 << 63, 0, peer.ram_fd)],
        [(0, (1 << 64) - 0x1000, 0, peer.ram_fd)],
        [(peer.address, 0x1000, 1 << 63, peer.ram_fd)],
        [whole, whole],  # twice
        [(peer.address + 0x1000, 0x1000, 0, peer.ram_fd), (peer.address, 0x1000, 0, peer.ram_fd)],
    ]


@pytest.mark.parametrize("n", range(12))
def test_memory_that_is_none(peer: Peer, server: Server, n: int) -> None:
    """An errno, and the slot is not made: it can be made rightly afterwards."""
    read_only = os.open("/etc/passwd", os.O_RDONLY)
    kvm = peer.open()
    vm = peer.ioctl(kvm, nr.KVM_CREATE_VM)
    right = peer.shares
    peer.shares = lambda _address, _size: lies(peer, read_only)[n]
    assert peer.ioctl(vm, nr.KVM_SET_USER_MEMORY_REGION, peer.slot(0, RAM, SIZE)) < 0
    peer.shares = right
    assert peer.ioctl(vm, nr.KVM_SET_USER_MEMORY_REGION, peer.slot(0, RAM, SIZE)) == 0
    for fd in (read_only, kvm, vm):
        os.close(fd)


def test_shared_memory_cannot_shrink(peer: Peer) -> None:
    """Or the guest's next access would end the server."""
    vcpu = peer.vcpu(*STORES)
    with pytest.raises(PermissionError):
        os.ftruncate(peer.ram_fd, 0)
    assert peer.run(vcpu) == 0


def test_a_file_that_is_cut_off(peer: Peer, tmp_path: Path) -> None:
    """Other files than memfds can be truncated: the guest finds zeros, the server lives."""
    file = tmp_path / "ram"
    file.write_bytes(b"\7" * SIZE)

    def second_slot(vm: int) -> None:
        right, fd = peer.shares, os.open(file, os.O_RDWR)
        peer.shares = lambda address, size: [(address, size, 0, fd)]
        number = nr.KVM_SET_USER_MEMORY_REGION
        assert peer.ioctl(vm, number, peer.slot(1, 2 * RAM, SIZE)) == 0
        peer.shares = right
        os.close(fd)

    loads = [a64.ldr(0, 2), a64.str_(0, 1), a64.add(2, 2, 0x800), a64.b(-3)]
    vcpu = peer.vcpu(*a64.mov(1, DEVICE), *a64.mov(2, 2 * RAM), *loads, also=second_slot)
    seen = []
    for size in (SIZE, SIZE, SIZE, 0x1000, 0x1000, 0):
        os.truncate(file, size)
        assert peer.run(vcpu) == 0
        seen.append(peer.exit_of(vcpu).mmio.value)
    sevens = int.from_bytes(b"\7" * 8, "little")
    assert seen == [sevens, sevens, sevens, 0, 0, 0]


def test_addresses_that_are_none(peer: Peer) -> None:
    """The client says EFAULT of what KVM asks for."""
    vcpu = peer.vcpu(*STORES)
    peer.refuses = True
    one = st.KvmOneReg(regs.CORE_PC, 0x123)
    assert peer.ioctl(vcpu, nr.KVM_SET_ONE_REG, one) == -errno.EFAULT
    assert peer.ioctl(vcpu, nr.KVM_GET_ONE_REG, one) == -errno.EFAULT


# -- nonsense -------------------------------------------------------------------------------


PACKETS = any_of.tuples(
    any_of.integers(0, 6),
    any_of.sampled_from([
        nr.KVM_CREATE_VM, nr.KVM_CREATE_VCPU, nr.KVM_RUN, nr.KVM_SET_ONE_REG, nr.KVM_IRQ_LINE,
        nr.KVM_SET_USER_MEMORY_REGION, nr.KVM_CREATE_DEVICE, nr.KVM_IRQFD, 0, 0xFFFF_FFFF,
    ]),
    any_of.sampled_from([0, 1, 1 << 31, 1 << 63, (1 << 64) - 1]),
    any_of.binary(max_size=80),
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture],
          deadline=None)  # fmt: skip
@given(packets=any_of.lists(PACKETS, max_size=8), cut=any_of.integers(0, REQUEST.size))
def test_nonsense_is_an_errno_or_the_end(
    server: Server, packets: list[tuple[int, int, int, bytes]], cut: int
) -> None:
    """And another client does not feel it."""
    with Peer(server.address) as witness, Peer(server.address) as hostile:
        kvm = hostile.open()
        try:
            for op, cmd, arg, data in packets:
                hostile.send(op, cmd, arg, data, identity=identity_of(kvm))
            hostile.sock.send(b"\xff" * cut)
            hostile.sock.settimeout(0.05)
            while True:
                hostile.receive()
        except (Gone, OSError):
            pass
        other = witness.open()
        assert witness.ioctl(other, nr.KVM_GET_API_VERSION) == 12
        os.close(other)
        os.close(kvm)


@pytest.mark.parametrize("wrong", [1, -1])
def test_a_reply_to_another_call_is_the_end(peer: Peer, wrong: int) -> None:
    peer.reply_seq = wrong
    with pytest.raises((Gone, OSError)):
        peer.open()


def test_a_file_that_nobody_took_is_closed(server: Server) -> None:
    """The client says nonsense where it should say the number of its descriptor."""
    files = server.open_files
    with Peer(server.address) as peer:
        kvm = peer.open()
        peer.seq += 1
        peer.send(Ask.IOCTL, nr.KVM_CREATE_VM, identity=identity_of(kvm))
        *_, fds = peer.receive()
        peer.send(Ask.OPEN)
        os.close(fds[0])
        with pytest.raises((Gone, OSError)):
            peer.receive()
        os.close(kvm)
    settle(server, files)


def test_a_client_that_goes_in_the_middle(server: Server) -> None:
    files = server.open_files
    for _ in range(20):
        peer = Peer(server.address)
        kvm = peer.open()
        vm = peer.ioctl(kvm, nr.KVM_CREATE_VM)
        slot = peer.slot(0, RAM, SIZE)
        number = nr.KVM_SET_USER_MEMORY_REGION
        peer.send(Ask.IOCTL, number, 0, bytes(slot), identity=identity_of(vm))
        os.close(vm)
        os.close(kvm)
        peer.close()
    settle(server, files)


def test_closing_ends_what_runs() -> None:
    with System("nvhe-gicv2", "realtime") as kvm:
        server = Server(kvm, f"@armkvm-closing-{os.getpid()}")
        server.start()
        with Peer(server.address) as peer:
            vcpu = peer.vcpu(a64.B_SELF)
            closing = threading.Timer(0.1, server.close)
            closing.start()
            with suppress(Gone, OSError):
                assert peer.run(vcpu) == -errno.EIO
            with pytest.raises((Gone, OSError)):
                peer.run(vcpu)
            closing.join()
        assert server.open_files == 0
