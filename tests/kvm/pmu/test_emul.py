"""The guest's PMU: counters, filters, overflow, and the line to user space."""

from __future__ import annotations

import errno

import pytest
from tests.engine import a64
from tests.kvm.native import PMU, PSCI, RAM, Native, Words, flat, out
from tests.kvm.pmu.program import (
    BY_NAME,
    CHAIN,
    CLEAN,
    CPU_CYCLES,
    CTRL,
    CYCLES,
    EL0,
    EL1,
    INST_RETIRED,
    LC,
    SW_INCR,
    C,
    E,
    P,
    loop,
    machine,
    read,
    show,
    write,
)
from tests.kvm.rig import fails
from tests.kvm.slow_host import SlowHost

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.kvm import System
from armkvm.kvm.pmu.attr import HOST_PMU_TYPE


def test_identity() -> None:
    with machine(show("PMCR_EL0"), show("PMCEID0_EL0"), show("PMCEID1_EL0")) as m:
        assert m.get(regs.sys_reg(3, 0, 0, 5, 0)) >> 8 & 15 == 1
        assert m.stored() == (0, 6 << 11)
        assert m.stored() == (0, 1 << SW_INCR | 1 << INST_RETIRED | 1 << CPU_CYCLES | 1 << CHAIN)
        assert m.stored() == (0, 0)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_undefined_without_the_feature(name: str) -> None:
    with Native(read(name)) as m:
        assert m.get(regs.sys_reg(3, 0, 0, 5, 0)) >> 8 & 15 == 0
        assert m.stored() == (0xF00, 1 << 25)
        if name.startswith("PMC"):
            fails(errno.ENOENT, lambda: m.get(regs.sys_reg(*BY_NAME[name])))


def test_instructions_and_cycles_are_counted() -> None:
    program: Words = [
        CLEAN, write("PMEVTYPER0_EL0", INST_RETIRED), write("PMCNTENSET_EL0", CYCLES | 1),
        write("PMCR_EL0", E | P | C), loop(1000), read("PMCCNTR_EL0", 4),
        read("PMEVCNTR0_EL0", 5), out(4), out(5),
    ]  # fmt: skip
    with machine(program) as m:
        cycles, retired = m.stored()[1], m.stored()[1]
        # From behind the write of PMCR to the read itself, which retires after it has looked.
        assert cycles == 2001
        # A trapped read is emulated, and counts.
        assert retired == 2002


def test_instructions_that_trap_are_counted() -> None:
    """Register accesses, MMIO and hypercalls, each once."""
    program: Words = [
        CLEAN, write("PMCNTENSET_EL0", CYCLES), write("PMCR_EL0", E | C),
        [read("PMCCNTR_EL0", rt) for rt in (4, 5)],
        out(31, 8), read("PMCCNTR_EL0", 6), a64.hvc(0), read("PMCCNTR_EL0", 7),
        out(4), out(5), out(6), out(7),
    ]  # fmt: skip
    with machine(program) as m:
        assert m.stored()[0] == 8
        first, second, third, fourth = (m.stored()[1] for _ in range(4))
        assert second - first == 1
        assert third - second == 2
        assert fourth - third == 2


def test_a_clock_that_overtakes_the_overflow_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at the host's clock more time passes than is left until the overflow."""
    left = 5000
    program: Words = [
        CLEAN, write("PMEVTYPER1_EL0", INST_RETIRED), write("PMEVCNTR1_EL0", (1 << 32) - left),
        write("PMINTENSET_EL1", 2), write("PMCNTENSET_EL0", 2), write("PMCR_EL0", E),
        loop(20000), out(31),
    ]  # fmt: skip
    slow = SlowHost(monkeypatch)
    with machine(program, clock="realtime") as m:
        slow.kick = m.vcpu.kick
        assert m.notified() == k.KVM_ARM_DEV_PMU
        assert 20000 - 2500 - 16 <= m.get(regs.core_x(3)) <= 20000 - 2500
        assert m.stored() == (0, 0)


