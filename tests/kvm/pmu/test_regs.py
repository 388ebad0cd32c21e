"""The PMU's registers: how many counters there are is user space's to say."""

from __future__ import annotations

import pytest
from tests.engine import a64
from tests.kvm.native import PMU, PSCI, Words
from tests.kvm.pmu.program import (
    BY_NAME,
    CLEAN,
    CTRL,
    CYCLES,
    LC,
    E,
    P,
    loop,
    machine,
    show,
    write,
)

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.kvm.pmu.attr import HOST_PMU_TYPE

N_SHIFT = 11
PMCR, CNTEN, INTEN, OVS = (
    regs.sys_reg(*BY_NAME[name])
    for name in ("PMCR_EL0", "PMCNTENSET_EL0", "PMINTENSET_EL1", "PMOVSSET_EL0")
)
UNDEFINED = (0xF00, 1 << 25)


@pytest.mark.parametrize("n", [0, 2, 5, 6])
def test_user_space_says_how_many_counters_there_are(n: int) -> None:
    program: Words = [
        show("PMCR_EL0"), write("PMCNTENSET_EL0", 0xFFFF_FFFF), show("PMCNTENSET_EL0"),
        [show(f"PMEVCNTR{idx}_EL0") for idx in range(n)], show(f"PMEVCNTR{n}_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        m.set(PMCR, n << N_SHIFT)
        assert m.get(PMCR) == n << N_SHIFT
        assert m.stored() == (0, n << N_SHIFT)
        assert m.stored() == (0, CYCLES | (1 << n) - 1)
        for _ in range(n):
            assert m.stored()[0] == 0
        assert m.stored() == UNDEFINED


def test_the_selected_counter_must_be_there_too() -> None:
    with machine(write("PMSELR_EL0", 3), show("PMXEVCNTR_EL0")) as m:
        m.set(PMCR, 3 << N_SHIFT)
        assert m.stored() == UNDEFINED


def test_counters_that_are_gone_do_not_count_and_are_not_reset() -> None:
    program: Words = [
        write("PMCR_EL0", E), loop(10), write("PMCR_EL0", P), write("PMSWINC_EL0", 8), a64.ISB,
        show("PMCNTENSET_EL0"), show("PMINTENSET_EL1"), show("PMOVSSET_EL0"),
    ]  # fmt: skip
    with machine(program) as m:
        for reg in (CNTEN, INTEN, OVS):
            m.set(reg, 0xF)
        m.set(regs.sys_reg(*BY_NAME["PMEVTYPER3_EL0"]), 8)
        m.set(regs.sys_reg(*BY_NAME["PMEVCNTR3_EL0"]), 77)
        m.set(PMCR, 2 << N_SHIFT)
        assert [m.get(reg) for reg in (CNTEN, INTEN, OVS)] == [3, 3, 3]
        m.notified()
        m.notified()
        assert [m.stored()[1] for _ in range(3)] == [3, 3, 3]
        assert m.get(regs.sys_reg(*BY_NAME["PMEVCNTR3_EL0"])) == 77


def test_more_counters_than_the_host_has_change_nothing() -> None:
    with machine(a64.NOP) as m:
        m.set(PMCR, 4 << N_SHIFT)
        m.set(PMCR, 7 << N_SHIFT | LC)
        assert m.get(PMCR) == 4 << N_SHIFT | LC


def test_the_number_stays_once_a_vcpu_has_run() -> None:
    with machine(CLEAN, show("PMCR_EL0"), show("PMCR_EL0")) as m:
        m.set(PMCR, 4 << N_SHIFT)
        m.stored()
        m.set(PMCR, 2 << N_SHIFT)
        assert m.get(PMCR) == 4 << N_SHIFT
        assert m.stored() == (0, 4 << N_SHIFT)


def test_the_number_is_the_vms_and_a_reset_keeps_it() -> None:
    with machine(a64.NOP) as m:
        other = m.vm.create_vcpu(1)
        other.arm_vcpu_init(features=PSCI | PMU)
        m.set(PMCR, 3 << N_SHIFT)
        assert other.get_one_reg(PMCR) == 3 << N_SHIFT
        other.arm_vcpu_init(features=PSCI | PMU)
        assert other.get_one_reg(PMCR) == 3 << N_SHIFT
        other.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_SET_PMU, HOST_PMU_TYPE)
        assert m.get(PMCR) == 6 << N_SHIFT
        other.close()
