"""Translation faults and permissions: every kind, level, granule and half (Arm ARM D8)."""

from __future__ import annotations

import itertools

import pytest
from tests.engine.a64 import NOP, at, ldr, mrs, str_
from tests.engine.world import (
    AF,
    CODE,
    CODE_FLAGS,
    DATA,
    DEVICE,
    EL0,
    EL1H,
    NONCACHED,
    PXN,
    RO,
    TABLE,
    USER,
    UXN,
    WXN,
    Space,
    Taken,
    World,
)

ADDRESS_SIZE, TRANSLATION, ACCESS_FLAG, PERMISSION, EXTERNAL = 0x00, 0x04, 0x08, 0x0C, 0x14
READ, WRITE, FETCH = "read", "write", "fetch"
RW = AF | USER | UXN | PXN
LEVELS = [(s, level) for s in (12, 14, 16) for level in range(4) if s != 16 or level]


def attempt(world: World, va: int, how: str, pstate: int) -> Taken | None:
    """One access to va; the exception, if it took one."""
    if how == FETCH:
        world.start(pc=va, pstate=pstate)
    else:
        world.code(ldr(0, 1) if how == READ else str_(0, 1))
        world.start(pstate=pstate, x0=NOP, x1=va)
    assert world.run() == 4
    return world.taken()


def check(world: World, va: int, how: str, pstate: int, status: int) -> None:
    """The access faults with this status, and all of ESR, FAR, ELR, SPSR and the vector fit."""
    t = attempt(world, va, how, pstate)
    assert t is not None
    user = pstate == EL0
    ec = (0x20 if how == FETCH else 0x24) + (not user)
    assert t.esr == ec << 26 | 1 << 25 | (how == WRITE) << 6 | status, hex(t.esr)
    assert t.far == va
    assert t.elr == (va if how == FETCH else CODE)
    assert t.spsr == pstate
    assert t.offset == (0x400 if user else 0x200)
    assert world.cpu.pstate == EL1H
    assert world.s.x[1] == (world.s.x[1] if how == FETCH else va)


EVERY = list(itertools.product((READ, WRITE, FETCH), (EL0, EL1H)))


def prepared(world: World, page_shift: int, high: bool) -> tuple[Space, int]:
    """Both halves with their code, and a free address in the half under test."""
    low = Space(world, page_shift=page_shift)
    low.identity(CODE)
    upper = Space(world, page_shift=page_shift, high=True)
    low.install(upper)
    return (upper, 0xFFFF_8123_4567_0000) if high else (low, 0xD123_4567_0000)


@pytest.mark.parametrize("high", [False, True], ids=["ttbr0", "ttbr1"])
@pytest.mark.parametrize(("page_shift", "level"), LEVELS)
def test_translation_fault(world: World, page_shift: int, level: int, high: bool) -> None:
    space, va = prepared(world, page_shift, high)
    slot = space.slot(va, level)
    invalid = [0, 2, 0xFFFF_FFFF_FFFF_FFFE]
    if level == 3 or (level, page_shift) not in [(1, 12), (2, 12), (2, 14), (2, 16)]:
        invalid.append(AF | USER | 1)  # a block where none may be; at level 3, reserved
    for descriptor in invalid:
        world.quad(slot, descriptor)
        for how, pstate in EVERY:
            check(world, va, how, pstate, TRANSLATION | level)


@pytest.mark.parametrize("high", [False, True], ids=["ttbr0", "ttbr1"])
@pytest.mark.parametrize(
    ("page_shift", "level"), [(s, n) for s, n in LEVELS if n > 1 or (n, s) == (1, 12)]
)
def test_faults_of_pages_and_blocks(world: World, page_shift: int, level: int, high: bool) -> None:
    """Access flag, permission and address size, in the order in which they are looked at."""
    space, va = prepared(world, page_shift, high)
    kind = 3 if level == 3 else 1
    slot = space.slot(va, level)
    for how, pstate in EVERY:
        world.quad(slot, 1 << 44 | USER | kind)
        check(world, va, how, pstate, ADDRESS_SIZE | level)
        world.quad(slot, USER | RO | UXN | PXN | kind)
        check(world, va, how, pstate, ACCESS_FLAG | level)
        if (how, pstate) != (READ, EL1H):
            world.quad(slot, AF | RO | UXN | PXN | kind)
            check(world, va, how, pstate, PERMISSION | level)


