"""The clock's modes through the whole of KVM, on the engine."""

from __future__ import annotations

import errno
import threading

import pytest
from tests.kvm.client import Client, result

from armkvm.abi import kvm as k
from armkvm.kvm import System

WFI_NS = 50_000_000  # the guest's timer


@pytest.mark.parametrize("mode", ["virtual", "paced", "realtime"])
def test_a_wfi_of_fifty_milliseconds(mode: str) -> None:
    with System(clock=mode) as system:
        c = Client(system, [])
        c.create_vcpu()
        c.init()
        c.load("wfi_vt_masked")
        c.vcpu.run()
        c.vcpu.run()
        begin = system.clock.now()
        assert result(c.vcpu.run) == errno.EINTR
        assert c.vcpu.run_struct.exit_reason == k.KVM_EXIT_INTR
        guest = system.clock.now() - begin
        c.close()
    assert guest > WFI_NS - 5_000_000
    if mode == "virtual":
        assert guest < WFI_NS + 1_000_000


@pytest.mark.parametrize("mode", ["virtual", "paced", "realtime"])
def test_a_sleeping_vcpu_can_be_kicked_in_every_mode(mode: str) -> None:
    with System(clock=mode) as system:
        c = Client(system, [])
        c.create_vcpu()
        c.init()
        c.load("wfi_none")
        c.vcpu.run()
        timer = threading.Timer(0.05, c.vcpu.kick)
        timer.start()
        assert result(c.vcpu.run) == errno.EINTR
        timer.join()
        c.close()


def test_a_native_loop_can_be_kicked() -> None:
    """The engine runs without the GIL and without exits: only the kick ends it."""
    with System() as system:
        c = Client(system, [])
        c.create_vcpu()
        c.init()
        c.load("bare")
        c.vcpu.run()  # the next instruction is a branch to itself
        threading.Timer(0.05, c.vcpu.kick).start()
        assert result(c.vcpu.run) == errno.EINTR
        assert c.vcpu.stat.signal_exits == 1
        c.close()
