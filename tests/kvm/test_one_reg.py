"""KVM_GET_ONE_REG and KVM_SET_ONE_REG, on the engine: all groups, sizes and refusals."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from tests.engine import a64
from tests.kvm.native import RAM, Native, Words, out
from tests.kvm.rig import PSCI, fails

from armkvm.abi import kvm as k
from armkvm.abi import psci as p
from armkvm.abi import regs as r
from armkvm.kvm import System, Vcpu
from armkvm.kvm.sys_regs import USER_ONLY, Encoding

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


def ids_of(host: str, features: int) -> list[int]:
    with System(host) as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        vcpu.arm_vcpu_init(features=features)
        return vcpu.get_reg_list()


@pytest.mark.parametrize("host", ["nvhe-gicv2", "vhe-gicv3"])
def test_all_that_6_12_lists_in_its_order(host: str) -> None:
    """43 core and 32 vector registers, 7 of firmware, 6 of timers, 157 of the system, 14 caches."""
    ids = ids_of(host, PSCI)
    assert len(ids) == 259
    parts = 43 + 32, 7, 6, 157, 14
    core, firmware, timers, system, caches = (
        ids[sum(parts[:n]) : sum(parts[: n + 1])] for n in range(5)
    )
    assert core == sorted(core, key=lambda i: i & 0xFFFF)
    assert firmware == [r.fw_reg(n) for n in range(4)] + [r.fw_feat_bmap_reg(n) for n in range(3)]
    virtual = r.KVM_REG_ARM_TIMER_CTL, r.KVM_REG_ARM_TIMER_CNT, r.KVM_REG_ARM_TIMER_CVAL
    physical = r.KVM_REG_ARM_PTIMER_CTL, r.KVM_REG_ARM_PTIMER_CNT, r.KVM_REG_ARM_PTIMER_CVAL
    assert timers == [*virtual, *physical]
    invariant = [(3, 0, 0, 0, 0), (3, 0, 0, 0, 6), (3, 1, 0, 0, 7)]
    assert system[:3] == [r.sys_reg(*enc) for enc in invariant]
    assert system[3:] == sorted(system[3:])
    assert caches == [r.ccsidr_reg(n) for n in range(14)]
    pmu = ids_of(host, PSCI | 1 << k.KVM_ARM_VCPU_PMU_V3)
    assert len(pmu) == 333
    assert [i for i in pmu if i in ids] == ids


@pytest.mark.parametrize("enc", USER_ONLY, ids=lambda enc: USER_ONLY[enc][0])
def test_some_are_user_spaces_alone(vcpu: Vcpu, enc: Encoding) -> None:
    reg = r.sys_reg(*enc)
    assert vcpu.get_one_reg(reg) == USER_ONLY[enc][1]
    vcpu.set_one_reg(reg, 0x1234)
    assert vcpu.get_one_reg(reg) == 0x1234
    vcpu.arm_vcpu_init(features=PSCI)
    assert vcpu.get_one_reg(reg) == USER_ONLY[enc][1]
    with Native(a64.sys_word(1, *enc, 0), out(0)) as m:
        assert m.stored() == (0xF00, 1 << 25)  # EC 0, IL


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
        (SCTLR | 1 << 28, errno.ENOENT),
        (r.CORE_PC | 1 << 28, errno.ENOENT),
        (r.ccsidr_reg(14), errno.ENOENT),
        (r.ccsidr_reg(0x100), errno.ENOENT),  # another kind of multiplexed register
        (r.ccsidr_reg(0) | 1 << 28, errno.ENOENT),
        (r.ccsidr_reg(0) ^ r.KVM_REG_SIZE_U32 ^ r.KVM_REG_SIZE_U64, errno.ENOENT),
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


def test_only_the_os_lock_of_oslsr_can_be_set(vcpu: Vcpu) -> None:
    oslsr = r.sys_reg(2, 0, 1, 1, 4)
    vcpu.set_one_reg(oslsr, 0xA)
    assert vcpu.get_one_reg(oslsr) == 0xA
    for value in (0, 2, 0xC, 0x100A):
        fails(errno.EINVAL, lambda value=value: vcpu.set_one_reg(oslsr, value))  # type: ignore[misc]
    assert vcpu.get_one_reg(oslsr) == 0xA


def test_the_guest_reads_the_cache_sizes_that_user_space_sets() -> None:
    """By CSSELR_EL1: KVM's own have lines of 64 bytes, and no set may have shorter ones."""
    read: Words = [a64.mov(1, 0x77), a64.mrs(1, "CCSIDR_EL1"), out(1)]
    program: list[Words] = [[a64.mov(0, n), a64.msr("CSSELR_EL1", 0), read] for n in (0, 1, 13, 15)]
    with Native(*program) as m:
        assert [m.stored()[1] for _ in range(4)] == [2, 2, 2, 0x77]  # none is selected by 15
    size = 0x1FF << 13 | 3 << 3 | 4  # 512 sets of 4 ways of 256 bytes
    with Native(*program) as m:
        m.set(r.ccsidr_reg(0), 2)
        m.set(r.ccsidr_reg(1), size)
        fails(errno.EINVAL, lambda: m.set(r.ccsidr_reg(0), 1))
        m.vcpu.arm_vcpu_init(features=PSCI)
        m.set(r.CORE_PC, RAM)
        assert [m.get(r.ccsidr_reg(n)) for n in (0, 1, 13)] == [2, size, 2]
        assert [m.stored()[1] for _ in range(4)] == [2, size, 2, 0x77]


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
