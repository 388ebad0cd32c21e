"""Accesses off the fast path: page crossings, alignment, cache maintenance, the dirty log."""

from __future__ import annotations

import ctypes

import pytest
from tests.engine.a64 import UNSIGNED, dc, hvc, ldr, single, str_
from tests.engine.world import AF, CODE, DATA, DEVICE, EL0, EL1H, MMIO, RO, USER, A, Space, World

from armkvm.engine.cpu import Exit

IL = 1 << 25


# -- page crossings -------------------------------------------------------------------------

# name: word on [X1] (or as it says), bytes, write, change of X1
ACCESSES = {
    "ldrh": (0x79400020, 2, 0, 0),
    "ldr w": (0xB9400020, 4, 0, 0),
    "ldr x": (0xF9400020, 8, 0, 0),
    "ldr x, post": (0xF8408420, 8, 0, 8),
    "ldr x, pre": (0xF8408C20, 8, 0, 8),
    "ldtr x": (0xF8400820, 8, 0, 0),
    "ldp w": (0x29400C20, 8, 0, 0),
    "ldp x": (0xA9400C20, 16, 0, 0),
    "ldp x, post": (0xA8C10C20, 16, 0, 16),
    "ldpsw": (0x69400C20, 8, 0, 0),
    "ldr q": (0x3DC00020, 16, 0, 0),
    "ldp q": (0xAD400C20, 32, 0, 0),
    "ld1 x4": (0x4C402020, 64, 0, 0),
    "ld4, post": (0x4CDF0020, 64, 0, 64),
    "ld3r": (0x4D40E820, 12, 0, 0),
    "strh": (0x79000020, 2, 1, 0),
    "str w": (0xB9000020, 4, 1, 0),
    "str x": (0xF9000020, 8, 1, 0),
    "str x, post": (0xF8008420, 8, 1, 8),
    "str x, pre": (0xF8008C20, 8, 1, 8),
    "sttr x": (0xF8000820, 8, 1, 0),
    "stp w": (0x29000C20, 8, 1, 0),
    "stp x": (0xA9000C20, 16, 1, 0),
    "stp x, pre": (0xA9810C20, 16, 1, 16),
    "str q": (0x3D800020, 16, 1, 0),
    "stp q": (0xAD000C20, 32, 1, 0),
    "st1 x4": (0x4C002020, 64, 1, 0),
    "st4, post": (0x4C9F0020, 64, 1, 64),
    "st3 lane": (0x0D002020 | 0x800 << 1, 3, 1, 0),
}
FIRST = 0x5000_0000
CASES = pytest.mark.parametrize("name", ACCESSES)


def pages(world: World, flags: int | None) -> Space:
    """Two pages in a row, the second with these flags (or not there). Their memory is far apart."""
    low = Space(world)
    low.identity(CODE)
    low.map(FIRST, DATA + 0x4000, AF | USER)
    if flags is not None:
        low.map(FIRST + 0x1000, DATA, flags)
    low.install()
    world.write(DATA, bytes(range(64)))
    world.write(DATA + 0x4FC0, bytes(range(64, 128)))
    return low


def base(name: str, room: int) -> int:
    """X1 that leaves `room` bytes of the access in the first page."""
    return FIRST + 0x1000 - room - (ACCESSES[name][3] if "pre" in name else 0)