def test_the_cycle_counter_overflows_after_32_bits_without_lc() -> None:
    program: Words = [
        CLEAN, write("PMCR_EL0", LC), show("PMCR_EL0"), write("PMCR_EL0", 0), show("PMCR_EL0"),
        write("PMCCNTR_EL0", 0xFFFF_FC00), write("PMINTENSET_EL1", CYCLES),
        write("PMCNTENSET_EL0", CYCLES), write("PMCR_EL0", E), loop(5000),
        show("PMOVSSET_EL0"), show("PMCCNTR_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        assert [m.stored()[1] & 0xFF for _ in range(2)] == [LC, 0]
        assert m.notified() == k.KVM_ARM_DEV_PMU
        assert m.get(regs.core_x(3)) == 5000 - 512
        assert m.stored()[1] == CYCLES
        assert 1 << 32 < m.stored()[1] < (1 << 32) + 10000  # it counts on with 64 bits


def test_the_cycle_counter_overflows_after_64_bits_with_lc() -> None:
    program: Words = [
        CLEAN, write("PMCCNTR_EL0", 0xFFFF_FC00), write("PMINTENSET_EL1", CYCLES),
        write("PMCNTENSET_EL0", CYCLES), write("PMCR_EL0", E | LC), loop(5000),
        show("PMOVSSET_EL0"), write("PMCCNTR_EL0", (1 << 64) - 1024), loop(5000),
    ]  # fmt: skip
    with machine(program) as m:
        assert m.stored()[1] == 0
        assert m.notified() == k.KVM_ARM_DEV_PMU
        # The write of the counter, which counts already, is one of the 1024.
        assert m.get(regs.core_x(3)) == 5000 - 512 + 1


def test_counters_stand_still_while_disabled() -> None:
    program: Words = [
        CLEAN, write("PMCNTENSET_EL0", CYCLES), write("PMCR_EL0", E | C), loop(10),
        write("PMCNTENCLR_EL0", CYCLES), read("PMCCNTR_EL0", 4), loop(100),
        read("PMCCNTR_EL0", 5), write("PMCNTENSET_EL0", CYCLES), loop(50),
        write("PMCR_EL0", 0), read("PMCCNTR_EL0", 6), out(4), out(5), out(6),
    ]  # fmt: skip
    with machine(program) as m:
        first, second, third = (m.stored()[1] for _ in range(3))
        assert 21 <= first == second
        # And the four instructions of a move to X1; what begins or ends it is not counted.
        assert third - second == 101 + 4


def test_overflow_at_the_exact_instruction() -> None:
    left = 5000
    program: Words = [
        CLEAN, write("PMEVTYPER1_EL0", INST_RETIRED), write("PMEVCNTR1_EL0", (1 << 32) - left),
        write("PMINTENSET_EL1", 2), write("PMCNTENSET_EL0", 2), write("PMCR_EL0", E),
        loop(20000), show("PMOVSSET_EL0"), write("PMOVSCLR_EL0", 2), show("PMEVCNTR1_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        assert m.notified() == k.KVM_ARM_DEV_PMU
        start = m.vcpu.instructions
        # MOVZ, 2499 rounds and a SUBS since the counter was enabled: 5000.
        assert m.get(regs.core_x(3)) == 20000 - 2500
        # Once only: the level is known now, and the guest goes on.
        assert m.get(regs.sys_reg(*BY_NAME["PMEVCNTR1_EL0"])) == 0
        assert m.stored() == (0, 2)
        assert m.vcpu.instructions > start
        assert m.level == k.KVM_ARM_DEV_PMU
        # Clearing the flag traps, and the next entry finds the line changed.
        assert m.notified() == 0
        assert 0 < m.stored()[1] < 40000


@pytest.mark.parametrize("which", ["PMCR_EL0", "PMINTENCLR_EL1", "PMOVSCLR_EL0"])
def test_what_lowers_the_line(which: str) -> None:
    program: Words = [
        CLEAN, write("PMCR_EL0", E), write("PMINTENSET_EL1", CYCLES),
        write("PMOVSSET_EL0", CYCLES), write("PMCNTENCLR_EL0", CYCLES), out(31, 8),
        write(which, 0 if which == "PMCR_EL0" else CYCLES), out(31, 16),
    ]  # fmt: skip
    with machine(program) as m:
        assert m.notified() == k.KVM_ARM_DEV_PMU
        assert m.stored()[0] == 8  # whether the counter is enabled does not matter
        assert m.notified() == 0
        assert m.stored()[0] == 16


def test_chained_counters() -> None:
    program: Words = [
        CLEAN, write("PMEVTYPER2_EL0", INST_RETIRED), write("PMEVTYPER3_EL0", CHAIN),
        write("PMEVCNTR2_EL0", (1 << 32) - 100), write("PMEVCNTR3_EL0", 7),
        write("PMCNTENSET_EL0", 0b1100), write("PMCR_EL0", E), loop(1000),
        show("PMEVCNTR3_EL0"), show("PMOVSSET_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        assert m.stored()[1] == 8
        assert m.stored()[1] == 0b100


def test_software_increment() -> None:
    program: Words = [
        CLEAN, write("PMEVTYPER4_EL0", SW_INCR), write("PMEVTYPER5_EL0", SW_INCR),
        write("PMEVCNTR4_EL0", 0), write("PMEVCNTR5_EL0", 0xFFFF_FFFF),
        write("PMCNTENSET_EL0", 0b110000), write("PMSWINC_EL0", 0b110000),
        show("PMEVCNTR4_EL0"), write("PMCR_EL0", E), write("PMSWINC_EL0", 0b110000),
        show("PMEVCNTR4_EL0"), show("PMEVCNTR5_EL0"), show("PMOVSSET_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        assert [m.stored()[1] for _ in range(4)] == [0, 1, 0, 0b100000]


def test_selected_counter_and_those_that_are_not_there() -> None:
    program: Words = [
        CLEAN, write("PMSELR_EL0", 3), write("PMXEVCNTR_EL0", 42), show("PMEVCNTR3_EL0"),
        write("PMXEVTYPER_EL0", 0xFFFF_FFFF), show("PMEVTYPER3_EL0"),
        write("PMSELR_EL0", 31), show("PMXEVTYPER_EL0"), read("PMEVCNTR6_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        assert m.stored()[1] == 42
        assert m.stored()[1] == EL1 | EL0 | 0x3FF
        assert m.stored()[1] == 0
        assert m.stored() == (0xF00, 1 << 25)


def in_el0(user: Words, before: Words = (), after: Words = ()) -> Native:
    """`before` at EL1, `user` at EL0 until its SVC, then `after` at EL1."""
    code = 0x4000
    program: Words = [
        before, a64.mov(9, RAM + code), a64.msr("ELR_EL1", 9), a64.mov(9, 0x3C0),
        a64.msr("SPSR_EL1", 9), a64.ERET,
    ]  # fmt: skip
    native = machine(program)
    native.put(code, [*flat(user), a64.svc(0)])
    native.put(0x800 + 0x400, [*flat(after), a64.mrs(27, "ESR_EL1"), out(27, 0xF00), a64.B_SELF])
    return native


def test_filters_by_exception_level() -> None:
    filters = (0, EL1, EL0, EL1 | EL0)
    before: Words = [
        CLEAN, [write(f"PMEVTYPER{n}_EL0", INST_RETIRED | f) for n, f in enumerate(filters)],
        [write(f"PMEVCNTR{n}_EL0", 0) for n in range(4)],
        write("PMCNTENSET_EL0", 15), write("PMCR_EL0", E), loop(20),
    ]  # fmt: skip
    reads = [read(f"PMEVCNTR{n}_EL0", 20 + n) for n in range(4)]
    after: Words = [reads, [out(20 + n) for n in range(4)]]
    with in_el0(loop(1000), before, after) as m:
        both, el0, el1, none = (m.stored()[1] for _ in range(4))
        assert el0 == 2001 + 1  # the loop and the SVC
        assert el1 == 41 + 11 + 2  # the loop, the way to EL0, and two reads before this one
        assert both == el0 + el1 - 2
        assert none == 0


def test_overflow_at_el0_only() -> None:
    before: Words = [
        CLEAN, write("PMEVTYPER0_EL0", INST_RETIRED | EL1), write("PMEVCNTR0_EL0", (1 << 32) - 500),
        write("PMINTENSET_EL1", 1), write("PMCNTENSET_EL0", 1), write("PMCR_EL0", E), loop(3000),
    ]  # fmt: skip
    with in_el0(loop(5000), before) as m:
        assert m.notified() == k.KVM_ARM_DEV_PMU
        x3 = m.get(regs.core_x(3))
        assert 5000 - x3 >= 249
        assert m.get(regs.CORE_PSTATE) & 15 == 0


@pytest.mark.parametrize(
    ("name", "grant"),
    [("PMCCNTR_EL0", 4), ("PMEVCNTR0_EL0", 8), ("PMCR_EL0", 1), ("PMUSERENR_EL0", 0)],
)
def test_el0_asks_pmuserenr(name: str, grant: int) -> None:
    user = [read(name, 6)]
    for granted in {0, grant}:
        with in_el0(user, [CLEAN, write("PMUSERENR_EL0", granted)]) as m:
            offset, esr = m.stored()
            assert offset == 0xF00
            assert esr >> 26 == (0x15 if granted == grant else 0)


def test_el0_may_count_in_software() -> None:
    before: Words = [
        CLEAN, write("PMEVTYPER0_EL0", SW_INCR), write("PMEVCNTR0_EL0", 5),
        write("PMCNTENSET_EL0", 1), write("PMCR_EL0", E), write("PMUSERENR_EL0", 2),
    ]  # fmt: skip
    with in_el0(write("PMSWINC_EL0", 1), before, show("PMEVCNTR0_EL0")) as m:
        assert m.stored() == (0, 6)


def test_the_same_in_every_run() -> None:
    def once() -> tuple[int, int]:
        program: Words = [
            CLEAN, write("PMEVTYPER1_EL0", CPU_CYCLES),
            write("PMEVCNTR1_EL0", (1 << 32) - 12345), write("PMINTENSET_EL1", 2),
            write("PMCNTENSET_EL0", 2), write("PMCR_EL0", E), loop(30000),
        ]  # fmt: skip
        with machine(program) as m:
            m.notified()
            return m.vcpu.instructions, m.pc

    assert once() == once()


def test_registers_for_user_space() -> None:
    with machine(a64.NOP) as m:
        ids = set(m.vcpu.get_reg_list())
        for name, value, back in (
            ("PMCCNTR_EL0", (1 << 64) - 5, (1 << 64) - 5),
            ("PMEVCNTR30_EL0", 1 << 33 | 7, 7),
            ("PMEVTYPER9_EL0", (1 << 64) - 1, EL1 | EL0 | 0x3FF),
            ("PMCNTENSET_EL0", 0xFFFF_FFFF, CYCLES | 0x3F),
            ("PMOVSCLR_EL0", 5, 5),
            ("PMSWINC_EL0", 1, 0),
            ("PMCR_EL0", E | P | C | 6 << 11, E | 6 << 11),
        ):
            reg = regs.sys_reg(*BY_NAME[name])
            assert reg in ids
            m.set(reg, value)
            assert m.get(reg) == back, name
        assert m.get(regs.sys_reg(*BY_NAME["PMOVSSET_EL0"])) == 5


def test_attributes_and_their_order() -> None:
    """kvm_arm_pmu_v3_set_attr(): no PMU, initialised, then the attribute."""
    with Native(a64.NOP) as m:
        fails(errno.ENODEV, lambda: m.vcpu.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT))
        fails(errno.ENXIO, lambda: m.vcpu.has_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT))
    with Native(a64.NOP, out(31), features=PSCI | PMU) as m:
        for attr in range(4):
            m.vcpu.has_device_attr(CTRL, attr)
        fails(errno.ENXIO, lambda: m.vcpu.has_device_attr(CTRL, 4))
        fails(errno.ENXIO, lambda: m.vcpu.set_device_attr(CTRL, 4))
        fails(errno.EINVAL, lambda: m.vcpu.get_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_IRQ))
        fails(errno.ENXIO, lambda: m.vcpu.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_SET_PMU, 1))
        m.vcpu.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_SET_PMU, HOST_PMU_TYPE)
        fails(errno.EINVAL, m.vcpu.run)
        m.vcpu.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
        fails(errno.EBUSY, lambda: m.vcpu.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT))
        assert m.stored() == (0, 0)


def test_with_a_vgic() -> None:
    with System() as system, system.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        vcpu.arm_vcpu_init(features=PSCI | PMU)
        device = vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V2)
        assert device is not None
        irq, init = k.KVM_ARM_VCPU_PMU_V3_IRQ, k.KVM_ARM_VCPU_PMU_V3_INIT
        fails(errno.ENODEV, lambda: vcpu.set_device_attr(CTRL, init))  # not initialised
        fails(errno.EINVAL, lambda: vcpu.set_device_attr(CTRL, irq, 3))
        fails(errno.EINVAL, lambda: vcpu.set_device_attr(CTRL, irq, 1020))
        fails(errno.ENXIO, lambda: vcpu.get_device_attr(CTRL, irq))
        vcpu.set_device_attr(CTRL, irq, 23)
        assert vcpu.get_device_attr(CTRL, irq) == 23
        fails(errno.EBUSY, lambda: vcpu.set_device_attr(CTRL, irq, 23))
        fails(errno.EINVAL, lambda: vcpu.set_device_attr(CTRL, irq, 24))
        device.close()
        vcpu.close()


def event_filter(base: int, count: int, action: int) -> bytes:
    return base.to_bytes(2, "little") + count.to_bytes(2, "little") + bytes([action, 0, 0, 0])


def test_event_filter() -> None:
    """Whether the first one allows or denies decides about all that it does not name."""
    program: Words = [
        CLEAN, write("PMEVTYPER0_EL0", INST_RETIRED), write("PMEVCNTR0_EL0", 0),
        write("PMCNTENSET_EL0", CYCLES | 1), write("PMCR_EL0", E | C), loop(10),
        show("PMEVCNTR0_EL0"), show("PMCCNTR_EL0"), show("PMCEID0_EL0"),
    ]  # fmt: skip
    attr = k.KVM_ARM_VCPU_PMU_V3_FILTER
    for action, counts in ((k.KVM_PMU_EVENT_ALLOW, True), (k.KVM_PMU_EVENT_DENY, False)):
        with Native(*program, features=PSCI | PMU) as m:
            set_attr = m.vcpu.set_device_attr
            fails(errno.EINVAL, lambda s=set_attr: s(CTRL, attr, event_filter(1000, 25, 0)))  # type: ignore[misc]
            fails(errno.EINVAL, lambda s=set_attr: s(CTRL, attr, event_filter(0, 1, 2)))  # type: ignore[misc]
            set_attr(CTRL, attr, event_filter(INST_RETIRED, 1, action))
            set_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
            assert bool(m.stored()[1]) is counts
            assert bool(m.stored()[1]) is not counts
            assert bool(m.stored()[1] & 1 << INST_RETIRED) is counts


def test_reset_lowers_the_line() -> None:
    overflow = [write("PMINTENSET_EL1", 1), write("PMOVSSET_EL0", 1)]
    with machine(CLEAN, write("PMCR_EL0", E), overflow) as m:
        assert m.notified() == k.KVM_ARM_DEV_PMU
        m.vcpu.arm_vcpu_init(features=PSCI | PMU)
        m.set(regs.CORE_PC, RAM)
        assert m.notified() == 0
