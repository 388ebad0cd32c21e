"""What user space sets and reads of a vCPU, after kvm_arch_vcpu_ioctl() in arch/arm64/kvm/arm.c.

Each takes the vCPU and hands over: to reset.py, one_reg.py, inject_fault.py or vcpu_attr.py. What
all architectures have in kvm_vcpu_ioctl(), KVM_RUN first of all, is in vcpu.py. Left out: SVE,
pointer authentication.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from ctypes import c_int
from typing import TYPE_CHECKING

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.kvm import inject_fault, one_reg, reset, vcpu_attr
from armkvm.kvm import kvm_host as h
from armkvm.kvm.file import Call, Value, VmFile, fail, load, load_int
from armkvm.kvm.ioctl import ioctl, pointer, to_pointer, whole

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu


def _put_reg_list(call: Call, head: st.KvmRegList, ids: list[int]) -> None:
    """E2BIG, with the number in `n` all the same: how a client finds out how many there are."""
    room, head.n = head.n, len(ids)
    if room < len(ids):
        fail(errno.E2BIG)
    call.put_tail(8, b"".join(i.to_bytes(8, "little") for i in ids))


def pending_reset(vcpu: Vcpu) -> None:
    """A PSCI CPU_ON that the vCPU has not acted on yet comes before any register access.

    Otherwise what user space reads is too old, and what it writes is lost.
    """
    if vcpu.check_request(h.REQ_VCPU_RESET):
        reset.kvm_reset_vcpu(vcpu)


class VcpuIoctls(VmFile):
    """The part of a vCPU that is about its state."""

    @abstractmethod
    def _entered(self, *, initialized: bool = False) -> AbstractContextManager[Vcpu]:
        """The vCPU with its mutex held. EBADF, EIO; ENOEXEC where it has to be initialised."""

    @ioctl(nr.KVM_ARM_VCPU_INIT, st.KvmVcpuInit)
    def arm_vcpu_init(
        self, target: int = k.KVM_ARM_TARGET_GENERIC_V8, features: int | Sequence[int] = 0
    ) -> None:
        """KVM_ARM_VCPU_INIT; `features` is the first word (1 << KVM_ARM_VCPU_PSCI_0_2 ...), or all.

        EINVAL: target, unsupported or changed features. ENOENT: unknown features.
        """
        words = (features,) if isinstance(features, int) else features
        with self._entered() as vcpu:
            reset.vcpu_init(vcpu, target, sum(word << 32 * n for n, word in enumerate(words)))

    @ioctl(nr.KVM_ARM_VCPU_FINALIZE, c_int, what="value")
    def arm_vcpu_finalize(self, what: int) -> None:
        """KVM_ARM_VCPU_FINALIZE: only SVE could be finalised. ENOEXEC, EINVAL."""
        with self._entered(initialized=True):
            del what
            fail(errno.EINVAL)

    @ioctl(
        nr.KVM_GET_ONE_REG, st.KvmOneReg, reg_id="id",
        ret=to_pointer("addr", lambda reg: one_reg.size_of(reg.id)),
    )  # fmt: skip
    def get_one_reg(self, reg_id: int) -> int:
        """KVM_GET_ONE_REG. ENOEXEC (not initialised), ENOENT (no such register), EINVAL (size)."""
        with self._entered(initialized=True) as vcpu:
            pending_reset(vcpu)
            return one_reg.get_reg(vcpu, reg_id)

    @ioctl(nr.KVM_SET_ONE_REG, st.KvmOneReg, reg_id="id", value=pointer("addr"))
    def set_one_reg(self, reg_id: int, value: Value) -> None:
        """KVM_SET_ONE_REG; the same errors, and EINVAL or EBUSY for a value that cannot be."""
        with self._entered(initialized=True) as vcpu:
            number = load_int(value, one_reg.size_of(reg_id))
            pending_reset(vcpu)
            one_reg.set_reg(vcpu, reg_id, number)

    @ioctl(nr.KVM_GET_REG_LIST, st.KvmRegList, ret=_put_reg_list)
    def get_reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the ids of all registers. ENOEXEC."""
        with self._entered(initialized=True) as vcpu:
            return one_reg.reg_list(vcpu)

    @ioctl(nr.KVM_GET_VCPU_EVENTS, st.KvmVcpuEvents)
    def get_vcpu_events(self) -> st.KvmVcpuEvents:
        """KVM_GET_VCPU_EVENTS."""
        with self._entered() as vcpu:
            events = st.KvmVcpuEvents()
            inject_fault.get_events(vcpu, events)
            return events

    @ioctl(nr.KVM_SET_VCPU_EVENTS, st.KvmVcpuEvents, events=whole(st.KvmVcpuEvents))
    def set_vcpu_events(self, events: st.KvmVcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS. EINVAL: reserved fields, or a syndrome without RAS."""
        with self._entered() as vcpu:
            inject_fault.set_events(vcpu, events)

    @ioctl(nr.KVM_HAS_DEVICE_ATTR, st.KvmDeviceAttr)
    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR on the vCPU. ENXIO: no such attribute."""
        with self._entered() as vcpu:
            vcpu_attr.has_attr(vcpu, group, attr)

    @ioctl(
        nr.KVM_GET_DEVICE_ATTR, st.KvmDeviceAttr,
        ret=to_pointer("addr", lambda args: vcpu_attr.SIZE[args.group]),
    )  # fmt: skip
    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR: the interrupt of a timer or of the PMU, ... ENXIO."""
        with self._entered() as vcpu:
            return vcpu_attr.get_attr(vcpu, group, attr)

    @ioctl(nr.KVM_SET_DEVICE_ATTR, st.KvmDeviceAttr, value=pointer("addr"))
    def set_device_attr(self, group: int, attr: int, value: Value = 0) -> None:
        """KVM_SET_DEVICE_ATTR: devices/vcpu.rst. `value` is a number, or a structure's bytes.

        EINVAL, EBUSY, EEXIST, ENODEV as the attribute has it; ENXIO: no such attribute.
        """
        with self._entered() as vcpu:
            vcpu_attr.set_attr(vcpu, group, attr, lambda size: load(value, size))
