"""Watchpoints (Arm ARM D2.9): what matches, what is reported, and that nothing else changes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.a64 import at, b, cbnz, dc, ldr, str_, subs
from tests.engine.world import AF, CODE, DATA, EL0, EL1H, MMIO, RO, USER, A, Space, World

from armkvm.arch.debug import Watchpoint
from armkvm.engine import layout
from armkvm.engine.cpu import Engine, Exit

WATCHPT = 0x34 << 26 | 1 << 25 | 0x22  # EC, IL, DFSC
WNR, CM = 1 << 6, 1 << 8
LOAD, STORE = 1, 2

# name: word on [X1], bytes, as what it counts
ACCESSES = {
    "ldrb": (0x39400020, 1, LOAD),
    "ldrh": (0x79400020, 2, LOAD),
    "ldr w": (0xB9400020, 4, LOAD),
    "ldr x": (0xF9400020, 8, LOAD),
    "ldp w": (0x29400C20, 8, LOAD),
    "ldp x": (0xA9400C20, 16, LOAD),
    "ldr q": (0x3DC00020, 16, LOAD),
    "ldp q": (0xAD400C20, 32, LOAD),
    "ld3r": (0x4D40E820, 12, LOAD),
    "ld1 x4": (0x4C402020, 64, LOAD),
    "strb": (0x39000020, 1, STORE),
    "strh": (0x79000020, 2, STORE),
    "str w": (0xB9000020, 4, STORE),
    "str x": (0xF9000020, 8, STORE),
    "stp w": (0x29000C20, 8, STORE),
    "stp x": (0xA9000C20, 16, STORE),
    "stp q": (0xAD000C20, 32, STORE),
    "st3 lane": (0x0D002020 | 0x800 << 1, 3, STORE),
    "st4": (0x4C000020, 64, STORE),
}
ALIGNED = {
    "ldar": (0xC8DFFC20, 8, LOAD),
    "ldxr": (0xC85F7C20, 8, LOAD),
    "ldxp": (0xC87F0C20, 16, LOAD),
    "stlr": (0xC89FFC20, 8, STORE),
    "stxr": (0xC8027C20, 8, STORE),
    "stxp": (0xC8220C20, 16, STORE),
    "ldadd": (0xF8220020, 8, LOAD | STORE),
    "ldadd w": (0xB8220020, 4, LOAD | STORE),
    "swp": (0xF8228020, 8, LOAD | STORE),
    "cas": (0xC8A27C20, 8, LOAD | STORE),
    "casp": (0x48227C24, 16, LOAD | STORE),
}
LDTR, STTR = 0xF8400820, 0xF8000820
IC_IVAU, PRFM = 0xD50B7521, 0xF9800020  # x1; pldl1keep, [x1]
ALL = ACCESSES | ALIGNED
WORDS = [word for word, _, _ in ALL.values()]


def wcr(
    lsc: int = 3, bas: int = 0xFF, *, mask: int = 0, pac: int = 3, hmc: int = 0, ssc: int = 0
) -> int:
    """DBGWCR<n>_EL1 of an enabled watchpoint."""
    return 1 | pac << 1 | lsc << 3 | bas << 5 | hmc << 13 | ssc << 14 | mask << 24


def selects(watch: Watchpoint, va: int) -> bool:
    """AArch64.WatchpointByteMatch(), with what is left open chosen as debug.py says."""
    value, control = watch.value & ~3, watch.control
    bas, mask = control >> 5 & 0xFF, control >> 24 & 31
    if mask:
        return mask > 2 and va >> mask == value >> mask
    if value & 4:
        return va >> 2 == value >> 2 and bool(bas >> (va & 3) & 1)
    return va >> 3 == value >> 3 and bool(bas >> (va & 7) & 1)


def expected(watches: list[Watchpoint], va: int, size: int, kinds: int) -> tuple[int, int] | None:
    """ISS without DFSC and FAR of the exception that an access at EL1 takes, if it does."""
    for kind, iss in ((LOAD, 0), (STORE, WNR)):
        for watch in watches:
            if watch.control >> 3 & kinds & kind:
                for at_ in range(va, va + size):
                    if selects(watch, at_):
                        return iss, at_
    return None


@dataclass
class Watched:
    """A world with data pages, and words of code to run one of."""

    world: World
    low: Space

    def watch(self, *watches: Watchpoint) -> None:
        self.world.cpu.set_watchpoints(watches)

    def hit(self, word: int, x1: int, pstate: int = EL1H) -> tuple[int, int] | None:
        """Run the word with X1: ISS without DFSC and FAR of its Watchpoint exception, or None.

        Nothing has happened when there is one.
        """
        world = self.world
        world.start(pc=CODE + 4 * WORDS.index(word), pstate=pstate, x1=x1, x2=0)
        before = bytes(world.s.x), bytes(world.s.v), world.s.count, world.s.pc
        code = world.run()
        if code != Exit.TRAP:
            assert code == Exit.LIMIT
            assert world.taken() is None
            assert world.s.pc == before[3] + 4
            return None
        assert (bytes(world.s.x), bytes(world.s.v), world.s.count, world.s.pc) == before
        esr = world.s.esr_el2
        assert esr & ~(WNR | CM) == WATCHPT
        return esr & (WNR | CM), world.s.far_el2

    def entry(self, va: int, *, el0: bool = False) -> tuple[bool, bool]:
        """Whether loads and stores of this page are on the fast path."""
        tlb = self.world.s.dtlb_el0 if el0 else self.world.cpu.address + layout.DTLB_EL1
        at_ = tlb + (va >> 12 & layout.DTLB_ENTRIES - 1) * layout.DTLB_ENTRY
        tags = (ctypes.c_uint64 * 2).from_address(at_)
        return tags[0] == va & -4096, tags[1] == va & -4096


WORDS += [LDTR, STTR, IC_IVAU, PRFM, at("s1e1w", 1)]
WORDS += [dc(name, 1) for name in ("zva", "ivac", "cvac", "cvau", "civac")]
BASE = 0x5000_0000  # three pages in a row; a fourth is not there
PAGES = [DATA + 0x4000, DATA, DATA + 0x2000]


def in_a_new_world(engine: Engine) -> Watched:
    world = World(engine)
    world.code(*WORDS)
    low = Space(world)
    low.identity(CODE)
    for n, page in enumerate(PAGES):
        low.map(BASE + 0x1000 * n, page, AF | USER)
    low.install()
    return Watched(world, low)


@pytest.fixture
def watched(engine: Engine) -> Watched:
    made = in_a_new_world(engine)
    world = made.world
    world.s.sctlr_el1 |= 1 << 26 | 1 << 14  # UCI, DZE
    world.cpu.changed()
    return made


CONTIGUOUS = [(1 << n) - 1 << m for n in range(1, 9) for m in range(9 - n)]
HOLES = [0b10000001, 0b01010101, 0b00110110]


@pytest.mark.parametrize("value", [BASE + 0x1208, BASE + 0x120C])
def test_every_byte_select_against_accesses_of_every_size(watched: Watched, value: int) -> None:
    for bas in [0, *CONTIGUOUS, *HOLES]:
        watch = Watchpoint(value, wcr(bas=bas))
        watched.watch(watch)
        for word, size, kinds in ACCESSES.values():
            near = {value - size + n for n in range(-1, 10)} | {value + n for n in range(-4, 9)}
            for va in sorted(near):
                want = expected([watch], va, size, kinds)
                assert watched.hit(word, va) == want, (hex(bas), hex(word), hex(va))


@pytest.mark.parametrize("mask", range(32))
def test_every_mask(watched: Watched, mask: int) -> None:
    """A range from 8 bytes to 2 GiB; 1 and 2 are reserved. BAS counts only without it."""
    value = BASE + 0x1000 & -(1 << mask)
    watch = Watchpoint(value, wcr(mask=mask))
    end = value + (1 << mask)
    bounds = [value, end, BASE + 0x1000, BASE + 0x1400, BASE + 0x2000, BASE + 0x3000]
    for word, size, kinds in (ACCESSES[n] for n in ("ldrb", "str x", "ldp q", "st4")):
        for va in sorted({x + d for x in bounds for d in (-size, -1, -size + 1, 0, 1)}):
            if BASE <= va <= BASE + 0x3000 - size:
                watched.watch(watch)
                want = expected([watch], va, size, kinds)
                assert watched.hit(word, va) == want, (hex(word), hex(va))
    watched.watch(Watchpoint(value, wcr(mask=mask, bas=1)))
    va = max(value, BASE) + 4
    assert (watched.hit(ACCESSES["ldrb"][0], va) is not None) == (mask > 2)


@pytest.mark.parametrize("lsc", range(4))
@pytest.mark.parametrize("name", ALL)
def test_loads_stores_and_what_is_both(watched: Watched, lsc: int, name: str) -> None:
    """An atomic access is reported as the load, where a load matches. Whatever the TLBs held."""
    word, size, kinds = ALL[name]
    va = BASE + 0x1240
    watch = Watchpoint(va + (8 if size >= 16 else 0), wcr(lsc))
    for warm in (WORDS[0], ACCESSES["strb"][0]):
        watched.watch()
        assert watched.hit(warm, va) is None
        watched.watch(watch)
        assert watched.hit(warm, va + 0x100) is None
        want = expected([watch], va, size, kinds)
        assert watched.hit(word, va) == want
        assert watched.hit(word, va + 0x40) is None
        assert watched.hit(word, va) == want
    watched.watch()
    assert watched.hit(word, va) is None


def test_disabled_watchpoints_and_the_last_of_four(watched: Watched) -> None:
    va = BASE + 0x1000
    off = Watchpoint(va, wcr() & ~1)
    watched.watch(off, off, off, off)
    assert watched.hit(WORDS[0], va) is None
    watched.watch(off, off, off, Watchpoint(va, wcr()))
    assert watched.hit(WORDS[0], va) == (0, va)
    watched.watch(off, off, off)
    assert watched.hit(WORDS[0], va) is None


LEVELS = {"EL0": (WORDS[0], EL0), "EL1": (WORDS[0], EL1H), "LDTR": (LDTR, EL1H)}


@pytest.mark.parametrize("level", LEVELS)
def test_exception_levels(watched: Watched, level: str) -> None:
    """Table D2-13, for EL1 and EL0 in Non-secure state; LDTR is an access of EL0."""
    word, pstate = LEVELS[level]
    levels = {  # HMC, SSC, PAC
        (0, 0, 1): "1", (0, 0, 2): "0", (0, 0, 3): "10", (0, 1, 1): "1", (0, 1, 2): "0",
        (0, 1, 3): "10", (1, 0, 1): "1", (1, 0, 3): "10", (1, 1, 1): "1", (1, 1, 3): "10",
    }  # fmt: skip
    va = BASE + 0x1018
    for n in range(32):
        hmc, ssc, pac = n >> 4, n >> 2 & 3, n & 3
        watched.watch(Watchpoint(va, wcr(pac=pac, hmc=hmc, ssc=ssc)))
        matches = ("1" if level == "EL1" else "0") in levels.get((hmc, ssc, pac), "")
        for _ in range(2):
            assert (watched.hit(word, va, pstate) is not None) == matches, (hmc, ssc, pac)


def test_debug_exceptions_are_not_masked_and_unprivileged_stores_count(watched: Watched) -> None:
    """They go to EL2: PSTATE.D is for those of the own level."""
    va = BASE + 0x1018
    watched.watch(Watchpoint(va, wcr(pac=2)))
    for pstate in (EL0, EL0 & ~0x3C0):
        assert watched.hit(ACCESSES["str x"][0], va, pstate) == (WNR, va)
    assert watched.hit(STTR, va) == (WNR, va)
    assert watched.hit(ACCESSES["str x"][0], va) is None


def test_cache_maintenance(watched: Watched) -> None:
    """DC ZVA and DC IVAC are stores of their block, the others nothing (D2.9.6)."""
    va = BASE + 0x1040
    for lsc in range(4):
        watched.watch(Watchpoint(va + 0x38, wcr(lsc, 0xF0)))
        for operand in (va, va + 0x21, va + 0x3F):
            store = lsc & STORE
            assert watched.hit(dc("zva", 1), operand) == ((WNR, va + 0x3C) if store else None)
            assert watched.hit(dc("ivac", 1), operand) == ((WNR | CM, va + 0x3C) if store else None)
        for operand in (va - 1, va + 0x40):
            assert watched.hit(dc("zva", 1), operand) is None
            assert watched.hit(dc("ivac", 1), operand) is None
        for word in (dc("cvac", 1), dc("cvau", 1), dc("civac", 1), IC_IVAU, PRFM, at("s1e1w", 1)):
            assert watched.hit(word, va + 0x3C) is None


@pytest.mark.parametrize("name", ACCESSES)
def test_an_access_across_two_pages(watched: Watched, name: str) -> None:
    """Hits in the first page, in the second, and next to both; the memory stays as it was."""
    word, size, kinds = ACCESSES[name]
    world = watched.world
    end = BASE + 0x1000
    for room in sorted({1, size // 2, size - 1} - {0, size}):
        va = end - room
        for value in {va - 1, va, end - 1, end, va + size - 1, va + size}:
            watch = Watchpoint(value & ~7, wcr(bas=1 << (value & 7)))
            watched.watch(watch)
            memory = world.read(DATA, 0x6000)
            want = expected([watch], va, size, kinds)
            assert watched.hit(word, va) == want
            assert want is None or world.read(DATA, 0x6000) == memory


@dataclass
class Fault:
    """What comes before a watchpoint: how to take it, and which it is."""

    word: int
    va: int
    fsc: int


FAULTS = {
    "alignment": Fault(ALIGNED["ldxr"][0], BASE + 0x1001, 0x21),
    "translation": Fault(ACCESSES["ldr x"][0], BASE + 0x4000, 0x07),
    "permission": Fault(ACCESSES["str x"][0], BASE + 0x3000, 0x0F),
}


@pytest.mark.parametrize("name", FAULTS)
def test_stage_1_faults_come_first(watched: Watched, name: str) -> None:
    fault, world = FAULTS[name], watched.world
    watched.low.map(BASE + 0x3000, DATA + 0x6000, AF | USER | RO)
    watched.watch(Watchpoint(BASE, wcr(mask=16)))
    world.start(pc=CODE + 4 * WORDS.index(fault.word), x1=fault.va)
    assert world.run() == Exit.LIMIT
    taken = world.taken()
    assert taken is not None
    assert (taken.fsc, taken.far) == (fault.fsc, fault.va)


def test_stage_2_comes_first(watched: Watched) -> None:
    """MMIO is the hypervisor's to emulate; a store to a read-only slot is MMIO."""
    world = watched.world
    world.map(0x80_0000, 0x1000, readonly=True)
    watched.low.map(BASE + 0x3000, MMIO, AF | USER)
    watched.low.map(BASE + 0x4000, 0x80_0000, AF | USER)
    watched.watch(Watchpoint(BASE, wcr(mask=16)))
    for name, va, ipa in (
        ("ldr x", BASE + 0x3008, MMIO), ("str x", BASE + 0x3008, MMIO),
        ("str x", BASE + 0x4010, 0x80_0000),
    ):  # fmt: skip
        world.start(pc=CODE + 4 * WORDS.index(ACCESSES[name][0]), x1=va)
        assert world.run() == Exit.TRAP
        assert world.s.esr_el2 >> 26 == 0x24
        assert world.s.hpfar_el2 << 8 == ipa
    assert watched.hit(ACCESSES["ldr x"][0], BASE + 0x4010) == (0, BASE + 0x4010)


