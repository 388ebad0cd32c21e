"""What the TLBs may remember, and what TLB maintenance makes them forget (Arm ARM D8.14)."""

from __future__ import annotations

import ctypes
import random

import pytest
from tests.engine.a64 import TLBI, dc, ldr, msr, str_, tlbi
from tests.engine.world import AF, CODE, CODE_FLAGS, DATA, EL0, EL1H, NG, RO, USER, Space, World

from armkvm.engine.cpu import Cpu, Engine, Exit
from armkvm.engine.layout import CONTEXTS

VA = 0x5000_0000
A, B = 0x1111, 0x2222  # what the two pages hold
EVERY = [name + shared for name in TLBI for shared in ("", "is")]
HIGH = 0xFFFF_0000_5000_0000


# Placing code drops all TLBs, so all of it is placed at once.
CODES = [
    ldr(0, 1),
    str_(0, 1),
    ldtr := 0xF8400820,  # x0, [x1]
    sttr := 0xF8000820,
    msr("ttbr0_el1", 1),
    msr("ttbr1_el1", 1),
    *(tlbi(name, 1) for name in EVERY),
]


def execute(world: World, word: int, operand: int, pstate: int = EL1H, code: int = CODE) -> int:
    """Run one of CODES with its operand in X1."""
    world.start(pc=code + 4 * CODES.index(word), pstate=pstate, x1=operand)
    return world.run()


def load(world: World, va: int, pstate: int = EL1H) -> int:
    """The doubleword at va."""
    assert execute(world, CODES[0], va, pstate) == Exit.LIMIT
    assert world.taken() is None
    return int(world.s.x[0])


def maintain(world: World, name: str, operand: int) -> None:
    assert execute(world, tlbi(name, 1), operand) == Exit.LIMIT


@pytest.fixture
def world(engine: Engine) -> World:
    """With the code in place."""
    world = World(engine)
    world.code(*CODES)
    return world


@pytest.fixture
def two(world: World) -> tuple[World, Space]:
    """Two data pages to switch between."""
    world.quad(DATA, A)
    world.quad(DATA + 0x1000, B)
    low = Space(world)
    low.identity(CODE)
    return world, low


def operand(name: str, va: int, asid: int) -> int:
    """What TLBI takes for an address of this ASID."""
    page = va >> 12 & (1 << 44) - 1
    return (0 if "vaa" in name else asid) << 48 | (0 if "aside" in name else page)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("pstate", [EL0, EL1H])
@pytest.mark.parametrize("flags", [0, NG], ids=["global", "not global"])
def test_each_form(two: tuple[World, Space], name: str, pstate: int, flags: int) -> None:
    """The old page may be seen until TLBI; here it is. Afterwards the new one must be."""
    world, low = two
    asid = 0x1234
    slot = low.map(VA, DATA, AF | USER | flags)
    low.install(asid=asid)
    assert load(world, VA, pstate) == A
    world.quad(slot, DATA + 0x1000 | AF | USER | flags | 3)
    assert load(world, VA, pstate) == A  # cached: else this test shows nothing
    maintain(world, name, operand(name, VA, asid))
    if "aside" in name and not flags:
        return  # global entries may stay
    assert load(world, VA, pstate) == B


@pytest.mark.parametrize("name", [n for n in EVERY if "va" in n])
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("pstate", [EL0, EL1H])
def test_any_address_of_a_block(
    two: tuple[World, Space], name: str, level: int, pstate: int
) -> None:
    """One TLBI by address covers all of the block that maps it."""
    world, low = two
    size = 1 << low.shift(level)
    base = 0x40_0000_0000
    slot = low.map(base, 0, AF | USER, level=level)
    low.install()
    seen = [base + DATA, base + DATA + 0x1000]
    assert [load(world, va, pstate) for va in seen] == [A, B]
    world.quad(slot, 1 << 40 | AF | USER | 1)  # no memory there
    assert [load(world, va, pstate) for va in seen] == [A, B]
    inside = base + random.Random(level).randrange(size)
    maintain(world, name, operand(name, inside, 0))
    for va in seen:
        assert execute(world, CODES[0], va, pstate) == Exit.TRAP


@pytest.mark.parametrize("page_shift", [14, 16])
def test_larger_pages(world: World, page_shift: int) -> None:
    """A page of 16 or 64 KiB is many entries, and one TLBI."""
    low = Space(world, page_shift=page_shift)
    low.identity(CODE)
    size = 1 << page_shift
    for i in range(0, size, 0x1000):
        world.quad(0x10_0000 + i, A + i)
        world.quad(0x20_0000 + i, B + i)
    slot = low.map(VA, 0x10_0000, AF | USER)
    low.install()
    pages = range(0, size, 0x1000)
    assert [load(world, VA + i) for i in pages] == [A + i for i in pages]
    world.quad(slot, 0x20_0000 | AF | USER | 3)
    maintain(world, "vae1", VA >> 12)
    assert [load(world, VA + i) for i in pages] == [B + i for i in pages]