def rooms(name: str) -> list[int]:
    """Places to split the access at."""
    size = ACCESSES[name][1]
    return sorted({1, 2, size // 2, size - 1} - {0, size})


@CASES
def test_crossing(world: World, name: str) -> None:
    """The same as the access within one page."""
    word, size, write, moved = ACCESSES[name]
    pages(world, AF | USER)
    memory, untouched = world.read(DATA, 0x5000), both(world)
    data = bytes(range(200, 200 + size)) if size < 50 else bytes(range(size))
    for room in rooms(name):
        results = []
        for at in (0x200, 0x1000 - room):
            start = FIRST + at - (moved if "pre" in name else 0)
            world.write(DATA, memory)
            put(world, at, data)
            for i in range(8):
                world.cpu.set_v(i, 0x0F0E0D0C0B0A0908_0706050403020100 * (i + 1) % (1 << 128))
            world.execute(word, x0=0x1716151413121110, x1=start, x3=0x2726252423222120)
            registers = [world.s.x[0], world.s.x[3], world.s.x[1] - start]
            results.append((both(world)[at : at + size], registers, bytes(world.s.v)))
            around = both(world)[:at] + both(world)[at + size :]
            assert around == untouched[:at] + untouched[at + size :]
        assert results[0] == results[1], room
        assert (results[0][0] != data) == bool(write)


def both(world: World) -> bytes:
    """The two pages of `pages`, in the order of their addresses."""
    return world.read(DATA + 0x4000, 0x1000) + world.read(DATA, 0x1000)


def put(world: World, at: int, data: bytes) -> None:
    """Set bytes at an offset into the two pages."""
    room = 0x1000 - at
    world.write(DATA + 0x4000 + at, data[:room])
    if data[room:]:
        world.write(DATA, data[room:])


@CASES
@pytest.mark.parametrize("second", ["missing", "read-only", "mmio"])
def test_crossing_into_trouble(world: World, name: str, second: str) -> None:
    """FAR is the second page; no register has changed, and nothing was written."""
    word, _, write, _ = ACCESSES[name]
    low = pages(world, {"missing": None, "read-only": AF | USER | RO, "mmio": AF | USER}[second])
    if second == "mmio":
        low.map(FIRST + 0x1000, MMIO, AF | USER)
    if second == "read-only" and not write:
        return
    for room in rooms(name):
        before = world.read(DATA, 0x5000)
        x1 = base(name, room)
        world.code(word)
        for pstate in (EL0, EL1H):
            world.start(pstate=pstate, x0=1, x1=x1, x3=3)
            state = bytes(world.s.x), bytes(world.s.v)
            left = world.run()
            if second == "mmio":
                assert left == Exit.TRAP
                assert (world.s.far_el2, world.s.hpfar_el2) == (FIRST + 0x1000, MMIO >> 8)
                assert world.s.esr_el2 >> 6 & 1 == write
            else:
                t = world.taken()
                assert t is not None
                assert (t.far, t.elr, t.wnr) == (FIRST + 0x1000, CODE, write)
                assert t.fsc == (0x0F if second == "read-only" else 0x07)
            assert (bytes(world.s.x), bytes(world.s.v)) == state
            assert world.read(DATA, 0x5000) == before


@CASES
def test_first_page_faults_first(world: World, name: str) -> None:
    word, *_ = ACCESSES[name]
    low = Space(world)
    low.identity(CODE)
    low.map(FIRST - 0x1000, DATA, AF)
    low.install()
    for room in rooms(name):
        t = world.fault(word, x1=base(name, room))
        assert t.far == FIRST + 0x1000 - room


def test_crossing_segments(world: World) -> None:
    """Neighbours in the IPA space that are not neighbours in the host's."""
    hosts = [world.map(0x1000_0000 + i * 0x1000, 0x1000) for i in (2, 0, 1)]
    low = Space(world)
    low.identity(CODE)
    low.map(0x1000_0000, 0x1000_0000, AF, level=2)
    low.install()
    stores = [0xF8008420] * 3  # str x0, [x1], #8
    for at in (0x1000_0FFC, 0x1000_1FFC):
        world.execute(*stores, x0=0x8877_6655_4433_2211, x1=at)
        world.execute(ldr(3, 1), x1=at)
        assert world.s.x[3] == 0x8877_6655_4433_2211
    low_part = bytes.fromhex("11223344")
    assert ctypes.string_at(hosts[1] + 0xFFC, 4) == low_part
    assert ctypes.string_at(hosts[2], 4) == bytes.fromhex("55667788")
    assert ctypes.string_at(hosts[2] + 0xFFC, 4) == low_part
    t = world.trapped(ldr(0, 1), x1=0x1000_2FFC)
    assert (t >> 26, world.s.far_el2) == (0x24, 0x1000_3000)


# -- alignment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "element"),
    [(single(UNSIGNED, s, 1, 0), 1 << s) for s in range(4)]
    + [(single(UNSIGNED, s, 0, 0), 1 << s) for s in range(4)]
    + [(0xA9400C20, 8), (0x29400C20, 4), (0xA9000C20, 8), (0x3DC00020, 16), (0xAD000C20, 16)],
)
@pytest.mark.parametrize("why", ["SCTLR.A", "Device", "MMU off"])
def test_element_alignment(world: World, word: int, element: int, why: str) -> None:
    """AArch64.CheckAlignment: by the size of an element, not of a pair."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF | USER | (DEVICE if why == "Device" else 0))
    if why != "MMU off":
        low.install(sctlr=A if why == "SCTLR.A" else 0)
    for offset in (0, 1, 2, 4, 8, 12):
        address = DATA + 64 + offset
        if address % element:
            t = world.fault(word, x1=address)
            assert (t.fsc, t.far) == (0x21, address)
            assert t.wnr == (word & 1 << 22 == 0)
        else:
            world.execute(word, x1=address)


@pytest.mark.parametrize("why", ["SCTLR.A", "Device", "MMU off"])
@pytest.mark.parametrize("first", [ldr(0, 1), str_(0, 1)])
def test_alignment_after_an_aligned_access(world: World, why: str, first: int) -> None:
    """An access that passed leaves nothing behind that lets the next one pass unchecked."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF | (DEVICE if why == "Device" else 0))
    if why != "MMU off":
        low.install(sctlr=A if why == "SCTLR.A" else 0)
    for second in (ldr(0, 2), str_(0, 2)):
        t = world.fault(first, first, second, x1=DATA, x2=DATA + 4)
        assert (t.fsc, t.far, t.elr) == (0x21, DATA + 4, CODE + 8)


@pytest.mark.parametrize(
    ("word", "size"),
    [
        (0x885F7C20, 4), (0xC85F7C20, 8), (0xC87F0C20, 16), (0x887F0C20, 8),  # ldxr, ldxp
        (0xC8DFFC20, 8), (0x48DFFC20, 2),  # ldar
    ],
)  # fmt: skip
def test_exclusives_are_aligned_to_all_of_them(world: World, word: int, size: int) -> None:
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF)
    low.install()
    for offset in range(2 * size):
        if offset % size:
            assert world.fault(word, x1=DATA + offset).fsc == 0x21
        else:
            world.execute(word, x1=DATA + offset)


