"""The vgic's registers: what the guest and user space find there, whatever they try."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kvm.rig import fails
from tests.kvm.vgic.vgic_rig import REDIST, VgicRig, acked, ended

from armkvm.abi import vgic as a
from armkvm.arch import gic as g
from armkvm.kvm.vgic import mmio_v2 as vgic_mmio_v2
from armkvm.kvm.vgic import mmio_v3 as vgic_mmio_v3
from armkvm.kvm.vgic.mmio import VgicIoDevice, intid_of

DIST_REGS, CPU_REGS, REDIST_REGS, SYSREGS, LEVEL = (
    a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, a.KVM_DEV_ARM_VGIC_GRP_CPU_REGS,
    a.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, a.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
    a.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
)  # fmt: skip
SPI = 40
IIDR = 0x4B00_343B
TABLES = {2: vgic_mmio_v2.DIST_REGISTERS, 3: vgic_mmio_v3.DIST_REGISTERS}


def sysreg(crn: int, crm: int, op2: int) -> int:
    return 3 << 14 | crn << 7 | crm << 3 | op2


PMR, CTLR, SRE, IGRPEN1 = (
    sysreg(4, 6, 0), sysreg(12, 12, 4), sysreg(12, 12, 5), sysreg(12, 12, 7),
)  # fmt: skip


class Guest:
    """The distributor as a guest's loads and stores find it."""

    def __init__(self, rig: VgicRig) -> None:
        self.rig = rig
        self.device = VgicIoDevice(TABLES[rig.version])

    def read(self, offset: int, size: int = 4, cpu: int = 0) -> int | None:
        return self.device.read(self.rig.vcpus[cpu], offset, size)

    def write(self, offset: int, value: int, size: int = 4, cpu: int = 0) -> None:
        self.device.write(self.rig.vcpus[cpu], offset, size, value)


def test_what_it_is(rig: VgicRig) -> None:
    assert rig.dist(8) == IIDR
    typer = 7 | 1 << 5 if rig.version == 2 else 7 | 9 << 19
    assert rig.dist(4) == typer
    if rig.version == 3:
        assert rig.dist(0) == 0x52
        assert rig.dist(0xFFE8) == 0x3B
        assert rig.dist(0x10) == 0xFFFF_FFFF


def test_tables_are_disjoint() -> None:
    for table in (*TABLES.values(), vgic_mmio_v3.RD_REGISTERS):
        ends = 0
        for region in sorted(table, key=lambda r: r.offset):
            assert region.offset >= ends
            ends = region.offset + region.length


@pytest.mark.parametrize(
    ("addr", "bits", "intid"), [(0x104, 1, 32), (0x428, 8, 40), (0xC08, 2, 32), (0x6140, 64, 40)]
)
def test_addresses_of_interrupts(addr: int, bits: int, intid: int) -> None:
    assert intid_of(addr, bits) == intid


def test_set_and_clear_enable(rig: VgicRig) -> None:
    guest = Guest(rig)
    guest.write(0x104, 0xFF)
    guest.write(0x184, 0x0F)
    assert guest.read(0x104) == guest.read(0x184) == 0xF0
    # Private interrupts are the distributor's on a GICv2 only.
    guest.write(0x100, 1 << 27)
    assert rig.irq(27).enabled == (rig.version == 2)


def test_widths(rig: VgicRig) -> None:
    guest = Guest(rig)
    guest.write(0x428, 0x11223344)
    assert guest.read(0x428) == 0x10203040  # five bits
    guest.write(0x429, 0xFF, 1)
    assert guest.read(0x428) == 0x1020F840
    assert guest.read(0x429, 1) == 0xF8
    for offset, size in ((0x428, 2), (0x428, 8), (0x42A, 4), (0x104, 1), (0x104, 8)):
        guest.write(offset, (1 << 8 * size) - 1, size)
        assert guest.read(offset, size) == 0
    assert guest.read(0x428) == 0x1020F840
    assert guest.read(0x400 + 256) == 0  # an interrupt that does not exist


def test_configuration_of_spis_only(rig: VgicRig) -> None:
    guest = Guest(rig)
    guest.write(0xC08, 0xAAAA_AAAA)
    assert guest.read(0xC08) == 0xAAAA_AAAA
    guest.write(0xC04, 0xFFFF_FFFF)
    assert not rig.irq(5).level_config
    assert rig.irq(27).level_config


