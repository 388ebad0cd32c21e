"""The structures of linux/kvm.h and asm-arm64/kvm.h, field for field, as ctypes lays them out.

Names are the kernel's in CapWords. ``KvmRun`` is the first page that a vCPU shares with its user;
only the members of its union that arm64 uses are here.
"""

from ctypes import Structure, Union, c_uint8, c_uint16, c_uint32, c_uint64


class KvmUserspaceMemoryRegion(Structure):
    _fields_ = [
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    ]


class KvmUserspaceMemoryRegion2(Structure):
    """The same, and memory of a guest_memfd, which arm64 has not."""

    _fields_ = [
        *KvmUserspaceMemoryRegion._fields_,
        ("guest_memfd_offset", c_uint64),
        ("guest_memfd", c_uint32),
        ("pad1", c_uint32),
        ("pad2", c_uint64 * 14),
    ]


class KvmIrqLevel(Structure):
    _fields_ = [("irq", c_uint32), ("level", c_uint32)]


class KvmCoalescedMmioZone(Structure):
    _fields_ = [("addr", c_uint64), ("size", c_uint32), ("pio", c_uint32)]


class KvmIrqRouting(Structure):
    """Header; `nr` entries of 48 bytes follow."""

    _fields_ = [("nr", c_uint32), ("flags", c_uint32)]


