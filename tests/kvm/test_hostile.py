"""Hostile clients: any ioctl on any file with any argument, in any order, from racing threads.

api.rst promises an errno or success. So: no Python exception but OSError, nothing hangs, a second
VM on the same host is not disturbed, and when all files are closed nothing is left. Calls go by
number and byte layout, as a foreign process makes them. A guest may do anything too: what its
memory holds is random.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import struct
import threading
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.engine import a64
from tests.kvm.native import RAM as WITNESS_RAM
from tests.kvm.process import BASE, ProcessMemory

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.kvm import System, Vcpu, Vm
from armkvm.kvm.file import File, fail

SIZE = 0x4_0000
LIMIT = 3000  # instructions of a guest in one KVM_RUN
HANG_S = 60

COMMANDS = sorted({v for name, v in vars(nr).items() if name.startswith("KVM_") and v > 0x1000})

# What the kernel would find worth a second look, in 32 and in 64 bits.
WORDS = (
    0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 23, 27, 31, 32, 40, 63, 64, 100, 255, 1020, 4095, 4096,
    8192, 0x1_0000, 0x800_0000, 0x801_0000, 0x80A_0000, 0x1000_0000, 0x4000_0000, 0x7FFF_FFFF,
    0x8000_0000, 0xFFFF_FFFF, 0x0100_0020, 0x0200_001B,
)  # fmt: skip
LONGS = (
    *WORDS, BASE, BASE + 0x1000, BASE + 0x8000, BASE + SIZE - 4, BASE + 1, (1 << 64) - 1,
    (1 << 63) - 1, (1 << 48), (1 << 40) - 4096, (1 << 44) - 0x1_0000,
    regs.CORE_PC, regs.CORE_PSTATE, regs.core_x(0), regs.CORE_SP, regs.KVM_REG_ARM_TIMER_CNT,
    regs.KVM_REG_ARM_TIMER_CTL, regs.KVM_REG_ARM_TIMER_CVAL, regs.KVM_REG_ARM_PSCI_VERSION,
    regs.KVM_REG_ARM_VENDOR_HYP_BMAP, regs.sys_reg(3, 3, 9, 12, 0), regs.sys_reg(3, 0, 1, 0, 0),
    regs.sys_reg(3, 0, 2, 0, 0), regs.sys_reg(3, 0, 12, 0, 0), regs.sys_reg(3, 3, 14, 8, 0),
)  # fmt: skip


class Process(ProcessMemory):
    """The client: 256 KiB of memory at BASE, file descriptors, and a few eventfds."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.files: dict[int, object] = {}
        self.lock = threading.Lock()
        self.next = 3
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.files |= {100 + n: fd for n, fd in enumerate(self.events)}

    def share(self, address: int, size: int) -> list[tuple[int, memoryview]]:
        if address < BASE or address >= BASE + SIZE:
            return []
        at = address - BASE
        return [(0, memoryview(self.memory)[at : min(at + size, SIZE)])]

    def vcpu_pages(self, size: int) -> None:
        return None

    def install(self, file: File) -> int:
        with self.lock:
            self.files[self.next] = file
            self.next += 1
            return self.next - 1

    def file(self, fd: int) -> object:
        if fd not in self.files:
            fail(errno.EBADF)
        return self.files[fd]

    def open_files(self) -> list[File]:
        return [f for f in self.files.values() if isinstance(f, File) and not f.closed]

    def close(self) -> None:
        for fd in self.events:
            os.close(fd)