def test_pending_by_software(rig: VgicRig) -> None:
    guest = Guest(rig)
    irq = rig.enabled(SPI)
    guest.write(0x204, 1 << 8)
    assert guest.read(0x204) == guest.read(0x284) == 1 << 8
    (lr,) = rig.enter()
    rig.leave(acked(lr))
    assert irq.is_pending()  # a level interrupt's latch falls when it is ended
    guest.write(0x284, 1 << 8)
    assert guest.read(0x204) == 0
    rig.line(SPI, True)
    guest.write(0x284, 1 << 8)
    assert guest.read(0x204) == 1 << 8  # the line is high


def test_active_by_software_stops_the_guest_meanwhile(rig: VgicRig) -> None:
    guest = Guest(rig)
    guest.write(0x304, 1 << 8)
    assert guest.read(0x304) == guest.read(0x384) == 1 << 8
    assert rig.irq(SPI).vcpu is rig.vcpus[0]
    guest.write(0x384, 1 << 8)
    assert guest.read(0x304) == 0
    assert not any(vcpu.pause for vcpu in rig.vcpus)


def test_routing() -> None:
    rig = VgicRig(3, cpus=2)
    guest = Guest(rig)
    irq = rig.irq(SPI)
    at = 0x6000 + 8 * SPI
    guest.write(at, 0x8000_0000_0000_0001, 8)
    assert guest.read(at, 8) == 1
    before = irq.target_vcpu
    guest.write(at, 7)  # nobody has this affinity
    assert (before, irq.target_vcpu) == (rig.vcpus[1], None)
    guest.write(at + 4, 1)
    assert guest.read(at) == 7
    rig.enabled(SPI)
    rig.line(SPI, True)
    assert irq.vcpu is None
    rig.close()


def test_targets() -> None:
    rig = VgicRig(2, cpus=2)
    guest = Guest(rig)
    assert guest.read(0x800, cpu=0) == 0x0101_0101
    assert guest.read(0x800, cpu=1) == 0x0202_0202
    guest.write(0x828, 0xFF02_0300)
    assert guest.read(0x828) == 0x0302_0300
    targets = [rig.irq(SPI + n).target_vcpu for n in range(4)]
    assert [rig.vcpus.index(t) if t else None for t in targets] == [0, 0, 1, 0]
    rig.close()


def test_sgi_pending_registers_of_a_gicv2() -> None:
    rig = VgicRig(2, cpus=2)
    guest = Guest(rig)
    guest.write(0xF24, 0x02, 1)
    assert guest.read(0xF24) == guest.read(0xF14) == 2
    assert rig.irq(4).is_pending()
    guest.write(0xF14, 0x03, 1)
    assert not rig.irq(4).is_pending()
    guest.write(0x200, 1 << 4)  # ignored for SGIs
    assert not rig.irq(4).is_pending()
    rig.dist_write(0x200, 1 << 4, cpu=1)  # from user space: its own CPU sent it
    assert rig.irq(4, 1).source == 2
    rig.dist_write(0x280, 1 << 4, cpu=1)
    assert rig.irq(4, 1).source == 0
    rig.close()


def test_redistributors() -> None:
    rig = VgicRig(3, cpus=2)
    bus = rig.vm.mmio_bus

    def read(cpu: int, offset: int, size: int = 4) -> int | None:
        return bus.read(rig.vcpus[0], REDIST + 0x2_0000 * cpu + offset, size)

    assert read(0, 8, 8) == 0
    assert read(1, 8, 8) == 1 << 32 | 1 << 8 | 1 << 4
    assert read(1, 0xFFE8) == 0x3B
    assert read(0, 0x1_0100) == 0xFFFF
    bus.write(rig.vcpus[0], REDIST + 0x2_0000 + 0x1_0100, 4, 1 << 27)
    assert (rig.irq(27, 0).enabled, rig.irq(27, 1).enabled) == (False, True)
    bus.write(rig.vcpus[0], REDIST + 0x78, 8, (1 << 64) - 1)
    assert read(0, 0x78, 8) == 0x070F_FFFF_FFFF_0F80 & ~(7 << 56) & ~(0xF << 48 + 4) | 0
    assert read(2, 0) is None
    rig.close()


