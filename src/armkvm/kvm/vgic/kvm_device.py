"""The vgic as a KVM device: its attributes, after vgic/vgic-kvm-device.c.

Documentation/virt/kvm/devices/arm-vgic.rst and arm-vgic-v3.rst describe the attributes; the order
of checks and the errors here are the code's. A register of the GICv2 may be accessed before it is
initialised and initialises it; one of the GICv3 may not. An ITS is a device of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.abi import vgic as a
from armkvm.abi.kvm import KVM_DEV_TYPE_ARM_VGIC_V2
from armkvm.kvm.file import Value, VmFile, fail, load_int
from armkvm.kvm.ioctl import ioctl, pointer, to_pointer
from armkvm.kvm.vgic import lpi
from armkvm.kvm.vgic import mmio as vgic_mmio
from armkvm.kvm.vgic import mmio_v2 as vgic_mmio_v2
from armkvm.kvm.vgic import mmio_v3 as vgic_mmio_v3
from armkvm.kvm.vgic import sys_reg_v3 as vgic_sys_reg_v3
from armkvm.kvm.vgic import v2 as vgic_v2
from armkvm.kvm.vgic import v3 as vgic_v3
from armkvm.kvm.vgic.dist import VGIC_ADDR_UNDEF
from armkvm.kvm.vgic.init import vgic_init
from armkvm.kvm.vgic.irq import VGIC_MAX_RESERVED, VGIC_NR_PRIVATE_IRQS
from armkvm.kvm.vgic.mmio import VgicIoDevice

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

SZ_4K = 0x1000


def _value_size(group: int) -> int:
    """Bytes of an attribute's value in the client's memory."""
    return 8 if group in (a.KVM_DEV_ARM_VGIC_GRP_ADDR, a.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS) else 4


_TO_VALUE = to_pointer("addr", lambda args: _value_size(args.group))


def _check(ret: int) -> None:
    if ret < 0:
        fail(-ret)


def set_legacy_vgic_v2_addr(vm: Vm, kind: int, addr: int) -> None:
    """kvm_set_legacy_vgic_v2_addr(): KVM_ARM_SET_DEVICE_ADDR. ENODEV, EEXIST, EINVAL, E2BIG."""
    if kind not in (a.KVM_VGIC_V2_ADDR_TYPE_DIST, a.KVM_VGIC_V2_ADDR_TYPE_CPU):
        fail(errno.ENODEV)
    if not vm.irqchip_in_kernel or not vm.vgic.is_v2:
        fail(errno.ENODEV)
    with vm.config_lock:
        _set_base(vm, kind, addr)


def _set_base(vm: Vm, kind: int, addr: int) -> None:
    """A frame's base address, once. config_lock held."""
    dist = vm.vgic
    match kind:
        case a.KVM_VGIC_V2_ADDR_TYPE_CPU:
            _check(
                vgic_v3.check_iorange(vm, dist.vgic_cpu_base, addr, SZ_4K, a.KVM_VGIC_V2_CPU_SIZE)
            )
            dist.vgic_cpu_base = addr
        case _:
            v2 = kind == a.KVM_VGIC_V2_ADDR_TYPE_DIST
            align = SZ_4K if v2 else vgic_v3.SZ_64K
            size = a.KVM_VGIC_V2_DIST_SIZE if v2 else a.KVM_VGIC_V3_DIST_SIZE
            _check(vgic_v3.check_iorange(vm, dist.vgic_dist_base, addr, align, size))
            dist.vgic_dist_base = addr


