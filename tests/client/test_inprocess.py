"""The client of armkvm's KVM: descriptors, addresses, and waiting in virtual time."""

import ctypes
import errno
import os
import threading
from collections.abc import Iterator

import pytest

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.abi.regs import CORE_PC
from armkvm.client.inprocess import BETWEEN_RUNS_NS, NS_PER_MS, InProcess
from armkvm.client.protocol import address
from armkvm.conformance.rig import Rig
from armkvm.conformance.session import Session


@pytest.fixture
def client() -> Iterator[InProcess]:
    with InProcess() as client:
        yield client


def failure(client: InProcess, fd: int, cmd: int, arg: int | ctypes.Structure = 0) -> int | None:
    with pytest.raises(OSError) as caught:
        client.ioctl(fd, cmd, arg)
    return caught.value.errno


def test_descriptors(client: InProcess) -> None:
    kvm = client.open()
    assert client.ioctl(kvm, nr.KVM_GET_API_VERSION) == 12
    vm = client.ioctl(kvm, nr.KVM_CREATE_VM)
    assert vm != kvm
    assert client.ioctl(vm, nr.KVM_CHECK_EXTENSION, 144) == 1
    client.close(vm)
    assert failure(client, vm, nr.KVM_CHECK_EXTENSION, 144) == errno.EBADF
    with pytest.raises(OSError, match="No such device"):
        client.shared_pages(kvm, 8192)
    event = client.eventfd()
    os.fstat(event)
    client.close(event)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(event)


def test_structures_go_by_address(client: InProcess) -> None:
    vm = client.ioctl(client.open(), nr.KVM_CREATE_VM)
    init = st.KvmVcpuInit(99)
    assert client.ioctl(vm, nr.KVM_ARM_PREFERRED_TARGET, init) == 0
    assert init.target == 5
    assert client.ioctl(vm, nr.KVM_ARM_PREFERRED_TARGET, address(init)) == 0
    assert failure(client, vm, nr.KVM_ARM_PREFERRED_TARGET, 0) == errno.EFAULT


def test_memory_that_was_never_mapped_is_a_hole(client: InProcess) -> None:
    lines: list[str] = []
    with Rig(Session(client, lines.append)) as rig:
        region = st.KvmUserspaceMemoryRegion(1, 0, 0x8000_0000, 4096, 1 << 20)
        client.ioctl(rig.vm, nr.KVM_SET_USER_MEMORY_REGION, region)
        rig.create_vcpu()
        rig.init()
        rig.set(CORE_PC, 0x8000_0000)
        rig.step(100)
    assert "errno=EFAULT" in lines[-1]


def test_the_run_pages_are_the_vcpus(client: InProcess) -> None:
    lines: list[str] = []
    with Rig.ready(Session(client, lines.append), "bare") as rig:
        rig.run.immediate_exit = 1
        rig.step(100)
        rig.run.immediate_exit = 0
        rig.step(100)
    assert "ret=-1 errno=EINTR   exit=(untouched)" in lines[0]
    assert "MMIO W +0xff0 len=4 data=0xee" in lines[1]


def test_an_alarm_comes_in_guest_time(client: InProcess) -> None:
    lines: list[str] = []
    with Rig.ready(Session(client, lines.append), "wfi_none") as rig:
        rig.step(500)
        before = client.system.clock.now()
        rig.step(60_000)
        passed = client.system.clock.now() - before
    assert " SIGALRM " in lines[-1]
    assert 60_000 * NS_PER_MS <= passed < 60_001 * NS_PER_MS


def test_an_alarm_that_is_not_needed_never_rings(client: InProcess) -> None:
    lines: list[str] = []
    with Rig.ready(Session(client, lines.append), "wfi_vt_masked") as rig:
        for _ in range(3):
            rig.step(300)
        assert "SIGALRM" not in lines[-1]
        client.sleep_until(client.system.clock.now() + 1000 * NS_PER_MS)
        rig.step(300)
    assert "MMIO W +0x0" in lines[-1]


def test_each_run_begins_on_a_mark(client: InProcess) -> None:
    clock = client.system.clock
    lines: list[str] = []
    with Rig.ready(Session(client, lines.append), "mmio_rd") as rig:
        rig.step(500)  # a load
        client.sleep_until(clock.now() + 12_345)
        before = clock.now()
        rig.step(500)  # the store behind it: one instruction, and it traps
    assert clock.now() % BETWEEN_RUNS_NS <= 1
    assert 0 < clock.now() - before <= BETWEEN_RUNS_NS + 1


def test_a_later_thread_is_a_thread_and_time_waits_for_it(client: InProcess) -> None:
    seen: list[tuple[int, int]] = []
    clock = client.system.clock
    begin = clock.now()
    thread = client.after(100, lambda: seen.append((threading.get_ident(), clock.now())))
    assert seen == []
    thread.join()
    thread.join()
    ((ident, when),) = seen
    assert ident != threading.get_ident()
    assert when == clock.now() == begin + 100 * NS_PER_MS


def test_a_later_thread_wakes_a_vcpu_before_its_alarm(client: InProcess) -> None:
    lines: list[str] = []
    with Rig.ready(Session(client, lines.append), "wfi_none") as rig:
        rig.step(500)
        thread = client.after(100, lambda: rig.line(0, 0, 0, 1, "later"))
        rig.step(500)
        thread.join()
    assert [line.split()[0] for line in lines] == ["#0", "KVM_IRQ_LINE", "#1"]
    assert "SIGALRM" not in lines[-1]


def test_leaving_closes_what_is_open() -> None:
    with InProcess() as client:
        vm = client.ioctl(client.open(), nr.KVM_CREATE_VM)
    assert failure(client, vm, nr.KVM_CHECK_EXTENSION) == errno.EBADF
