"""The SMCCC filter of a VM (devices/vm.rst, KVM_ARM_VM_SMCCC_CTRL), after hypercalls.c.

Before the first run user space may deny ranges of functions to the guest, or take them over: then
a call ends KVM_RUN with KVM_EXIT_HYPERCALL. What KVM must answer itself, the Arm architecture's
calls, cannot be filtered. What is in no range goes by the bitmaps of services.
"""

from __future__ import annotations

import ctypes
import errno
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmSmcccFilter
from armkvm.kvm.file import Read, fail

if TYPE_CHECKING:
    from armkvm.kvm.vm import Vm

# Owner 0, fast calls, of both widths: SMCCC_VERSION, workarounds and what is to come.
_RESERVED: Final = ((0x8000_0000, 0x8000_FFFF), (0xC000_0000, 0xC000_FFFF))


class SmcccFilter:
    """Ranges of function ids, apart from each other, and what happens to the calls."""

    def __init__(self) -> None:
        self._ranges = [(*ends, k.KVM_SMCCC_FILTER_HANDLE) for ends in _RESERVED]

    def insert(self, it: KvmSmcccFilter) -> None:
        """One range more. EEXIST: some of it has an action already."""
        first, last = it.base, it.base + it.nr_functions - 1
        if any(first <= end and start <= last for start, end, _ in self._ranges):
            fail(errno.EEXIST)
        self._ranges = sorted([*self._ranges, (first, last, it.action)])

    def action(self, fn: int) -> int:
        """KVM_SMCCC_FILTER_* for a function."""
        at = bisect_right(self._ranges, fn, key=lambda entry: entry[0]) - 1
        if at >= 0 and fn <= self._ranges[at][1]:
            return self._ranges[at][2]
        return k.KVM_SMCCC_FILTER_HANDLE


def has_attr(group: int, attr: int) -> None:
    """kvm_vm_has_attr(): ENXIO."""
    if (group, attr) != (k.KVM_ARM_VM_SMCCC_CTRL, k.KVM_ARM_VM_SMCCC_FILTER):
        fail(errno.ENXIO)


def set_attr(vm: Vm, group: int, attr: int, read: Read) -> None:
    """kvm_smccc_set_filter(). ENXIO; EINVAL: no functions, or some beyond the last one, an unknown
    action, padding; EBUSY: a vCPU has run; EEXIST."""
    has_attr(group, attr)
    wanted = KvmSmcccFilter.from_buffer_copy(read(ctypes.sizeof(KvmSmcccFilter)))
    if any(wanted.pad) or wanted.action >= k.NR_SMCCC_FILTER_ACTIONS:
        fail(errno.EINVAL)
    if not wanted.nr_functions or wanted.base + wanted.nr_functions > 1 << 32:
        fail(errno.EINVAL)
    with vm.config_lock:
        if vm.has_run:
            fail(errno.EBUSY)
        vm.smccc_filter.insert(wanted)