@pytest.mark.parametrize("high", [False, True], ids=["ttbr0", "ttbr1"])
@pytest.mark.parametrize(("page_shift", "level"), [x for x in LEVELS if x[1] < 3])
def test_tables_out_of_reach(world: World, page_shift: int, level: int, high: bool) -> None:
    """A table beyond the output size, and one where there is no memory (synchronous External abort
    on translation table walk, of the level that could not be read)."""
    space, va = prepared(world, page_shift, high)
    slot = space.slot(va, level)
    for how, pstate in EVERY:
        world.quad(slot, 1 << 44 | TABLE)
        check(world, va, how, pstate, ADDRESS_SIZE | level)
        world.quad(slot, 0x900_0000_0000 | TABLE)
        check(world, va, how, pstate, EXTERNAL | level + 1)


@pytest.mark.parametrize("page_shift", [12, 14, 16])
def test_first_table_out_of_reach(world: World, page_shift: int) -> None:
    space, va = prepared(world, page_shift, high=True)
    for how in (READ, WRITE):
        world.s.ttbr1_el1 = 1 << 45
        world.cpu.changed()
        check(world, va, how, EL1H, ADDRESS_SIZE)
        world.s.ttbr1_el1 = 0x900_0000_0000
        world.cpu.changed()
        check(world, va, how, EL1H, EXTERNAL | space.first)


@pytest.mark.parametrize(("ips", "bits"), [*enumerate([32, 36, 40, 42, 44, 44, 44, 44])])
def test_output_size(world: World, ips: int, bits: int) -> None:
    """TCR_EL1.IPS; sizes above ID_AA64MMFR0_EL1.PARange mean that one."""
    low = Space(world)
    low.identity(CODE)
    slot = low.map(0x7000_0000, 0, RW)
    low.install()
    world.s.tcr_el1 = world.s.tcr_el1 & ~(7 << 32) | ips << 32
    world.cpu.changed()
    world.quad(slot, 1 << bits | RW | 3)
    check(world, 0x7000_0000, READ, EL1H, ADDRESS_SIZE | 3)
    world.quad(slot, 1 << (bits - 1) | RW | 3)
    world.start(x1=0x7000_0000)
    assert world.run() == 2  # translated; no memory there
    assert world.s.hpfar_el2 == 1 << (bits - 1) >> 8


def allowed(ap: int, uxn: int, pxn: int, wxn: int, user: bool, how: str) -> bool:
    """Table D8-47 ff. of the manual, row by row: AP[2:1] -> (EL1, EL0)."""
    el1, el0 = [("rw", ""), ("rw", "rw"), ("r", ""), ("r", "r")][ap]
    mine = el0 if user else el1
    if how == READ:
        return "r" in mine
    if how == WRITE:
        return "w" in mine
    if wxn and "w" in mine:
        return False
    if user:
        return not uxn
    return not pxn and "w" not in el0


@pytest.mark.parametrize(("how", "pstate"), EVERY)
def test_permissions(world: World, how: str, pstate: int) -> None:
    """All of AP, UXN, PXN, the hierarchical controls and SCTLR_EL1.WXN, together."""
    va = 0x3000_0000
    user = pstate == EL0
    for wxn in (0, 1):
        low = Space(world)
        low.identity(CODE)
        page = low.map(va, DATA, 0)
        table = low.slot(va, 2)
        below = int.from_bytes(world.read(table, 8), "little")
        low.install(sctlr=WXN * wxn)
        world.code(NOP, at=DATA)
        for ap, uxn, pxn, no_write, no_user, uxn_table, pxn_table in itertools.product(
            range(4), *[(0, 1)] * 6
        ):
            world.quad(page, DATA | AF | ap << 6 | uxn << 54 | pxn << 53 | 3)
            tables = no_write << 62 | no_user << 61 | uxn_table << 60 | pxn_table << 59
            world.quad(table, below | tables)
            world.cpu.changed()
            effective = (ap & ~no_user) | no_write << 1
            if allowed(effective, uxn | uxn_table, pxn | pxn_table, wxn, user, how):
                assert attempt(world, va, how, pstate) is None, (ap, uxn, pxn, tables)
            else:
                check(world, va, how, pstate, PERMISSION | 3)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_hierarchical_controls_of_every_level(world: World, level: int) -> None:
    va = 0x3000_0000
    world.code(NOP, at=DATA)
    low = Space(world)
    low.identity(CODE)
    low.map(va, DATA, AF | USER)
    low.install()
    slot = low.slot(va, level)
    below = int.from_bytes(world.read(slot, 8), "little")
    # The code is behind the same tables of levels 0 and 1: leave it its permissions.
    for bit, how, pstate in ((62, WRITE, EL1H), (61, READ, EL0), (60, FETCH, EL0)):
        if level < 2 and pstate == EL0:
            continue
        assert attempt(world, va, how, pstate) is None
        world.quad(slot, below | 1 << bit)
        world.cpu.changed()
        check(world, va, how, pstate, PERMISSION | 3)
        world.quad(slot, below)
        world.cpu.changed()