def test_a_fault_in_the_second_page_comes_after_a_hit_in_the_first(watched: Watched) -> None:
    """Bytes come in the order of their addresses, as in the manual's Mem[]."""
    end = BASE + 0x3000
    watched.watch(Watchpoint(end - 8, wcr()))
    assert watched.hit(ACCESSES["stp x"][0], end - 4) == (WNR, end - 4)


def test_a_hit_leaves_no_trace_of_the_store(watched: Watched) -> None:
    """The dirty log says nothing of it."""
    world = watched.world
    log = (ctypes.c_uint64 * 1)()
    world.map(0x80_0000, 0x1000, log=ctypes.addressof(log))
    watched.low.map(BASE + 0x3000, 0x80_0000, AF | USER)
    watched.watch(Watchpoint(BASE + 0x3000, wcr()))
    assert watched.hit(ACCESSES["str x"][0], BASE + 0x3000) == (WNR, BASE + 0x3000)
    assert log[0] == 0
    assert watched.hit(ACCESSES["str x"][0], BASE + 0x3008) is None
    assert log[0] == 1


@pytest.mark.parametrize("control", ["mmu off", "A"])
def test_where_alignment_is_checked(watched: Watched, control: str) -> None:
    """There the slow path is the only one anyway."""
    world = watched.world
    va = BASE + 0x1000 if control == "A" else DATA
    world.s.sctlr_el1 = world.s.sctlr_el1 | A if control == "A" else world.s.sctlr_el1 & ~1
    world.cpu.changed()
    watched.watch(Watchpoint(va, wcr(bas=0x0F)))
    assert watched.hit(ACCESSES["str w"][0], va) == (WNR, va)
    assert watched.hit(ACCESSES["str w"][0], va + 4) is None