class KvmIrqRoutingEntry(Structure):
    _fields_ = [
        ("gsi", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("pad", c_uint32),
        ("u", c_uint32 * 8),
    ]


class KvmIrqfd(Structure):
    _fields_ = [
        ("fd", c_uint32),
        ("gsi", c_uint32),
        ("flags", c_uint32),
        ("resamplefd", c_uint32),
        ("pad", c_uint8 * 16),
    ]


class KvmIoeventfd(Structure):
    _fields_ = [
        ("datamatch", c_uint64),
        ("addr", c_uint64),
        ("len", c_uint32),
        ("fd", c_uint32),
        ("flags", c_uint32),
        ("pad", c_uint8 * 36),
    ]


class KvmEnableCap(Structure):
    _fields_ = [
        ("cap", c_uint32),
        ("flags", c_uint32),
        ("args", c_uint64 * 4),
        ("pad", c_uint8 * 64),
    ]


class KvmMsi(Structure):
    _fields_ = [
        ("address_lo", c_uint32),
        ("address_hi", c_uint32),
        ("data", c_uint32),
        ("flags", c_uint32),
        ("devid", c_uint32),
        ("pad", c_uint8 * 12),
    ]


class KvmDirtyLog(Structure):
    _fields_ = [("slot", c_uint32), ("padding1", c_uint32), ("dirty_bitmap", c_uint64)]


class KvmClearDirtyLog(Structure):
    _fields_ = [
        ("slot", c_uint32),
        ("num_pages", c_uint32),
        ("first_page", c_uint64),
        ("dirty_bitmap", c_uint64),
    ]


class KvmCoalescedMmio(Structure):
    """One entry of the ring in the second page that a vCPU shares with its user."""

    _fields_ = [
        ("phys_addr", c_uint64),
        ("len", c_uint32),
        ("pio", c_uint32),
        ("data", c_uint8 * 8),
    ]


class KvmCoalescedMmioRing(Structure):
    """Header; KVM_COALESCED_MMIO_MAX entries follow. User space moves `first`, KVM `last`."""

    _fields_ = [("first", c_uint32), ("last", c_uint32)]


class KvmArmDeviceAddr(Structure):
    _fields_ = [("id", c_uint64), ("addr", c_uint64)]


class RegMaskRange(Structure):
    _fields_ = [("addr", c_uint64), ("range", c_uint32), ("reserved", c_uint32 * 13)]


class KvmArmCounterOffset(Structure):
    _fields_ = [("counter_offset", c_uint64), ("reserved", c_uint64)]


class KvmCreateDevice(Structure):
    _fields_ = [("type", c_uint32), ("fd", c_uint32), ("flags", c_uint32)]


class KvmDeviceAttr(Structure):
    _fields_ = [
        ("flags", c_uint32),
        ("group", c_uint32),
        ("attr", c_uint64),
        ("addr", c_uint64),
    ]


class KvmSmcccFilter(Structure):
    """What KVM_ARM_VM_SMCCC_FILTER's address points to."""

    _fields_ = [
        ("base", c_uint32),
        ("nr_functions", c_uint32),
        ("action", c_uint8),
        ("pad", c_uint8 * 15),
    ]


class KvmInterrupt(Structure):
    _fields_ = [("irq", c_uint32)]


class KvmSignalMask(Structure):
    """Header; the signal set of `len` bytes follows."""

    _fields_ = [("len", c_uint32)]


class KvmMpState(Structure):
    _fields_ = [("mp_state", c_uint32)]


class KvmGuestDebug(Structure):
    _fields_ = [
        ("control", c_uint32),
        ("pad", c_uint32),
        ("dbg_bcr", c_uint64 * 16),
        ("dbg_bvr", c_uint64 * 16),
        ("dbg_wcr", c_uint64 * 16),
        ("dbg_wvr", c_uint64 * 16),
    ]


class KvmVcpuEvents(Structure):
    _fields_ = [
        ("serror_pending", c_uint8),
        ("serror_has_esr", c_uint8),
        ("ext_dabt_pending", c_uint8),
        ("pad", c_uint8 * 5),
        ("serror_esr", c_uint64),
        ("reserved", c_uint32 * 12),
    ]


class KvmOneReg(Structure):
    _fields_ = [("id", c_uint64), ("addr", c_uint64)]


class KvmVcpuInit(Structure):
    _fields_ = [("target", c_uint32), ("features", c_uint32 * 7)]


class KvmRegList(Structure):
    """Header; `n` register ids of 8 bytes follow."""

    _fields_ = [("n", c_uint64)]


class UserPtRegs(Structure):
    _fields_ = [
        ("regs", c_uint64 * 31),
        ("sp", c_uint64),
        ("pc", c_uint64),
        ("pstate", c_uint64),
    ]


class UserFpsimdState(Structure):
    _fields_ = [
        ("vregs", c_uint64 * 64),  # 32 registers of two words each
        ("fpsr", c_uint32),
        ("fpcr", c_uint32),
        ("reserved", c_uint32 * 2),
    ]


class KvmRegs(Structure):
    """What the core one-regs are offsets into; never passed as a whole on arm64."""

    _fields_ = [
        ("regs", UserPtRegs),
        ("sp_el1", c_uint64),
        ("elr_el1", c_uint64),
        ("spsr", c_uint64 * 5),
        ("pad", c_uint64),  # the vector registers are 16-byte aligned
        ("fp_regs", UserFpsimdState),
    ]


# kvm_run


class KvmRunFailEntry(Structure):
    _fields_ = [("hardware_entry_failure_reason", c_uint64), ("cpu", c_uint32)]


class KvmRunDebug(Structure):
    _fields_ = [("hsr", c_uint32), ("hsr_high", c_uint32), ("far", c_uint64)]


class _MmioData(Union):
    _fields_ = [("data", c_uint8 * 8), ("value", c_uint64)]


class KvmRunMmio(Structure):
    """One access. `data` holds `len` bytes; `value` is the same eight bytes as a number."""

    _anonymous_ = ("_data",)
    _fields_ = [
        ("phys_addr", c_uint64),
        ("_data", _MmioData),
        ("len", c_uint32),
        ("is_write", c_uint8),
    ]


class KvmRunHypercall(Structure):
    _fields_ = [
        ("nr", c_uint64),
        ("args", c_uint64 * 6),
        ("ret", c_uint64),
        ("flags", c_uint64),
    ]


class KvmRunInternal(Structure):
    _fields_ = [("suberror", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16)]


class KvmRunSystemEvent(Structure):
    _fields_ = [("type", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16)]


class KvmRunArmNisv(Structure):
    _fields_ = [("esr_iss", c_uint64), ("fault_ipa", c_uint64)]


class KvmRunMemoryFault(Structure):
    _fields_ = [("flags", c_uint64), ("gpa", c_uint64), ("size", c_uint64)]


class _KvmRunUnion(Union):
    _fields_ = [
        ("fail_entry", KvmRunFailEntry),
        ("debug", KvmRunDebug),
        ("mmio", KvmRunMmio),
        ("hypercall", KvmRunHypercall),
        ("internal", KvmRunInternal),
        ("system_event", KvmRunSystemEvent),
        ("arm_nisv", KvmRunArmNisv),
        ("memory_fault", KvmRunMemoryFault),
        ("padding", c_uint8 * 256),
    ]


class KvmSyncRegs(Structure):
    _fields_ = [("device_irq_level", c_uint64)]


class _KvmRunSync(Union):
    _fields_ = [("regs", KvmSyncRegs), ("padding", c_uint8 * 2048)]


class KvmRun(Structure):
    """struct kvm_run. Made over the caller's buffer with ``KvmRun.from_buffer``."""

    _anonymous_ = ("_u",)
    _fields_ = [
        ("request_interrupt_window", c_uint8),
        ("immediate_exit", c_uint8),
        ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32),
        ("ready_for_interrupt_injection", c_uint8),
        ("if_flag", c_uint8),
        ("flags", c_uint16),
        ("cr8", c_uint64),
        ("apic_base", c_uint64),
        ("_u", _KvmRunUnion),
        ("kvm_valid_regs", c_uint64),
        ("kvm_dirty_regs", c_uint64),
        ("s", _KvmRunSync),
    ]

    @property
    def s_regs(self) -> KvmSyncRegs:
        """``s.regs``: where the levels of in-kernel devices are reported."""
        regs: KvmSyncRegs = self.s.regs
        return regs