@pytest.mark.parametrize("pstate", [EL0, EL1H])
@pytest.mark.parametrize("name", ["vae1", "vaae1is", "vmalle1"])
def test_upper_half(two: tuple[World, Space], pstate: int, name: str) -> None:
    """Pages of TTBR1, for EL0 too. Those of EL0 used to stay."""
    world, low = two
    upper = Space(world, high=True)
    slot = upper.map(HIGH, DATA, AF | USER)
    low.install(upper)
    assert load(world, HIGH, pstate) == A
    world.quad(slot, DATA + 0x1000 | AF | USER | 3)
    maintain(world, name, operand(name, HIGH, 0))
    assert load(world, HIGH, pstate) == B


def test_tagged_entries(two: tuple[World, Space]) -> None:
    """TLBI names the address without the tag that it was accessed with."""
    world, low = two
    slot = low.map(VA, DATA, AF | USER)
    low.install(tcr=1 << 37)
    tagged = [VA | tag << 56 for tag in (0, 0x5A, 0xFF)]
    assert [load(world, va) for va in tagged] == [A] * 3
    for va in tagged:
        assert load(world, va) == A
        world.quad(slot, DATA + 0x1000 | AF | USER | 3)
        maintain(world, "vae1", VA >> 12)
        assert load(world, va) == B
        world.quad(slot, DATA | AF | USER | 3)
        maintain(world, "vae1", VA >> 12)


@pytest.mark.parametrize("pstate", [EL0, EL1H])
@pytest.mark.parametrize("a1", [0, 1])
def test_address_spaces(world: World, pstate: int, a1: int) -> None:
    """More of them than there are contexts, by ASID in either TTBR, in random order."""
    upper = Space(world, high=True)
    code = 0xFFFF_0000_0000_0000
    upper.map(code, CODE, CODE_FLAGS)
    spaces = []
    for asid in range(3 * CONTEXTS):
        space = Space(world)
        page = 0x10_0000 + asid * 0x1000
        space.map(VA, page, AF | USER | NG)
        space.map(CODE, CODE, CODE_FLAGS | NG)
        world.quad(page, 0xA000 + asid)
        spaces.append(space)
    spaces[0].install(upper, tcr=a1 << 22)
    rng = random.Random(pstate)
    for _ in range(200):
        asid = rng.randrange(len(spaces))
        where = [asid << 48, 0x7777 << 48]
        execute(world, msr("ttbr0_el1", 1), spaces[asid].root | where[a1], code=code)
        execute(world, msr("ttbr1_el1", 1), upper.root | where[1 - a1], code=code)
        assert load(world, VA, pstate) == 0xA000 + asid


@pytest.mark.parametrize("pstate", [EL0, EL1H])
@pytest.mark.parametrize("va", [VA, HIGH])
def test_another_asid(two: tuple[World, Space], pstate: int, va: int) -> None:
    """What is not global belongs to one ASID, in the upper half too: another one walks."""
    world, low = two
    upper = Space(world, high=True)
    code = 0xFFFF_0000_0000_0000  # global, so that only the data page tells the spaces apart
    upper.map(code, CODE, CODE_FLAGS)
    slot = (upper if va == HIGH else low).map(va, DATA, AF | USER | NG)
    low.install(upper, asid=1)
    for asid, expected in ((1, A), (2, B)):
        execute(world, msr("ttbr0_el1", 1), low.root | asid << 48, code=code)
        execute(world, ldr(0, 1), va, pstate, code=code)
        assert world.s.x[0] == expected
        world.quad(slot, DATA + 0x1000 | AF | USER | NG | 3)


def test_asid_used_again(two: tuple[World, Space]) -> None:
    """TLBI ASIDE1, then the same ASID and the same table with other contents."""
    world, low = two
    slot = low.map(VA, DATA, AF | USER | NG)
    low.install(asid=5)
    assert load(world, VA, EL0) == A
    world.quad(slot, DATA + 0x1000 | AF | USER | NG | 3)
    maintain(world, "aside1", 6 << 48)
    assert load(world, VA, EL0) == A  # another one's
    maintain(world, "aside1is", 5 << 48)
    assert load(world, VA, EL0) == B


def test_asid_of_eight_bits(two: tuple[World, Space]) -> None:
    """TCR_EL1.AS clear: the upper bits are not part of the ASID."""
    world, low = two
    slot = low.map(VA, DATA, AF | USER | NG)
    low.install(asid=0x105)
    world.s.tcr_el1 &= ~(1 << 36)
    world.cpu.changed()
    assert load(world, VA, EL0) == A
    world.quad(slot, DATA + 0x1000 | AF | USER | NG | 3)
    maintain(world, "aside1", 0xFF05 << 48)
    assert load(world, VA, EL0) == B