def test_sgi_modes_of_a_gicv2(v2: VgicRig) -> None:
    def pending() -> list[int]:
        found = [v2.irq(1, cpu).source for cpu in range(3)]
        for cpu in range(3):
            v2.irq(1, cpu).source = 0
        return found

    vgic_mmio_v2.write_sgir(v2.vcpus[1], 0xF00, 4, 5 << 16 | 1)
    assert pending() == [2, 0, 2]
    vgic_mmio_v2.write_sgir(v2.vcpus[1], 0xF00, 4, 1 << 24 | 1)
    assert pending() == [2, 0, 2]
    vgic_mmio_v2.write_sgir(v2.vcpus[1], 0xF00, 4, 2 << 24 | 1)
    assert pending() == [0, 2, 0]
    vgic_mmio_v2.write_sgir(v2.vcpus[1], 0xF00, 4, 3 << 24 | 1)
    assert pending() == [0, 0, 0]


def test_sgis_of_a_gicv3() -> None:
    rig = VgicRig(3, cpus=3)

    def sent() -> list[bool]:
        found = [rig.irq(2, cpu).pending_latch for cpu in range(3)]
        for cpu in range(3):
            rig.irq(2, cpu).pending_latch = False
        return found

    send = vgic_mmio_v3.dispatch_sgi
    send(rig.vcpus[0], 2 << 24 | 0b110, allow_group1=True)
    assert sent() == [False, True, True]
    send(rig.vcpus[1], 1 << 40 | 2 << 24, allow_group1=True)
    assert sent() == [True, False, True]
    send(rig.vcpus[0], 1 << 16 | 2 << 24 | 0xFFFF, allow_group1=True)  # another cluster
    assert sent() == [False] * 3
    send(rig.vcpus[0], 2 << 24 | 7, allow_group1=False)
    assert sent() == [False] * 3
    rig.irq(2, 1).group = 0
    send(rig.vcpus[0], 2 << 24 | 7, allow_group1=False)
    assert sent() == [False, True, False]
    rig.close()


def test_the_identification_register_by_user_space(rig: VgicRig) -> None:
    fails(errno.EINVAL, lambda: rig.dist_write(8, IIDR ^ 1))
    if rig.version == 2:
        rig.dist_write(0x84, 0xFFFF_FFFF)
        assert rig.dist(0x84) == 0  # groups are for those that know of them
    rig.dist_write(8, IIDR & ~0xF000)
    assert rig.dist(8) == IIDR
    rig.dist_write(0x84, 0xFFFF_FFFE)
    assert rig.dist(0x84) == 0xFFFF_FFFE


def test_cpu_interface_of_a_gicv2_by_user_space() -> None:
    rig = VgicRig(2)

    def reg(offset: int, value: int | None = None) -> int:
        if value is not None:
            rig.device.set_device_attr(CPU_REGS, offset, value)
        return rig.device.get_device_attr(CPU_REGS, offset)

    assert reg(0, 0x3FF) == 0x21F
    assert reg(4, 0x1E) == 0x1E  # as GICH_VMCR has it
    assert rig.vgic().vmcr.value >> g.ICH_VMCR_PMR_SHIFT == 0xF0
    assert reg(8, 5) == 5
    assert reg(0x1C, 6) == 6
    assert reg(0xD0, 0x8000_0001) == 0x8000_0001
    assert reg(0xD4, 1) == 0
    assert reg(0xFC) == 0x04B2_043B
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(CPU_REGS, 0xC))
    assert reg(0xC) == 0
    rig.close()


def test_cpu_interface_of_a_gicv3_by_user_space() -> None:
    rig = VgicRig(3)

    def reg(number: int, value: int | None = None) -> int:
        if value is not None:
            rig.device.set_device_attr(SYSREGS, number, value)
        return rig.device.get_device_attr(SYSREGS, number)

    assert reg(SRE) == 7
    fails(errno.EINVAL, lambda: reg(SRE, 6))
    assert reg(PMR, 0xF0) == 0xF0
    assert reg(IGRPEN1, 1) == 1
    ctlr = reg(CTLR)
    assert ctlr == 4 << 8 | 1 << 11 | 1 << 15
    assert reg(CTLR, ctlr | 3) == ctlr | 3
    fails(errno.EINVAL, lambda: reg(CTLR, ctlr | 7 << 8))
    fails(errno.EINVAL, lambda: reg(CTLR, ctlr & ~(1 << 15)))
    assert reg(sysreg(12, 9, 0), 5) == 5
    fails(errno.EINVAL, lambda: reg(sysreg(12, 9, 1)))
    fails(errno.ENXIO, lambda: reg(sysreg(12, 12, 0)))
    rig.device.has_device_attr(SYSREGS, PMR)
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(SYSREGS, sysreg(12, 12, 0)))
    rig.close()