def test_tags_are_not_compared_and_are_reported(watched: Watched) -> None:
    va = BASE + 0x1000
    watched.low.install(tcr=1 << 37)
    for value in (va, va | 0xAA << 56):
        watched.watch(Watchpoint(value, wcr()))
        for tag in (0, 0x5A << 56):
            assert watched.hit(WORDS[0], tag | va) == (0, tag | va)


def test_the_upper_half(watched: Watched) -> None:
    high = Space(watched.world, high=True)
    va = 0xFFFF_8000_0000_0000
    high.map(va, DATA, AF)
    watched.low.install(high)
    for value in (va, va & (1 << 49) - 1):  # what gdb does not extend
        watched.watch(Watchpoint(value, wcr()))
        assert watched.hit(WORDS[0], va + 7) == (0, va + 7)
        assert watched.hit(WORDS[0], va + 8) is None
    watched.watch(Watchpoint(va & (1 << 48) - 1, wcr()))
    assert watched.hit(WORDS[0], va) is None


def test_a_link_compares_the_context_at_the_time_of_the_access(watched: Watched) -> None:
    va, linked = BASE + 0x1000, wcr() | 1 << 20
    watched.watch(Watchpoint(va, linked, 0x1234))
    for context, matches in ((0, False), (0x1234, True), (0x1235, False), (0x1234, True)):
        watched.world.s.contextidr_el1 = context
        for _ in range(2):
            assert (watched.hit(WORDS[0], va) is not None) == matches
    watched.watch(Watchpoint(va, linked & ~(1 << 20), 0x1234))
    watched.world.s.contextidr_el1 = 0
    assert watched.hit(WORDS[0], va) is not None


