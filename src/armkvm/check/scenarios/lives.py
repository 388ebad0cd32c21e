"""Scenarios: several vCPUs, several VMs, several CPUs; reset, save and restore, closing."""

from __future__ import annotations

from armkvm.abi import psci, regs
from armkvm.check.guest import CheckCpu, Memory
from armkvm.check.scenario import scenario
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import one, vgic_vm, void
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.user import END, Vmm
from armkvm.check.world import PSCI_FEATURES, World
from armkvm.host.scripted import Hvc, Mask, Mrs, Msr, Native, Store
from armkvm.kvm import Vcpu

TIMERS = (
    regs.KVM_REG_ARM_TIMER_CNT, regs.KVM_REG_ARM_TIMER_CVAL, regs.KVM_REG_ARM_TIMER_CTL,
    regs.KVM_REG_ARM_PTIMER_CVAL, regs.KVM_REG_ARM_PTIMER_CTL, regs.CORE_PC,
)  # fmt: skip


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
        cpu = vcpu.cpu
        assert isinstance(cpu, CheckCpu)
        cpu.restart(second)
        world.monitor.seen["I12"] += 1
        if vcpu.hcr != lines:
            world.monitor.fail("I12", f"HCR_EL2's lines {lines:#x} became {vcpu.hcr:#x}")
        if vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CTL) & 3:
            world.monitor.fail("I12", "the timer is on after a reset")

    vmm.on_exit = again


@scenario("save-restore", "a vCPU is stopped at any moment and goes on in another VM", "I13")
def save_restore(world: World) -> None:
    vmm = one(world, g.one_shot())
    (vcpu,) = world.vcpus

    def stop() -> None:
        vmm.stopping = True
        vcpu.kick()

    world.execution.add("migrator", lambda: void(world.ioctl("stop", stop)))

    def elsewhere() -> None:
        old = vcpu.cpu
        assert isinstance(old, CheckCpu)
        if vmm.finished:
            return  # the guest was done before it could be stopped
        # A device access that is under way is completed by a run that ends at once.
        vcpu.run_struct.immediate_exit = 1
        world.run(vcpu)
        saved = [(reg, vcpu.get_one_reg(reg)) for reg in TIMERS]
        vcpu.close()
        vm = world.vm()
        other = Vmm(world, vm)
        other.inputs, other.active = dict(vmm.inputs), set(vmm.active)
        new = world.vcpu(vm, g.one_shot(), g.handler())
        cpu = new.cpu
        assert isinstance(cpu, CheckCpu)
        cpu.adopt(old)
        for reg, value in saved:
            new.set_one_reg(reg, value)
        other.drive(new)
        world.monitor.seen["I13"] += 1
        other.loop(new)

    world.execution.add("destination", elsewhere, ready=lambda: vmm.stopping and world.idle(vcpu))


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


@scenario("close-pending", "a VM is closed at any moment, its timer pending", "I15")
def close_pending(world: World) -> None:
    def guest(memory: Memory) -> Ops:
        yield from g.physical(g.LATER)
        yield from g.virtual(g.SOON)
        yield from g.until(memory, 2)

    vmm = one(world, guest)
    (vcpu,) = world.vcpus

    def close() -> None:
        vmm.stopping = True
        vcpu.close()
        vmm.vm.close()

    world.execution.add("closer", lambda: void(world.ioctl("close", close)))


@scenario("counter", "the counter, TVAL, and a second vCPU that moves it back to zero", "I11")
def counter(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def guest(memory: Memory) -> Ops:
        now = yield Mrs(g.CNTPCT)
        memory.log += (now,)
        yield Msr(g.CNTP_TVAL, 0xFFFF_FFFF)
        yield Msr(g.CNTP_CTL, 3)
        cval = yield Mrs(g.CNTP_CVAL)
        memory.log += (cval,)
        yield Mask(False)
        yield Store(END)

    vcpu = world.vcpu(vm, guest, g.handler())
    cpu = vcpu.cpu
    assert isinstance(cpu, CheckCpu)
    base = world.ticks

    def thread() -> None:
        if vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CNT) != world.ticks - base:
            world.monitor.fail("I11", "CNT is not the time since the vCPU was made")
        vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CNT, 77)
        if vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CNT) != 77:
            world.monitor.fail("I11", "CNT does not hold what was written")
        vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CVAL, 99)
        if vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CVAL) != 99:
            world.monitor.fail("I11", "CVAL and CNT share a place")
        world.monitor.seen["I11"] += 1
        vmm.loop(vcpu)
        log = cpu.memory.log
        if log[0] != world.ticks:
            world.monitor.fail("I11", f"CNTPCT is {log[0]}, the host's counter {world.ticks}")
        if log[1] != world.ticks - 1:
            world.monitor.fail("I11", f"TVAL -1 became CVAL {log[1]} at {world.ticks}")

    world.execution.add("vcpu", thread)