def test_line_levels_by_user_space() -> None:
    rig = VgicRig(3)
    rig.enabled(SPI)
    rig.line(SPI, True)
    rig.line(20, True)
    assert rig.device.get_device_attr(LEVEL, 32) == 1 << 8
    assert rig.device.get_device_attr(LEVEL, 0) == 1 << 20
    rig.device.set_device_attr(LEVEL, 32, 0)
    rig.leave()
    assert rig.enter() == []
    rig.device.set_device_attr(LEVEL, 32, 1 << 8)
    assert len(rig.enter()) == 1
    fails(errno.EINVAL, lambda: rig.device.get_device_attr(LEVEL, 40))
    fails(errno.EINVAL, lambda: rig.device.get_device_attr(LEVEL, 1 << 10))
    fails(errno.ENXIO, lambda: rig.device.has_device_attr(LEVEL, 1 << 10))
    rig.close()


# -- any access -------------------------------------------------------------------------------

_OFFSETS = st.one_of(
    st.integers(0, 0x1_FFFF),
    st.sampled_from([0, 4, 8, 0xC, 0x84, 0x104, 0x184, 0x204, 0x284, 0x304, 0x384, 0x428, 0x828,
                     0xC08, 0xF00, 0xF10, 0xF20, 0x6140, 0xFFE8, 0x1_0100, 0x1_0200, 0x1_0400]),
)  # fmt: skip
_STEP = st.tuples(
    st.sampled_from(["guest", "redist", "user", "cpu", "sys", "level", "line", "run", "sgi"]),
    _OFFSETS,
    st.sampled_from([1, 2, 4, 8]),
    st.one_of(st.none(), st.integers(0, (1 << 64) - 1)),
    st.integers(0, 1),
)


def attempt(action: Callable[[], object]) -> None:
    """An OSError is an answer; anything else is a bug."""
    with contextlib.suppress(OSError):
        action()


def play(rig: VgicRig, step: tuple[str, int, int, int | None, int]) -> None:
    kind, offset, size, value, cpu = step
    vcpu = rig.vcpus[cpu]
    device = Guest(rig).device
    if kind == "redist":
        device = VgicIoDevice(vgic_mmio_v3.RD_REGISTERS if rig.version == 3 else [], 0, vcpu)
    group = {"user": DIST_REGS, "cpu": CPU_REGS if rig.version == 2 else REDIST_REGS,
             "sys": SYSREGS, "level": LEVEL}.get(kind)  # fmt: skip
    if kind in ("guest", "redist"):
        if value is None:
            got = device.read(vcpu, offset, size)
            assert got is not None
            assert 0 <= got < 1 << 8 * size
        else:
            device.write(vcpu, offset, size, value & (1 << 8 * size) - 1)
    elif group is not None:
        attr = cpu << 32 | offset
        if value is None:
            attempt(lambda: rig.device.get_device_attr(group, attr))
        else:
            attempt(lambda: rig.device.set_device_attr(group, attr, value))
        attempt(lambda: rig.device.has_device_attr(group, attr))
    elif kind == "line":
        attempt(lambda: rig.line(offset & 0x7F, bool(value), cpu))
    elif kind == "sgi" and value is not None:
        if rig.version == 3:
            vgic_mmio_v3.dispatch_sgi(vcpu, value, allow_group1=True)
        else:
            vgic_mmio_v2.write_sgir(vcpu, 0xF00, 4, value & 0xFFFF_FFFF)
    elif kind == "run":
        lrs = rig.enter(cpu)
        assert len(lrs) <= g.NR_LR
        assert len({(lr & 0x1FFF) for lr in lrs}) == len(lrs)
        # What a guest may have made of them: each state bit cleared, moved or kept.
        seed = value or 0
        left = [acked(lr) if seed >> i & 1 else ended(lr) for i, lr in enumerate(lrs)]
        rig.leave(*left, cpu=cpu)


