"""Scenarios: several vCPUs, several VMs, several physical CPUs."""

from __future__ import annotations

from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import one, vgic_v3_vm, vgic_vm
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Memory
from armkvm.check.world.user import Vmm
from armkvm.check.world.world import World


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