class VgicDevice(VmFile):
    """KVM_DEV_TYPE_ARM_VGIC_V2 and _V3: the file descriptor of KVM_CREATE_DEVICE."""

    UNKNOWN_IOCTL = errno.ENOTTY

    def __init__(self, vm: Vm, model: int) -> None:
        super().__init__()
        self.vm = vm
        self.is_v2 = model == KVM_DEV_TYPE_ARM_VGIC_V2

    # for the client

    @ioctl(nr.KVM_SET_DEVICE_ATTR, st.KvmDeviceAttr, value=pointer("addr"))
    def set_device_attr(self, group: int, attr: int, value: Value = 0) -> None:
        """KVM_SET_DEVICE_ATTR. ENXIO: no such attribute; EBUSY, EEXIST, EINVAL, E2BIG."""
        self._alive()
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_ADDR:
                self._set_addr(attr, load_int(value, 8))
            case a.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
                self._set_nr_irqs(load_int(value, 4))
            case a.KVM_DEV_ARM_VGIC_GRP_CTRL:
                self._ctrl(attr)
            case _ if group in self._reg_groups:
                self._access_reg(group, attr, load_int(value, _value_size(group)))
            case _:
                fail(errno.ENXIO)

    @ioctl(nr.KVM_GET_DEVICE_ATTR, st.KvmDeviceAttr, value=pointer("addr"), ret=_TO_VALUE)
    def get_device_attr(self, group: int, attr: int, value: Value = 0) -> int:
        """KVM_GET_DEVICE_ATTR; the index of a redistributor region goes in as `value`."""
        self._alive()
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_ADDR:
                return self._get_addr(attr, value)
            case a.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
                return self.vm.vgic.nr_irqs
            case _ if group in self._reg_groups:
                return self._access_reg(group, attr, None)
            case _:
                return fail(errno.ENXIO)

    @ioctl(nr.KVM_HAS_DEVICE_ATTR, st.KvmDeviceAttr)
    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR. ENXIO: no such attribute; EINVAL: no such vCPU."""
        self._alive()
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_ADDR:
                known = attr in (
                    (a.KVM_VGIC_V2_ADDR_TYPE_DIST, a.KVM_VGIC_V2_ADDR_TYPE_CPU)
                    if self.is_v2
                    else (
                        a.KVM_VGIC_V3_ADDR_TYPE_DIST,
                        a.KVM_VGIC_V3_ADDR_TYPE_REDIST,
                        a.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
                    )
                )
            case a.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
                known = True
            case a.KVM_DEV_ARM_VGIC_GRP_CTRL:
                known = attr == a.KVM_DEV_ARM_VGIC_CTRL_INIT or (
                    attr == a.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES and not self.is_v2
                )
            case a.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO if not self.is_v2:
                known = _level_info(attr) == a.VGIC_LEVEL_INFO_LINE_LEVEL
            case _ if group in self._reg_groups:
                known = self._has_reg(group, attr)
            case _:
                known = False
        if not known:
            fail(errno.ENXIO)

    # addresses, sizes, control

    def _set_addr(self, attr: int, value: int) -> None:
        """kvm_vgic_addr(), write."""
        vm = self.vm
        with vm.slots_lock:
            match attr:
                case a.KVM_VGIC_V2_ADDR_TYPE_DIST | a.KVM_VGIC_V2_ADDR_TYPE_CPU if self.is_v2:
                    with vm.config_lock:
                        _set_base(vm, attr, value)
                case a.KVM_VGIC_V3_ADDR_TYPE_DIST if not self.is_v2:
                    with vm.config_lock:
                        _set_base(vm, attr, value)
                case a.KVM_VGIC_V3_ADDR_TYPE_REDIST if not self.is_v2:
                    _check(vgic_v3.set_redist_base(vm, 0, value, 0))
                case a.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION if not self.is_v2:
                    index = value & a.KVM_VGIC_V3_RDIST_INDEX_MASK & 0xFF
                    base = value & a.KVM_VGIC_V3_RDIST_BASE_MASK
                    count = value >> a.KVM_VGIC_V3_RDIST_COUNT_SHIFT & 0xFFF
                    flags = value >> a.KVM_VGIC_V3_RDIST_FLAGS_SHIFT
                    if not count or flags & a.KVM_VGIC_V3_RDIST_FLAGS_MASK:
                        fail(errno.EINVAL)
                    _check(vgic_v3.set_redist_base(vm, index, base, count))
                case _:
                    fail(errno.ENXIO)

    def _get_addr(self, attr: int, value: Value) -> int:
        """kvm_vgic_addr(), read."""
        dist = self.vm.vgic
        match attr:
            case a.KVM_VGIC_V2_ADDR_TYPE_DIST if self.is_v2:
                return dist.vgic_dist_base
            case a.KVM_VGIC_V2_ADDR_TYPE_CPU if self.is_v2:
                return dist.vgic_cpu_base
            case a.KVM_VGIC_V3_ADDR_TYPE_DIST if not self.is_v2:
                return dist.vgic_dist_base
            case a.KVM_VGIC_V3_ADDR_TYPE_REDIST if not self.is_v2:
                return int(dist.rd_regions[0].base) if dist.rd_regions else VGIC_ADDR_UNDEF
            case a.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION if not self.is_v2:
                index = load_int(value, 8) & a.KVM_VGIC_V3_RDIST_INDEX_MASK & 0xFF
                region = vgic_v3.region_from_index(self.vm, index)
                if region is None:
                    fail(errno.ENOENT)
                return index | region.base | region.count << a.KVM_VGIC_V3_RDIST_COUNT_SHIFT
            case _:
                return fail(errno.ENXIO)

    def _set_nr_irqs(self, n: int) -> None:
        """At least 32 SPIs, in steps of 32, once."""
        if not VGIC_NR_PRIVATE_IRQS + 32 <= n <= VGIC_MAX_RESERVED or n % 32:
            fail(errno.EINVAL)
        with self.vm.config_lock:
            dist = self.vm.vgic
            if dist.ready or dist.nr_spis:
                fail(errno.EBUSY)
            dist.nr_spis = n - VGIC_NR_PRIVATE_IRQS

    def _ctrl(self, attr: int) -> None:
        vm = self.vm
        if attr == a.KVM_DEV_ARM_VGIC_CTRL_INIT:
            with vm.config_lock:
                _check(vgic_init(vm))
        elif attr == a.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES and not self.is_v2:
            with self._all_at_rest():
                lpi.save_pending_tables(vm)
        else:
            fail(errno.ENXIO)

    # registers

    @property
    def _reg_groups(self) -> tuple[int, ...]:
        if self.is_v2:
            return (a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, a.KVM_DEV_ARM_VGIC_GRP_CPU_REGS)
        return (
            a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
            a.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
            a.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
            a.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
        )

    def _vcpu(self, group: int, attr: int) -> Vcpu:
        """vgic_v2_parse_attr(), vgic_v3_parse_attr(): whose register. EINVAL."""
        vm = self.vm
        vcpu: Vcpu | None
        if self.is_v2:
            cpuid = attr >> a.KVM_DEV_ARM_VGIC_CPUID_SHIFT & a.KVM_DEV_ARM_VGIC_CPUID_MASK
            vcpu = vm.find_vcpu(cpuid)
        elif group == a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
            vcpu = vm.vcpus[0] if vm.vcpus else None
        else:
            aff = attr >> a.KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT
            vcpu = vgic_mmio_v3.mpidr_to_vcpu(vm, (aff >> 24 & 0xFF) << 32 | aff & 0xFF_FFFF)
        if vcpu is None:
            fail(errno.EINVAL)
        return vcpu

    def _frame(self, group: int) -> VgicIoDevice:
        match group:
            case a.KVM_DEV_ARM_VGIC_GRP_CPU_REGS:
                return _V2_CPU
            case a.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
                return _V3_RD
            case _:
                return _V2_DIST if self.is_v2 else _V3_DIST

    def _has_reg(self, group: int, attr: int) -> bool:
        """vgic_v2_has_attr_regs(), vgic_v3_has_attr_regs()."""
        vcpu = self._vcpu(group, attr)
        if group == a.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
            return vgic_sys_reg_v3.find(attr) is not None
        addr = attr & a.KVM_DEV_ARM_VGIC_OFFSET_MASK
        return addr % 4 == 0 and self._frame(group).find(vcpu, addr, 4) is not None

    @contextmanager
    def _all_at_rest(self) -> Iterator[None]:
        """EBUSY while any vCPU is inside an ioctl."""
        vm = self.vm
        # slots_lock: the tables of LPIs lie in guest memory.
        with vm.lock, vm.all_vcpus_locked(), vm.slots_lock, vm.config_lock:
            yield

    def _access_reg(self, group: int, attr: int, value: int | None) -> int:
        """vgic_v2_attr_regs_access(), vgic_v3_attr_regs_access()."""
        vcpu = self._vcpu(group, attr)
        addr = attr & a.KVM_DEV_ARM_VGIC_OFFSET_MASK
        with self._all_at_rest():
            if self.is_v2:
                _check(vgic_init(self.vm))
            elif not self.vm.vgic.initialized:
                fail(errno.EBUSY)
            match group:
                case a.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
                    return self._access_sysreg(vcpu, attr, value)
                case a.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO:
                    return _access_level(vcpu, attr, value)
            frame = self._frame(group)
            if value is None:
                return frame.uaccess_read(vcpu, addr)
            _check(frame.uaccess_write(vcpu, addr, value & 0xFFFF_FFFF))
            return value

    @staticmethod
    def _access_sysreg(vcpu: Vcpu, attr: int, value: int | None) -> int:
        """vgic_v3_cpu_sysregs_uaccess(). ENXIO, EINVAL."""
        access = vgic_sys_reg_v3.find(attr)
        if access is None:
            fail(errno.ENXIO)
        assert vcpu.vgic_cpu is not None
        result = access(vcpu.vgic_cpu, value)
        if result is None:
            fail(errno.EINVAL)
        return result


def _level_info(attr: int) -> int:
    return (attr & 0xFFFF_FFFF) >> a.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT


def _access_level(vcpu: Vcpu, attr: int, value: int | None) -> int:
    """Levels of 32 lines, from a multiple of 32 on. EINVAL."""
    intid = attr & a.KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK
    if _level_info(attr) != a.VGIC_LEVEL_INFO_LINE_LEVEL or intid % 32:
        fail(errno.EINVAL)
    if value is None:
        return vgic_mmio.read_irq_line_level_info(vcpu, intid)
    vgic_mmio.write_irq_line_level_info(vcpu, intid, value)
    return value


_V2_DIST = VgicIoDevice(vgic_mmio_v2.DIST_REGISTERS)
_V2_CPU = VgicIoDevice(vgic_v2.CPU_REGISTERS)
_V3_DIST = VgicIoDevice(vgic_mmio_v3.DIST_REGISTERS)
_V3_RD = VgicIoDevice(vgic_mmio_v3.RD_REGISTERS)