ATOMICS = [0xF8230020, 0xF8238020, 0xC8A37C20, 0x48227C24, 0x38230020, 0x08A37C20]


@pytest.mark.parametrize("word", ATOMICS)
def test_reads_of_atomics(world: World, word: int) -> None:
    """WnR is 0 where a read would have faulted as well: only a permission for reads makes it 1."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF | USER | RO)
    low.map(DATA + 0x1000, DATA, AF | RO)
    low.map(DATA + 0x2000, DATA, USER)
    low.install()
    for pstate in (EL0, EL1H):
        assert world.fault(word, pstate=pstate, x1=DATA).wnr == 1
        assert world.fault(word, pstate=pstate, x1=DATA + 0x1000).wnr == (pstate == EL1H)
        assert world.fault(word, pstate=pstate, x1=DATA + 0x2000).wnr == 0
        assert world.fault(word, pstate=pstate, x1=DATA + 0x3000).wnr == 0
    if word >> 30:
        assert world.fault(word, x1=DATA + 1).wnr == 0
    world.map(MMIO, 0x1000, readonly=True)
    low.map(DATA + 0x3000, MMIO, AF)
    world.cpu.changed()
    assert world.trapped(word, x1=DATA + 0x3000) >> 6 & 1 == 1


# -- cache maintenance ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ivac", "cvac", "cvau", "civac", "ivau"])
def test_faults_of_cache_maintenance(world: World, name: str) -> None:
    """CM and WnR are set; DC IVAC wants write permission; alignment does not matter."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF | USER | RO | DEVICE)
    low.map(DATA + 0x1000, DATA, AF)
    low.install(sctlr=A | 1 << 26)
    t = world.fault(dc(name, 1), x1=FIRST + 3)
    assert t.esr == 0x25 << 26 | IL | 1 << 8 | 1 << 6 | 5
    assert t.far == FIRST + 3
    if name == "ivac":
        assert world.fault(dc(name, 1), x1=DATA).iss == 1 << 8 | 1 << 6 | 0x0F
        return
    world.execute(dc(name, 1), x1=DATA + 3)
    t = world.fault(dc(name, 1), pstate=EL0, x1=DATA + 0x1000)
    assert t.iss == 1 << 8 | 1 << 6 | 0x0F


