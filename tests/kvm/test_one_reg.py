"""KVM_GET_ONE_REG and KVM_SET_ONE_REG, on the engine: all groups, sizes and refusals."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from tests.kvm.rig import PSCI, fails

from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs as r
from armkvm.kvm import System, Vcpu

MIDR = r.sys_reg(3, 0, 0, 0, 0)
MPIDR = r.sys_reg(3, 0, 0, 0, 5)
PFR0 = r.sys_reg(3, 0, 0, 4, 0)
SCTLR = r.sys_reg(3, 0, 1, 0, 0)
TTBR0 = r.sys_reg(3, 0, 2, 0, 0)
DBGBVR3 = r.sys_reg(2, 0, 0, 3, 4)
V5 = r.core_reg(336 + 16 * 5, r.KVM_REG_SIZE_U128)
FPCR = r.core_reg(852, r.KVM_REG_SIZE_U32)


@pytest.fixture
def vcpu() -> Iterator[Vcpu]:
    with System() as system, system.create_vm() as vm, vm.create_vcpu(3) as vcpu:
        vcpu.arm_vcpu_init(features=PSCI)
        yield vcpu


def test_what_is_listed_can_be_read_and_written_back(vcpu: Vcpu) -> None:
    ids = vcpu.get_reg_list()
    assert len(ids) == len(set(ids))
    before = {i: vcpu.get_one_reg(i) for i in ids}
    for i, value in before.items():
        vcpu.set_one_reg(i, value)
    counters = {r.KVM_REG_ARM_TIMER_CNT, r.KVM_REG_ARM_PTIMER_CNT}
    assert {i for i in ids if vcpu.get_one_reg(i) != before[i]} <= counters
    for i in (r.CORE_PC, r.core_x(30), V5, FPCR, SCTLR, MIDR, r.KVM_REG_ARM_TIMER_CTL, DBGBVR3):
        assert i in before


def test_values_keep(vcpu: Vcpu) -> None:
    values = {
        r.core_x(17): 0x1122_3344_5566_7788,
        r.CORE_SP: 0x10,
        r.CORE_SP_EL1: 0x20,
        r.CORE_PC: 0x4000_0000,
        r.CORE_ELR_EL1: 0x30,
        r.CORE_SPSR_EL1: 0x3C5,
        r.core_reg(288 + 16): 0x77,  # SPSR_und
        V5: 1 << 127 | 5,
        FPCR: 3 << 22,
        TTBR0: 0xABC000,
        DBGBVR3: 0x99,
        r.KVM_REG_ARM_TIMER_CVAL: 0x1234,
        r.CORE_PSTATE: 0x6000_03C5,
    }
    for i, value in values.items():
        vcpu.set_one_reg(i, value)
    assert {i: vcpu.get_one_reg(i) for i in values} == values


@pytest.mark.parametrize(
    ("reg", "code"),
    [
        (0, errno.EINVAL),
        (r.CORE_PC & ~(1 << 61), errno.EINVAL),  # another architecture's
        (r.core_reg(0, r.KVM_REG_SIZE_U32), errno.EINVAL),
        (r.core_reg(4), errno.EINVAL),
        (r.core_reg(328), errno.EINVAL),  # padding
        (r.core_reg(336 + 8, r.KVM_REG_SIZE_U128), errno.EINVAL),
        (r.core_reg(864), errno.ENOENT),
        (r.core_reg(0x10000), errno.ENOENT),
        (r.sys_reg(3, 4, 1, 0, 0), errno.ENOENT),  # SCTLR_EL2
        (r.sys_reg(3, 0, 12, 12, 5), errno.ENOENT),  # ICC_SRE_EL1
        (SCTLR ^ r.KVM_REG_SIZE_U64 ^ r.KVM_REG_SIZE_U32, errno.ENOENT),
        (r.fw_reg(9), errno.ENOENT),
        (r.KVM_REG_ARM64 | r.KVM_REG_SIZE_U32 | r.KVM_REG_ARM_DEMUX, errno.ENOENT),
    ],
)
def test_what_there_is_not(vcpu: Vcpu, reg: int, code: int) -> None:
    fails(code, lambda: vcpu.get_one_reg(reg))
    fails(code, lambda: vcpu.set_one_reg(reg, 0))


@pytest.mark.parametrize("mode", [0b0001, 0b1000, 0b1001, 0b1101, 0b10000, 0b10011])
def test_modes_that_the_vcpu_has_not(vcpu: Vcpu, mode: int) -> None:
    """EL2, EL3, AArch32."""
    fails(errno.EINVAL, lambda: vcpu.set_one_reg(r.CORE_PSTATE, mode))
    assert vcpu.get_one_reg(r.CORE_PSTATE) == 0x3C5


def test_identification_may_be_written_back_and_not_changed(vcpu: Vcpu) -> None:
    """B7: a register that rejects its own saved value breaks migration."""
    for reg in (MIDR, PFR0):
        value = vcpu.get_one_reg(reg)
        vcpu.set_one_reg(reg, value)
        fails(errno.EINVAL, lambda reg=reg, value=value: vcpu.set_one_reg(reg, value + 1))  # type: ignore[misc]
    assert vcpu.get_one_reg(PFR0) >> 24 & 0xF == 0  # no GIC system registers
    assert vcpu.get_one_reg(MPIDR) == 0x8000_0003
    vcpu.set_one_reg(MPIDR, 0x8000_0100)
    assert vcpu.get_one_reg(MPIDR) == 0x8000_0100


def test_reset_values(vcpu: Vcpu) -> None:
    vcpu.set_one_reg(r.core_x(0), 5)
    vcpu.set_one_reg(SCTLR, vcpu.get_one_reg(SCTLR) | 1)
    vcpu.set_one_reg(DBGBVR3, 5)
    vcpu.arm_vcpu_init(features=PSCI)
    assert vcpu.get_one_reg(r.core_x(0)) == 0
    assert vcpu.get_one_reg(SCTLR) & 1 == 0
    assert vcpu.get_one_reg(DBGBVR3) == 0
    assert vcpu.get_one_reg(r.CORE_PSTATE) == 0x3C5
    assert vcpu.get_one_reg(r.sys_reg(3, 0, 6, 0, 0)) == 0x1DE7_EC7E_DBAD_C0DE
    assert vcpu.get_one_reg(r.sys_reg(2, 0, 1, 1, 4)) == 8  # OSLSR: OS lock implemented, open


def test_firmware_registers(vcpu: Vcpu) -> None:
    version = r.KVM_REG_ARM_PSCI_VERSION
    assert vcpu.get_one_reg(version) == p.KVM_ARM_PSCI_1_1
    vcpu.set_one_reg(version, p.KVM_ARM_PSCI_0_2)
    assert vcpu.get_one_reg(version) == p.KVM_ARM_PSCI_0_2
    for bad in (p.KVM_ARM_PSCI_0_1, 0x10002):
        fails(errno.EINVAL, lambda bad=bad: vcpu.set_one_reg(version, bad))  # type: ignore[misc]
    workaround = r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1
    fails(errno.EINVAL, lambda: vcpu.set_one_reg(workaround, 7))


def test_timer_registers_are_swapped_as_ever(vcpu: Vcpu) -> None:
    vcpu.set_one_reg(r.KVM_REG_ARM_TIMER_CVAL, 0x5000)
    vcpu.set_one_reg(r.KVM_REG_ARM_TIMER_CNT, 0x6000)
    vcpu.set_one_reg(r.KVM_REG_ARM_TIMER_CTL, 7)
    assert vcpu.get_one_reg(r.KVM_REG_ARM_TIMER_CVAL) == 0x5000
    assert vcpu.get_one_reg(r.KVM_REG_ARM_TIMER_CNT) == 0x6000
    assert vcpu.get_one_reg(r.KVM_REG_ARM_TIMER_CTL) == 7
    vcpu.set_one_reg(r.KVM_REG_ARM_TIMER_CVAL, 0x7000)
    assert vcpu.get_one_reg(r.KVM_REG_ARM_TIMER_CTL) == 3
    # Moving the physical counter does not move the virtual one (84135d3d18da mixed them up).
    vcpu.set_one_reg(r.KVM_REG_ARM_PTIMER_CNT, 5)
    assert vcpu.get_one_reg(r.KVM_REG_ARM_PTIMER_CNT) == 5
    assert vcpu.get_one_reg(r.KVM_REG_ARM_TIMER_CNT) == 0x6000


@pytest.mark.parametrize(
    ("host", "midr"),
    [("nvhe-gicv2", 0x411F_D070), ("vhe-gicv3", 0x414F_D0B1), ("nvhe-nogic", 0x410F_D034)],
)
def test_the_cpu_is_the_hosts(host: str, midr: int) -> None:
    """Cortex-A57, A76 and A53: invariant, and no coherence of caches that they do not have."""
    with System(host) as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        vcpu.arm_vcpu_init(features=1 << k.KVM_ARM_VCPU_PSCI_0_2)
        identity = r.sys_reg(3, 0, 0, 0, 0)
        assert vcpu.get_one_reg(identity) == midr
        with pytest.raises(OSError, match="Invalid argument"):
            vcpu.set_one_reg(identity, midr ^ 1)
        assert vcpu.get_one_reg(r.sys_reg(3, 3, 0, 0, 1)) == 0x8444_C004  # CTR_EL0
        assert vcpu.get_one_reg(r.sys_reg(3, 1, 0, 0, 1)) == 0x0920_0003  # CLIDR_EL1
