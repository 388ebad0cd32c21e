"""The machine: guest memory, devices, one vCPU a thread, and the loop around KVM_RUN.

Mirrors what QEMU's and kvmtool's arm64 machines do with KVM. With the interrupt controller in user
space, `device_irq_level` is compared with what was seen last on *every* return of KVM_RUN, EINTR
included, and moves the timers' PPIs of the GIC; the GIC's outputs go to the vCPU through
KVM_IRQ_LINE. The VMM uses the KVM API (client/kvm.py), and beyond it what client/extras.py lists.

Each vCPU has a thread; the first one's is the caller's. A thread keeps its vCPU's turn while it
handles an exit, so devices are used by one thread at a time, and in the same order in every run.
A machine that has stopped can be saved, and another one made alike goes on (snapshot.py).
Left out: live migration, hotplug.
"""

from __future__ import annotations

import errno
import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from armkvm.abi import kvm as k
from armkvm.abi.regs import CORE_PC, core_x, sys_reg
from armkvm.arch.gic import PPI_PMU
from armkvm.client.extras import System, Timer, Vcpu
from armkvm.vmm import board
from armkvm.vmm.console import Console
from armkvm.vmm.devices.bus import Bus
from armkvm.vmm.devices.device import Arm, OddAccesses
from armkvm.vmm.devices.platform import Fit, Fitted, Platform, standard
from armkvm.vmm.errors import GuestError
from armkvm.vmm.figures import figures
from armkvm.vmm.guest.loader import Image
from armkvm.vmm.guest.unpack import Data
from armkvm.vmm.irqchip.irqchip import DEVICE_PPIS, Irqchip, make
from armkvm.vmm.tree import Tree
from armkvm.vmm.watch import Panics, Storm

MIDR_EL1 = sys_reg(3, 0, 0, 0, 0)
_SYSTEM_EVENTS = {
    k.KVM_SYSTEM_EVENT_SHUTDOWN: "shutdown",
    k.KVM_SYSTEM_EVENT_RESET: "reset",
    k.KVM_SYSTEM_EVENT_CRASH: "crash",
}


@dataclass
class Config:
    """What to build. `system` is /dev/kvm; sizes in bytes, times in seconds."""

    system: System
    image: Image | None  # None: the machine goes on with a snapshot
    console: Console
    params: str = ""
    mem_bytes: int = 512 << 20
    cpus: int = 1
    max_insns: int | None = None
    timeout: float | None = None
    irqchip: str = "gicv2"  # a name in irqchip.LIMITS
    devices: Sequence[Fit] = field(default_factory=standard)
    pmu: bool = False  # vCPUs have one
    seed: int = 0  # of what the guest finds in /chosen for its random numbers


@dataclass
class Outcome:
    """How a run ended: shutdown, reset, limit, timeout, quit, asleep or crash.

    `message` says why: after a panic its reason, after a crash what was the matter.
    """

    reason: str
    message: str = ""


