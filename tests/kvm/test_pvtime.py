"""Stolen time and PTP: what a guest may ask KVM for by SMCCC."""

from __future__ import annotations

import errno
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.engine import a64
from tests.kvm.native import RAM, Native, Words, out
from tests.kvm.rig import fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs
from armkvm.host.clock import run_delay_ns
from armkvm.kvm import pvtime
from armkvm.kvm.file import THIS_PROCESS, NoContext

CTRL, IPA = k.KVM_ARM_VCPU_PVTIME_CTRL, k.KVM_ARM_VCPU_PVTIME_IPA
M64 = (1 << 64) - 1


def call(fn: int, arg: int = 0, results: int = 1) -> Words:
    return [a64.mov(0, fn), a64.mov(1, arg), a64.hvc(0), [out(n, 8 * n) for n in range(results)]]


def test_attribute() -> None:
    with Native(a64.NOP) as m:
        v = m.vcpu
        v.has_device_attr(CTRL, IPA)
        fails(errno.ENXIO, lambda: v.has_device_attr(CTRL, 1))
        assert v.get_device_attr(CTRL, IPA) == M64
        fails(errno.EINVAL, lambda: v.set_device_attr(CTRL, IPA, RAM + 8))
        fails(errno.EINVAL, lambda: v.set_device_attr(CTRL, IPA, 0x1000))
        v.set_device_attr(CTRL, IPA, RAM + 0x8000)
        assert v.get_device_attr(CTRL, IPA) == RAM + 0x8000
        fails(errno.EEXIST, lambda: v.set_device_attr(CTRL, IPA, RAM + 0x8000))


def test_calls() -> None:
    features, st = p.ARM_SMCCC_HV_PV_TIME_FEATURES, p.ARM_SMCCC_HV_PV_TIME_ST
    program = [call(p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, features), call(features, st), call(st)]
    with Native(*program) as m:
        assert [m.stored()[1] for _ in range(3)] == [0, M64, M64]
    with Native(*program) as m:
        m.memory[0x8000:0x8040] = b"x" * 64
        m.vcpu.set_device_attr(CTRL, IPA, RAM + 0x8000)
        assert [m.stored()[1] for _ in range(3)] == [0, 0, RAM + 0x8000]
        assert m.memory[0x8000:0x8040] == bytes(64)


def test_ptp_gives_wall_time_and_counter_of_one_instant() -> None:
    with Native(call(p.ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID, 0, results=4)) as m:
        high, low, counter_high, counter_low = (m.stored()[1] for _ in range(4))
        wall, counter = high << 32 | low, counter_high << 32 | counter_low
        assert 0 <= m.system.clock.wall_ns() - wall < 10_000
        assert 0 <= m.get(regs.KVM_REG_ARM_TIMER_CNT) - counter < 1000


def test_user_space_chooses_the_services() -> None:
    reg = regs.KVM_REG_ARM_VENDOR_HYP_BMAP
    with Native(call(p.ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID), out(31)) as m:
        assert m.get(reg) == 3
        fails(errno.EINVAL, lambda: m.set(reg, 4))
        m.set(reg, 1)
        assert m.stored()[1] == 1
        fails(errno.EBUSY, lambda: m.set(reg, 3))
        m.set(reg, 1)


class Waiting(NoContext):
    """A client whose threads wait for a CPU as long as the test says."""

    def __init__(self) -> None:
        self.delay = 0

    def run_delay(self) -> int:
        return self.delay


def in_steps(clock: str) -> Native:
    """A guest that leaves after it has got the structure, and whenever it goes on."""
    m = Native(call(p.ARM_SMCCC_HV_PV_TIME_ST), [out(0), a64.b(-1)], clock=clock)
    m.vcpu.set_device_attr(CTRL, IPA, RAM + 0x8000)
    return m


def stolen(m: Native) -> int:
    return int(struct.unpack_from("<Q", m.memory, 0x8008)[0])


@pytest.mark.parametrize(("clock", "share"), [("realtime", 1), ("virtual", 0), ("paced", 0)])
def test_what_the_clients_thread_waits_is_stolen_where_time_is_the_hosts(
    monkeypatch: pytest.MonkeyPatch, clock: str, share: int
) -> None:
    """Also between two KVM_RUNs; from the moment at which the guest has asked for it."""
    monkeypatch.setattr(pvtime, "LOOK_EVERY_NS", 0)
    client = Waiting()
    client.delay = 77_000_000
    with in_steps(clock) as m:
        for more in (0, 5_000_000, 0, 123):
            client.delay += more
            assert m.vcpu.run_raw(client) == 0
        assert stolen(m) == share * 5_000_123


def test_of_another_thread_only_what_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has waited longer in its life, or less, is no reason for a jump."""
    monkeypatch.setattr(pvtime, "LOOK_EVERY_NS", 0)
    with in_steps("realtime") as m, ThreadPoolExecutor(1) as other:
        first, second = Waiting(), Waiting()
        second.delay = 1 << 40
        for client, more in ((first, 0), (first, 10)):
            client.delay += more
            m.vcpu.run_raw(client)
        for more in (0, 200):
            second.delay += more
            other.submit(m.vcpu.run_raw, second).result()
        first.delay += 3000
        m.vcpu.run_raw(first)
        assert stolen(m) == 210


def test_looking_is_not_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs as much as an exit: what was not seen is seen when it is time."""
    asked: list[int] = []

    class Counting(Waiting):
        def run_delay(self) -> int:
            asked.append(1)
            return super().run_delay()

    monkeypatch.setattr(pvtime, "LOOK_EVERY_NS", 1 << 62)
    client = Counting()
    with in_steps("realtime") as m:
        m.vcpu.run_raw(client)  # the guest asks for the structure
        asked.clear()
        for _ in range(2):
            client.delay += 1000
            m.vcpu.run_raw(client)
        assert (len(asked), stolen(m)) == (0, 0)
        monkeypatch.setattr(pvtime, "LOOK_EVERY_NS", 0)
        m.vcpu.run_raw(client)
        assert (len(asked), stolen(m)) == (1, 2000)


def test_nobody_looks_for_a_guest_that_does_not_ask() -> None:
    class Nobody(NoContext):
        def run_delay(self) -> int:
            raise AssertionError

    with Native(out(0), out(0), clock="realtime") as m:
        assert m.vcpu.run_raw(Nobody()) == 0
        assert m.vcpu.ioctl(nr.KVM_RUN, ctx=Waiting()) == 0


def test_a_threads_own_wait_is_the_default() -> None:
    own = run_delay_ns()
    assert 0 <= own <= run_delay_ns(f"self/task/{threading.get_native_id()}") <= run_delay_ns()
    assert run_delay_ns("self/task/0") == 0
    assert THIS_PROCESS.run_delay() >= own


def test_stolen_time_grows_while_others_run() -> None:
    with Native(call(p.ARM_SMCCC_HV_PV_TIME_ST)) as m:
        m.vcpu.set_device_attr(CTRL, IPA, RAM + 0x8000)
        m.stored()
        m.vcpu.steal.run_delay += 1234
        from armkvm.kvm.pvtime import update_stolen_time

        update_stolen_time(m.vcpu)
        update_stolen_time(m.vcpu)
        assert struct.unpack_from("<IIQ", m.memory, 0x8000) == (0, 0, 1234)
