"""Scenarios: an interrupt controller made in the kernel before, during and after runs."""

from __future__ import annotations

import errno

from armkvm.abi import kvm as k
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import creator, make_vgic, one, place
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Memory
from armkvm.check.world.user import END, Vmm
from armkvm.check.world.world import PSCI_FEATURES, World
from armkvm.host.scripted import Native, Store
from armkvm.kvm import Vcpu


def short(_memory: Memory) -> Ops:
    """A guest whose timer is high from the start, and that is soon done."""
    yield from g.virtual(0)
    yield Native("x5", 1)
    yield from g.marks(1)
    yield Store(END)


@scenario("late-vgic", "a vgic is made while a vCPU runs for the first time", "I9")
def late_vgic(world: World) -> None:
    vmm = one(world, short)
    creator(world, vmm, (0, errno.EBUSY))


@scenario("late-vgic-twice", "two threads make a vgic, a vCPU runs", "I9")
def late_vgic_twice(world: World) -> None:
    vmm = one(world, short)
    creator(world, vmm, (0, errno.EBUSY, errno.EEXIST, errno.EIO))
    creator(world, vmm, (0, errno.EBUSY, errno.EEXIST, errno.EIO))


@scenario("late-vgic-failed-run", "a first run fails, then a vgic is made", "I9")
def late_vgic_failed_run(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, short, init=False)

    def body() -> None:
        if world.run(vcpu) != -errno.ENOEXEC:
            world.monitor.fail("I9", "a vCPU that was not initialised has run")
        # It has not run, nobody is in an ioctl: it must be possible.
        make_vgic(world, vm, (0,), "after a failed run")
        place(vm)
        vcpu.arm_vcpu_init(features=PSCI_FEATURES)
        vmm.loop(vcpu)

    world.execution.add("vcpu", body)


@scenario("late-vgic-no-init", "a vgic and KVM_ARM_VCPU_INIT race with runs that fail", "I9")
def late_vgic_no_init(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, short, init=False)

    def body() -> None:
        world.run(vcpu)
        world.ioctl("KVM_ARM_VCPU_INIT", lambda: vcpu.arm_vcpu_init(features=PSCI_FEATURES))
        vmm.loop(vcpu)

    world.execution.add("vcpu", body)
    creator(world, vmm, (0, errno.EBUSY))


@scenario("late-vgic-immediate-exit", "a run that ends at immediate_exit counts as one", "I9")
def late_vgic_immediate_exit(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, short)

    def body() -> None:
        vcpu.run_struct.immediate_exit = 1
        world.run(vcpu)
        vcpu.run_struct.immediate_exit = 0
        make_vgic(world, vm, (errno.EBUSY, errno.EEXIST), "after immediate_exit")
        vmm.loop(vcpu)

    world.execution.add("vcpu", body)


@scenario("vgic-vcpu-race", "a vCPU and a vgic are made at the same time", "I9")
def vgic_vcpu_race(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def body() -> None:
        made: list[Vcpu] = []
        ret = world.ioctl("KVM_CREATE_VCPU", lambda: made.append(world.vcpu(vm, short)))
        if ret:
            world.monitor.fail("I9", f"KVM_CREATE_VCPU: {errno.errorcode.get(ret, ret)}")
        vmm.loop(made[0])

    world.execution.add("vcpu", body)
    creator(world, vmm, (0, errno.EBUSY))


@scenario("vgic-then-vcpu", "vCPU, vgic, vCPU: each has its private interrupts", "I9")
def vgic_then_vcpu(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    first = world.vcpu(vm, short)

    def body() -> None:
        world.ioctl("KVM_CREATE_IRQCHIP", vm.create_irqchip)
        world.monitor.seen["I9"] += 1
        place(vm)
        second = world.vcpu(vm, short, number=1)
        vmm.loop(first)
        vmm.loop(second)

    world.execution.add("vcpu", body)


@scenario("irq-line-vgic-race", "KVM_IRQ_LINE while a vgic is made", "I10")
def irq_line_vgic_race(world: World) -> None:
    vm = world.vm()
    vcpu = world.vcpu(vm, short)

    def make() -> None:
        world.ioctl("KVM_CREATE_IRQCHIP", vm.create_irqchip)

    def line() -> None:
        for kind, num, refused in (
            (k.KVM_ARM_IRQ_TYPE_CPU, 0, True), (k.KVM_ARM_IRQ_TYPE_PPI, 20, False),
        ):  # fmt: skip
            word = kind << k.KVM_ARM_IRQ_TYPE_SHIFT | vcpu.vcpu_id << 16 | num
            world.execution.point("KVM_IRQ_LINE")
            vgic = vm.irqchip_in_kernel
            try:
                vm.irq_line(word, 0)
                ret = 0
            except OSError as error:
                ret = error.errno or -1
            expected = errno.ENXIO if vgic is refused else 0
            world.monitor.seen["I10"] += 1
            if ret != expected:
                world.monitor.fail("I10", f"type {kind}: {errno.errorcode.get(ret, ret)}")

    world.execution.add("creator", make)
    world.execution.add("device", line)


@scenario(
    "late-vgic-failed-enable",
    "a first run fails at the PMU; another init, and a vgic",
    "I9",
)
def late_vgic_failed_enable(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, short, init=False)
    vcpu.arm_vcpu_init(features=PSCI_FEATURES | 1 << k.KVM_ARM_VCPU_PMU_V3)

    def body() -> None:
        # User space has not initialised the PMU; or there is a vgic, and it has no place.
        ret = world.run(vcpu)
        if ret not in (-errno.EINVAL, -errno.ENXIO):
            world.monitor.fail("I9", f"a vCPU whose PMU was not initialised has run: {ret}")
        features = PSCI_FEATURES | 1 << k.KVM_ARM_VCPU_PMU_V3
        world.ioctl("KVM_ARM_VCPU_INIT", lambda: vcpu.arm_vcpu_init(features=features))

    world.execution.add("vcpu", body)
    creator(world, vmm, (0, errno.EBUSY))


@scenario("late-vgic-immediate-exit-race", "a vgic is made while runs end at immediate_exit", "I9")
def late_vgic_immediate_exit_race(world: World) -> None:
    vmm = one(world, short)
    (vcpu,) = world.vcpus
    vcpu.run_struct.immediate_exit = 1

    def clear(vcpu: Vcpu, _ret: int) -> None:
        vcpu.run_struct.immediate_exit = 0

    vmm.on_exit = clear
    creator(world, vmm, (0, errno.EBUSY))


@scenario("late-vgic-three", "a vgic is made while a vCPU is made and another one runs", "I9")
def late_vgic_three(world: World) -> None:
    vmm = one(world, short)
    vm = vmm.vm

    def body() -> None:
        made: list[Vcpu] = []
        ret = world.ioctl("KVM_CREATE_VCPU", lambda: made.append(world.vcpu(vm, short, number=1)))
        # Initialised: too late. Or a run without the frames' addresses has killed the VM.
        if ret not in (0, errno.EBUSY, errno.EIO):
            world.monitor.fail("I9", f"KVM_CREATE_VCPU: {errno.errorcode.get(ret, ret)}")

    world.execution.add("second", body)
    creator(world, vmm, (0, errno.EBUSY))
