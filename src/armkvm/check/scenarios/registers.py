"""Scenarios: counters, registers that a guest must not find, the PMU, KVM_IRQ_LINE."""

from __future__ import annotations

from functools import partial

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.arch.gic import INTID_SPURIOUS
from armkvm.check.scenarios import scripts as g
from armkvm.check.scenarios.parts import cpu_of, one
from armkvm.check.scenarios.scripts import Ops
from armkvm.check.scenarios.table import scenario
from armkvm.check.world.guest import ICC_IAR1, ICC_PMR, CheckCpu, Memory
from armkvm.check.world.properties import LINES
from armkvm.check.world.user import END, EOI, IAR, Vmm
from armkvm.check.world.world import PSCI_FEATURES, World
from armkvm.host.scripted import Load, Mask, Mrs, Msr, Native, Store
from armkvm.kvm import Vcpu, Vm
from armkvm.kvm.sys_regs import ID_AA64PFR0_EL1, PFR0_GIC_SHIFT

ICC_SGI1R = (3, 0, 12, 11, 5)
PMCR, PMCNTENCLR = (3, 3, 9, 12, 0), (3, 3, 9, 12, 2)
PMINTENSET, PMINTENCLR = (3, 0, 9, 14, 1), (3, 0, 9, 14, 2)
PMOVSCLR, PMOVSSET = (3, 3, 9, 12, 3), (3, 3, 9, 14, 3)


@scenario("counter", "the counters, CVAL and TVAL, as one-regs and to the guest", "I11")
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


@scenario("gic-registers", "a guest without a GICv3 writes ICC_SGI1R_EL1", "I1", kind="vhe-gicv3")
def gic_registers(world: World) -> None:
    def guest(_memory: Memory) -> Ops:
        yield Msr(ICC_SGI1R, 1)
        yield Store(END)

    one(world, guest)


@scenario("counter-moved-back", "a vCPU is made while another one runs: the counter starts again",
          "I6", "I11")  # fmt: skip
def counter_moved_back(world: World) -> None:
    vmm = one(world, g.one_shot())
    later_vcpu(world, vmm.vm, 0)


@scenario("counter-fixed", "the same after KVM_ARM_SET_COUNTER_OFFSET: it goes on", "I6", "I11")
def counter_fixed(world: World) -> None:
    vmm = one(world, g.one_shot())
    offset = world.ticks
    vmm.vm.arm_set_counter_offset(offset)
    later_vcpu(world, vmm.vm, offset)


def later_vcpu(world: World, vm: Vm, offset: int) -> None:
    """A thread that makes another vCPU at any moment, and looks at the counter."""

    def body() -> None:
        made: list[Vcpu] = []
        world.ioctl(
            "KVM_CREATE_VCPU",
            lambda: made.append(world.vcpu(vm, lambda _memory: g.marks(), number=1)),
        )
        expected = world.ticks - offset if offset else 0
        count = made[0].get_one_reg(regs.KVM_REG_ARM_TIMER_CNT)
        world.monitor.seen["I11"] += 1
        if count != expected:
            world.monitor.fail("I11", f"CNT is {count} after KVM_CREATE_VCPU, not {expected}")

    world.execution.add("second", body)


@scenario("id-registers", "two vCPUs without a vgic on a host with a GICv3: no trace of it", "I9",
          kind="vhe-gicv3")  # fmt: skip
def id_registers(world: World) -> None:
    vm = world.vm()
    vmm = Vmm(world, vm)

    def guest(_memory: Memory) -> Ops:
        yield Mrs(ICC_PMR)
        yield Msr(ICC_PMR, 0xF0)
        yield Mrs(ICC_IAR1)
        yield Store(END)

    def check() -> None:
        for vcpu in world.vcpus:
            world.monitor.seen["I9"] += 1
            if cpu_of(vcpu).get_sysreg(*ID_AA64PFR0_EL1) >> PFR0_GIC_SHIFT & 0xF:
                world.monitor.find("I9", f"vCPU {vcpu.vcpu_id} sees a GICv3 in ID_AA64PFR0_EL1")
            undefined = len(cpu_of(vcpu).injected)
            if undefined != 3:
                world.monitor.find("I9", f"{undefined} of 3 accesses to ICC_* were UNDEFINED")

    for n in range(2):
        vcpu = world.vcpu(vm, guest, g.handler(), number=n)
        world.execution.add(f"vcpu{n}", vmm.thread(vcpu))
    world.at_end.append(check)


@scenario("pmu-overflow", "the PMU's overflow, set and cleared by the guest", "I1", "I2", "I3")
def pmu_overflow(world: World) -> None:
    cycles = 1 << 31

    def guest(memory: Memory) -> Ops:
        for register in (PMCNTENCLR, PMINTENCLR, PMOVSCLR):
            yield Msr(register, 0xFFFF_FFFF)  # reset has left them UNKNOWN
        yield Msr(PMINTENSET, cycles)
        yield Msr(PMCR, 1)
        yield from g.virtual(g.SOON)
        yield Msr(PMOVSSET, cycles)
        yield from g.until(memory, 2)

    def irq(memory: Memory) -> Ops:
        intid = yield Load(IAR)
        if intid == INTID_SPURIOUS:
            return
        if intid == g.PMU:
            yield Msr(PMOVSCLR, cycles)
        else:
            yield Native("cntv_ctl", 3)
        memory.irqs += 1
        memory.log += (intid,)
        yield Store(EOI, intid)

    vm = world.vm()
    vmm = Vmm(world, vm)
    vcpu = world.vcpu(vm, guest, irq, init=False)
    vcpu.arm_vcpu_init(features=PSCI_FEATURES | 1 << k.KVM_ARM_VCPU_PMU_V3)
    vcpu.set_device_attr(k.KVM_ARM_VCPU_PMU_V3_CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
    world.execution.add("vcpu", vmm.thread(vcpu))

    def check() -> None:
        if sorted(cpu_of(vcpu).memory.log) != [g.PMU, g.VTIMER]:
            world.monitor.find("I14", f"the guest was given {cpu_of(vcpu).memory.log}")

    world.at_end.append(check)


@scenario("irq-line-names", "KVM_IRQ_LINE of vCPU 256, beside vCPU 0", "I10", kind="vhe-gicv3")
def irq_line_names(world: World) -> None:
    vm = world.vm()
    numbers = (0, 256)
    vcpus = [world.vcpu(vm, lambda _memory: g.marks(), number=n) for n in numbers]

    def device() -> None:
        for vcpu in vcpus:
            n = vcpu.vcpu_id
            word = n >> 8 << k.KVM_ARM_IRQ_VCPU2_SHIFT | (n & 0xFF) << k.KVM_ARM_IRQ_VCPU_SHIFT
            for level in (1, 0):
                world.ioctl("KVM_IRQ_LINE", partial(vm.irq_line, word, level))
                world.monitor.seen["I10"] += 1
                high = [v.vcpu_id for v in vcpus if v.hcr & LINES]
                if high != [n] * level:
                    world.monitor.fail("I10", f"line {level} of vCPU {n}: high are {high}")

    world.execution.add("device", device)