class Machine:
    """A guest, from its memory to its power switch.

        from armkvm.kvm import System
        from armkvm.vmm.console import BufferConsole
        from armkvm.vmm.guest import bare, loader
        from armkvm.vmm.machine import Config, Machine

        memory = 64 << 20
        with System() as kvm, BufferConsole() as console:
            image = loader.load(bare.program(), mem_bytes=memory)
            machine = Machine(Config(kvm, image, console, mem_bytes=memory))
            assert machine.run().reason == "shutdown"
            machine.close()
            assert console.output

    It runs once; `snapshot` saves and restores one that has stopped.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.system = config.system
        self.console = config.console
        self.odd = OddAccesses()
        self.panics = Panics(self.console.write)
        self.memory = _guest_memory(config.mem_bytes)
        self.vm = self.system.create_vm()
        self.vm.set_user_memory_region(0, board.RAM_BASE, config.mem_bytes, self.memory)
        self.vcpus = [self.vm.create_vcpu(n) for n in range(config.cpus)]
        for vcpu in self.vcpus:
            features = 1 << k.KVM_ARM_VCPU_PSCI_0_2 | config.pmu << k.KVM_ARM_VCPU_PMU_V3
            if vcpu.vcpu_id:
                features |= 1 << k.KVM_ARM_VCPU_POWER_OFF
            vcpu.arm_vcpu_init(features=features)
        self._levels = [0] * config.cpus  # device_irq_level as last seen
        self.asleep: set[Vcpu] = set()  # vCPUs that were in a WFI when the machine stopped
        self._timed_out = self._for_ever = False
        self._storm = Storm(self.vcpus)
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None  # of a vCPU's thread
        self._stopping = False
        self._started_ns = self._wall_ns = 0

        self.bus = Bus(self.odd)
        clock = self.system.clock
        self._timers: list[Timer] = []  # of devices
        self.irqchip = make(
            config.irqchip, self.vm, config.cpus, clock.now, self._timer(), self.odd
        )
        for base, region in self.irqchip.windows:
            self.bus.map(base, region)
        if config.pmu:
            for vcpu in self.vcpus:
                _init_pmu(vcpu, self.irqchip)
        self.devices: list[Fitted] = []
        platform = Platform(
            console=self.console, output=self.panics.write, clock=clock, line=self.irqchip.line,
            timer=self._timer, report=self.odd,
        )  # fmt: skip
        for fit in config.devices:
            for fitted in fit(platform):
                self.bus.map(fitted.place.base, fitted.device)
                self.devices.append(fitted)
        if config.image is not None:
            self._load(config.image)

    # -- what the guest finds -------------------------------------------------------------
    def dtb(self) -> bytes:
        """The device tree, as the guest gets it."""
        config = self.config
        return Tree(
            params=config.params,
            seed=config.seed,
            mem_bytes=config.mem_bytes,
            initrd=None if config.image is None else config.image.initrd,
            cpus=config.cpus,
            midr=self.vcpus[0].get_one_reg(MIDR_EL1),
            pmu=config.pmu,
            irqchip=self.irqchip,
            devices=self.devices,
        ).blob()

    def _load(self, image: Image) -> None:
        for segment in image.segments:
            self._write(segment.address, segment.data)
        tree = self.dtb()
        place = image.dtb_place(len(tree))
        self._write(place, tree)
        self.vcpus[0].set_one_reg(CORE_PC, image.entry)
        self.vcpus[0].set_one_reg(core_x(0), place)

    def _write(self, address: int, data: Data) -> None:
        at = address - board.RAM_BASE
        if at < 0 or at + len(data) > len(self.memory):
            raise GuestError(f"{address:#x} is not in the guest's memory")
        self.memory[at : at + len(data)] = data

    # -- interrupts -----------------------------------------------------------------------
    def _device_levels(self, cpu: int, levels: int) -> None:
        """The outputs of a vCPU's in-kernel devices moved: tell the interrupt controller."""
        changed = levels ^ self._levels[cpu]
        self._levels[cpu] = levels
        for device in DEVICE_PPIS:
            if changed & device:
                self.irqchip.set_device(cpu, device, bool(levels & device))

    # -- running --------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Run until the guest powers off, or something ends it from outside."""
        config = self.config
        self._limit()
        self.system.clock.idle = self._idle
        self.console.start(self.vcpus[0].kick)
        timer = None
        if config.timeout is not None:
            timer = threading.Timer(config.timeout, self._time_out)
            timer.daemon = True
            timer.start()
        self._started_ns = self.system.clock.host_ns()
        try:
            self._run_vcpus()
        finally:
            if timer is not None:
                timer.cancel()
            self._wall_ns = self.system.clock.host_ns() - self._started_ns
            self.console.flush()
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def _run_vcpus(self) -> None:
        """The first vCPU in this thread, the others in theirs; returns when all have ended."""
        threads = [
            threading.Thread(target=self._secondary, args=(n,), name=f"armkvm-vcpu{n}", daemon=True)
            for n in range(1, len(self.vcpus))
        ]
        started = 0
        try:
            with self.vcpus[0].held():
                try:
                    for n, thread in enumerate(threads, 1):
                        self.vcpus[n].announce()
                        thread.start()
                        started = n
                    self._loop(0)
                finally:
                    # With the turn: where the others stop depends on nothing but ours.
                    self._stop()
        except BaseException:
            # Raised by a signal, perhaps in the midst of a turn: nobody must wait for it.
            self.vcpus[0].close()
            raise
        finally:
            for thread in threads[:started]:
                thread.join()

    def _secondary(self, cpu: int) -> None:
        try:
            with self.vcpus[cpu].held():
                self._loop(cpu)
        except BaseException as error:
            self._error = self._error or error
            self._stop()

    def stop(self, outcome: Outcome) -> None:
        """End the run; for who has the turn, as devices and the handling of exits have."""
        if self._outcome is None:
            self._outcome = outcome
        self._stop()

    def _stop(self) -> None:
        """No thread goes on; those in KVM_RUN leave it."""
        if not self._stopping:
            self.asleep = {vcpu for vcpu in self.vcpus if vcpu.blocking}
        self._stopping = True
        for vcpu in self.vcpus:
            vcpu.kick()

    def _loop(self, cpu: int) -> None:
        """One vCPU until the machine stops."""
        vcpu, bus = self.vcpus[cpu], self.bus
        run = vcpu.run_struct
        mmio = run.mmio
        levels, seen = vcpu.irq_level, self._levels
        while not self._stopping:
            ret = vcpu.run_raw()
            # Before anything else, and on every return: the exit may carry a changed level.
            if levels.value != seen[cpu]:
                self._device_levels(cpu, levels.value)
            if ret == 0 and run.exit_reason == k.KVM_EXIT_MMIO:
                size = mmio.len
                if mmio.is_write:
                    bus.write(mmio.phys_addr, size, mmio.value & (1 << 8 * size) - 1, cpu)
                else:
                    mmio.value = bus.read(mmio.phys_addr, size, cpu)
                continue
            if ret in (-errno.EINTR, -errno.EAGAIN):
                ended = self._interrupted(vcpu)
            elif ret == 0 and run.exit_reason == k.KVM_EXIT_SYSTEM_EVENT:
                if run.system_event.type == k.KVM_SYSTEM_EVENT_WAKEUP:
                    # A WFI that began before this machine did is over.
                    vcpu.set_mp_state(k.KVM_MP_STATE_RUNNABLE)
                    continue
                reason = _SYSTEM_EVENTS.get(run.system_event.type, "crash")
                ended = Outcome(reason, self.panics.reason)
            else:
                ended = self._crash(vcpu, ret)
            if ended is not None:
                self.stop(ended)

    def _interrupted(self, vcpu: Vcpu) -> Outcome | None:
        """KVM_RUN gave way: for a level, for input, or because somebody wants us to stop."""
        if self.console.quit:
            return Outcome("quit")
        if self._timed_out:
            return Outcome("timeout", self.panics.reason)
        if self._for_ever:
            return Outcome("asleep", "all vCPUs sleep, and nothing is left that could wake one")
        done, limit = self.vm.instructions, self.config.max_insns
        if limit is not None and done >= limit:
            return Outcome("limit", self.panics.reason)
        if done >= self._storm.next:
            lost = self._storm.look(vcpu, done)
            if lost is not None:
                return Outcome("crash", lost)
            self._limit()
        for fitted in self.devices:
            fitted.device.poll()
        self._tick()
        return None

    @staticmethod
    def _crash(vcpu: Vcpu, ret: int) -> Outcome:
        pc = vcpu.get_one_reg(CORE_PC)
        if ret == -errno.ENOSYS:
            return Outcome("crash", f"a device access that KVM cannot emulate, at PC {pc:#x}")
        if ret < 0:
            name = errno.errorcode.get(-ret, str(-ret))
            return Outcome("crash", f"KVM_RUN failed with {name} at PC {pc:#x}")
        reason = vcpu.run_struct.exit_reason
        return Outcome("crash", f"KVM_RUN ended with exit reason {reason} at PC {pc:#x}")

    def _timer(self) -> Arm:
        """A timer for a device: when it is due, KVM_RUN gives way, and all are told."""
        timer = self.system.timer(self.vcpus[0].kick)
        self._timers.append(timer)
        return timer.set

    def _time_out(self) -> None:
        self._timed_out = True
        self.console.give_up()  # a vCPU may wait there, with the turn
        self.vcpus[0].kick()

    def _limit(self) -> None:
        """KVM_RUN gives way where the run shall end, or for a look at the guest."""
        limit, look = self.config.max_insns, self._storm.next
        self.vm.limit = look if limit is None else min(limit, look)

    def _idle(self, due: int | None) -> None:
        """All vCPUs sleep: a good time to show output. With nothing to come, they do for ever."""
        self.console.flush()
        if due is None and self.console.ended:
            self._for_ever = True
            self.vcpus[0].kick()

    def _tick(self) -> None:
        self.irqchip.tick()
        for fitted in self.devices:
            fitted.device.tick()

    # -- save and restore: what snapshot.py asks for -----------------------------------------
    def parts(self) -> dict[str, Any]:
        """What has a state of its own in user space, by name: state() and restore(state)."""
        return {one.name: one.device for one in self.devices} | self.irqchip.parts()

    def tell_levels(self, levels: list[int]) -> None:
        """What device_irq_level has said of each vCPU, and the interrupt controller knows."""
        self._levels[:] = levels

    # -- afterwards -----------------------------------------------------------------------
    def stats(self) -> dict[str, Any]:
        """Figures of the run: instructions, exits by reason, seconds, digests (SHA-256).

        Hashing the memory takes a second for 2 GiB: ask only when somebody wants to know.
        """
        return figures(self, self._wall_ns)

    def close(self) -> None:
        """Give everything back. May be called twice."""
        self.system.clock.idle = None
        for timer in self._timers:
            timer.set(None)
        self.irqchip.close()
        for vcpu in self.vcpus:
            vcpu.close()
        self.vm.close()


def _init_pmu(vcpu: Vcpu, irqchip: Irqchip) -> None:
    """devices/vcpu.rst, 1: an interrupt controller in the kernel has to know the interrupt."""
    group = k.KVM_ARM_VCPU_PMU_V3_CTRL
    if irqchip.in_kernel:
        vcpu.set_device_attr(group, k.KVM_ARM_VCPU_PMU_V3_IRQ, PPI_PMU)
    vcpu.set_device_attr(group, k.KVM_ARM_VCPU_PMU_V3_INIT)


def _guest_memory(size: int) -> mmap.mmap:
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError):
        raise GuestError(f"the host cannot give {size >> 20} MiB of memory: take less") from None
    # Pages are touched as the guest does; large ones make that ten times cheaper.
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