@pytest.mark.parametrize(("high", "epd"), [(False, 7), (True, 23)], ids=["ttbr0", "ttbr1"])
def test_walks_disabled(world: World, high: bool, epd: int) -> None:
    """TCR_EL1.EPD0 and EPD1: a Translation fault of level 0."""
    low, upper = Space(world), Space(world, high=True)
    pc = CODE if high else 0xFFFF_0000_0001_0000
    va = 0xFFFF_0000_0002_0000 if high else DATA
    for space in (low, upper):
        space.map(pc if space.high == (not high) else va, CODE, CODE_FLAGS)
    low.install(upper, tcr=1 << epd)
    world.code(ldr(0, 1))
    for pstate in (EL1H, EL0):
        world.start(pc=pc, pstate=pstate, x1=va)
        world.run()
        t = world.taken()
        assert t is not None
        assert (t.fsc, t.far, t.elr) == (TRANSLATION, va, pc)


@pytest.mark.parametrize("page_shift", [12, 14, 16])
@pytest.mark.parametrize("tsz", [16, 17, 20, 24, 25, 28, 31, 32, 33, 36, 39])
def test_sizes(world: World, page_shift: int, tsz: int) -> None:
    """The first level and the first table's size follow from TxSZ; one bit more is a fault."""
    low = Space(world, page_shift=page_shift, tsz=tsz)
    upper = Space(world, page_shift=page_shift, tsz=tsz, high=True)
    low.identity(CODE)
    last_page = (1 << 64 - tsz) - (1 << page_shift)
    low.map(last_page, 0, RW)
    upper.map(-(1 << 64 - tsz) & (1 << 64) - 1, 0, RW)
    upper.map((1 << 64) - (1 << page_shift), 0, RW)
    low.install(upper)
    mask = (1 << 64) - 1
    good = [(1 << 64 - tsz) - 8, -(1 << 64 - tsz) & mask, mask - 7]
    for va in good:
        assert attempt(world, va, READ, EL1H) is None, hex(va)
    for va in (1 << 64 - tsz, -(1 << 64 - tsz) - 8 & mask, 1 << 54, 0xFF << 56):
        check(world, va, READ, EL1H, TRANSLATION)


@pytest.mark.parametrize(("tsz", "means"), [(0, 16), (15, 16), (40, 39), (63, 39)])
def test_sizes_out_of_range(world: World, tsz: int, means: int) -> None:
    """CONSTRAINED UNPREDICTABLE: the nearest size that there is."""
    low = Space(world, tsz=means)
    low.identity(CODE)
    low.install()
    world.s.tcr_el1 = world.s.tcr_el1 & ~63 | tsz
    world.cpu.changed()
    assert attempt(world, CODE, READ, EL1H) is None
    check(world, 1 << 64 - means, READ, EL1H, TRANSLATION)


@pytest.mark.parametrize(
    ("page_shift", "level"), [(12, 1), (12, 2), (12, 3), (14, 2), (14, 3), (16, 2), (16, 3)]
)
def test_blocks_reach_all_their_memory(world: World, page_shift: int, level: int) -> None:
    space = Space(world, page_shift=page_shift)
    space.identity(CODE)
    size = 1 << space.shift(level)
    va = 0x40_0000_0000
    space.map(va, 0, RW, level=level)
    space.install()
    for offset in (0, 0x1238, 0x7F_FFF8):
        if offset < size:
            world.quad(offset, 0x1234_5678 + offset)
            assert attempt(world, va + offset, READ, EL0) is None
            assert world.s.x[0] == 0x1234_5678 + offset
    check(world, va + size, READ, EL1H, attempt_level(space, va + size))