def sound(rig: VgicRig) -> None:
    """An interrupt is on one list at most, and knows it."""
    seen: dict[int, object] = {}
    for vcpu in rig.vcpus:
        assert vcpu.vgic_cpu is not None
        for irq in vcpu.vgic_cpu.ap_list:
            assert irq.vcpu is vcpu
            assert id(irq) not in seen
            seen[id(irq)] = irq
    for irq in rig.vm.vgic.spis:
        assert (irq.vcpu is not None) == (id(irq) in seen)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([2, 3]), st.lists(_STEP, max_size=25))
def test_any_accesses_leave_it_sound(
    version: int, steps: list[tuple[str, int, int, int | None, int]]
) -> None:
    rig = VgicRig(version, cpus=2)
    try:
        for step in steps:
            play(rig, step)
            sound(rig)
    finally:
        rig.close()


# -- save and restore -------------------------------------------------------------------------


def saved(rig: VgicRig) -> dict[tuple[int, int], int]:
    """All of the state, in the order in which QEMU restores it: levels last."""
    found: dict[tuple[int, int], int] = {}
    arrays = [0x80, 0x100, 0xC00, 0x400, 0x200, 0x300]
    width = {0xC00: 64, 0x400: 256}
    for cpu in range(len(rig.vcpus)):
        for start in arrays:
            first = start if rig.version == 2 else 0x1_0000 + start
            group = DIST_REGS if rig.version == 2 else REDIST_REGS
            # In the distributor of a GICv2 the first 32 interrupts are banked.
            for offset in range(first, first + width.get(start, 32) // 8, 4):
                key = group, cpu << 32 | offset
                found[key] = rig.device.get_device_attr(*key)
    for start in [*arrays, 0x800 if rig.version == 2 else 0x6000]:
        bits = {0xC00: 2, 0x400: 8, 0x800: 8, 0x6000: 64}.get(start, 1)
        for offset in range(start + 32 * bits // 8, start + 256 * bits // 8, 4):
            found[DIST_REGS, offset] = rig.device.get_device_attr(DIST_REGS, offset)
    if rig.version == 2:
        for cpu in range(len(rig.vcpus)):
            for offset in (0xF20, 0xF24, 0xF28, 0xF2C):
                key = DIST_REGS, cpu << 32 | offset
                found[key] = rig.device.get_device_attr(*key)
    else:
        for intid in range(0, 256, 32):
            for cpu in range(len(rig.vcpus)) if not intid else [0]:
                key = LEVEL, cpu << 32 | intid
                found[key] = rig.device.get_device_attr(*key)
    found[DIST_REGS, 0] = rig.device.get_device_attr(DIST_REGS, 0)
    return found


def restore(rig: VgicRig, state: dict[tuple[int, int], int]) -> None:
    rig.dist_write(8, rig.dist(8))
    for (group, attr), value in state.items():
        if group in (DIST_REGS, REDIST_REGS) and attr & 0xFFFF & ~0x7F == 0x100:
            # Enables, then what is not enabled: SGIs are to begin with.
            rig.device.set_device_attr(group, attr + 0x80, ~value & 0xFFFF_FFFF)
        if rig.version == 2 and attr & 0xFFFF & ~0xF == 0xF20:
            # Pending SGIs have got a sender of their own from ISPENDR: these are the true ones.
            rig.device.set_device_attr(group, attr - 0x10, 0xFFFF_FFFF)
        rig.device.set_device_attr(group, attr, value)


_HISTORY = st.tuples(
    st.sampled_from(["guest", "redist", "line", "run", "sgi"]),
    _OFFSETS,
    st.sampled_from([4, 8]),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 1),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([2, 3]), st.lists(_HISTORY, max_size=25))
def test_what_is_saved_is_what_was_restored(
    version: int, steps: list[tuple[str, int, int, int, int]]
) -> None:
    """At any point: a second vgic with the first one's registers has the same registers."""
    old, new = VgicRig(version, cpus=2), VgicRig(version, cpus=2)
    try:
        for step in steps:
            play(old, step)
        state = saved(old)
        restore(new, state)
        assert saved(new) == state
    finally:
        old.close()
        new.close()