def test_only_what_is_watched_leaves_the_fast_path(watched: Watched) -> None:
    store = ACCESSES["strb"][0]
    pages = [BASE, BASE + 0x1000, BASE + 0x2000]
    fast = {}
    for lsc, pac in ((0, 3), (1, 3), (2, 3), (3, 3), (3, 2)):
        watched.watch(Watchpoint(pages[1] + 8, wcr(lsc, pac=pac)))
        for page in pages:
            assert watched.hit(store, page) is None
        fast[lsc, pac] = [watched.entry(page) for page in pages]
    free, none, loads = (True, True), (False, False), (True, False)
    assert fast == {
        (0, 3): [free, free, free], (1, 3): [free, none, free], (2, 3): [free, loads, free],
        (3, 3): [free, none, free], (3, 2): [free, free, free],
    }  # fmt: skip
    watched.watch()
    assert [watched.entry(page) for page in pages] == [none] * 3
    for page in pages:
        assert watched.hit(store, page) is None
    assert [watched.entry(page) for page in pages] == [free] * 3


def test_an_entry_for_loads_never_becomes_one_for_stores(watched: Watched) -> None:
    va = BASE + 0x1000
    watched.watch(Watchpoint(va, wcr(STORE)))
    for name in ("ldrb", "strb", "ldrb", "strb"):
        assert watched.hit(ACCESSES[name][0], va + 0x10) is None
        assert watched.entry(va) == (True, False)
    assert watched.hit(ACCESSES["strb"][0], va) == (WNR, va)


