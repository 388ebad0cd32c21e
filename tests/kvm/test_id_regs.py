"""What user space may make of a vCPU's identity: ID registers, mitigations, capabilities."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest
from tests.engine import a64
from tests.kvm.io.test_eventfd import Descriptors
from tests.kvm.native import Native, out
from tests.kvm.rig import fails

from armkvm.abi import kvm as k
from armkvm.abi import regs as r
from armkvm.kvm import System, Vcpu

PSCI = 1 << k.KVM_ARM_VCPU_PSCI_0_2
PMU = 1 << k.KVM_ARM_VCPU_PMU_V3
PFR0, PFR1 = r.sys_reg(3, 0, 0, 4, 0), r.sys_reg(3, 0, 0, 4, 1)
DFR0, ISAR0 = r.sys_reg(3, 0, 0, 5, 0), r.sys_reg(3, 0, 0, 6, 0)
MMFR0, MMFR1 = r.sys_reg(3, 0, 0, 7, 0), r.sys_reg(3, 0, 0, 7, 1)
CTR, CLIDR = r.sys_reg(3, 3, 0, 0, 1), r.sys_reg(3, 1, 0, 0, 1)
GET_REG_WRITABLE_MASKS = 0x8040_AEB6


@pytest.fixture(params=["nvhe-gicv2", "vhe-gicv3"])
def vcpus(request: pytest.FixtureRequest) -> Iterator[list[Vcpu]]:
    with System(request.param) as system, system.create_vm() as vm:
        made = [vm.create_vcpu(n) for n in range(2)]
        for vcpu in made:
            vcpu.arm_vcpu_init(features=PSCI | PMU)
        yield made
        for vcpu in made:
            vcpu.close()


def lowered(vcpu: Vcpu, reg: int, shift: int, value: int) -> int:
    return vcpu.get_one_reg(reg) & ~(0xF << shift) | value << shift


LOWER = [
    (PFR0, 56, 0), (PFR0, 60, 0),  # CSV2, CSV3
    (DFR0, 8, 0), (DFR0, 8, 1), (DFR0, 20, 1), (DFR0, 36, 0xF),  # PMUVer, WRPs, DoubleLock
    (ISAR0, 16, 0), (ISAR0, 20, 0),  # CRC32, Atomic
    (MMFR0, 0, 2), (MMFR0, 24, 0xF), (MMFR0, 28, 0xF), (MMFR0, 20, 0),  # PARange, TGran
    (MMFR1, 24, 1),  # SpecSEI: the higher value is the safe one
    (CTR, 0, 3), (CTR, 16, 3),  # IminLine, DminLine
]  # fmt: skip


@pytest.mark.parametrize(("reg", "shift", "value"), LOWER)
def test_a_feature_can_be_lowered(vcpus: list[Vcpu], reg: int, shift: int, value: int) -> None:
    """For all vCPUs of the VM, and back up again; initialising again changes nothing."""
    first, second = vcpus
    highest = first.get_one_reg(reg)
    new = lowered(first, reg, shift, value)
    first.set_one_reg(reg, new)
    second.arm_vcpu_init(features=PSCI | PMU)
    assert [vcpu.get_one_reg(reg) for vcpu in vcpus] == [new, new]
    third = first.vm.create_vcpu(2)
    third.arm_vcpu_init(features=PSCI | PMU)
    assert third.get_one_reg(reg) == new
    third.close()
    second.set_one_reg(reg, highest)
    assert first.get_one_reg(reg) == highest


RAISE = [
    (PFR0, 0, 2), (PFR0, 4, 2), (PFR0, 12, 1), (PFR0, 56, 3), (PFR0, 44, 1),
    (PFR0, 16, 0xF), (PFR0, 20, 0xF), (PFR0, 28, 2),  # FP, AdvSIMD, RAS: not KVM's to change
    (PFR1, 0, 1), (PFR1, 20, 1), (DFR0, 0, 5), (DFR0, 12, 1), (DFR0, 28, 0), (DFR0, 36, 1),
    (DFR0, 20, 4), (ISAR0, 4, 1), (ISAR0, 16, 2), (ISAR0, 20, 3), (ISAR0, 0, 1),
    (MMFR0, 0, 5), (MMFR0, 4, 0), (MMFR0, 28, 1), (MMFR0, 20, 2), (MMFR1, 8, 1),
    (r.sys_reg(3, 0, 0, 4, 3), 0, 1), (r.sys_reg(3, 0, 0, 4, 5), 0, 1),
    (CTR, 20, 3), (CTR, 28, 1), (CTR, 16, 5), (r.sys_reg(3, 0, 0, 1, 3), 0, 1),
]  # fmt: skip


@pytest.mark.parametrize(("reg", "shift", "value"), RAISE)
def test_no_feature_can_be_invented(vcpus: list[Vcpu], reg: int, shift: int, value: int) -> None:
    vcpu = vcpus[0]
    held = vcpu.get_one_reg(reg)
    new = lowered(vcpu, reg, shift, value)
    assert new != held
    fails(errno.EINVAL, lambda: vcpu.set_one_reg(reg, new))
    assert vcpu.get_one_reg(reg) == held


def test_an_implementation_defined_pmu_is_none(vcpus: list[Vcpu]) -> None:
    vcpus[0].set_one_reg(DFR0, lowered(vcpus[0], DFR0, 8, 0xF))
    assert vcpus[1].get_one_reg(DFR0) >> 8 & 0xF == 0


def test_after_the_first_run_the_identity_is_fixed() -> None:
    with Native(out(31), a64.mrs(3, "ID_AA64ISAR0_EL1"), out(3, 8), a64.NOP) as m:
        held = m.get(ISAR0)
        less = held & ~(0xF << 20)
        m.set(ISAR0, less)
        m.stored()
        assert m.stored() == (8, less)  # what the guest sees
        fails(errno.EBUSY, lambda: m.set(ISAR0, held))
        m.set(ISAR0, less)


def test_a_hidden_gic_stays_hidden() -> None:
    with Native(out(31), kind="vhe-gicv3") as m:
        assert m.get(PFR0) >> 24 & 0xF == 1
        m.set(PFR0, lowered(m.vcpu, PFR0, 24, 0))
        device = m.vm.create_device(k.KVM_DEV_TYPE_ARM_VGIC_V3)
        assert device is not None
        device.set_device_attr(0, 2, 0x0800_0000)  # distributor
        device.set_device_attr(0, 3, 0x080A_0000)  # redistributors
        device.set_device_attr(4, 0)
        device.close()
        m.stored()
        assert m.get(PFR0) >> 24 & 0xF == 0


@pytest.mark.parametrize("crm", [1, 2, 3])
def test_aarch32_id_registers_ignore_writes(vcpus: list[Vcpu], crm: int) -> None:
    hidden = {(1, 3), (3, 3), (3, 5), (3, 7)}  # ID_AFR0, ID_DFR1 and what nobody has allocated
    for op2 in range(8):
        reg = r.sys_reg(3, 0, 0, crm, op2)
        for value in (0, 0x1234_5678, (1 << 64) - 1):
            if value and (crm, op2) in hidden:
                fails(errno.EINVAL, lambda reg=reg, value=value: vcpus[0].set_one_reg(reg, value))  # type: ignore[misc]
            else:
                vcpus[0].set_one_reg(reg, value)
            assert vcpus[0].get_one_reg(reg) == 0


def test_cache_levels_are_a_vcpus_own(vcpus: list[Vcpu]) -> None:
    first, second = vcpus
    held = first.get_one_reg(CLIDR)
    unified = held & ~7 | 4
    first.set_one_reg(CLIDR, unified)
    assert (first.get_one_reg(CLIDR), second.get_one_reg(CLIDR)) == (unified, held)
    for bad in (1 << 47 | held, held & ~(7 << 24), held & ~(7 << 21 | 7 << 27)):
        fails(errno.EINVAL, lambda bad=bad: first.set_one_reg(CLIDR, bad))  # type: ignore[misc]


def test_the_masks_say_what_can_be_written(vcpus: list[Vcpu]) -> None:
    vm = vcpus[0].vm
    memory = bytearray(192 * 8)

    class Client(Descriptors):
        def write(self, addr: int, data: bytes) -> None:
            memory[addr : addr + len(data)] = data

    def ask(range_: int = 0, reserved: int = 0) -> None:
        request = struct.pack("<QI", 0, range_) + bytes(48) + struct.pack("<I", reserved)
        vm.ioctl(GET_REG_WRITABLE_MASKS, 0, bytearray(request), Client())

    assert vm.check_extension(230) == 1
    ask()
    masks = struct.unpack("<192Q", memory)
    index = {
        PFR0: 4 << 3, PFR1: 4 << 3 | 1, DFR0: 5 << 3, ISAR0: 6 << 3, MMFR0: 7 << 3, CTR: 2 << 6 | 1,
        CLIDR: 1 << 6 | 1,
    }  # fmt: skip
    assert masks[index[PFR0]] == 0xFFFF_00F0_0F00_FFFF
    assert masks[index[PFR1]] == 0xF_0000_00FF
    assert masks[index[DFR0]] == 0xF0_00F0_0F0F
    assert masks[index[ISAR0]] == (1 << 64) - 16
    assert masks[index[CTR]] == 0x300F_000F
    assert masks[index[CLIDR]] == (1 << 47) - 1
    assert not any(masks[1 << 3 : 4 << 3])  # AArch32
    for reg, shift, _value in LOWER:
        assert masks[index.get(reg, 7 << 3 | 1)] >> shift & 0xF
    fails(errno.EINVAL, lambda: ask(1))
    fails(errno.EINVAL, lambda: ask(0, 1))


WORKAROUNDS = [
    r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1,
    r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2,
    r.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3,
]


@pytest.mark.parametrize(
    ("reg", "taken"),
    [
        (WORKAROUNDS[0], {0, 1, 2}),
        (WORKAROUNDS[1], {0, 1, 2, 3, 0x12}),  # 0x12: available, and enabled
        (WORKAROUNDS[2], {0, 1, 2}),
    ],
)
def test_a_guest_from_a_host_with_less_is_taken(
    vcpus: list[Vcpu], reg: int, taken: set[int]
) -> None:
    vcpu = vcpus[0]
    held = vcpu.get_one_reg(reg)
    for value in [*range(64), 1 << 32 | held, 1 << 63]:
        if value in taken:
            vcpu.set_one_reg(reg, value)
        else:
            fails(errno.EINVAL, lambda value=value: vcpu.set_one_reg(reg, value))  # type: ignore[misc]
        assert vcpu.get_one_reg(reg) == held


@pytest.mark.parametrize("kind", ["nvhe-gicv2", "vhe-gicv3", "nvhe-nogic"])
@pytest.mark.parametrize(
    ("cap", "feature"),
    [(93, k.KVM_ARM_VCPU_EL1_32BIT), (126, k.KVM_ARM_VCPU_PMU_V3), (170, k.KVM_ARM_VCPU_SVE),
     (171, 5), (172, 6), (102, k.KVM_ARM_VCPU_PSCI_0_2)],
)  # fmt: skip
def test_a_capability_that_is_there_has_its_vcpu_feature(kind: str, cap: int, feature: int) -> None:
    with System(kind) as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        if vm.check_extension(cap):
            vcpu.arm_vcpu_init(features=1 << feature)
        else:
            fails(errno.EINVAL, lambda: vcpu.arm_vcpu_init(features=1 << feature))
