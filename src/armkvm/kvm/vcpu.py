"""A virtual CPU: its state, life cycle and ioctls, after kvm_main.c and arch/arm64/kvm/arm.c.

The run loop is in run.py, registers in one_reg.py, timers in arch_timer.py. The registers
themselves live in the engine's state, where the guest uses them; HCR_EL2's line bits are here,
because other threads set them, and go to the engine at each entry.

`kick` stands for a signal sent to the thread that is in KVM_RUN: it ends KVM_RUN with EINTR, and
one that comes too early ends the next KVM_RUN (a signal blocked outside KVM_RUN does the same).
Left out: SVE, pointer authentication.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.host.pcpu import PhysicalCpu
from armkvm.kvm import debug, inject_fault, one_reg, reset, vcpu_attr
from armkvm.kvm import kvm_host as h
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.file import Call, File, Handler, Writable, fail
from armkvm.kvm.pvtime import StealTime
from armkvm.kvm.run import kvm_vcpu_ioctl_run
from armkvm.kvm.stats import VcpuStat

if TYPE_CHECKING:
    from armkvm.kvm.pmu.emul import Pmu
    from armkvm.kvm.vgic.irq import VgicCpu
    from armkvm.kvm.vm import Vm


class Vcpu(File):
    """One virtual CPU.

    A client uses the methods named as ioctls, `run_struct`, `pages`, `kick`, `stat`,
    `instructions`, `limit`, `blocking`, `held` and `announce`. The other attributes are the
    hypervisor's own, as members of struct kvm_vcpu are.
    """

    def __init__(self, vm: Vm, vcpu_id: int, run_pages: Writable | None = None) -> None:
        super().__init__()
        self.vm = vm
        self.vcpu_id = vcpu_id
        self.memslots = vm.memslots
        self.trace = vm.trace
        self.point = vm.host.sched.point
        # The two shared pages: struct kvm_run and the coalesced-MMIO ring.
        if run_pages is None:
            run_pages = vm.coalesced_mmio.pages()
        elif memoryview(run_pages).nbytes < k.KVM_VCPU_MMAP_SIZE:
            fail(errno.EINVAL)
        self.pages = run_pages
        vm.coalesced_mmio.join(run_pages)
        self.run_struct = run = st.KvmRun.from_buffer(self.pages)
        # Views made once: reaching through a union builds an object each time.
        self.run_mmio = run.mmio
        self.run_data = tuple(
            kind.from_buffer(self.pages, 40)
            for kind in (ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64)
        )
        self.irq_level = ctypes.c_uint64.from_buffer(self.pages, 304)

        self.cpu = vm.system.backend.cpu(vm.stage2)
        self.state: Any = self.cpu.state
        self.x = self.state.x
        self.stat = VcpuStat()
        self.turn = vm.host.turn
        self.task = self.turn.join()
        self.twe = False  # HCR_EL2.TWE as the engine has it

        self._destroyed = False
        self.mutex = threading.Lock()  # held during every vCPU ioctl
        self.wait = threading.Condition()  # guards hcr, requests, signal_pending, mp_state
        self.hcr = 0
        self.vsesr = 0  # VSESR_EL2: the syndrome of a pending virtual SError
        self.requests = 0
        self.signal_pending = False
        self.mode = h.OUTSIDE_GUEST_MODE
        self.pid: int | None = None  # thread of the last KVM_RUN that got past its first checks
        self.ran_once = False  # KVM_ARCH_FLAG_HAS_RAN_ONCE, of this vCPU
        self.pcpu: PhysicalCpu | None = None  # where it is loaded
        self.last_pcpu: PhysicalCpu | None = None
        # Asleep in WFI: its timers need a soft timer. KVM's statistic of that name.
        self.blocking = False
        self.lines_in_hw = 0  # lines as the engine has them
        self.mmio_needed = False
        self.esr = 0  # of the last trap

        self.initialized = False
        self.features = 0
        self.mp_state = k.KVM_MP_STATE_RUNNABLE
        self.pause = False
        self.reset_state: tuple[int, int] | None = None  # pc, x0 of a PSCI CPU_ON
        self.psci_version = 0
        self.sys_regs: dict[str, int] = {}  # registers that KVM emulates
        self.core_spsr = [0] * 5  # SPSR of AArch32 modes; index 0 is SPSR_EL1, the engine's
        self.arch_timer = ArchTimer(self)
        self.arch_timer.vcpu_init()
        self.vgic_cpu: VgicCpu | None = None  # with an interrupt controller in the kernel
        self.pmu: Pmu | None = None  # with the feature
        self.steal = StealTime()
        self.guest_debug: debug.GuestDebug | None = None  # while it is enabled

    # for the client

    def run(self) -> None:
        """KVM_RUN. Returns when `run_struct` holds an exit; raises OSError as the ioctl fails.

        EINTR (`InterruptedError`): a kick, immediate_exit, or a changed device_irq_level; ENOEXEC:
        not initialised; ENOSYS: an MMIO instruction without syndrome; EFAULT: a hole in a memory
        slot.
        """
        ret = self.run_raw()
        if ret < 0:
            fail(-ret)

    def run_raw(self) -> int:
        """KVM_RUN; returns 0 or a negative errno instead of raising."""
        with self.mutex:
            ret = kvm_vcpu_ioctl_run(self)
        if self.closed:
            # Closed meanwhile: whoever closed it left the CPU to us.
            self.destroy()
        return ret

    def _run(self, call: Call) -> int:
        if call.arg:
            fail(errno.EINVAL)
        self.run()
        return 0

    def kick(self) -> None:
        """From any thread: end KVM_RUN with EINTR, this one or the next. An exit is never lost."""
        with self.wait:
            self.signal_pending = True
        self.vcpu_kick()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the turn from one KVM_RUN to the next. Not in KVM.

        A VMM that handles the exits of several vCPUs in here, one thread each, accesses its devices
        in an order that is the same in every run. In KVM_RUN other vCPUs have their turns as ever.
        In here do not wait for what needs another's turn: an ioctl of a vCPU that is in KVM_RUN.
        """
        self.turn.take(self.task)
        try:
            yield
        finally:
            self.turn.give(self.task)

    def announce(self) -> None:
        """A thread will call `held` or KVM_RUN soon: its place in the order is taken. Not in KVM.

        Otherwise the order depends on when a new thread comes to run.
        """
        self._alive()
        self.turn.announce(self.task)

    @property
    def instructions(self) -> int:
        """Guest instructions retired."""
        return int(self.state.count)

    @property
    def limit(self) -> int:
        """`instructions` at which KVM_RUN ends with EINTR, exactly. Not in KVM."""
        return int(self.state.limit)

    @limit.setter
    def limit(self, count: int) -> None:
        self.state.limit = count

    # for the hypervisor

    def now(self) -> int:
        """Host time in ns: of the CPU it is loaded on, else of the clock."""
        pcpu = self.pcpu
        return self.vm.clock.now() if pcpu is None else pcpu.ns

    @property
    def has_run_once(self) -> bool:
        """A KVM_RUN has passed its first checks (vcpu_has_run_once)."""
        return self.pid is not None

    @property
    def stopped(self) -> bool:
        """kvm_arm_vcpu_stopped()."""
        return self.mp_state == k.KVM_MP_STATE_STOPPED

    def make_request(self, request: int) -> None:
        """kvm_make_request()."""
        with self.wait:
            self.requests |= request

    def check_request(self, request: int) -> bool:
        """kvm_check_request(): test and clear."""
        if not self.requests & request:
            return False
        with self.wait:
            if not self.requests & request:
                return False
            self.requests &= ~request
            return True

    def wake_up(self) -> None:
        """kvm_vcpu_wake_up(): end a sleep, or the one that is about to begin."""
        self.turn.wake(self.task)

    def vcpu_kick(self) -> None:
        """kvm_vcpu_kick(): wake it up, or make it leave the guest."""
        self.wake_up()
        if self.mode == h.IN_GUEST_MODE:
            self.cpu.kick()

    def kick_out(self) -> None:
        """Make it leave the guest, and wait until it has; the caller has made a request."""
        if self.pid == threading.get_ident():
            return  # we are its thread, so it is not in the guest
        with self.wait:
            while self.mode == h.IN_GUEST_MODE:
                self.cpu.kick()
                # It may have been kicked just before it set the mode: ask again.
                self.wait.wait(0.01)

    # ioctls

    def arm_vcpu_init(self, target: int = k.KVM_ARM_TARGET_GENERIC_V8, features: int = 0) -> None:
        """KVM_ARM_VCPU_INIT; `features` is the first word (1 << KVM_ARM_VCPU_PSCI_0_2 ...).

        EINVAL: target, unsupported or changed features. ENOENT: unknown features.
        """
        with self.mutex:
            self._alive()
            reset.vcpu_init(self, target, features)

    def _arm_vcpu_init(self, call: Call) -> int:
        init = call.struct(st.KvmVcpuInit)
        if any(init.features[1:]):
            with self.mutex:
                fail(errno.ENOENT)
        self.arm_vcpu_init(init.target, init.features[0])
        return 0

    def arm_vcpu_finalize(self, what: int) -> None:
        """KVM_ARM_VCPU_FINALIZE: only SVE could be finalised. ENOEXEC, EINVAL."""
        with self.mutex:
            self._alive()
            if not self.initialized:
                fail(errno.ENOEXEC)
            fail(errno.EINVAL)

    def _arm_vcpu_finalize(self, call: Call) -> int:
        self.arm_vcpu_finalize(call.number())
        return 0

    def get_one_reg(self, reg_id: int) -> int:
        """KVM_GET_ONE_REG. ENOEXEC (not initialised), ENOENT (no such register), EINVAL (size)."""
        with self.mutex:
            self._alive(initialized=True)
            self._pending_reset()
            return one_reg.get_reg(self, reg_id)

    def set_one_reg(self, reg_id: int, value: int) -> None:
        """KVM_SET_ONE_REG; the same errors, and EINVAL or EBUSY for a value that cannot be."""
        with self.mutex:
            self._alive(initialized=True)
            self._pending_reset()
            one_reg.set_reg(self, reg_id, value)

    def _pending_reset(self) -> None:
        """A PSCI CPU_ON that the vCPU has not acted on yet comes before any register access.

        Otherwise what user space reads is too old, and what it writes is lost.
        """
        if self.check_request(h.REQ_VCPU_RESET):
            reset.kvm_reset_vcpu(self)

    def _get_one_reg(self, call: Call) -> int:
        reg = call.struct(st.KvmOneReg)
        value = self.get_one_reg(reg.id)
        call.ctx.write(reg.addr, value.to_bytes(one_reg.size_of(reg.id), "little"))
        return 0

    def _set_one_reg(self, call: Call) -> int:
        reg = call.struct(st.KvmOneReg)
        if not self.initialized:
            fail(errno.ENOEXEC)
        raw = call.ctx.read(reg.addr, one_reg.size_of(reg.id))
        self.set_one_reg(reg.id, int.from_bytes(raw, "little"))
        return 0

    def get_reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the ids of all registers. ENOEXEC."""
        with self.mutex:
            self._alive(initialized=True)
            return one_reg.reg_list(self)

    def _get_reg_list(self, call: Call) -> int:
        head = call.struct(st.KvmRegList)
        ids = self.get_reg_list()
        room, head.n = head.n, len(ids)
        if room < len(ids):
            fail(errno.E2BIG)
        call.put_tail(8, b"".join(i.to_bytes(8, "little") for i in ids))
        return 0

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE."""
        with self.mutex:
            self._alive()
            return self.mp_state

    def set_mp_state(self, mp_state: int) -> None:
        """KVM_SET_MP_STATE: RUNNABLE, STOPPED or SUSPENDED. EINVAL."""
        with self.mutex:
            self._alive()
            match mp_state:
                case k.KVM_MP_STATE_RUNNABLE:
                    self.mp_state = mp_state
                case k.KVM_MP_STATE_STOPPED:
                    self.power_off()
                case k.KVM_MP_STATE_SUSPENDED:
                    self.mp_state = mp_state
                    self.make_request(h.REQ_SUSPEND)
                    self.vcpu_kick()
                case _:
                    fail(errno.EINVAL)

    def power_off(self) -> None:
        """kvm_arm_vcpu_power_off()."""
        self.mp_state = k.KVM_MP_STATE_STOPPED
        self.make_request(h.REQ_SLEEP)
        self.vcpu_kick()

    def _get_mp_state(self, call: Call) -> int:
        call.struct(st.KvmMpState).mp_state = self.get_mp_state()
        return 0

    def _set_mp_state(self, call: Call) -> int:
        self.set_mp_state(call.struct(st.KvmMpState).mp_state)
        return 0

    def get_vcpu_events(self) -> st.KvmVcpuEvents:
        """KVM_GET_VCPU_EVENTS."""
        with self.mutex:
            self._alive()
            events = st.KvmVcpuEvents()
            inject_fault.get_events(self, events)
            return events

    def set_vcpu_events(self, events: st.KvmVcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS. EINVAL: reserved fields, or a syndrome without RAS."""
        with self.mutex:
            self._alive()
            inject_fault.set_events(self, events)

    def _get_vcpu_events(self, call: Call) -> int:
        call.struct(st.KvmVcpuEvents)
        call.data[: ctypes.sizeof(st.KvmVcpuEvents)] = bytes(self.get_vcpu_events())
        return 0

    def _set_vcpu_events(self, call: Call) -> int:
        self.set_vcpu_events(call.struct(st.KvmVcpuEvents))
        return 0

    def set_signal_mask(self, mask: bytes | None) -> None:
        """KVM_SET_SIGNAL_MASK. Accepted; our only signal is `kick`, which is let through."""
        self._alive()
        if mask is not None and len(mask) != 8:
            fail(errno.EINVAL)

    def _set_signal_mask(self, call: Call) -> int:
        length = call.struct(st.KvmSignalMask).len
        if length != 8:
            fail(errno.EINVAL)
        self.set_signal_mask(call.tail(4, length))
        return 0

    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR on the vCPU. ENXIO: no such attribute."""
        self._alive()
        vcpu_attr.has_attr(self, group, attr)

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR: the interrupt of a timer or of the PMU, ... ENXIO."""
        with self.mutex:
            self._alive()
            return vcpu_attr.get_attr(self, group, attr)

    def set_device_attr(self, group: int, attr: int, value: int | bytes = 0) -> None:
        """KVM_SET_DEVICE_ATTR: devices/vcpu.rst. `value` is a number, or a structure's bytes.

        EINVAL, EBUSY, EEXIST, ENODEV as the attribute has it; ENXIO: no such attribute.
        """

        def read(size: int) -> bytes:
            if isinstance(value, bytes):
                return value[:size]
            return (value & (1 << 8 * size) - 1).to_bytes(size, "little")

        self._set_attr(group, attr, read)

    def _set_attr(self, group: int, attr: int, read: vcpu_attr.Read) -> None:
        with self.mutex:
            self._alive()
            vcpu_attr.set_attr(self, group, attr, read)

    def _has_device_attr(self, call: Call) -> int:
        args = call.struct(st.KvmDeviceAttr)
        self.has_device_attr(args.group, args.attr)
        return 0

    def _get_device_attr(self, call: Call) -> int:
        args = call.struct(st.KvmDeviceAttr)
        value = self.get_device_attr(args.group, args.attr)
        call.ctx.write(args.addr, value.to_bytes(vcpu_attr.SIZE[args.group], "little"))
        return 0

    def _set_device_attr(self, call: Call) -> int:
        args = call.struct(st.KvmDeviceAttr)
        self._set_attr(args.group, args.attr, lambda size: call.ctx.read(args.addr, size))
        return 0

    def set_guest_debug(self, args: st.KvmGuestDebug) -> None:
        """KVM_SET_GUEST_DEBUG (api.rst 4.87). EINVAL: unknown bits in `control`."""
        with self.mutex:
            self._alive()
            debug.set_guest_debug(self, args)

    def _set_guest_debug(self, call: Call) -> int:
        self.set_guest_debug(call.struct(st.KvmGuestDebug))
        return 0

    # life

    def _alive(self, *, initialized: bool = False) -> None:
        if self.closed:
            fail(errno.EBADF)
        if self.vm.vm_dead:
            fail(errno.EIO)
        if initialized and not self.initialized:
            fail(errno.ENOEXEC)

    def release(self) -> None:
        """The file is closed. A KVM_RUN under way ends with EIO and then frees the CPU."""
        self.make_request(h.REQ_VM_DEAD)
        self.vcpu_kick()
        self.kick_out()
        self.destroy()
        self.vm.put()

    def destroy(self) -> None:
        """Free the engine's CPU, unless a thread is in KVM_RUN: then that thread does it."""
        if not self.mutex.acquire(blocking=False):
            return
        try:
            if self._destroyed:
                return
            self._destroyed = True
            for timer in (self.arch_timer.bg_timer, self.arch_timer.ptimer.hrtimer):
                timer.cancel()
            if self.pmu is not None:
                self.pmu.hrtimer.cancel()
            self.turn.leave(self.task)
            for pcpu in self.vm.host.pcpus:
                # Also a CPU that it ran on earlier, if nobody has run there since.
                if pcpu.state is self.state:
                    pcpu.remove()
            self.cpu.close()
        finally:
            self.mutex.release()

    IOCTLS: ClassVar[dict[int, Handler]] = {
        nr.KVM_RUN: _run,
        nr.KVM_ARM_VCPU_INIT: _arm_vcpu_init,
        nr.KVM_ARM_VCPU_FINALIZE: _arm_vcpu_finalize,
        nr.KVM_GET_ONE_REG: _get_one_reg,
        nr.KVM_SET_ONE_REG: _set_one_reg,
        nr.KVM_GET_REG_LIST: _get_reg_list,
        nr.KVM_GET_MP_STATE: _get_mp_state,
        nr.KVM_SET_MP_STATE: _set_mp_state,
        nr.KVM_GET_VCPU_EVENTS: _get_vcpu_events,
        nr.KVM_SET_VCPU_EVENTS: _set_vcpu_events,
        nr.KVM_SET_SIGNAL_MASK: _set_signal_mask,
        nr.KVM_HAS_DEVICE_ATTR: _has_device_attr,
        nr.KVM_GET_DEVICE_ATTR: _get_device_attr,
        nr.KVM_SET_DEVICE_ATTR: _set_device_attr,
        nr.KVM_SET_GUEST_DEBUG: _set_guest_debug,
    }
