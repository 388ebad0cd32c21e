"""A virtual machine: the VM ioctls, after virt/kvm/kvm_main.c and arch/arm64/kvm/arm.c.

Locks, outer first: a vCPU's mutex, `lock` (kvm->lock), `slots_lock`, `config_lock`, `halt_lock`.
KVM_IRQ_LINE and KVM_SIGNAL_MSI take none of them, so they work while vCPUs run.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.abi.caps import Cap
from armkvm.abi.kvm import (
    KVM_ARM_DEVICE_ID_SHIFT,
    KVM_ARM_DEVICE_VGIC_V2,
    KVM_ARM_TARGET_GENERIC_V8,
    KVM_CREATE_DEVICE_TEST,
    KVM_DEV_TYPE_ARM_VGIC_ITS,
    KVM_DEV_TYPE_ARM_VGIC_V2,
    KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_IRQ_ROUTING_IRQCHIP,
    KVM_MAX_IRQ_ROUTES,
    KVM_MSI_VALID_DEVID,
    KVM_VCPU_MMAP_SIZE,
)
from armkvm.arch.sysreg import Encoding
from armkvm.kvm import id_regs, smccc_filter
from armkvm.kvm.arch_timer_context import DEFAULT_PPIS, Offset
from armkvm.kvm.binary_stats import VM_DESCS, BinaryStats, StatsFile
from armkvm.kvm.capabilities import MANUAL_DIRTY_LOG_PROTECT
from armkvm.kvm.file import THIS_PROCESS, Call, Context, Value, Writable, fail, load
from armkvm.kvm.io.bus import IoBus
from armkvm.kvm.io.coalesced_mmio import CoalescedMmio
from armkvm.kvm.io.eventfd import IoEventFds
from armkvm.kvm.io.irqfd import IrqFds, Route, Routing
from armkvm.kvm.ioctl import ANYTHING, Source, caller, ioctl, pointer
from armkvm.kvm.irq_line import irq_line
from armkvm.kvm.kvm_host import REQ_SLEEP, REQ_VM_DEAD
from armkvm.kvm.memslots import MemSlots
from armkvm.kvm.pmu.emul import MAX_COUNTERS
from armkvm.kvm.smccc_filter import SmcccFilter
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vgic import init as vgic_init
from armkvm.kvm.vgic import msi
from armkvm.kvm.vgic.its_device import VgicIts
from armkvm.kvm.vgic.kvm_device import VgicDevice, set_legacy_vgic_v2_addr
from armkvm.kvm.vm_memory import VmMemory

if TYPE_CHECKING:
    from armkvm.kvm.system import System
    from armkvm.kvm.vgic.dist import VgicDist
    from armkvm.kvm.vgic.its import Its


def _vcpu_pages(call: Call, _struct: None) -> Writable | None:
    return call.ctx.vcpu_pages(KVM_VCPU_MMAP_SIZE)


def _routes(call: Call, head: st.KvmIrqRouting) -> list[Route]:
    if head.nr > KVM_MAX_IRQ_ROUTES:
        fail(errno.EINVAL)
    kind = st.KvmIrqRoutingEntry * head.nr
    raw = call.tail(ctypes.sizeof(head), ctypes.sizeof(kind))
    entries = kind.from_buffer_copy(raw) if raw else ()
    if any(e.type == KVM_IRQ_ROUTING_IRQCHIP and e.u[0] for e in entries):
        fail(errno.EINVAL)  # there is one irqchip
    return [(e.gsi, e.type, e.flags, *_words(e)) for e in entries]


def _words(entry: st.KvmIrqRoutingEntry) -> list[int]:
    """What a type has of the union: the pin, or an MSI's address, data and device."""
    pin = entry.type == KVM_IRQ_ROUTING_IRQCHIP
    return list(entry.u[1:2] if pin else entry.u[:4])


def _are_routes(routes: object) -> None:
    if not isinstance(routes, list | tuple):
        fail(errno.EFAULT)
    for route in routes:
        if not isinstance(route, list | tuple) or len(route) not in (4, 7):
            fail(errno.EFAULT)
        if not all(isinstance(n, int) and 0 <= n <= 0xFFFF_FFFF for n in route):
            fail(errno.EINVAL)


