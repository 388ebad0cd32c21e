"""Scenarios: PSCI, and the timers of CPUs that come and go."""

from __future__ import annotations

import errno

from armkvm.abi import psci, regs
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import cpu_of, creator, expect_marks, one
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Memory
from armkvm.check.world.user import END, Vmm
from armkvm.check.world.world import World
from armkvm.host.scripted import Hvc, Mask, Store

ENTRY = 0x1000  # where CPU_ON lets the other vCPU begin


@scenario("psci-suspend", "CPU_SUSPEND is a WFI by another name", "I6")
def psci_suspend(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield Mask(False)
        while not memory.irqs:
            yield Hvc((psci.PSCI_0_2_FN64_CPU_SUSPEND, 0, 0, 0))
        yield Store(END)

    one(world, guest)


@scenario("psci-cpu-on", "CPU_ON of a vCPU whose timer will fire", "I1", "I6")
def psci_cpu_on(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def boot(_memory: Memory) -> Ops:
        result = yield Hvc((psci.PSCI_0_2_FN64_CPU_ON, 1, 0x1000, 0))
        yield from g.marks(result & 0xFF)
        yield Store(END)

    first = world.vcpu(vm, boot, g.handler())
    second = world.vcpu(vm, g.one_shot(), g.handler(), number=1, off=True)
    world.execution.add("vcpu0", vmm.thread(first))
    world.execution.add("vcpu1", vmm.thread(second))

    def check() -> None:
        if vmm.marks != (0,):
            world.monitor.find("I4", f"CPU_ON said {vmm.marks}")

    world.at_end.append(check)


@scenario("psci-cpu-off", "CPU_OFF with a timer under way, then CPU_ON by another vCPU", "I1",
          "I12")  # fmt: skip
def psci_cpu_off(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def off(_memory: Memory) -> Ops:
        yield from g.virtual(g.SOON)
        yield Hvc((psci.PSCI_0_2_FN_CPU_OFF,))

    def again(memory: Memory) -> Ops:
        world.monitor.seen["I12"] += 1
        if second.state.cntv_ctl:
            world.monitor.fail("I12", "the timer is on after CPU_ON")
        yield from g.virtual(g.LATER)
        yield from g.until(memory, 1)

    def turn_on(_memory: Memory) -> Ops:
        result = yield Hvc((psci.PSCI_0_2_FN64_CPU_ON, 1, ENTRY, 0))
        yield from g.marks(result & 0xFF)
        yield Store(END)

    first = world.vcpu(vm, turn_on, g.handler())
    second = world.vcpu(vm, off, g.handler(), number=1)
    cpu_of(second).entries[ENTRY] = again

    def thread() -> None:
        world.execution.block(lambda: second.stopped, "waits until it is off")
        vmm.loop(first)

    world.execution.add("vcpu0", thread)
    world.execution.add("vcpu1", vmm.thread(second))
    expect_marks(world, vmm, 0)


@scenario("psci-cpu-on-race", "CPU_ON of one vCPU by two others: one of them turns it on", "I1")
def psci_cpu_on_race(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def turn_on(_memory: Memory) -> Ops:
        result = yield Hvc((psci.PSCI_0_2_FN64_CPU_ON, 2, ENTRY, 0))
        yield from g.marks(result & 0xFF)
        yield Store(END)

    def third(_memory: Memory) -> Ops:
        yield from g.marks(1)
        yield Store(END)

    for n in range(2):
        world.execution.add(f"vcpu{n}", vmm.thread(world.vcpu(vm, turn_on, number=n)))
    world.execution.add("vcpu2", vmm.thread(world.vcpu(vm, third, number=2, off=True)))

    def check() -> None:
        if sorted(vmm.marks) != [0, 1, psci.PSCI_RET_ALREADY_ON & 0xFF]:
            world.monitor.find("I4", f"two calls of CPU_ON and the vCPU itself said {vmm.marks}")

    world.at_end.append(check)


@scenario("psci-cpu-on-irqchip", "CPU_ON while another thread asks for a vgic", "I9")
def psci_cpu_on_irqchip(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def boot(_memory: Memory) -> Ops:
        yield Hvc((psci.PSCI_0_2_FN64_CPU_ON, 1, ENTRY, 0))
        yield Store(END)

    def never(_memory: Memory) -> Ops:
        yield Store(END)

    world.vcpu(vm, never, number=1, off=True)
    world.execution.add("vcpu0", vmm.thread(world.vcpu(vm, boot)))
    creator(world, vmm, (0, errno.EBUSY))


@scenario("psci-saved", "a vCPU is saved after CPU_ON, before it has begun, and goes on elsewhere",
          "I13")  # fmt: skip
def psci_saved(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def boot(_memory: Memory) -> Ops:
        result = yield Hvc((psci.PSCI_0_2_FN64_CPU_ON, 1, ENTRY, 5))
        yield from g.marks(result & 0xFF)
        yield Store(END)

    def wrong(_memory: Memory) -> Ops:
        world.monitor.fail("I13", "the vCPU begins somewhere else")
        yield Store(END)

    def begun(_memory: Memory) -> Ops:
        yield from g.marks(vmm.left)
        yield Store(END)

    first = world.vcpu(vm, boot)
    second = world.vcpu(vm, wrong, number=1, off=True)
    threads = [world.execution.add("vcpu0", vmm.thread(first))]

    def destination() -> None:
        mp_state = second.get_mp_state()
        saved = [(reg, second.get_one_reg(reg)) for reg in (regs.CORE_PC, regs.core_x(0))]
        vcpu = world.vcpu(world.vm(), wrong, off=True)
        cpu_of(vcpu).entries[ENTRY] = begun
        vcpu.set_mp_state(mp_state)
        for reg, value in saved:
            vcpu.set_one_reg(reg, value)
        other = Vmm(world, vcpu.vm)
        world.monitor.restored = True
        world.monitor.seen["I13"] += 1
        other.loop(vcpu)

    world.execution.add("destination", destination, ready=lambda: threads[0].done)
