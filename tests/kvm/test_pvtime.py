"""Stolen time and PTP: what a guest may ask KVM for by SMCCC."""

from __future__ import annotations

import errno
import struct

from tests.engine import a64
from tests.kvm.native import RAM, Native, Words, out
from tests.kvm.rig import fails

from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs

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


def test_stolen_time_grows_while_others_run() -> None:
    with Native(call(p.ARM_SMCCC_HV_PV_TIME_ST)) as m:
        m.vcpu.set_device_attr(CTRL, IPA, RAM + 0x8000)
        m.stored()
        m.vcpu.steal.run_delay += 1234
        from armkvm.kvm.pvtime import update_stolen_time

        update_stolen_time(m.vcpu)
        update_stolen_time(m.vcpu)
        assert struct.unpack_from("<IIQ", m.memory, 0x8000) == (0, 0, 1234)
