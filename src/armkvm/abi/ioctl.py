"""The ioctl numbers of linux/kvm.h that arm64 knows, composed as asm-generic/ioctl.h composes them.

A number holds the direction (seen from the caller), the size of the structure that the argument
points to, the type byte 0xAE and a serial number. Left out: the numbers of other architectures.
"""

import ctypes

from armkvm.abi import structs as s

KVMIO = 0xAE

IOC_WRITE = 1  # the caller passes a structure in
IOC_READ = 2  # the caller gets a structure back


def _io(nr: int) -> int:
    return KVMIO << 8 | nr


def _ioc(direction: int, nr: int, argument: type) -> int:
    return direction << 30 | ctypes.sizeof(argument) << 16 | KVMIO << 8 | nr


def _iow(nr: int, argument: type) -> int:
    return _ioc(IOC_WRITE, nr, argument)


def _ior(nr: int, argument: type) -> int:
    return _ioc(IOC_READ, nr, argument)


def _iowr(nr: int, argument: type) -> int:
    return _ioc(IOC_READ | IOC_WRITE, nr, argument)


def ioc_dir(cmd: int) -> int:
    """Direction bits: IOC_WRITE, IOC_READ, both or none."""
    return cmd >> 30 & 3


def ioc_size(cmd: int) -> int:
    """Bytes of the structure that the argument points to."""
    return cmd >> 16 & 0x3FFF


# /dev/kvm
KVM_GET_API_VERSION = _io(0x00)
KVM_CREATE_VM = _io(0x01)
KVM_CHECK_EXTENSION = _io(0x03)
KVM_GET_VCPU_MMAP_SIZE = _io(0x04)

# VM
KVM_CREATE_VCPU = _io(0x41)
KVM_GET_DIRTY_LOG = _iow(0x42, s.KvmDirtyLog)
KVM_SET_USER_MEMORY_REGION = _iow(0x46, s.KvmUserspaceMemoryRegion)
KVM_SET_USER_MEMORY_REGION2 = _iow(0x49, s.KvmUserspaceMemoryRegion2)
KVM_CREATE_IRQCHIP = _io(0x60)
KVM_IRQ_LINE = _iow(0x61, s.KvmIrqLevel)
KVM_REGISTER_COALESCED_MMIO = _iow(0x67, s.KvmCoalescedMmioZone)
KVM_UNREGISTER_COALESCED_MMIO = _iow(0x68, s.KvmCoalescedMmioZone)
KVM_SET_GSI_ROUTING = _iow(0x6A, s.KvmIrqRouting)
KVM_IRQFD = _iow(0x76, s.KvmIrqfd)
KVM_IOEVENTFD = _iow(0x79, s.KvmIoeventfd)
KVM_ENABLE_CAP = _iow(0xA3, s.KvmEnableCap)
KVM_SIGNAL_MSI = _iow(0xA5, s.KvmMsi)
KVM_ARM_SET_DEVICE_ADDR = _iow(0xAB, s.KvmArmDeviceAddr)
KVM_ARM_SET_COUNTER_OFFSET = _iow(0xB5, s.KvmArmCounterOffset)
KVM_ARM_GET_REG_WRITABLE_MASKS = _ior(0xB6, s.RegMaskRange)
KVM_ARM_PREFERRED_TARGET = _ior(0xAF, s.KvmVcpuInit)
KVM_CLEAR_DIRTY_LOG = _iowr(0xC0, s.KvmClearDirtyLog)
KVM_CREATE_DEVICE = _iowr(0xE0, s.KvmCreateDevice)

# VM and vCPU
KVM_GET_STATS_FD = _io(0xCE)

# VM, vCPU and device
KVM_SET_DEVICE_ATTR = _iow(0xE1, s.KvmDeviceAttr)
KVM_GET_DEVICE_ATTR = _iow(0xE2, s.KvmDeviceAttr)
KVM_HAS_DEVICE_ATTR = _iow(0xE3, s.KvmDeviceAttr)

# vCPU
KVM_RUN = _io(0x80)
KVM_INTERRUPT = _iow(0x86, s.KvmInterrupt)
KVM_SET_SIGNAL_MASK = _iow(0x8B, s.KvmSignalMask)
KVM_GET_MP_STATE = _ior(0x98, s.KvmMpState)
KVM_SET_MP_STATE = _iow(0x99, s.KvmMpState)
KVM_SET_GUEST_DEBUG = _iow(0x9B, s.KvmGuestDebug)
KVM_GET_VCPU_EVENTS = _ior(0x9F, s.KvmVcpuEvents)
KVM_SET_VCPU_EVENTS = _iow(0xA0, s.KvmVcpuEvents)
KVM_GET_ONE_REG = _iow(0xAB, s.KvmOneReg)
KVM_SET_ONE_REG = _iow(0xAC, s.KvmOneReg)
KVM_ARM_VCPU_INIT = _iow(0xAE, s.KvmVcpuInit)
KVM_GET_REG_LIST = _iowr(0xB0, s.KvmRegList)
KVM_ARM_VCPU_FINALIZE = _iow(0xC2, ctypes.c_int)
