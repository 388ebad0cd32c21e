"""PSCI and SMCCC calls."""

from __future__ import annotations

import errno

import pytest
from tests.kvm.rig import IO, PSCI, Ops, Rig, fails

from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs
from armkvm.host.scripted import Hvc, ScriptedCpu, Store

M64 = (1 << 64) - 1


def call(*args: int, features: int = PSCI, version: int = 0, suspend: bool = False) -> int:
    """What one call returns, as a signed number."""
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        seen.append((yield Hvc(args)))
        yield Store(IO)

    rig = Rig(guest, features=features)
    if version:
        rig.vcpu.set_one_reg(regs.KVM_REG_ARM_PSCI_VERSION, version)
    if suspend:
        rig.vm.enable_cap(216)
    assert rig.stored() == 0
    return (seen[0] ^ 1 << 63) - (1 << 63)


def test_versions() -> None:
    assert call(p.PSCI_0_2_FN_PSCI_VERSION) == 0x10001
    assert call(p.PSCI_0_2_FN_PSCI_VERSION, version=p.KVM_ARM_PSCI_1_0) == 0x10000
    assert call(p.PSCI_0_2_FN_PSCI_VERSION, version=p.KVM_ARM_PSCI_0_2) == 2
    assert call(p.PSCI_0_2_FN_PSCI_VERSION, features=0) == p.PSCI_RET_NOT_SUPPORTED
    assert call(p.PSCI_0_2_FN_MIGRATE_INFO_TYPE) == p.PSCI_0_2_TOS_MP


def test_the_version_is_the_vms() -> None:
    """kvm->arch.psci_version: chosen through one vCPU, the others' too, later ones included."""
    version = regs.KVM_REG_ARM_PSCI_VERSION
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        seen.append((yield Hvc((p.PSCI_0_2_FN_PSCI_VERSION,))))
        yield Store(IO)

    rig = Rig(guest)
    second = rig.vm.create_vcpu(1)
    second.arm_vcpu_init(features=PSCI)
    assert second.get_one_reg(version) == p.KVM_ARM_PSCI_1_1
    second.set_one_reg(version, p.KVM_ARM_PSCI_0_2)
    assert rig.get(version) == p.KVM_ARM_PSCI_0_2
    third = rig.vm.create_vcpu(2)
    third.arm_vcpu_init(features=PSCI)
    assert third.get_one_reg(version) == p.KVM_ARM_PSCI_0_2
    rig.vcpu.arm_vcpu_init(features=PSCI)  # a vCPU that starts over changes nothing
    assert rig.stored() == 0
    assert seen == [p.KVM_ARM_PSCI_0_2]
    assert Rig(guest).get(version) == p.KVM_ARM_PSCI_1_1  # another VM has its own


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (p.PSCI_0_2_FN64_CPU_ON, 0),
        (p.PSCI_0_2_FN_SYSTEM_OFF, 0),
        (p.ARM_SMCCC_VERSION_FUNC_ID, 0),
        (p.PSCI_1_1_FN64_SYSTEM_RESET2, 0),
        (p.PSCI_1_0_FN64_SYSTEM_SUSPEND, p.PSCI_RET_NOT_SUPPORTED),
        (0x8400_0005, p.PSCI_RET_NOT_SUPPORTED),
    ],
)
def test_features(asked: int, answer: int) -> None:
    assert call(p.PSCI_1_0_FN_PSCI_FEATURES, asked) == answer


def test_features_depend_on_version_and_capability() -> None:
    features = p.PSCI_1_0_FN_PSCI_FEATURES
    assert call(features, p.PSCI_1_0_FN64_SYSTEM_SUSPEND, suspend=True) == 0
    assert call(features, p.PSCI_1_1_FN_SYSTEM_RESET2, version=p.KVM_ARM_PSCI_1_0) == -1
    assert call(features, 0, version=p.KVM_ARM_PSCI_0_2) == -1


def test_smccc() -> None:
    assert call(p.ARM_SMCCC_VERSION_FUNC_ID) == 0x10001
    assert call(p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, p.ARM_SMCCC_ARCH_WORKAROUND_1) == 1
    assert call(p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, p.ARM_SMCCC_ARCH_WORKAROUND_2) == -2
    assert call(p.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, 0x8000_0000) == -1
    assert call(p.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID) == p.KVM_UID[0]
    assert call(0xC600_1234) == p.PSCI_RET_NOT_SUPPORTED
    assert call(0x1_8400_0000) == 0x10001  # the function is in W0


