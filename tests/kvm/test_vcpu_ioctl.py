"""The ioctls of a vCPU: each alone with it, and only while there is one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest
from tests.kvm.native import PSCI
from tests.kvm.rig import fails

from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.abi.regs import CORE_PC
from armkvm.host.scripted import ScriptedBackend
from armkvm.kvm import System, Vcpu
from armkvm.kvm.vcpu_mutex import VcpuMutex

TIMER = k.KVM_ARM_VCPU_TIMER_CTRL, k.KVM_ARM_VCPU_TIMER_IRQ_VTIMER

# One call of each
CALLS: dict[str, Callable[[Vcpu], object]] = {
    "run": lambda v: v.run(),
    "arm_vcpu_init": lambda v: v.arm_vcpu_init(),
    "arm_vcpu_finalize": lambda v: v.arm_vcpu_finalize(0),
    "get_one_reg": lambda v: v.get_one_reg(CORE_PC),
    "set_one_reg": lambda v: v.set_one_reg(CORE_PC, 0),
    "get_reg_list": lambda v: v.get_reg_list(),
    "get_mp_state": lambda v: v.get_mp_state(),
    "set_mp_state": lambda v: v.set_mp_state(k.KVM_MP_STATE_RUNNABLE),
    "get_vcpu_events": lambda v: v.get_vcpu_events(),
    "set_vcpu_events": lambda v: v.set_vcpu_events(st.KvmVcpuEvents()),
    "set_signal_mask": lambda v: v.set_signal_mask(None),
    "has_device_attr": lambda v: v.has_device_attr(*TIMER),
    "get_device_attr": lambda v: v.get_device_attr(*TIMER),
    "set_device_attr": lambda v: v.set_device_attr(*TIMER, 20),
    "set_guest_debug": lambda v: v.set_guest_debug(st.KvmGuestDebug()),
    "get_stats_fd": lambda v: v.get_stats_fd().close(),
}
INITIALISED = ("run", "arm_vcpu_finalize", "get_one_reg", "set_one_reg", "get_reg_list")


@pytest.fixture
def vcpu() -> Iterator[Vcpu]:
    with System(backend=ScriptedBackend()) as system, system.create_vm() as vm:
        with vm.create_vcpu(0) as vcpu:
            yield vcpu


def test_all_are_here() -> None:
    assert {name for name in dir(Vcpu) if hasattr(getattr(Vcpu, name), "ioctl")} == {*CALLS}


@pytest.mark.parametrize("name", CALLS)
def test_none_without_a_file_or_a_vm_that_lives(vcpu: Vcpu, name: str) -> None:
    vcpu.vm.kill()
    fails(errno.EIO, lambda: CALLS[name](vcpu))
    vcpu.close()
    fails(errno.EBADF, lambda: CALLS[name](vcpu))


@pytest.mark.parametrize("name", INITIALISED)
def test_some_want_it_initialised(vcpu: Vcpu, name: str) -> None:
    fails(errno.ENOEXEC, lambda: CALLS[name](vcpu))


class Noted(VcpuMutex):
    """Whether it was taken."""

    __slots__ = ("taken",)

    def __enter__(self) -> None:
        super().__enter__()
        self.taken = True


@pytest.mark.parametrize("name", CALLS)
def test_each_takes_the_mutex(vcpu: Vcpu, name: str) -> None:
    """kvm_vcpu_ioctl() does, whichever it is."""
    vcpu.mutex = mutex = Noted(vcpu)
    mutex.taken = False
    vcpu.vm.kill()
    fails(errno.EIO, lambda: CALLS[name](vcpu))
    assert mutex.taken
    assert not mutex.locked()


def test_nothing_without_init() -> None:
    with System() as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        fails(errno.ENOEXEC, lambda: vcpu.get_one_reg(CORE_PC))
        fails(errno.ENOEXEC, lambda: vcpu.set_one_reg(CORE_PC, 0))
        fails(errno.ENOEXEC, vcpu.get_reg_list)
        fails(errno.ENOEXEC, lambda: vcpu.arm_vcpu_finalize(4))


def test_features() -> None:
    with System() as system, system.create_vm() as vm:
        first, second = vm.create_vcpu(0), vm.create_vcpu(1)
        fails(errno.EINVAL, lambda: first.arm_vcpu_init(0, PSCI))
        fails(errno.ENOENT, lambda: first.arm_vcpu_init(5, 1 << 8))
        fails(errno.EINVAL, lambda: first.arm_vcpu_init(5, 1 << k.KVM_ARM_VCPU_SVE))
        first.arm_vcpu_init(features=PSCI)
        fails(errno.EINVAL, lambda: second.arm_vcpu_init(features=0))  # all the same
        second.arm_vcpu_init(features=PSCI | 1)
        assert second.get_mp_state() == k.KVM_MP_STATE_STOPPED
        second.arm_vcpu_init(features=PSCI)  # powered off is not a feature that stays
        assert second.get_mp_state() == k.KVM_MP_STATE_RUNNABLE
        first.close()
        second.close()