class Witness:
    """Somebody else's VM: it counts, and knows what comes next."""

    def __init__(self, system: System) -> None:
        self.vm = system.create_vm()
        self.memory = mmap.mmap(-1, 0x1_0000)
        self.vm.set_user_memory_region(0, WITNESS_RAM, 0x1_0000, self.memory)
        self.vcpu = self.vm.create_vcpu(0)
        self.vcpu.arm_vcpu_init()
        # x0 counts, through memory; x28 is the device.
        code = [
            *a64.mov(28, 0x1000_0000), *a64.mov(27, WITNESS_RAM + 0x1000), a64.movz(0, 0),
            a64.ldr(0, 27), a64.add(0, 0, 1), a64.str_(0, 27), a64.str_(0, 28), a64.b(-4),
        ]  # fmt: skip
        self.memory[: 4 * len(code)] = struct.pack(f"<{len(code)}I", *code)
        self.vcpu.set_one_reg(regs.CORE_PC, WITNESS_RAM)
        self.seen = 0

    def check(self) -> None:
        self.vcpu.run()
        run = self.vcpu.run_struct
        self.seen += 1
        assert run.exit_reason == k.KVM_EXIT_MMIO
        assert (run.mmio.phys_addr, run.mmio.value) == (0x1000_0000, self.seen)
        assert run.s_regs.device_irq_level == 0

    def close(self) -> None:
        self.vcpu.close()
        self.vm.close()


word = st.one_of(st.sampled_from(WORDS), st.integers(0, (1 << 32) - 1))
long = st.one_of(st.sampled_from(LONGS), st.integers(0, (1 << 64) - 1))