def attempt_level(space: Space, va: int) -> int:
    """The status of a translation fault where nothing else was mapped behind va's neighbour."""
    table = space.root
    for level in range(space.first, 4):
        width = 64 - space.tsz - space.shift(level) if level == space.first else space.stride
        slot = table + 8 * (va >> space.shift(level) & (1 << width) - 1)
        descriptor = int.from_bytes(space.world.read(slot, 8), "little")
        if not descriptor & 1:
            return TRANSLATION | level
        table = descriptor & 0xFFFF_FFFF_F000
    raise AssertionError("mapped")


@pytest.mark.parametrize("high", [False, True], ids=["ttbr0", "ttbr1"])
def test_tagged_addresses(world: World, high: bool) -> None:
    """With TBI the top byte is not part of the address; it stays in FAR_EL1, and PC drops it."""
    low, upper = Space(world), Space(world, high=True)
    low.identity(CODE)
    upper.map(0xFFFF_0000_0001_0000, CODE, CODE_FLAGS)
    base = 0xFFFF_0000_0001_0000 if high else CODE
    tagged = base & (1 << 56) - 1 | 0x5A << 56
    low.install(upper)
    for how in (READ, FETCH):
        check(world, tagged, how, EL1H, TRANSLATION)
    low.install(upper, tcr=1 << 37 + high)
    assert attempt(world, tagged, READ, EL1H) is None
    check(world, tagged, WRITE, EL1H, PERMISSION | 3)
    world.code(NOP)
    world.start(pc=tagged)
    world.run()
    assert world.s.pc == base + 4  # AArch64.BranchAddr
    # Only bit 55 says which half: the other half has no tags.
    other = (CODE if high else 0xFFFF_0000_0001_0000 & (1 << 56) - 1) | 0x5A << 56
    check(world, other, READ, EL1H, TRANSLATION)


def test_mmu_off(world: World) -> None:
    """AArch64.S1DisabledOutput: addresses are output addresses; above 44 bits they fault."""
    world.code(NOP, at=DATA)
    for how in (READ, WRITE, FETCH):
        assert attempt(world, DATA, how, EL1H) is None
        check(world, 1 << 44, how, EL1H, ADDRESS_SIZE)
        check(world, 1 << 63, how, EL0, ADDRESS_SIZE)
    world.s.tcr_el1 = 1 << 37
    world.cpu.changed()
    assert attempt(world, DATA | 0x5A << 56, READ, EL1H) is None


ATTRIBUTES = [(0, 0xFF, 3), (DEVICE, 0x04, 2), (NONCACHED, 0x44, 2)]


@pytest.mark.parametrize(("flags", "attr", "shared"), ATTRIBUTES)
def test_address_translation(world: World, flags: int, attr: int, shared: int) -> None:
    """AT S1E*: PAR_EL1 for a translation, and for each reason that there is none."""
    low = Space(world)
    low.identity(CODE)
    low.map(0x5000_0000, 0x2_0000, AF | flags | 3 << 8)
    low.map(0x5000_1000, 0x2_0000, USER | flags)
    low.install()

    def par(form: str, va: int) -> int:
        world.code(at(form, 1), mrs(0, "par_el1"))
        world.start(x1=va)
        assert world.run(2) == 4
        assert world.taken() is None
        return int(world.s.x[0])

    good = attr << 56 | 0x2_0000 | 1 << 11 | 1 << 9 | shared << 7
    assert par("s1e1r", 0x5000_0123) == good
    assert par("s1e1w", 0x5000_0123) == good
    assert par("s1e0r", 0x5000_0123) == 0x801 | (PERMISSION | 3) << 1
    assert par("s1e0w", 0x5000_1123) == 0x801 | (ACCESS_FLAG | 3) << 1
    assert par("s1e1r", 0x5000_2000) == 0x801 | (TRANSLATION | 3) << 1
