"""The SMCCC filter: what user space may set, and what becomes of the guest's calls."""

from __future__ import annotations

import errno
import struct

import pytest
from tests.engine import a64
from tests.kvm.native import Native, Words, out
from tests.kvm.rig import fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs

CTRL, FILTER = k.KVM_ARM_VM_SMCCC_CTRL, k.KVM_ARM_VM_SMCCC_FILTER
HANDLE, DENY, FORWARD = (
    k.KVM_SMCCC_FILTER_HANDLE, k.KVM_SMCCC_FILTER_DENY, k.KVM_SMCCC_FILTER_FWD_TO_USER,
)  # fmt: skip
VERSION, CPU_ON = p.PSCI_0_2_FN_PSCI_VERSION, p.PSCI_0_2_FN64_CPU_ON
M64 = (1 << 64) - 1


def entry(base: int, count: int, action: int, pad: int = 0) -> bytes:
    return struct.pack("<IIB15s", base, count, action, pad.to_bytes(15, "little"))


def call(fn: int, conduit: int = a64.hvc(0)) -> Words:
    return [a64.mov(0, fn), a64.mov(1, 0x11), conduit, out(0), out(1, 8)]


def ready(*program: Words) -> Native:
    return Native(*program)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (entry(CPU_ON, 1, DENY), 0),
        (entry(CPU_ON, 1, HANDLE), 0),
        (entry(0, 0x8000_0000, DENY), 0),
        (entry(0xC001_0000, 0x3FFF_0000, DENY), 0),  # to the last function
        (entry(CPU_ON, 0, DENY), errno.EINVAL),
        (entry(0xFFFF_FFFF, 0xFFFF_FFFF, DENY), errno.EINVAL),
        (entry(0xC001_0000, 0x3FFF_0001, DENY), errno.EINVAL),
        (entry(CPU_ON, 1, 3), errno.EINVAL),
        (entry(CPU_ON, 1, 255), errno.EINVAL),
        (entry(CPU_ON, 1, DENY, 1), errno.EINVAL),
        (entry(CPU_ON, 1, DENY, 1 << 119), errno.EINVAL),
        (entry(p.ARM_SMCCC_ARCH_WORKAROUND_1, 1, DENY), errno.EEXIST),
        (entry(p.ARM_SMCCC_VERSION_FUNC_ID, 1, FORWARD), errno.EEXIST),
        (entry(0xC000_0000, 1, DENY), errno.EEXIST),
        (entry(0x7FFF_FFFF, 2, DENY), errno.EEXIST),  # into the architecture's
        (entry(0xC000_FFFF, 2, DENY), errno.EEXIST),
        (entry(0, 0xFFFF_FFFF, DENY), errno.EEXIST),
        (entry(CPU_ON, 1, DENY)[:-1], errno.EFAULT),
    ],
)
def test_what_can_be_set(raw: bytes, code: int) -> None:
    with ready() as m:
        if code:
            fails(code, lambda: m.vm.set_device_attr(CTRL, FILTER, raw))
        else:
            m.vm.set_device_attr(CTRL, FILTER, raw)
            fails(errno.EEXIST, lambda: m.vm.set_device_attr(CTRL, FILTER, raw))
        m.vm.set_device_attr(CTRL, FILTER, entry(VERSION, 1, DENY))  # and nothing else is taken


def test_attributes_of_the_vm() -> None:
    with ready() as m:
        m.vm.has_device_attr(CTRL, FILTER)
        for group, attr in ((CTRL, 1), (1, FILTER)):
            fails(errno.ENXIO, lambda g=group, a=attr: m.vm.has_device_attr(g, a))  # type: ignore[misc]
            fails(errno.ENXIO, lambda g=group, a=attr: m.vm.set_device_attr(g, a, bytes(24)))  # type: ignore[misc]
        attr_of = struct.pack("<IIQQ", 0, CTRL, FILTER, 0x1000)
        fails(errno.EINVAL, lambda: m.vm.ioctl(nr.KVM_GET_DEVICE_ATTR, 0, bytearray(attr_of)))


def test_not_once_a_vcpu_has_run() -> None:
    with ready(call(VERSION)) as m:
        m.stored()
        fails(errno.EBUSY, lambda: m.vm.set_device_attr(CTRL, FILTER, entry(CPU_ON, 1, DENY)))
        fails(errno.EINVAL, lambda: m.vm.set_device_attr(CTRL, FILTER, entry(CPU_ON, 0, DENY)))


@pytest.mark.parametrize("conduit", [a64.hvc(0), a64.smc(0)])
def test_denied(conduit: int) -> None:
    """And only what is in the range is."""
    with ready(
        call(VERSION, conduit), call(VERSION + 1 | 1 << 16, conduit), call(0x8600_0000)
    ) as m:
        m.vm.set_device_attr(CTRL, FILTER, entry(VERSION, 1, DENY))
        no = p.SMCCC_RET_NOT_SUPPORTED & M64
        assert [m.stored()[1] for _ in range(2)] == [no, 0]
        assert m.stored()[1] == no  # PSCI's own word for what it does not know
        m.stored()
        assert m.stored()[1] == 3


@pytest.mark.parametrize(
    ("conduit", "flags"), [(a64.hvc(0), 0), (a64.smc(0), k.KVM_HYPERCALL_EXIT_SMC)]
)
def test_taken_over_by_user_space(conduit: int, flags: int) -> None:
    fn = 0xC600_1234  # nobody's
    with ready(call(fn, conduit)) as m:
        m.vm.set_device_attr(CTRL, FILTER, entry(0xC600_0000, 0x1_0000, FORWARD))
        m.struct.hypercall.args[2] = m.struct.hypercall.ret = 99
        m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_HYPERCALL
        hypercall = m.struct.hypercall
        assert (hypercall.nr, hypercall.flags, hypercall.ret) == (fn, flags, 0)
        assert list(hypercall.args) == [0] * 6
        assert (m.get(regs.core_x(0)), m.get(regs.core_x(1))) == (fn, 0x11)
        m.set(regs.core_x(0), 0x77)
        assert [m.stored()[1] for _ in range(2)] == [0x77, 0x11]


def test_the_bitmaps_decide_about_what_is_to_be_handled() -> None:
    fn = p.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID
    with ready(call(fn)) as m:
        m.vm.set_device_attr(CTRL, FILTER, entry(fn, 1, HANDLE))
        m.set(regs.KVM_REG_ARM_VENDOR_HYP_BMAP, 0)
        assert m.stored()[1] == p.SMCCC_RET_NOT_SUPPORTED & M64
