"""Stage-2 aborts: MMIO of all sizes, no syndrome, no memory, holes, read-only slots."""

from __future__ import annotations

import errno
import mmap

import pytest
from tests.kvm.rig import IO, RAM, Ops, Rig

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.arch import esr as e
from armkvm.host.scripted import Load, ScriptedCpu, Store
from armkvm.kvm.handle_exit import arm_exit_handlers

BYTES = 0x8877_6655_4433_22F1


@pytest.mark.parametrize(
    ("size", "signed", "wide", "value"),
    [
        (1, False, False, 0xF1),
        (1, True, False, 0xFFFF_FFF1),
        (1, True, True, 0xFFFF_FFFF_FFFF_FFF1),
        (2, False, True, 0x22F1),
        (2, True, True, 0x22F1),
        (4, False, False, 0x4433_22F1),
        (4, True, True, 0x4433_22F1),
        (8, False, True, BYTES),
    ],
)
def test_reads(size: int, signed: bool, wide: bool, value: int) -> None:
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        seen.append((yield Load(IO + 0x40, size, 7, signed, wide)))
        yield Store(IO)

    rig = Rig(guest)
    assert rig.run() == k.KVM_EXIT_MMIO
    mmio = rig.struct.mmio
    assert (mmio.phys_addr, mmio.len, mmio.is_write) == (IO + 0x40, size, 0)
    mmio.value = BYTES
    rig.stored()
    assert seen == [value]


def test_negative_word_is_extended_to_sixty_four_bits() -> None:
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        seen.append((yield Load(IO, 4, 7, signed=True, wide=True)))
        yield Store(IO)

    rig = Rig(guest)
    rig.run()
    rig.struct.mmio.value = 0x8000_0000
    rig.stored()
    assert seen == [0xFFFF_FFFF_8000_0000]


def test_a_read_into_xzr_goes_nowhere() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Load(IO, rt=31)
        yield Store(IO)

    rig = Rig(guest)
    rig.run()
    rig.struct.mmio.value = BYTES
    rig.stored()
    assert rig.cpu.state.x[30] == 0


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_writes_touch_only_their_bytes(size: int) -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO + 8, 0xA1A2_A3A4_A5A6_A7A8, size)

    rig = Rig(guest)
    rig.struct.mmio.value = 0
    rig.run()
    mmio = rig.struct.mmio
    assert (mmio.len, mmio.is_write) == (size, 1)
    assert mmio.value == 0xA1A2_A3A4_A5A6_A7A8 & (1 << 8 * size) - 1


def abort(rig: Rig, esr: int, ipa: int) -> int:
    """Handle an abort as if the guest had caused it."""
    rig.vcpu.pcpu = rig.pcpu
    rig.vcpu.esr = esr
    rig.cpu.state.far_el2 = ipa
    rig.cpu.state.hpfar_el2 = ipa >> 12 << 4
    try:
        return arm_exit_handlers[esr >> 26](rig.vcpu, esr)
    finally:
        rig.vcpu.pcpu = None


def idle(_cpu: ScriptedCpu) -> Ops:
    yield Store(IO)


DABT = e.EC_DABT_LOW << 26 | e.IL | 0x07
IABT = e.EC_IABT_LOW << 26 | e.IL | 0x07
EL1_DABT = e.EC_DABT_CUR << 26 | e.IL | e.FSC_EXTABT
EL1_IABT = e.EC_IABT_CUR << 26 | e.IL | e.FSC_EXTABT


def test_no_syndrome() -> None:
    rig = Rig(idle)
    assert abort(rig, DABT, IO) == -errno.ENOSYS
    rig.vm.enable_cap(177)
    assert abort(rig, DABT | e.DABT_WNR | 0x1F_0000, IO + 4) == 0
    nisv = rig.struct.arm_nisv
    assert rig.struct.exit_reason == k.KVM_EXIT_ARM_NISV
    assert nisv.esr_iss == e.DABT_WNR | 5  # no memory in that gigabyte: level 1
    assert nisv.fault_ipa == IO + 4
    abort(rig, DABT, RAM + 0x20_0000)
    assert nisv.esr_iss == 6
    abort(rig, DABT, RAM + 0x1_0000)
    assert nisv.esr_iss == 7


@pytest.mark.parametrize(
    ("esr", "injected"),
    [(IABT, EL1_IABT), (DABT | e.DABT_S1PTW, EL1_DABT), (DABT | e.DABT_S1PTW | 0x40, EL1_DABT)],
)
def test_code_and_page_tables_must_be_memory(esr: int, injected: int) -> None:
    rig = Rig(idle)
    assert abort(rig, esr, 0x2000_0000) == 1
    assert rig.cpu.injected == [("sync", injected, 0x2000_0000)]


def test_from_el0_the_abort_is_of_a_lower_level() -> None:
    rig = Rig(idle)
    rig.cpu.pstate = 0
    abort(rig, IABT, 0x2000_0000)
    abort(rig, DABT | e.DABT_S1PTW, 0x2000_0000)
    assert [esr >> 26 for _k, esr, _f in rig.cpu.injected] == [e.EC_IABT_LOW, e.EC_DABT_LOW]


def test_cache_maintenance_on_a_device_is_stepped_over() -> None:
    rig = Rig(idle)
    assert abort(rig, DABT | e.DABT_CM | e.DABT_WNR, IO) == 1
    assert rig.get(regs.CORE_PC) == 4
    assert rig.cpu.injected == []


def test_beyond_the_guests_address_space() -> None:
    rig = Rig(idle)  # 40 bits of 44
    abort(rig, DABT, 1 << 41)
    abort(rig, IABT, 1 << 41)
    abort(rig, DABT, 1 << 45)
    assert [(esr, far) for _k, esr, far in rig.cpu.injected] == [
        (EL1_DABT, 1 << 41),
        (EL1_IABT, 1 << 41),
        (e.EC_DABT_CUR << 26 | e.IL | e.FSC_ADDRESS_SIZE, 1 << 45),
    ]


def test_holes_and_read_only_slots() -> None:
    rig = Rig(idle)
    pages = mmap.mmap(-1, 0x2000)
    low, high = memoryview(pages)[:0x1000], memoryview(pages)[0x1000:]
    rig.vm.set_user_memory_region(1, 0x8000_0000, 0x4000, [(0, low), (0x3000, high)])
    assert abort(rig, DABT | e.DABT_ISV, 0x8000_1000) == -errno.EFAULT
    assert abort(rig, IABT, 0x8000_1000) == -errno.EFAULT
    rom = mmap.mmap(-1, 0x1000)
    rig.vm.set_user_memory_region(2, 0x9000_0000, 0x1000, rom, k.KVM_MEM_READONLY)
    assert abort(rig, DABT | e.DABT_ISV | e.DABT_WNR, 0x9000_0010) == 0
    assert rig.struct.exit_reason == k.KVM_EXIT_MMIO
    assert rig.struct.mmio.phys_addr == 0x9000_0010


def test_every_exception_class_has_a_handler() -> None:
    rig = Rig(idle)
    assert len(arm_exit_handlers) == 64
    for ec in (0x00, 0x07, 0x0E, 0x19, 0x1A, 0x3F):
        rig.vcpu.esr = ec << 26 | e.IL
        assert arm_exit_handlers[ec](rig.vcpu, rig.vcpu.esr) == 1
    assert {esr for _k, esr, _f in rig.cpu.injected} == {e.IL}
