"""Slices, sleeping, and what the host's scheduler does to a vCPU (kvm/block.py)."""

from __future__ import annotations

import threading

import pytest
from tests.engine import a64
from tests.kvm.native import PSCI, RAM, Native, out
from tests.kvm.slow_host import SlowHost

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.kvm import Vcpu


def second(m: Native) -> Vcpu:
    """Another vCPU that runs the same program."""
    vcpu = m.vm.create_vcpu(1)
    vcpu.arm_vcpu_init(features=PSCI)
    vcpu.set_one_reg(regs.CORE_PC, RAM)
    return vcpu


def test_a_clock_that_overtakes_slices_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two vCPUs that want to run, on a host where a slice has passed before it is entered."""
    slow = SlowHost(monkeypatch)
    loop = [a64.movz(3, 20000), a64.subs(3, 3, 1), a64.cbnz(3, -1)]
    with Native(*loop, out(31), clock="realtime") as m:
        vcpus = [m.vcpu, second(m)]

        def kick_all() -> None:
            for vcpu in vcpus:
                vcpu.kick()

        slow.kick = kick_all
        threads = [threading.Thread(target=vcpu.run_raw) for vcpu in vcpus]
        with m.vm.host.turn.time_stands():
            for vcpu in vcpus:
                vcpu.announce()
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        reasons = [vcpu.run_struct.exit_reason for vcpu in vcpus]
        vcpus[1].close()
    assert reasons == [k.KVM_EXIT_MMIO] * 2