LOOP = [str_(0, 1), ldr(2, 1), subs(0, 0, 1), cbnz(0, -3), b(0)]


def hits(world: World, budget: int) -> list[tuple[int, int, int, int]]:
    """Exits of a loop that stores and loads a watched doubleword, run in pieces.

    The watchpoint is taken away for the one instruction, as a debugger does.
    """
    watch = Watchpoint(DATA, wcr())
    world.code(*LOOP)
    world.cpu.set_watchpoints([watch])
    world.start(x0=5, x1=DATA)
    world.s.count = 0
    seen = []
    while world.s.count < 3000:
        if world.run(min(budget, 3000 - world.s.count)) == Exit.TRAP:
            s = world.s
            seen.append((s.count, s.pc, s.esr_el2, s.x[0]))
            world.cpu.set_watchpoints([])
            assert world.run(1) == Exit.LIMIT
            world.cpu.set_watchpoints([watch])
    return seen


def test_exits_do_not_depend_on_where_a_run_is_cut(engine: Engine) -> None:
    once = hits(World(engine), 3000)
    assert [count for count, *_ in once] == [4 * n + k for n in range(5) for k in (0, 1)]
    assert [esr & WNR for _, _, esr, _ in once] == [WNR, 0] * 5
    for budget in (1, 2, 3, 7, 1500):
        assert hits(World(engine), budget) == once


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_four_watchpoints_against_the_model(engine: Engine, data: st.DataObject) -> None:
    edge = BASE + 0x1000
    control = st.builds(
        wcr, st.integers(0, 3), st.integers(0, 255), mask=st.sampled_from([0, 0, 0, 2, 3, 4, 12])
    )
    place = st.integers(edge - 80, edge + 80)
    watches = data.draw(st.lists(st.builds(Watchpoint, place, control), max_size=4))
    cpu = in_a_new_world(engine)
    cpu.watch(*watches)
    for _ in range(20):
        word, size, kinds = data.draw(st.sampled_from([*ACCESSES.values()]))
        va = data.draw(place)
        assert cpu.hit(word, va) == in_pages(watches, va, size, kinds)


