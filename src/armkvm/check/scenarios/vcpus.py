"""Scenarios: several vCPUs, several VMs, several physical CPUs."""

from __future__ import annotations

from armkvm.arch.gic import GICC_EOIR, GICC_IAR, INTID_SPURIOUS
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import cpu_of, one, place, vgic_v3_vm, vgic_vm
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Memory
from armkvm.check.world.user import END, GICC, GICD, Vmm
from armkvm.check.world.world import World
from armkvm.host.scripted import Load, Native, Store

GICD_SGIR = 0xF00
SGI = 3


@scenario("two-vcpus", "two vCPUs of one VM on one CPU", "I1", "I6")
def two_vcpus(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    for n in range(2):
        vcpu = world.vcpu(vm, g.one_shot(g.SOON + 4000 * n), g.handler(), number=n)
        world.execution.add(f"vcpu{n}", vmm.thread(vcpu))


@scenario("two-vms", "a VM with its controller in user space beside one with a vgic, one CPU",
          "I1", "I5", "I8")  # fmt: skip
def two_vms(world: World) -> None:
    one(world, g.one_shot())
    vgic_vm(world, "other")


@scenario("two-vms-nogic", "two VMs on one CPU of a host without active state", "I1", "I8",
          kind="nvhe-nogic")  # fmt: skip
def two_vms_nogic(world: World) -> None:
    one(world, g.one_shot(0))
    one(world, g.one_shot(g.LATER))


@scenario("migration", "a vCPU is taken off its CPU and comes back on another", "I1", "I6",
          cpus=2, migrate=True, resched=1)  # fmt: skip
def migration(world: World) -> None:
    one(world, g.one_shot())


@scenario("two-cpus", "two vCPUs of one VM, each on a physical CPU", "I1", "I6", cpus=2)
def two_cpus(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    for n in range(2):
        vcpu = world.vcpu(vm, g.one_shot(g.SOON), g.handler(), number=n)
        world.execution.add(f"vcpu{n}", vmm.thread(vcpu))


@scenario("two-vms-vhe", "a VM with its controller in user space beside one with a GICv3, VHE host",
          "I1", "I5", "I8", kind="vhe-gicv3")  # fmt: skip
def two_vms_vhe(world: World) -> None:
    one(world, g.one_shot())
    vgic_v3_vm(world, "other")


@scenario("migration-emulated", "the same, with an emulated timer", "I1", "I6",
          cpus=2, migrate=True, resched=1)  # fmt: skip
def migration_emulated(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.SOON)
        yield from g.until(memory, 1)

    one(world, guest)


@scenario("sgi-one-cpu", "an SGI to a vCPU without a CPU: it gets the sender's, at once or later",
          "I5")  # fmt: skip
def sgi_one_cpu(world: World) -> None:
    vm = world.vm()
    vm.create_irqchip()
    place(vm)
    vmm = Vmm(world, vm)

    def sender(_memory: Memory) -> Ops:
        yield Store(GICD, 1)
        yield Store(GICD + GICD_SGIR, 1 << 17 | SGI)
        yield Native("x5", 0)
        yield Store(END)

    def target(memory: Memory) -> Ops:
        yield from g.vgic_on(SGI)
        yield from g.until(memory, 1)

    def handler(memory: Memory) -> Ops:
        acknowledged = yield Load(GICC + GICC_IAR)
        if acknowledged == INTID_SPURIOUS:
            return
        memory.irqs += 1
        memory.log += (acknowledged,)
        yield Store(GICC + GICC_EOIR, acknowledged)

    for n, guest in enumerate((sender, target)):
        vcpu = world.vcpu(vm, guest, handler, number=n)
        world.execution.add(f"vcpu{n}", vmm.thread(vcpu))

    def check() -> None:
        if cpu_of(world.vcpus[1]).memory.log != (SGI,):
            world.monitor.find("I14", f"the target was given {cpu_of(world.vcpus[1]).memory.log}")

    world.at_end.append(check)