@pytest.mark.parametrize(
    ("args", "kind", "data"),
    [
        ((p.PSCI_0_2_FN_SYSTEM_OFF,), k.KVM_SYSTEM_EVENT_SHUTDOWN, [0]),
        ((p.PSCI_0_2_FN_SYSTEM_RESET,), k.KVM_SYSTEM_EVENT_RESET, [0]),
        ((p.PSCI_1_1_FN64_SYSTEM_RESET2, 0), k.KVM_SYSTEM_EVENT_RESET, [1]),
        ((p.PSCI_1_1_FN64_SYSTEM_RESET2, 0x8000_0001), k.KVM_SYSTEM_EVENT_RESET, [1]),
    ],
)
def test_system_events(args: tuple[int, ...], kind: int, data: list[int]) -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Hvc(args)
        yield Store(IO)

    rig = Rig(guest)
    assert rig.run() == k.KVM_EXIT_SYSTEM_EVENT
    event = rig.struct.system_event
    assert (event.type, list(event.data[: event.ndata])) == (kind, data)
    # All vCPUs stay out of the guest until user space says otherwise.
    assert rig.vcpu.get_mp_state() == k.KVM_MP_STATE_STOPPED
    fails(errno.EINTR, rig.vcpu.run)
    rig.vcpu.set_mp_state(k.KVM_MP_STATE_RUNNABLE)
    assert rig.stored() == 0
    assert rig.get(regs.core_x(0)) == p.PSCI_RET_INTERNAL_FAILURE & M64


def test_bad_reset_type() -> None:
    assert call(p.PSCI_1_1_FN_SYSTEM_RESET2, 5) == p.PSCI_RET_INVALID_PARAMS


def test_system_suspend_is_user_spaces_business() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Hvc((p.PSCI_1_0_FN64_SYSTEM_SUSPEND, 0x4000_0000, 7))
        yield Store(IO)

    rig = Rig(guest)
    rig.vm.enable_cap(216)
    assert rig.run() == k.KVM_EXIT_SYSTEM_EVENT
    assert rig.struct.system_event.type == k.KVM_SYSTEM_EVENT_SUSPEND
    assert rig.struct.system_event.ndata == 0
    assert rig.get(regs.core_x(0)) == p.PSCI_1_0_FN64_SYSTEM_SUSPEND
    rig.vcpu.set_mp_state(k.KVM_MP_STATE_SUSPENDED)
    fails(errno.EINTR, rig.vcpu.run)  # asleep, and kicked
    rig.line(1)
    assert rig.run() == k.KVM_EXIT_SYSTEM_EVENT
    assert rig.struct.system_event.type == k.KVM_SYSTEM_EVENT_WAKEUP
    rig.line(0)
    rig.vcpu.set_mp_state(k.KVM_MP_STATE_RUNNABLE)
    assert rig.stored() == 0


def test_cpu_on_off_and_affinity_info() -> None:
    answers: list[int] = []

    def first(_cpu: ScriptedCpu) -> Ops:
        info = p.PSCI_0_2_FN64_AFFINITY_INFO
        answers.append((yield Hvc((info, 1, 0))))
        answers.append((yield Hvc((p.PSCI_0_2_FN64_CPU_ON, 1, 0x4000_8000, 0x77))))
        answers.append((yield Hvc((info, 1, 0))))
        answers.append((yield Hvc((p.PSCI_0_2_FN64_CPU_ON, 1, 0, 0))))
        answers.append((yield Hvc((p.PSCI_0_2_FN64_CPU_ON, 2, 0, 0))))
        answers.append((yield Hvc((info, 2, 0))))
        answers.append((yield Hvc((info, 0, 1))))
        answers.append((yield Hvc((info, 0, 4))))
        answers.append((yield Hvc((p.PSCI_0_2_FN_CPU_OFF,))))

    def second(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO + 4)

    rig = Rig(first)
    rig.backend._scripts.append(second)
    vcpu = rig.vm.create_vcpu(1)
    vcpu.arm_vcpu_init(features=PSCI | 1 << k.KVM_ARM_VCPU_POWER_OFF)
    vcpu.set_one_reg(regs.core_x(5), 0x55)
    fails(errno.EINTR, rig.vcpu.run)  # off, and kicked
    assert rig.vcpu.get_mp_state() == k.KVM_MP_STATE_STOPPED
    invalid, on = p.PSCI_RET_INVALID_PARAMS & M64, p.PSCI_RET_ALREADY_ON & M64
    assert answers == [1, 0, 0, on, invalid, invalid, 0, invalid]
    vcpu.run()
    assert vcpu.get_one_reg(regs.CORE_PC) == 0x4000_8000
    assert vcpu.get_one_reg(regs.core_x(0)) == 0x77
    assert vcpu.get_one_reg(regs.core_x(5)) == 0