def in_pages(watches: list[Watchpoint], va: int, size: int, kinds: int) -> tuple[int, int] | None:
    """`expected`, page by page."""
    room = 4096 - va % 4096
    first = expected(watches, va, min(size, room), kinds)
    if first is None and size > room:
        return expected(watches, va + room, size - room, kinds)
    return first


def test_a_reset_leaves_them_alone(watched: Watched) -> None:
    """They are the debugger's. The MMU is off now: addresses are physical."""
    va = DATA + 0x10
    watched.watch(Watchpoint(va, wcr()))
    watched.world.cpu.reset()
    assert watched.hit(ACCESSES["ldrb"][0], va) == (0, va)


def test_the_window_of_the_gic(watched: Watched) -> None:
    """Stage 2 maps it, so that no fault comes first (gic_window.py)."""
    world = watched.world
    world.s.gicv_base, world.s.gicv_size = MMIO, 0x2000
    watched.low.map(BASE + 0x3000, MMIO, AF | USER)
    pmr = BASE + 0x3004
    for name, iss in (("ldr w", 0), ("str w", WNR)):
        word = ACCESSES[name][0]
        watched.watch(Watchpoint(pmr & ~7, wcr(bas=0xF0)))
        assert watched.hit(word, pmr) == (iss, pmr)
        assert watched.hit(word, pmr - 4) is None
        watched.watch()
        assert watched.hit(word, pmr) is None
