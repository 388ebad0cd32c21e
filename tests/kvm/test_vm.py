"""A VM's life: what it had comes back when it is closed, and not when Python tidies up."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from tests.engine import a64
from tests.kvm.native import Native

from armkvm.host.scripted import ScriptedBackend
from armkvm.kvm import System

MANY = """
import gc, mmap
from tests.kvm.native import IO, Native, a64, out

def used():  # MiB of addresses, and of memory
    total, resident = open("/proc/self/statm").read().split()[:2]
    return int(total) >> 8, int(resident) >> 8

gc.disable()
for i in range(101):
    with Native([a64.movz(0, 1), out(0)]) as m:
        ram = mmap.mmap(-1, 32 << 20)
        for at in range(0, len(ram), mmap.PAGESIZE):
            ram[at] = 1
        m.vm.set_user_memory_region(1, 1 << 32, len(ram), ram)
        second = m.vm.create_vcpu(1)
        m.stored()
        second.close()
    m.system.close()
    del m, second, ram
    if i == 0:
        first = used()
print(*(b - a for a, b in zip(first, used())))
"""


def test_memory_comes_back_without_the_cyclic_collector() -> None:
    """100 VMs one after the other: addresses and memory stay within 50 MiB of the first."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    addresses, resident = map(int, done.stdout.split())
    assert addresses <= 50
    assert resident <= 50


def test_who_has_halted_the_vcpus_lets_nobody_else_resume_them() -> None:
    with System(backend=ScriptedBackend()) as system, system.create_vm() as vm:
        with vm.create_vcpu(0) as vcpu:
            thread = threading.Thread(target=lambda: vm.memory_written(0, 0x1000))
            with vm.halted():
                thread.start()
                thread.join(0.05)
                assert vcpu.pause
            thread.join()
            assert not vcpu.pause


def test_the_last_ioctl_of_a_vcpu_ends_while_its_vm_is_destroyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its thread gives the CPU back: not while the VM is at that CPU's TLBs."""
    one = Native(a64.NOP)
    vcpu = one.vcpu
    stage2: Any = one.vm.stage2
    inside, leave = threading.Event(), threading.Event()

    def ioctl() -> None:
        with vcpu.mutex:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=ioctl)
    thread.start()
    inside.wait()
    there: list[bool] = []

    def flush() -> None:
        leave.set()
        thread.join(0.3)
        there.append(bool(stage2._cpus))

    monkeypatch.setattr(stage2, "flush", flush)
    vcpu.close()
    one.vm.close()
    thread.join()
    assert there == [True]
    assert stage2._cpus == []
