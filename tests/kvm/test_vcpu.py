"""The life of a vCPU: closed while in use, or dropped."""

from __future__ import annotations

import ctypes
import errno
import gc
import subprocess
import sys
import threading

from tests.kvm.native import PMU, PSCI
from tests.kvm.rig import fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.kvm import System
from armkvm.kvm.file import NoContext


class SlowClient(NoContext):
    """A process whose memory takes long to read: an ioctl that reads it stays in the kernel."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.goes_on = threading.Event()

    def read(self, address: int, size: int) -> bytes:
        self.reading.set()
        self.goes_on.wait()
        return bytes(size)


def test_dropped_vms_leave_no_task_behind() -> None:
    with System() as system:
        for closed in (True, False):
            vm = system.create_vm()
            vcpu = vm.create_vcpu(0)
            vcpu.arm_vcpu_init(features=PSCI)
            vcpu.run_struct.immediate_exit = 1
            fails(errno.EINTR, vcpu.run)
            if closed:
                vm.close()
            del vm, vcpu
        gc.collect()
        assert not system.host.turn.tasks


COME_AND_GO = """
import threading
from tests.kvm.native import RAM, Native, a64

loop = [a64.tlbi("vmalle1is"), a64.add(0, 0, 1), a64.str_(0, 1), a64.b(-3)]
with Native([*a64.mov(1, RAM + 0x1000), *loop], kind="vhe-gicv3") as m:

    def goes_on():
        before = m.memory[0x1000:0x1008]
        while m.memory[0x1000:0x1008] == before:
            pass

    thread = threading.Thread(target=m.vcpu.run_raw)
    thread.start()
    for n in range(1, 40):
        vcpu = m.vm.create_vcpu(n)
        goes_on()
        vcpu.close()
    goes_on()
    m.vcpu.kick()
    thread.join()
"""


def test_vcpus_come_and_go_while_another_maintains_everybodys_tlbs() -> None:
    """The engine goes from CPU to CPU for TLBI VMALLE1IS, without our knowing: one that was just
    closed gave its TLBs back meanwhile."""
    done = subprocess.run([sys.executable, "-c", COME_AND_GO], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_vcpu_that_is_closed_in_an_ioctl_goes_when_that_ends() -> None:
    with System() as system, system.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        vcpu.arm_vcpu_init(features=PSCI | PMU)
        client = SlowClient()
        attr = st.KvmDeviceAttr(
            group=k.KVM_ARM_VCPU_PMU_V3_CTRL, attr=k.KVM_ARM_VCPU_PMU_V3_FILTER, addr=64
        )
        results: list[int] = []

        def change() -> None:
            data = (ctypes.c_char * ctypes.sizeof(attr)).from_buffer(attr)
            results.append(vcpu.ioctl(nr.KVM_SET_DEVICE_ATTR, 0, data, client))

        thread = threading.Thread(target=change)
        thread.start()
        client.reading.wait()
        vcpu.close()
        assert len(system.host.turn.tasks) == 1  # it is not taken away under the ioctl
        client.goes_on.set()
        thread.join()
        assert results == [0]
        assert not system.host.turn.tasks


def test_a_vcpu_that_is_closed_while_all_are_locked_goes_after_that() -> None:
    with System() as system, system.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        with vm.all_vcpus_locked():
            vcpu.close()
            assert len(system.host.turn.tasks) == 1
        assert not system.host.turn.tasks
