"""Ioctl numbers against those that the kernel's headers give (computed by compiling them)."""

import pytest

from armkvm.abi import ioctl


@pytest.mark.parametrize(
    ("name", "number"),
    {
        "KVM_RUN": 0xAE80,
        "KVM_IRQ_LINE": 0x4008AE61,
        "KVM_ARM_VCPU_INIT": 0x4020AEAE,
        "KVM_ARM_PREFERRED_TARGET": 0x8020AEAF,
        "KVM_CREATE_IRQCHIP": 0xAE60,
        "KVM_CREATE_DEVICE": 0xC00CAEE0,
        "KVM_SET_DEVICE_ATTR": 0x4018AEE1,
        "KVM_GET_ONE_REG": 0x4010AEAB,
        "KVM_SET_ONE_REG": 0x4010AEAC,
        "KVM_GET_REG_LIST": 0xC008AEB0,
        "KVM_SET_SIGNAL_MASK": 0x4004AE8B,
        "KVM_GET_MP_STATE": 0x8004AE98,
        "KVM_SET_MP_STATE": 0x4004AE99,
        "KVM_ARM_VCPU_FINALIZE": 0x4004AEC2,
        "KVM_ARM_SET_COUNTER_OFFSET": 0x4010AEB5,
        "KVM_REGISTER_COALESCED_MMIO": 0x4010AE67,
        "KVM_SET_USER_MEMORY_REGION": 0x4020AE46,
        "KVM_SET_USER_MEMORY_REGION2": 0x40A0AE49,
        "KVM_SET_GUEST_DEBUG": 0x4208AE9B,
        "KVM_GET_VCPU_EVENTS": 0x8040AE9F,
        "KVM_ENABLE_CAP": 0x4068AEA3,
    }.items(),
)
def test_numbers(name: str, number: int) -> None:
    assert getattr(ioctl, name) == number


def test_parts_of_a_number() -> None:
    assert ioctl.ioc_size(ioctl.KVM_CREATE_DEVICE) == 12
    assert ioctl.ioc_dir(ioctl.KVM_CREATE_DEVICE) == ioctl.IOC_READ | ioctl.IOC_WRITE
    assert ioctl.ioc_dir(ioctl.KVM_GET_ONE_REG) == ioctl.IOC_WRITE
    assert ioctl.ioc_dir(ioctl.KVM_RUN) == 0


def test_no_number_is_used_twice() -> None:
    """But for two pairs that are told apart by the file: VM and vCPU."""
    numbers = [v for k, v in vars(ioctl).items() if k.startswith("KVM_")]
    shared = {n for n in numbers if numbers.count(n) > 1}
    assert shared == {ioctl.KVM_ARM_SET_DEVICE_ADDR}
    assert ioctl.KVM_ARM_SET_DEVICE_ADDR == ioctl.KVM_GET_ONE_REG