def test_a_context_that_returns(two: tuple[World, Space]) -> None:
    """Maintenance reaches the address spaces that are not current."""
    world, low = two
    other = Space(world)
    other.identity(CODE)
    slot = low.map(VA, DATA, AF | USER | NG)
    low.install(asid=1)
    assert load(world, VA, EL0) == A
    execute(world, msr("ttbr0_el1", 1), other.root | 2 << 48)
    world.quad(slot, DATA + 0x1000 | AF | USER | NG | 3)
    maintain(world, "vae1", 1 << 48 | VA >> 12)
    execute(world, msr("ttbr0_el1", 1), low.root | 1 << 48)
    assert load(world, VA, EL0) == B


@pytest.mark.parametrize("shared", [False, True])
def test_other_cpus(two: tuple[World, Space], engine: Engine, shared: bool) -> None:
    """The Inner Shareable forms reach every CPU of the VM; the others need not."""
    world, low = two
    slot = low.map(VA, DATA, AF | USER)
    low.install()
    other = Cpu(engine, world.stage2)
    for name in ("mair_el1", "tcr_el1", "ttbr0_el1", "sctlr_el1", "vbar_el1"):
        setattr(other.state, name, getattr(world.s, name))
    other.changed()

    def read() -> int:
        other.state.pc, other.state.x[1] = CODE, VA
        other.state.limit = other.state.count + 1
        assert other.run() == Exit.LIMIT
        return int(other.state.x[0])

    assert read() == A
    world.quad(slot, DATA + 0x1000 | AF | USER | 3)
    maintain(world, "vae1" + "is" * shared, VA >> 12)
    assert read() == (B if shared else A)
    other.close()


# -- what an entry allows -------------------------------------------------------------------


def test_a_read_gives_no_write_permission_of_before(world: World) -> None:
    """A read across pages walked again and kept the write permission for the new page. The memory
    behind it may be read-only, even for the host."""
    rom = 0x1000_0000
    host = world.map(rom, 0x1000, readonly=True)
    low = Space(world)
    low.identity(CODE)
    slot = low.map(VA, DATA, AF | USER)
    low.map(VA + 0x1000, DATA + 0x1000, AF | USER)
    tables = 0x4001_0000  # in another entry of the TLB than VA
    low.map(tables, slot & ~0xFFF, AF)
    low.install()
    world.code(
        str_(0, 1),  # a write entry for VA
        str_(3, 4),  # now VA is another page; no TLBI
        ldr(5, 6),  # across the end of that page
        str_(0, 1),
    )
    for new in (rom, DATA + 0x2000 | RO):
        world.quad(slot, DATA | AF | USER | 3)
        world.cpu.changed()
        entry = new | AF | USER | 3
        world.start(x0=7, x1=VA, x3=entry, x4=tables + (slot & 0xFFF), x6=VA + 0xFFC)
        left = world.run(4)
        if new == rom:
            assert left == Exit.TRAP
            assert (world.s.esr_el2 >> 26, world.s.far_el2) == (0x24, VA)
            assert world.s.pc == CODE + 12
        else:
            t = world.taken()
            assert t is not None
            assert (t.fsc, t.elr) == (0x0F, CODE + 12)
    assert int.from_bytes(world.read(DATA, 8), "little") == 7
    assert ctypes.string_at(host, 0x1000) == bytes(0x1000)


@pytest.mark.parametrize("first", ["ldtr", "ldr"])
def test_unprivileged_accesses_have_entries_of_their_own(world: World, first: str) -> None:
    low = Space(world)
    low.identity(CODE)
    low.map(VA, DATA, AF)
    low.map(VA + 0x1000, DATA, AF | USER | RO)
    low.map(VA + 0x2000, DATA, AF | USER)
    low.install()
    expected = [(ldr(0, 1), 1, 1, 1), (str_(0, 1), 1, 0, 1)]
    expected += [(ldtr, 0, 1, 1), (sttr, 0, 0, 1)]
    for _ in range(2):
        for word, *pages in expected if first == "ldr" else reversed(expected):
            for page, allowed in enumerate(pages):
                execute(world, word, VA + 0x1000 * page)
                assert (world.taken() is None) == allowed, (hex(word), page)


@pytest.mark.parametrize("pstate", [EL0, EL1H])
def test_el0_and_el1_do_not_share(world: World, pstate: int) -> None:
    """What EL1 has read is not readable for EL0, in either order."""
    low = Space(world)
    low.identity(CODE)
    low.map(VA, DATA, AF)
    low.install()
    for level in (pstate, EL1H ^ EL0 ^ pstate, pstate):
        execute(world, ldr(0, 1), VA, level)
        assert (world.taken() is None) == (level == EL1H)


def test_maintenance_by_set_and_way_does_nothing(world: World) -> None:
    world.quad(DATA, A)
    world.execute(dc("civac", 1), dc("cvau", 1), dc("ivac", 1), ldr(0, 1), x1=DATA)
    assert world.s.x[0] == A
