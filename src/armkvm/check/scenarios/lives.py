"""Scenarios: reset, save and restore, closing."""

from __future__ import annotations

from functools import partial

from armkvm.abi import regs
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import cpu_of, one, with_irqchip
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import Guest, Memory
from armkvm.check.world.user import END, Vmm
from armkvm.check.world.world import PSCI_FEATURES, World
from armkvm.host.scripted import Native, Store
from armkvm.kvm import Vcpu
from armkvm.kvm.sys_regs import ID_AA64PFR0_EL1

# What migration moves, but for memory: the ID register first, before the new vCPU has run.
SAVED = (
    regs.sys_reg(*ID_AA64PFR0_EL1), regs.KVM_REG_ARM_TIMER_CNT, regs.KVM_REG_ARM_TIMER_CVAL,
    regs.KVM_REG_ARM_TIMER_CTL, regs.KVM_REG_ARM_PTIMER_CVAL, regs.KVM_REG_ARM_PTIMER_CTL,
    regs.CORE_PC,
)  # fmt: skip


@scenario("reset", "a vCPU is initialised anew while its timer is high", "I12")
def reset(world: World) -> None:
    def second(memory: Memory) -> Ops:
        yield Native("x5", 1)
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 1)

    def first(_memory: Memory) -> Ops:
        yield from g.virtual(0)
        yield Native("x5", 1)
        yield from g.marks(1)
        yield Store(END)

    vmm = one(world, first)

    def again(vcpu: Vcpu, ret: int) -> None:
        if ret or vmm.marks or vcpu.run_struct.mmio.phys_addr == END:
            return
        lines = vcpu.hcr
        vcpu.arm_vcpu_init(features=PSCI_FEATURES)
        cpu_of(vcpu).restart(second)
        world.monitor.seen["I12"] += 1
        if vcpu.hcr != lines:
            world.monitor.fail("I12", f"HCR_EL2's lines {lines:#x} became {vcpu.hcr:#x}")
        if vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CTL) & 3:
            world.monitor.fail("I12", "the timer is on after a reset")

    vmm.on_exit = again


@scenario("reset-sleeping", "a vCPU that sleeps is stopped and initialised anew by another thread",
          "I12")  # fmt: skip
def reset_sleeping(world: World) -> None:
    def second(memory: Memory) -> Ops:
        yield from g.virtual(g.LATER)
        yield from g.until(memory, 1)

    vmm = one(world, g.one_shot())
    (vcpu,) = world.vcpus

    def init() -> None:
        if vmm.finished:
            return
        vcpu.arm_vcpu_init(features=PSCI_FEATURES)
        cpu_of(vcpu).restart(second)
        vmm.active.clear()
        world.monitor.seen["I12"] += 1
        if vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CTL) & 3:
            world.monitor.fail("I12", "the timer is on after a reset")

    def body() -> None:
        world.ioctl("signal", vcpu.kick)
        world.ioctl("KVM_ARM_VCPU_INIT", init)

    world.execution.add("resetter", body)


@scenario("save-restore", "a vCPU is stopped at any moment and goes on in another VM", "I13")
def save_restore(world: World) -> None:
    move(world, g.one_shot(), g.handler())


@scenario("save-restore-emulated", "the same, with an emulated timer", "I13")
def save_restore_emulated(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.SOON)
        yield from g.until(memory, 1)

    move(world, guest, g.handler())


@scenario("save-restore-vhe", "the same on a VHE host, where both timers are the hardware's", "I13",
          kind="vhe-gicv3")  # fmt: skip
def save_restore_vhe(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.SOON, direct=True)
        yield from g.until(memory, 1)

    move(world, guest, g.handler(direct=True))


def move(world: World, guest: Guest, irq: Guest) -> None:
    """A thread that stops the vCPU at any moment, and one that lets it go on in another VM."""
    vmm = one(world, guest, irq)
    (vcpu,) = world.vcpus

    def stop() -> None:
        vmm.stopping = True
        vcpu.kick()

    world.execution.add("migrator", lambda: world.ioctl("stop", stop))

    def elsewhere() -> None:
        if vmm.finished:
            return  # the guest was done before it could be stopped
        # A device access that is under way is completed by a run that ends at once.
        vcpu.run_struct.immediate_exit = 1
        world.run(vcpu)
        saved: list[tuple[int, int]] = []

        def read(reg: int) -> None:
            saved.append((reg, vcpu.get_one_reg(reg)))

        for reg in SAVED:
            world.ioctl("KVM_GET_ONE_REG", partial(read, reg))
        vcpu.close()
        vm = world.vm()
        other = Vmm(world, vm)
        other.inputs, other.active = dict(vmm.inputs), set(vmm.active)
        new = world.vcpu(vm, guest, irq)
        cpu_of(new).adopt(cpu_of(vcpu))
        for reg, value in saved:
            if world.ioctl("KVM_SET_ONE_REG", partial(new.set_one_reg, reg, value)):
                world.monitor.fail("I13", f"register {reg:#x} does not take {value:#x} back")
        other.drive(new)
        world.monitor.restored = True
        world.monitor.seen["I13"] += 1
        other.loop(new)

    world.execution.add("destination", elsewhere, ready=lambda: vmm.stopping and world.idle(vcpu))


@scenario("close-pending", "a VM is closed at any moment, its timer pending", "I15")
def close_pending(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.LATER)
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 2)

    closer(world, one(world, guest))


@scenario("close-vgic", "a VM with a vgic is closed at any moment, its timers pending", "I15")
def close_vgic(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.vgic_on(g.VTIMER)
        yield from g.physical(g.LATER)
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 1)

    closer(world, with_irqchip(world, guest, g.vgic_handler()))


def closer(world: World, vmm: Vmm) -> None:
    """A thread that closes everything."""
    (vcpu,) = vmm.vm.vcpus

    def close() -> None:
        vmm.stopping = True
        vcpu.close()
        vmm.vm.close()

    world.execution.add("closer", lambda: world.ioctl("close", close))