_ROUTES = Source(_routes, _are_routes)


def _put_target(_call: Call, init: st.KvmVcpuInit, target: tuple[int, int]) -> None:
    init.target, init.features[:] = target[0], (target[1], *[0] * 6)


class Vm(VmMemory):
    """One virtual machine. It lives until its file and those of all its vCPUs are closed.

        import mmap
        from armkvm.abi.kvm import KVM_ARM_IRQ_CPU_IRQ, KVM_ARM_IRQ_TYPE_CPU, irq_word
        from armkvm.kvm import System

        ram = mmap.mmap(-1, 1 << 20)  # guest memory is the caller's, in whole pages
        with System() as kvm, kvm.create_vm() as vm:
            vm.set_user_memory_region(0, 0x4000_0000, len(ram), ram)
            vcpu = vm.create_vcpu(0)
            # The interrupt controller is the caller's too: it drives the vCPU's IRQ line.
            vm.irq_line(irq_word(KVM_ARM_IRQ_TYPE_CPU, 0, KVM_ARM_IRQ_CPU_IRQ), 1)

    Any thread may call `irq_line` while vCPUs run; what changes memory makes them leave the guest.
    """

    def __init__(self, system: System, ipa_bits: int) -> None:
        super().__init__()
        self.system = system
        self.host = system.host
        self.clock = system.clock
        self.trace = system.trace
        self.lock = threading.Lock()
        self.slots_lock = threading.Lock()
        self.config_lock = threading.Lock()
        self.halt_lock = threading.Lock()
        self.stage2 = system.backend.stage2()
        self.memslots = MemSlots(self.stage2, ipa_bits)
        self.vcpus: list[Vcpu] = []
        self.created_vcpus = 0
        self.max_vcpus = self.host.kind.max_vcpus
        self.features: int | None = None  # of all vCPUs, once the first is initialised
        self.irqchip_in_kernel = False
        self.vgic: VgicDist  # if irqchip_in_kernel
        self.its: list[Its] = []  # they stay, also when their files are closed
        self.mmio_bus = IoBus()
        self.vm_dead = False
        # `instructions` at which the running vCPU's KVM_RUN ends with EINTR, exactly; overrides
        # what its own `limit` says. Not in KVM.
        self.limit: int | None = None
        # struct arch_timer_vm_data
        self.voffset = Offset()
        self.poffset = Offset()
        self.counter_offset_set = False
        self.timer_ppi = list(DEFAULT_PPIS)
        self.timer_ppis_immutable = False
        # KVM_ENABLE_CAP
        self.nisv_to_user = False
        self.system_suspend = False
        self.manual_dirty_log_protect = 0
        self.pmcr_n = MAX_COUNTERS  # PMCR_EL0.N
        self.pmu_filter: bytearray | None = None  # one byte an event: it may be counted
        self.psci_version = 0  # that user space has chosen
        self.smccc_services: dict[int, int] = {}  # bitmaps that user space has set, by one-reg
        self.smccc_filter = SmcccFilter()
        self.id_regs: dict[Encoding, int] = {}  # ID registers that user space has changed
        self.coalesced_mmio = CoalescedMmio(self)
        self.ioeventfds = IoEventFds(self)
        self.irqfds = IrqFds(self)
        self.binary_stats: BinaryStats | None = None  # once somebody has asked for them
        self._references = 1

    @property
    def has_run(self) -> bool:
        """kvm_vm_has_ran_once()."""
        return any(vcpu.ran_once for vcpu in self.vcpus)

    @property
    def instructions(self) -> int:
        """Guest instructions retired by all vCPUs."""
        return sum(vcpu.instructions for vcpu in self.vcpus)

    # vCPUs

    @ioctl(nr.KVM_CREATE_VCPU, arg="vcpu_id", run_pages=_vcpu_pages)
    def create_vcpu(self, vcpu_id: int, run_pages: Writable | None = None) -> Vcpu:
        """KVM_CREATE_VCPU. `run_pages` is a buffer of 8192 bytes for kvm_run, allocated if absent.

        EINVAL: id or number of vCPUs beyond the maximum. EEXIST: the id is taken.
        EBUSY: the vgic is initialised.
        """
        if self.closed:
            fail(errno.EBADF)
        if not 0 <= vcpu_id < self.max_vcpus:
            fail(errno.EINVAL)
        with self.lock:
            if self.vm_dead:
                fail(errno.EIO)
            if self.created_vcpus >= self.max_vcpus:
                fail(errno.EINVAL)
            if self.find_vcpu(vcpu_id) is not None:
                fail(errno.EEXIST)
            if self.irqchip_in_kernel and self.vgic.initialized:
                fail(errno.EBUSY)  # kvm_arch_vcpu_precreate(): the sizes are fixed
            vcpu = Vcpu(self, vcpu_id, run_pages)
            try:
                vgic_init.vcpu_init(vcpu)
            except OSError:
                vcpu.destroy()
                raise
            self.created_vcpus += 1
            self._references += 1
            with self.halt_lock:  # whoever has halted the others does not know this one
                self.vcpus.append(vcpu)
            return vcpu

    def find_vcpu(self, vcpu_id: int) -> Vcpu | None:
        """The vCPU with an id."""
        for vcpu in self.vcpus:
            if vcpu.vcpu_id == vcpu_id:
                return vcpu
        return None

    @contextmanager
    def all_vcpus_locked(self) -> Iterator[None]:
        """lock_all_vcpus(): EBUSY if any vCPU is inside an ioctl."""
        taken: list[Vcpu] = []
        try:
            for vcpu in self.vcpus:
                if not vcpu.mutex.acquire(blocking=False):
                    fail(errno.EBUSY)
                taken.append(vcpu)
            yield
        finally:
            for vcpu in reversed(taken):
                vcpu.mutex.release()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """kvm_arm_halt_guest() to kvm_arm_resume_guest(): no vCPU executes guest code meanwhile.

        One thread at a time: the first to be ready would let them go on under the others.
        """
        with self.halt_lock, self.host.turn.time_stands():
            for vcpu in self.vcpus:
                vcpu.pause = True
                vcpu.make_request(REQ_SLEEP)
            for vcpu in self.vcpus:
                vcpu.kick_out()
            try:
                yield
            finally:
                for vcpu in self.vcpus:
                    vcpu.pause = False
                    vcpu.wake_up()

    def kill(self) -> None:
        """kvm_vm_dead(): every later ioctl on it fails with EIO."""
        self.vm_dead = True
        for vcpu in self.vcpus:
            vcpu.make_request(REQ_VM_DEAD)
            vcpu.vcpu_kick()

    # interrupts

    @ioctl(nr.KVM_IRQ_LINE, st.KvmIrqLevel)
    def irq_line(self, irq: int, level: int) -> None:
        """KVM_IRQ_LINE (api.rst 4.25), from any thread. EINVAL, ENXIO."""
        self._alive()
        irq_line(self, irq, bool(level))

    @ioctl(nr.KVM_CREATE_IRQCHIP, arg=ANYTHING)
    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: a vgic v2. ENXIO where the host has none."""
        self._alive()
        if not self.host.kind.vgic_types:
            fail(errno.ENXIO)
        with self.lock:
            vgic_init.create(self, KVM_DEV_TYPE_ARM_VGIC_V2)

    @ioctl(nr.KVM_CREATE_DEVICE, st.KvmCreateDevice, kind="type", ret="fd")
    def create_device(self, kind: int, flags: int = 0) -> VgicDevice | VgicIts | None:
        """KVM_CREATE_DEVICE; None when only testing. ENODEV for a type the host cannot have."""
        self._alive()
        if kind not in self.host.kind.vgic_types:
            fail(errno.ENODEV)
        if flags & KVM_CREATE_DEVICE_TEST:
            return None
        with self.lock:
            if kind == KVM_DEV_TYPE_ARM_VGIC_ITS:
                return VgicIts(self)
            vgic_init.create(self, kind)
            return VgicDevice(self, kind)

    @property
    def has_gicv3(self) -> bool:
        """kvm_has_gicv3()."""
        return self.irqchip_in_kernel and not self.vgic.is_v2

    def vgic_lazy_init(self) -> int:
        """vgic_lazy_init(): 0 or a negative errno."""
        return vgic_init.vgic_lazy_init(self)

    @ioctl(nr.KVM_ARM_SET_DEVICE_ADDR, st.KvmArmDeviceAddr, device_id="id")
    def arm_set_device_addr(self, device_id: int, addr: int) -> None:
        """KVM_ARM_SET_DEVICE_ADDR, the old way to place a vgic v2. ENODEV without one.

        EEXIST, EINVAL, E2BIG as for the device's attributes.
        """
        self._alive()
        if device_id >> KVM_ARM_DEVICE_ID_SHIFT & 0xFFFF != KVM_ARM_DEVICE_VGIC_V2:
            fail(errno.ENODEV)
        set_legacy_vgic_v2_addr(self, device_id & 0xFFFF, addr)

    @ioctl(nr.KVM_SIGNAL_MSI, st.KvmMsi)
    def signal_msi(
        self, address_lo: int, address_hi: int, data: int, flags: int = 0, devid: int = 0
    ) -> int:
        """KVM_SIGNAL_MSI, from any thread: 1, or 0 if the guest has blocked it.

        EINVAL: no vgic, unknown flags, no device id, no ITS at the address. ENODEV: no ITS at all.
        EBUSY: the ITS or the target's LPIs are switched off.
        """
        self._alive()
        if not self.irqchip_in_kernel or flags & ~KVM_MSI_VALID_DEVID:
            fail(errno.EINVAL)
        return msi.send(self, msi.Msi(address_hi << 32 | address_lo, data, flags, devid))

    @ioctl(nr.KVM_IRQFD, st.KvmIrqfd, ctx=caller)
    def irqfd(
        self,
        fd: int,
        gsi: int,
        flags: int = 0,
        resamplefd: int = 0,
        *,
        ctx: Context = THIS_PROCESS,
    ) -> None:
        """KVM_IRQFD: an eventfd of `ctx` drives an interrupt, or no longer does.

        EINVAL, EAGAIN (no initialised vgic), EBADF, EBUSY.
        """
        self._alive()
        self.irqfds.ioctl(st.KvmIrqfd(fd=fd, gsi=gsi, flags=flags, resamplefd=resamplefd), ctx)

    @ioctl(nr.KVM_SET_GSI_ROUTING, st.KvmIrqRouting, routes=_ROUTES)
    def set_gsi_routing(self, routes: Sequence[Route], flags: int = 0) -> None:
        """KVM_SET_GSI_ROUTING: (gsi, type, flags, pin) each, where type 1 is the vgic's pin; or
        (gsi, 2, flags, address_lo, address_hi, data, devid), an MSI.

        All of them or none. EINVAL: flags, a GSI that is too large or there twice, an unknown type,
        a pin that no SPI has.
        """
        self._alive()
        if flags or len(routes) > KVM_MAX_IRQ_ROUTES:
            fail(errno.EINVAL)
        self.irqfds.routing = Routing(routes)

    # the rest

    @ioctl(nr.KVM_CHECK_EXTENSION, arg="cap")
    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on the VM."""
        if cap == Cap.MSI_DEVID:
            return int(bool(self.its))  # an ITS asks for device ids
        return self.system.check_extension(cap)

    @ioctl(nr.KVM_ENABLE_CAP, st.KvmEnableCap)
    def enable_cap(self, cap: int, flags: int = 0, args: Sequence[int] | int = ()) -> None:
        """KVM_ENABLE_CAP on the VM; `args` are the four words, or the first.

        EINVAL for a capability that cannot be enabled.
        """
        self._alive()
        if flags:
            fail(errno.EINVAL)
        match cap:
            case Cap.ARM_NISV_TO_USER:
                self.nisv_to_user = True
            case Cap.ARM_SYSTEM_SUSPEND:
                self.system_suspend = True
            case Cap.MANUAL_DIRTY_LOG_PROTECT2:
                wanted = args if isinstance(args, int) else next(iter(args), 0)
                enable = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
                if wanted & ~MANUAL_DIRTY_LOG_PROTECT or (wanted and not wanted & enable):
                    fail(errno.EINVAL)
                self.manual_dirty_log_protect = wanted
                self.memslots.initially_set = bool(wanted & KVM_DIRTY_LOG_INITIALLY_SET)
            case _:
                fail(errno.EINVAL)

    @ioctl(nr.KVM_HAS_DEVICE_ATTR, st.KvmDeviceAttr)
    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR on the VM. ENXIO: no such attribute."""
        self._alive()
        smccc_filter.has_attr(group, attr)

    @ioctl(nr.KVM_SET_DEVICE_ATTR, st.KvmDeviceAttr, value=pointer("addr"))
    def set_device_attr(self, group: int, attr: int, value: Value = 0) -> None:
        """KVM_SET_DEVICE_ATTR on the VM: devices/vm.rst. `value` is a KvmSmcccFilter's bytes.

        ENXIO: no such attribute; EINVAL; EEXIST: a range has an action already; EBUSY: it has run.
        """
        self._alive()
        smccc_filter.set_attr(self, group, attr, lambda size: load(value, size))

    @ioctl(nr.KVM_ARM_PREFERRED_TARGET, st.KvmVcpuInit, ret=_put_target)
    def arm_preferred_target(self) -> tuple[int, int]:
        """KVM_ARM_PREFERRED_TARGET: (target, first word of features)."""
        self._alive()
        return KVM_ARM_TARGET_GENERIC_V8, 0

    @ioctl(nr.KVM_ARM_SET_COUNTER_OFFSET, st.KvmArmCounterOffset)
    def arm_set_counter_offset(self, counter_offset: int, reserved: int = 0) -> None:
        """KVM_ARM_SET_COUNTER_OFFSET: ticks, for both counters. EINVAL, EBUSY (a vCPU is busy)."""
        self._alive()
        if reserved:
            fail(errno.EINVAL)
        with self.lock, self.all_vcpus_locked():
            self.counter_offset_set = True
            self.voffset.value = self.poffset.value = counter_offset

    @ioctl(
        nr.KVM_ARM_GET_REG_WRITABLE_MASKS,
        st.RegMaskRange,
        ret=lambda call, it, masks: call.ctx.write(it.addr, masks),
    )
    def arm_get_reg_writable_masks(
        self, range: int = 0, reserved: int | Sequence[int] = ()
    ) -> bytes:
        """KVM_ARM_GET_REG_WRITABLE_MASKS: 192 words, bits of feature ID registers that can be set.

        Word (op1 - (op1 == 3)) << 6 | CRm << 3 | op2 is of register S3_<op1>_C0_C<CRm>_<op2>.
        EINVAL: another range, reserved bytes.
        """
        self._alive()
        if range or (reserved if isinstance(reserved, int) else any(reserved)):
            fail(errno.EINVAL)
        return id_regs.masks()

    @ioctl(nr.KVM_GET_STATS_FD, arg=ANYTHING)
    def get_stats_fd(self) -> StatsFile:
        """KVM_GET_STATS_FD: a descriptor of the VM's statistics. ENFILE, EMFILE, ENOMEM."""
        with self.lock:
            self._alive()
            if self.binary_stats is None:
                self.binary_stats = BinaryStats(f"kvm-{os.getpid()}", VM_DESCS)
            return self.binary_stats.open()

    # life

    def _alive(self) -> None:
        if self.closed:
            fail(errno.EBADF)
        if self.vm_dead:
            fail(errno.EIO)

    def release(self) -> None:
        """The VM's file is closed; its vCPUs' files may still be open."""
        self.put()

    def put(self) -> None:
        """Drop a reference; the last one destroys the VM."""
        with self.lock:
            self._references -= 1
            if self._references:
                return
        for vcpu in self.vcpus:
            vcpu.destroy()
        self.ioeventfds.release()
        self.irqfds.release()
        with self.halted():  # a vCPU's last ioctl may end just now, and take its TLBs with it
            self.memslots.close()
            self.stage2.close()
        if self.binary_stats is not None:
            self.binary_stats.close()
