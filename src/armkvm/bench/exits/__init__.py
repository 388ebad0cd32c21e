"""The exits that ``armkvm bench exits`` measures: what a guest does, and who answers.

``guest.S`` is the source of the guests, ``guest.hex`` the same as machine code
(client/machine_code.py).

A figure is the time of a long run less that of a short one, divided by how often the guest did it:
starting and ending fall out. `bare` is KVM alone, without a VMM: KVM_RUN in a loop. `machine` is
the VMM with its devices and its interrupt controller, or KVM's.
"""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Callable, Iterator
from importlib import resources

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.client import machine_code
from armkvm.host.clock import monotonic_ns
from armkvm.kvm.system import System
from armkvm.vmm import board
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.devices import pl011
from armkvm.vmm.guest.loader import load
from armkvm.vmm.irqchip.kernel_gic import REDISTRIBUTORS
from armkvm.vmm.machine import Config, Machine

COUNT_OFFSET = 8  # in the binary: count, selection, two addresses
WRITE, READ, VERSION, NOTIFY, ASLEEP, GICV2, GICV3 = range(7)
SHORT = 1000  # how often in the short run
IO = 0x1000_0000  # no memory there, no device
MEMORY = 8 << 20
IRQ = k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, 0, k.KVM_ARM_IRQ_CPU_IRQ)


def program(select: int, count: int, first: int = IO, second: int = 0) -> bytes:
    """The flat binary that does the selected thing `count` times."""
    data = machine_code.program(resources.files(__name__) / "guest.hex")
    struct.pack_into("<4Q", data, COUNT_OFFSET, count, select, first, second)
    return bytes(data)


def bare(select: int, count: int) -> int:
    """Nanoseconds of one guest on KVM alone."""
    with System("nvhe-gicv2", "virtual") as system, system.create_vm() as vm:
        memory = mmap.mmap(-1, 1 << 16)
        code = program(select, count)
        memory[: len(code)] = code
        vm.set_user_memory_region(0, board.RAM_BASE, len(memory), memory)
        with vm.create_vcpu(0) as vcpu:
            vcpu.arm_vcpu_init(features=1 << k.KVM_ARM_VCPU_PSCI_0_2)
            vcpu.set_one_reg(regs.CORE_PC, board.RAM_BASE)
            run = vcpu.run_struct
            begin = monotonic_ns()
            # What any VMM does, and no more: look at the result and at the reason.
            while True:
                ret = vcpu.run_raw()
                if ret not in (0, -errno.EINTR):
                    raise OSError(-ret, "KVM_RUN")
                if ret == 0 and run.exit_reason != k.KVM_EXIT_MMIO:
                    break
            return monotonic_ns() - begin


def machine(select: int, count: int, irqchip: str = "gicv2") -> int:
    """Nanoseconds of one guest on a machine of the VMM, devices and all."""
    first, second = {
        READ: (pl011.PLACE.base + 0x18, 0),  # UARTFR
        GICV2: (board.GICD.base, board.GICC.base),
        GICV3: (board.GICD.base, REDISTRIBUTORS.base),
    }[select]
    image = load(program(select, count, first, second), mem_bytes=MEMORY, flat=True)
    host = "vhe-gicv3" if select == GICV3 else "nvhe-gicv2"
    with System(host, "virtual") as system:
        guest = Machine(Config(system, image, BufferConsole(), mem_bytes=MEMORY, irqchip=irqchip))
        try:
            begin = monotonic_ns()
            outcome = guest.run()
            elapsed = monotonic_ns() - begin
        finally:
            guest.close()
    if outcome.reason != "shutdown":
        raise OSError(errno.EIO, f"the guest ended by {outcome.reason} {outcome.message}")
    return elapsed


def irq_lines(count: int) -> int:
    """Nanoseconds of driving the IRQ line `count` times, each time to the other level."""
    with System("nvhe-gicv2", "virtual") as system, system.create_vm() as vm:
        with vm.create_vcpu(0):
            begin = monotonic_ns()
            for n in range(1, count + 1):
                vm.irq_line(IRQ, n & 1)
            return monotonic_ns() - begin


def each(measure: Callable[[int], int], count: int) -> float:
    """Nanoseconds of one of `count`."""
    short = measure(SHORT)
    return (measure(SHORT + count) - short) / count


def figures(count: int) -> Iterator[tuple[str, float]]:
    """Name and nanoseconds of every kind of exit."""
    yield "mmio-write", each(lambda n: bare(WRITE, n), count)
    yield "mmio-read", each(lambda n: bare(READ, n), count)
    yield "mmio-device", each(lambda n: machine(READ, n), count)
    hypercall = each(lambda n: bare(VERSION, n), count)
    yield "hvc", hypercall
    pair = each(lambda n: bare(NOTIFY, n), count)
    yield "notification", (pair - hypercall) / 2
    yield "wfi", each(lambda n: bare(ASLEEP, n), count) - pair
    yield "irq-line", each(irq_lines, count)
    yield "tick-gicv2", each(lambda n: machine(GICV2, n), count)
    yield "tick-kernel-gicv2", each(lambda n: machine(GICV2, n, "kernel-gicv2"), count)
    yield "tick-kernel-gicv3", each(lambda n: machine(GICV3, n, "kernel-gicv3"), count)