def test_dc_zva(world: World) -> None:
    """64 bytes, whatever the address in them; its faults are those of a store, with FAR as given;
    Device memory refuses it."""
    low = Space(world)
    low.identity(CODE)
    low.map(DATA, DATA, AF)
    low.map(DATA + 0x1000, DATA, AF | RO)
    low.map(DATA + 0x2000, DATA, AF | DEVICE)
    low.install(sctlr=A)
    for offset in (0, 1, 63, 64, 100, 0xFFF):
        world.write(DATA, b"\xff" * 0x1000)
        world.execute(dc("zva", 1), dc("zva", 1), x1=DATA + offset)
        start = offset & ~63
        assert world.read(DATA, 0x1000) == (
            b"\xff" * start + bytes(64) + b"\xff" * (0x1000 - 64 - start)
        )
    t = world.fault(dc("zva", 1), x1=DATA + 0x1009)
    assert (t.iss, t.far) == (1 << 6 | 0x0F, DATA + 0x1009)
    t = world.fault(dc("zva", 1), x1=DATA + 0x2040)
    assert (t.iss, t.far) == (1 << 6 | 0x21, DATA + 0x2040)


# -- the dirty log --------------------------------------------------------------------------


@pytest.mark.parametrize("word", [str_(0, 1), 0xF8230020, dc("zva", 1), 0xC8037C20, 0x4C002020])
def test_dirty_log(world: World, word: int) -> None:
    """A write sets its page's bit, also when the page was written before the log was cleared."""
    log = (ctypes.c_uint8 * 64)()
    size = 512 * 0x1000
    world.map(0x1000_0000, size, log=ctypes.addressof(log))
    low = Space(world)
    low.identity(CODE)
    low.map(0x1000_0000, 0x1000_0000, AF, level=2)
    low.install()
    for page in (0, 1, 7, 8, 300, 511):
        for _ in range(2):
            ctypes.memset(log, 0, 64)
            world.cpu.changed()  # as whoever clears the log must
            world.execute(ldr(0, 1), word, x1=0x1000_0000 + page * 0x1000 + 0x40)
            assert int.from_bytes(bytes(log), "little") == 1 << page


def test_dirty_log_of_both_pages(world: World) -> None:
    log = (ctypes.c_uint8 * 8)()
    world.map(0x1000_0000, 16 * 0x1000, log=ctypes.addressof(log))
    low = Space(world)
    low.identity(CODE)
    low.map(0x1000_0000, 0x1000_0000, AF, level=2)
    low.install()
    world.execute(ldr(0, 1), x1=0x1000_3FFC)
    assert bytes(log) == bytes(8)
    world.execute(str_(0, 1), x1=0x1000_3FFC)
    assert int.from_bytes(bytes(log), "little") == 3 << 3


def test_a_read_entry_does_not_write(world: World) -> None:
    """The fast path for reads must not serve writes, with the log or with code behind it."""
    log = (ctypes.c_uint8 * 8)()
    world.map(0x1000_0000, 0x1000, log=ctypes.addressof(log))
    world.code(ldr(0, 1), ldr(0, 1), str_(0, 1), hvc(0))
    world.start(x1=0x1000_0000)
    world.run(2)
    assert log[0] == 0
    world.run(1)
    assert log[0] == 1