@st.composite
def structures(draw: Any, size: int) -> bytes:
    """Bytes for an argument: fields of 4 and 8 bytes that mean something, or anything."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return bytes(draw(st.binary(max_size=size + 40)))
    data = bytearray()
    while len(data) < size:
        if len(data) % 8 == 0 and draw(st.booleans()):
            data += draw(long).to_bytes(8, "little")
        else:
            data += draw(word).to_bytes(4, "little")
    return bytes(data[:size])


@st.composite
def calls(draw: Any) -> tuple[int, int, int, bytes | None]:
    """A file by number, a command, its argument, the structure it points to."""
    cmd = draw(st.one_of(st.sampled_from(COMMANDS), st.integers(0xAE00, 0xAEFF)))
    size = nr.ioc_size(cmd)
    data = draw(st.one_of(st.none(), structures(size))) if size else None
    arg = draw(st.one_of(st.sampled_from((0, 0, 1, 2, 40, BASE)), long))
    return draw(st.integers(0, 31)), cmd, arg, data


def answer(file: File, cmd: int, arg: int, data: bytes | None, process: Process) -> None:
    """One ioctl; anything but success and OSError with an errno is a bug."""
    if isinstance(file, Vcpu) and not file.closed:
        file.limit = file.instructions + LIMIT  # guests spin
    code, ret = 0, 0
    try:
        ret = file.ioctl(cmd, arg, None if data is None else bytearray(data), process)
    except OSError as e:
        code = e.errno or -1
    assert code == 0 or code in errno.errorcode, cmd
    assert ret >= 0, cmd


class Hostile(RuleBasedStateMachine):
    """One host, one client process, one witness."""

    def __init__(self) -> None:
        super().__init__()
        self.fds = len(os.listdir("/proc/self/fd"))
        self.threads = threading.active_count()
        self.system = System("nvhe-gicv2")
        self.process = Process()
        self.witness = Witness(self.system)
        self.vms: list[Vm] = []

        def idle(due: int | None) -> None:
            if due is None:  # nothing will ever happen: somebody sends signals
                for file in self.process.open_files():
                    if isinstance(file, Vcpu):
                        file.kick()

        self.system.clock.idle = idle

    def target(self, number: int) -> File:
        files = [self.system, *self.process.open_files()]
        return files[number % len(files)]

    @rule(kind=st.sampled_from(("nothing", "memory", "vgic")), features=st.sampled_from((4, 12, 0)))
    @precondition(lambda self: len(self.process.open_files()) < 12)
    def machine(self, kind: str, features: int) -> None:
        """A VM as it should be, so that hostility meets something."""
        vm = self.process.file(self.system.ioctl(nr.KVM_CREATE_VM, 0, None, self.process))
        assert isinstance(vm, Vm)
        self.vms.append(vm)
        if kind == "vgic":
            device = bytearray(struct.pack("<III", k.KVM_DEV_TYPE_ARM_VGIC_V2, 0, 0))
            vm.ioctl(nr.KVM_CREATE_DEVICE, 0, device, self.process)
        vcpu = self.process.file(vm.ioctl(nr.KVM_CREATE_VCPU, 0, None, self.process))
        assert isinstance(vcpu, Vcpu)
        init = bytearray(32)
        init[0], init[4] = 5, features
        vcpu.ioctl(nr.KVM_ARM_VCPU_INIT, 0, init, self.process)
        if kind != "nothing":
            slot = bytearray(struct.pack("<IIQQQ", 0, 1, 0x4000_0000, SIZE // 2, BASE))
            vm.ioctl(nr.KVM_SET_USER_MEMORY_REGION, 0, slot, self.process)
            vcpu.set_one_reg(regs.CORE_PC, 0x4000_0000)

    @rule(offset=st.integers(0, SIZE // 8 - 64), data=st.binary(max_size=400))
    def scribble(self, offset: int, data: bytes) -> None:
        """The client's memory is the guest's code, and the structures that pointers lead to."""
        self.process.memory[offset * 8 : offset * 8 + len(data)] = data

    @rule(number=st.integers(0, 31), offset=st.integers(0, 8000), data=st.binary(max_size=64))
    def scribble_on_kvm_run(self, number: int, offset: int, data: bytes) -> None:
        file = self.target(number)
        if isinstance(file, Vcpu):
            file.pages[offset : offset + len(data)] = data

    @rule(call=calls())
    def ioctl(self, call: tuple[int, int, int, bytes | None]) -> None:
        number, cmd, arg, data = call
        answer(self.target(number), cmd, arg, data, self.process)

    @rule(number=st.integers(0, 31))
    def run_guest(self, number: int) -> None:
        answer(self.target(number), nr.KVM_RUN, 0, None, self.process)

    @rule(number=st.integers(0, 31))
    def close(self, number: int) -> None:
        file = self.target(number)
        if file is not self.system:
            file.close()

    @rule(
        several=st.lists(calls(), min_size=2, max_size=4),
        runs=st.booleans(),
        closes=st.booleans(),
    )
    def race(
        self, several: list[tuple[int, int, int, bytes | None]], runs: bool, closes: bool
    ) -> None:
        """Several at once, a KVM_RUN and a close among them."""
        actions: list[Any] = [
            lambda c=c: answer(self.target(c[0]), c[1], c[2], c[3], self.process) for c in several
        ]
        first = self.target(several[0][0])
        if runs and isinstance(first, Vcpu):
            actions.append(partial(answer, first, nr.KVM_RUN, 0, None, self.process))
        if closes and first is not self.system:
            actions.append(first.close)
        together(actions)

    @invariant()
    def others_are_not_disturbed(self) -> None:
        self.witness.check()

    def teardown(self) -> None:
        for file in self.process.open_files():
            file.close()
        self.witness.check()
        self.witness.close()
        for vm in self.vms:
            assert not vm.memslots.all()
            assert not any(vcpu.pcpu for vcpu in vm.vcpus)
        assert not self.system.host.hrtimers.timers
        assert not self.system.host.turn.tasks
        assert not any(pcpu.lock.locked() for pcpu in self.system.host.pcpus)
        self.process.close()
        gc.collect()
        assert threading.active_count() == self.threads
        assert len(os.listdir("/proc/self/fd")) == self.fds


def together(actions: list[Any]) -> None:
    """Do all of them at the same time; raise what one of them raised."""
    start = threading.Barrier(len(actions))
    raised: list[BaseException] = []

    def act(action: Any) -> None:
        start.wait()
        try:
            action()
        except BaseException as e:
            raised.append(e)

    threads = [threading.Thread(target=act, args=(a,), daemon=True) for a in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
        assert not thread.is_alive(), "an ioctl hangs"
    if raised:
        raise raised[0]


TestHostile = Hostile.TestCase
TestHostile.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
