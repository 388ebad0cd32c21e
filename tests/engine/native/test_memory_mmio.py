"""Accesses to memory that is not there: what the exit tells the hypervisor (ESR_EL2, EC 0x24)."""

from __future__ import annotations

import ctypes

import pytest
from tests.engine.a64 import REGISTER, UNPRIV, UNSCALED, UNSIGNED, dc, ldr, single, str_
from tests.engine.world import AF, CODE, DEVICE, EL0, EL1H, MMIO, USER, Space, World

IL = 1 << 25
SINGLES = [(s, o) for s in range(4) for o in range(4) if o < 2 or s < (0, 0, 3, 2)[o]]


@pytest.mark.parametrize("pstate", [EL0, EL1H])
@pytest.mark.parametrize("kind", [UNSIGNED, UNSCALED, UNPRIV, REGISTER])
@pytest.mark.parametrize(("size", "opc"), SINGLES)
def test_syndrome_of_single_registers(
    world: World, kind: int, size: int, opc: int, pstate: int
) -> None:
    """ESR_EL2 for a Data Abort at stage 2: ISV, SAS, SSE, SRT, SF, WnR."""
    for rt in (0, 7, 30, 31):
        esr = world.trapped(single(kind, size, opc, rt), pstate)
        signed, wide = opc >= 2, size == 3 or opc == 2
        iss = 1 << 24 | size << 22 | signed << 21 | rt << 16 | wide << 15 | (opc == 0) << 6 | 7
        assert esr == 0x24 << 26 | IL | iss, hex(esr)
        assert (world.s.far_el2, world.s.hpfar_el2) == (MMIO, MMIO >> 8)


@pytest.mark.parametrize("size", range(4))
@pytest.mark.parametrize("load", [0, 1])
def test_syndrome_of_ordered_accesses(world: World, size: int, load: int) -> None:
    esr = world.trapped(0x089FFC20 | size << 30 | load << 22 | 9)
    iss = 1 << 24 | size << 22 | 9 << 16 | (size == 3) << 15 | 1 << 14 | (not load) << 6 | 7
    assert esr == 0x24 << 26 | IL | iss


@pytest.mark.parametrize(("opc", "sas", "sse", "sf"), [(0, 2, 0, 0), (1, 3, 0, 1), (2, 2, 1, 1)])
def test_syndrome_of_literals(world: World, opc: int, sas: int, sse: int, sf: int) -> None:
    low = Space(world)
    low.identity(CODE)
    low.map(CODE + 0x1000, MMIO, AF)
    low.install()
    esr = world.trapped(0x18000000 | opc << 30 | 0x1000 // 4 << 5 | 5)
    assert esr == 0x24 << 26 | IL | 1 << 24 | sas << 22 | sse << 21 | 5 << 16 | sf << 15 | 7
    assert (world.s.far_el2, world.s.hpfar_el2) == (CODE + 0x1000, MMIO >> 8)


NO_SYNDROME = {
    "ldr x0, [x1], #8": (0xF8408420, 0),
    "str x0, [x1, #0]!": (0xF8000C20, 1),
    "ldp x0, x3, [x1]": (0xA9400C20, 0),
    "stp x0, x3, [x1]": (0xA9000C20, 1),
    "ldnp": (0xA8400C20, 0),
    "ldxr x0, [x1]": (0xC85F7C20, 0),
    "stxr w3, x0, [x1]": (0xC8037C20, 1),
    "ldaxp": (0xC87F8C20, 0),
    "ldadd x3, x0, [x1]": (0xF8230020, 0),
    "swp x3, x0, [x1]": (0xF8238020, 0),
    "cas x3, x0, [x1]": (0xC8A37C20, 0),
    "casp x2, x3, x4, x5, [x1]": (0x48227C24, 0),
    "ldr q0, [x1]": (0x3DC00020, 0),
    "str b0, [x1]": (0x3D000020, 1),
    "ld4 {v0.16b-v3.16b}, [x1]": (0x4C400020, 0),
    "st1 {v0.b}[0], [x1]": (0x0D000020, 1),
    "dc zva, x1": (dc("zva", 1), 1),
}


@pytest.mark.parametrize("name", NO_SYNDROME)
def test_no_syndrome(world: World, name: str) -> None:
    """Pairs, exclusives, atomics, SIMD and writeback: ISV is 0, WnR still says which."""
    word, wnr = NO_SYNDROME[name]
    low = Space(world)
    low.identity(CODE)
    low.map(MMIO, MMIO, AF)
    low.install()
    assert world.trapped(word) == 0x24 << 26 | IL | wnr << 6 | 7


def test_device_memory_of_a_device(world: World) -> None:
    """Where the guest says Device, an unaligned access is its own fault, not an exit."""
    low = Space(world)
    low.identity(CODE)
    low.map(MMIO, MMIO, AF | USER | DEVICE)
    low.install()
    assert world.trapped(ldr(0, 1), EL0, MMIO + 8) >> 26 == 0x24
    t = world.fault(ldr(0, 1), x1=MMIO + 4)
    assert (t.fsc, t.far) == (0x21, MMIO + 4)


def test_maintenance_of_mmio_does_nothing(world: World) -> None:
    world.execute(dc("civac", 1), dc("cvac", 1), dc("ivac", 1), dc("ivau", 1), x1=MMIO)


def test_read_only_segment(world: World) -> None:
    host = world.map(MMIO, 0x1000, readonly=True)
    low = Space(world)
    low.identity(CODE)
    low.map(MMIO, MMIO, AF)
    low.install()
    ctypes.memset(host, 0x5A, 0x1000)
    world.execute(ldr(0, 1), x1=MMIO)
    assert world.s.x[0] == 0x5A5A_5A5A_5A5A_5A5A
    esr = world.trapped(str_(0, 1))
    assert esr & ~0x3F == 0x24 << 26 | IL | 1 << 24 | 3 << 22 | 1 << 15 | 1 << 6
    world.execute(ldr(0, 1), dc("ivac", 1), x1=MMIO)
    assert world.trapped(dc("zva", 1)) >> 6 & 1
    assert ctypes.string_at(host, 0x1000) == b"\x5a" * 0x1000
