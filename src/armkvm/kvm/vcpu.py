"""A virtual CPU: its state, how it is run and its life, after virt/kvm/kvm_main.c.

What user space sets and reads of it is in vcpu_ioctl.py, the run loop in run.py. The
registers themselves live in the engine's state, where the guest uses them; what other threads set,
HCR_EL2's line bits among it, is in requests.py and goes to the engine at each entry.

`kick` stands for a signal sent to the thread that is in KVM_RUN: it ends KVM_RUN with EINTR, and
one that comes too early ends the next KVM_RUN (a signal blocked outside KVM_RUN does the same).
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.arch.sysreg import Encoding
from armkvm.host.cpu import GuestState
from armkvm.host.pcpu import PhysicalCpu
from armkvm.kvm import debug
from armkvm.kvm import kvm_host as h
from armkvm.kvm.arch_timer import ArchTimer
from armkvm.kvm.binary_stats import VCPU_DESCS, BinaryStats, StatsFile, vcpu_words
from armkvm.kvm.file import THIS_PROCESS, Call, Context, Writable, fail
from armkvm.kvm.ioctl import ANYTHING, caller, ioctl, whole
from armkvm.kvm.pvtime import StealTime
from armkvm.kvm.requests import Requests
from armkvm.kvm.run import kvm_vcpu_ioctl_run
from armkvm.kvm.run_page import RunPage
from armkvm.kvm.stats import VcpuStat
from armkvm.kvm.vcpu_ioctl import VcpuIoctls
from armkvm.kvm.vcpu_mutex import VcpuMutex

if TYPE_CHECKING:
    from armkvm.kvm.pmu.emul import Pmu
    from armkvm.kvm.vgic.cpu import VgicCpu
    from armkvm.kvm.vm import Vm


def _signal_mask(call: Call, head: st.KvmSignalMask) -> bytes:
    if head.len != 8:
        fail(errno.EINVAL)
    return call.tail(4, head.len)


class Vcpu(Requests, VcpuIoctls):
    """One virtual CPU.

        import mmap
        from armkvm.abi.kvm import KVM_EXIT_MMIO
        from armkvm.abi.regs import CORE_PC, core_x
        from armkvm.kvm import System

        ram = mmap.mmap(-1, 4096)
        ram[:4] = bytes.fromhex("200000b9")  # str w0, [x1]
        with System() as kvm, kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
            vm.set_user_memory_region(0, 0x4000_0000, len(ram), ram)
            vcpu.arm_vcpu_init()
            for reg, value in ((CORE_PC, 0x4000_0000), (core_x(0), 7), (core_x(1), 0x900_0000)):
                vcpu.set_one_reg(reg, value)
            vcpu.run()  # to the first exit: nothing is mapped at 0x9000000
            run = vcpu.run_struct
            assert run.exit_reason == KVM_EXIT_MMIO and run.mmio.is_write
            assert (run.mmio.phys_addr, run.mmio.len, run.mmio.value) == (0x900_0000, 4, 7)

    A client uses the methods named as ioctls, `run_struct`, `pages`, `kick`, `stat`,
    `instructions`, `limit`, `blocking`, `held` and `announce`. The other attributes are the
    hypervisor's own, as members of struct kvm_vcpu are.
    """

    def __init__(self, vm: Vm, vcpu_id: int, run_pages: Writable | None = None) -> None:
        Requests.__init__(self)
        VcpuIoctls.__init__(self)
        self.vm = vm
        self.vcpu_id = vcpu_id
        self.memslots = vm.memslots
        self.trace = vm.trace
        self.point = vm.host.sched.point
        # The two shared pages: struct kvm_run and the coalesced-MMIO ring.
        if run_pages is None:
            run_pages = vm.coalesced_mmio.pages()
        self.page = page = RunPage(run_pages)
        self.pages, self.run_struct, self.irq_level = page.pages, page.run, page.irq_level
        vm.coalesced_mmio.join(run_pages)

        with vm.halted():  # TLB maintenance of other CPUs looks at each of them
            self.cpu = vm.system.backend.cpu(vm.stage2)
        self.state: GuestState = self.cpu.state
        self.x = self.state.x
        self.stat = VcpuStat()
        self.binary_stats: BinaryStats | None = None  # once somebody has asked for them
        self.turn = vm.host.turn
        self.task = self.turn.join()
        # Who drops a vCPU without closing it leaves nothing to the scheduler either.
        weakref.finalize(self, self.turn.forget, self.task).atexit = False
        self.twe = False  # HCR_EL2.TWE as the engine has it

        self._destroyed = False
        self.mutex = VcpuMutex(self)
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
        self.id_limits: dict[Encoding, int] = {}  # what its ID registers say at most
        self.sys_regs: dict[str, int] = {}  # registers that KVM emulates
        self.ccsidr: list[int] | None = None  # by CSSELR_EL1, once user space has changed one
        self.core_spsr = [0] * 5  # SPSR of AArch32 modes; index 0 is SPSR_EL1, the engine's
        self.arch_timer = ArchTimer(self)
        self.arch_timer.vcpu_init()
        self.vgic_cpu: VgicCpu | None = None  # with an interrupt controller in the kernel
        self.pmu: Pmu | None = None  # with the feature
        self.steal = StealTime()
        self.guest_debug: debug.GuestDebug | None = None  # while it is enabled

    # for the client

    @ioctl(nr.KVM_RUN, ctx=caller)
    def run(self, *, ctx: Context = THIS_PROCESS) -> None:
        """KVM_RUN, by a thread of `ctx`.

        Returns when `run_struct` holds an exit; raises OSError as the ioctl fails.

        EINTR (`InterruptedError`): a kick, immediate_exit, or a changed device_irq_level; ENOEXEC:
        not initialised; ENOSYS: an MMIO instruction without syndrome; EFAULT: a hole in a memory
        slot.
        """
        ret = self.run_raw(ctx)
        if ret < 0:
            fail(-ret)

    def run_raw(self, ctx: Context = THIS_PROCESS) -> int:
        """KVM_RUN; returns 0 or a negative errno instead of raising."""
        with self.mutex:
            self.steal.client = ctx
            return kvm_vcpu_ioctl_run(self)

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

    # ioctls

    @ioctl(nr.KVM_GET_MP_STATE, st.KvmMpState, ret="mp_state")
    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE."""
        with self._entered():
            return self.mp_state

    @ioctl(nr.KVM_SET_MP_STATE, st.KvmMpState)
    def set_mp_state(self, mp_state: int) -> None:
        """KVM_SET_MP_STATE: RUNNABLE, STOPPED or SUSPENDED. EINVAL."""
        with self._entered():
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

    @ioctl(nr.KVM_SET_SIGNAL_MASK, st.KvmSignalMask, mask=_signal_mask)
    def set_signal_mask(self, mask: bytes | None) -> None:
        """KVM_SET_SIGNAL_MASK. Accepted; our only signal is `kick`, which is let through."""
        with self._entered():
            if mask is not None and not isinstance(mask, bytes):
                fail(errno.EFAULT)
            if mask is not None and len(mask) != 8:
                fail(errno.EINVAL)

    @ioctl(nr.KVM_SET_GUEST_DEBUG, st.KvmGuestDebug, args=whole(st.KvmGuestDebug))
    def set_guest_debug(self, args: st.KvmGuestDebug) -> None:
        """KVM_SET_GUEST_DEBUG (api.rst 4.87). EINVAL: unknown bits in `control`."""
        with self._entered():
            debug.set_guest_debug(self, args)

    @ioctl(nr.KVM_GET_STATS_FD, arg=ANYTHING)
    def get_stats_fd(self) -> StatsFile:
        """KVM_GET_STATS_FD: a descriptor of its statistics. ENFILE, EMFILE, ENOMEM."""
        with self._entered():
            if self.binary_stats is None:
                name = f"kvm-{os.getpid()}/vcpu-{self.vcpu_id}"
                self.binary_stats = BinaryStats(name, VCPU_DESCS)
            self.show_stats()
            return self.binary_stats.open()

    def show_stats(self) -> None:
        """Who reads the statistics sees what they are now."""
        if self.binary_stats is not None:
            self.binary_stats.show(vcpu_words(self.stat, self.blocking))

    # life

    @contextmanager
    def _entered(self, *, initialized: bool = False) -> Iterator[Vcpu]:
        with self.mutex:
            self._alive()
            if initialized and not self.initialized:
                fail(errno.ENOEXEC)
            yield self

    def release(self) -> None:
        """The file is closed. A KVM_RUN under way ends with EIO; the last ioctl frees the CPU."""
        self.make_request(h.REQ_VM_DEAD)
        self.vcpu_kick()
        self.kick_out()
        self.destroy()
        self.vm.put()

    def destroy(self) -> None:
        """Free the engine's CPU, unless a thread is in an ioctl: then that thread does it."""
        if not self.mutex.lock.acquire(blocking=False):
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
            with self.vm.halted():  # others may be at its TLBs
                self.cpu.close()
            if self.binary_stats is not None:
                self.binary_stats.close()
        finally:
            self.mutex.lock.release()
