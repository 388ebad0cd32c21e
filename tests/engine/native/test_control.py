"""Exact stops, and code that changes while it runs."""

from __future__ import annotations

import random

import pytest
from tests.engine.a64 import (
    B_SELF,
    ERET,
    ISB,
    LR,
    NOP,
    add,
    b,
    bl,
    blr,
    br,
    cbnz,
    dc,
    hvc,
    ldr,
    mov,
    movz,
    mrs,
    msr,
    ret,
    str_,
    strw,
    subs,
    svc,
    tlbi,
)
from tests.engine.random_guest import RandomGuest
from tests.engine.world import (
    AF,
    CODE,
    CODE_FLAGS,
    DATA,
    EL0,
    EL1H,
    RO,
    USER,
    VECTORS,
    Space,
    World,
)

from armkvm.engine.cpu import Engine, Exit

FAR_CODE = CODE + 0x8000


# -- stopping at an instruction -------------------------------------------------------------


def program(world: World) -> None:
    """Loops, calls and returns over three pages, faults and system calls; runs for ever."""
    # b.ne back, b.eq forward: comparisons and branches share a handler where they can.
    function = [subs(5, 5, 1), 0x54FFFFE1, subs(31, 5, 0), 0x54000040, NOP, add(6, 6, 1), ret()]
    world.code(
        movz(0, 40),  # loop:
        movz(5, 3),
        bl(0x1000 // 4 - 2),  # in the next page
        svc(3),
        *mov(7, FAR_CODE),
        blr(7),
        ldr(1, 9),  # faults
        subs(0, 0, 1),
        cbnz(0, -10),
        b(-12),
    )
    world.code(*function, at=CODE + 0x1000)
    # Straight through the end of a page.
    world.code(b(0xFE0 // 4), at=FAR_CODE)
    world.code(*[add(8, 8, 1)] * 16, ret(), at=FAR_CODE + 0xFE0)
    # SVC returns behind itself; the instruction that faulted is skipped.
    lsr = 0xD35AFC84  # lsr x4, x4, #26
    skip = [mrs(2, "elr_el1"), add(2, 2, 4), msr("elr_el1", 2), ERET]
    handler = [mrs(4, "esr_el1"), lsr, subs(4, 4, 0x15), cbnz(4, 2), ERET, *skip]
    world.code(add(10, 10, 1), b(0x1000 // 4), at=VECTORS + 0x200)
    world.code(*handler, at=VECTORS + 0x1204)
    world.start(x9=1 << 50, x6=0)


def fingerprint(world: World) -> tuple[int, ...]:
    """What tells one place of the program from another."""
    s = world.s
    return s.count, s.pc, world.cpu.pstate, *s.x


def test_stops_at_every_instruction(engine: Engine) -> None:
    """A free run to n instructions gives the state that n single steps give."""
    steps = 6000
    single = World(engine)
    program(single)
    trace = [fingerprint(single)]
    for _ in range(steps):
        assert single.run() == Exit.LIMIT
        trace.append(fingerprint(single))
    assert len({f[1] for f in trace}) > 40
    rng = random.Random(1)
    stops = [0, 1, 2, *range(1020, 1032), *(rng.randrange(steps) for _ in range(60))]
    for n in stops:
        world = World(engine)
        program(world)
        assert world.run(n) == Exit.LIMIT
        assert fingerprint(world) == trace[n]
        again = rng.randrange(steps + 1 - n)
        world.run(again)
        assert fingerprint(world) == trace[n + again]


@pytest.mark.parametrize("seed", range(20))
def test_random_guests_in_pieces(engine: Engine, seed: int) -> None:
    """Random code with its faults, timers and TLB maintenance: in a go, and in pieces."""
    whole, pieces = (RandomGuest(engine, seed + 1000) for _ in range(2))
    rng = random.Random(seed)
    for i in range(8):
        n = rng.randrange(1, 10_000)
        count = whole.cpus[0].state.count
        limits = sorted(count + rng.randrange(n) for _ in range(rng.choice((1, 8, 64, n))))
        for guest, stops in ((whole, []), (pieces, limits)):
            if i:
                guest.shake(guest.cpus[0])
            guest.run(guest.cpus[0], n, stops)
        assert whole.digest() == pieces.digest()


def test_a_fetch_belongs_to_the_next_instruction(world: World) -> None:
    """A limit behind a branch to nowhere stops before the fault. It used to come one too late."""
    low = Space(world)
    low.identity(CODE)
    low.install()
    world.code(br(1))
    for target in (0x7000_0000, CODE + 2):
        world.start(x1=target)
        assert world.run() == Exit.LIMIT
        assert (world.s.pc, world.s.esr_el1) == (target, 0)
        assert world.run() == Exit.LIMIT
        assert (world.s.pc, world.s.elr_el1) == (VECTORS + 0x200, target)


def test_no_memory_behind_a_branch(world: World) -> None:
    world.code(br(1))
    world.start(x1=1 << 40)
    assert world.run() == Exit.LIMIT
    assert world.run() == Exit.TRAP
    s = world.s
    assert s.esr_el2 == 0x20 << 26 | 1 << 25 | 7
    assert (s.far_el2, s.hpfar_el2, s.pc) == (1 << 40, 1 << 32, 1 << 40)
    count = s.count
    assert world.run() == Exit.TRAP  # nothing was done, nothing is counted
    assert s.count == count


@pytest.mark.parametrize("n", [1, 2, 1025, 1026, 5000, 100_000])
def test_vectors_that_cannot_be_fetched(world: World, n: int) -> None:
    """Every fault counts, so a limit is reached. It used to hang."""
    low = Space(world)
    low.identity(CODE)
    low.install()
    world.code(0)
    world.start()
    begin = world.s.count
    assert world.run(n) == Exit.LIMIT
    assert world.s.count == begin + n
    assert world.s.pc == VECTORS + 0x200
    if n > 1:
        assert (world.s.esr_el1, world.s.elr_el1) == (0x8600_0007, VECTORS + 0x200)


def test_limit_reached_already(world: World) -> None:
    """Nothing runs, and no interrupt is taken either."""
    world.code(NOP)
    world.start(pstate=EL1H & ~0xC0)
    world.s.hcr_vi = 1
    assert world.run(0) == Exit.LIMIT
    assert (world.s.pc, world.s.count) == (CODE, 0)


# -- code that changes ----------------------------------------------------------------------

ONE, TWO = movz(0, 1), movz(0, 2)


@pytest.mark.parametrize("distance", [1, 2, 5, 100, 1000])
@pytest.mark.parametrize("warm", [False, True])
def test_write_to_the_page_that_executes(world: World, distance: int, warm: bool) -> None:
    """The next instruction, or a later one, is the new one at once (no cache is modelled)."""
    target = CODE + 4 * distance
    world.code(strw(2, 1), *[NOP] * (distance - 1), ONE, hvc(0))
    if warm:  # decoded and executed before
        world.start(x1=DATA, x2=TWO)
        world.finish()
        assert world.s.x[0] == 1
    world.start(x1=target, x2=TWO)
    world.finish()
    assert world.s.x[0] == 2


def test_step_into_changed_code(world: World) -> None:
    """The same, one instruction at a time."""
    world.code(strw(2, 1), ONE, hvc(0))
    for _ in range(2):
        world.start(x1=CODE + 4, x2=TWO)
        world.run(1)
        world.run(1)
        assert world.s.x[0] == 2


@pytest.mark.parametrize("mmu", [False, True])
def test_loop_that_changes_itself(world: World, mmu: bool) -> None:
    """An ADD whose immediate grows on every round: 1 + 2 + ... + 500. With the MMU on the store has
    an entry in the TLB, which must not outlive the decoding of its page."""
    alias = 0x4000_0000 if mmu else CODE
    if mmu:
        low = Space(world)
        low.identity(CODE)
        low.map(alias, CODE, AF)
        low.install()
    # X3 holds the first instruction; its imm12 counts from bit 10.
    loop = [add(0, 0, 0), add(3, 3, 1 << 10), strw(3, 1), subs(4, 4, 1), cbnz(4, -4)]
    world.code(*loop, hvc(0))
    world.start(x0=0, x1=alias, x3=add(0, 0, 0), x4=500)
    world.finish()
    assert world.s.x[0] == sum(range(500))


CHANGES = {
    "str": [strw(2, 1)],
    "stp across a page's end": [0x29000822],  # stp w2, w2, [x1]
    "dc zva": [dc("zva", 1)],
    "swp": [0xB8228023],  # swp w2, w3, [x1]
    "stxr": [0x885F7C23, 0x88037C22],  # ldxr w3, [x1]; stxr w3, w2, [x1]
    "st1": [0x0D008022],  # st1 {v2.s}[0], [x1]
    "str q": [0x3D800022],
}


@pytest.mark.parametrize("how", CHANGES)
def test_code_written_from_another_page(world: World, how: str) -> None:
    other, alias = CODE + 0x1000, 0x4000_0000
    world.code(ONE, ret(), at=other)
    call = [*mov(9, other), blr(9), add(10, 0, 0)]
    low = Space(world)
    low.identity(CODE)
    low.map(other, other, CODE_FLAGS)
    low.map(alias, other, AF | USER)
    low.map(alias - 0x1000, DATA, AF | USER)
    low.install()
    world.cpu.set_v(2, TWO | ret() << 32)
    start = alias - 4 if how.startswith("stp") else alias
    if how == "dc zva":
        world.code(hvc(7), at=VECTORS + 0x200)
        low.identity(VECTORS)
    world.execute(*call, *CHANGES[how], *call, x1=start, x2=TWO)
    s = world.s
    if how == "dc zva":  # UDF, where MOVZ was
        assert (s.esr_el2 & 0xFFFF, s.esr_el1, s.elr_el1) == (7, 1 << 25, other)
    else:
        assert (s.x[10], s.x[0]) == (2, 2)


def test_code_written_by_its_other_address(world: World) -> None:
    """The write goes to an alias of the page, mapped writable."""
    low = Space(world)
    low.identity(CODE)
    alias = 0x4000_0000
    low.map(alias, CODE, AF | USER)
    low.install()
    world.code(strw(2, 1), ONE, subs(3, 3, 1), cbnz(3, -3), hvc(0))
    world.start(x1=alias + 4, x2=TWO, x3=3)
    world.finish()
    assert world.s.x[0] == 2


def test_code_written_by_the_host(world: World) -> None:
    world.execute(ONE)
    world.execute(TWO)
    assert world.s.x[0] == 2


@pytest.mark.parametrize("sync", [ISB, NOP])
def test_code_page_moves(world: World, sync: int) -> None:
    """A page under the same address, after TLBI: what executes is what is mapped now."""
    low = Space(world)
    low.identity(CODE)
    page = 0x5000_0000
    slot = low.map(page, DATA, CODE_FLAGS)
    low.map(0x4000_0000, slot & ~0xFFF, AF)
    low.install()
    world.code(ONE, ret(), at=DATA)
    world.code(TWO, ret(), at=DATA + 0x1000)
    new = DATA + 0x1000 | CODE_FLAGS | 3
    code = [*mov(9, page), blr(9), add(10, 0, 0), str_(3, 4), tlbi("vae1is", 5), sync, blr(9)]
    old = int.from_bytes(world.read(slot, 8), "little")
    for _ in range(2):
        world.quad(slot, old)
        world.execute(
            tlbi("vmalle1"), *code, x3=new, x4=0x4000_0000 + (slot & 0xFFF), x5=page >> 12
        )
        assert (world.s.x[10], world.s.x[0]) == (1, 2)


def test_own_page_moves_away(world: World) -> None:
    """TLBI for the page that executes takes effect on the very next fetch, in every tier."""
    low = Space(world)
    slot = low.map(CODE, CODE, CODE_FLAGS)
    low.map(0x4000_0000, slot & ~0xFFF, AF)
    low.install()
    world.code(str_(3, 4), tlbi("vmalle1"), ONE, hvc(1))
    world.code(NOP, NOP, TWO, hvc(2), at=DATA)
    world.start(x3=DATA | CODE_FLAGS | 3, x4=0x4000_0000 + (slot & 0xFFF))
    world.finish()
    assert (world.s.x[0], world.s.esr_el2 & 0xFFFF) == (2, 2)


def test_translation_registers_take_effect_at_once(world: World) -> None:
    """TTBR0 of another space, from code that is mapped in it elsewhere."""
    low, other = Space(world), Space(world)
    low.identity(CODE)
    other.map(CODE, DATA, CODE_FLAGS)
    low.install()
    world.code(msr("ttbr0_el1", 1), ONE, hvc(1))
    world.code(NOP, TWO, hvc(2), at=DATA)
    for asid in (0, 7):
        world.s.ttbr0_el1 = low.root
        world.cpu.changed()
        world.start(x1=other.root | asid << 48)
        world.finish()
        assert (world.s.x[0], world.s.esr_el2 & 0xFFFF) == (2, 2)


@pytest.mark.parametrize("arena", [1 << 26, 37_100, 3 * 37_100, 7 * 37_100])
def test_arena_is_used_again(engine: Engine, arena: int) -> None:
    """No room for another page of decoded instructions: all are dropped, and the run goes on."""
    world = World(engine, arena=arena)
    pages = 40
    for i in range(pages):
        here, there = DATA + 0x1000 * i, DATA + 0x1000 * ((i + 1) % pages)
        world.code(add(0, 0, 1), subs(1, 1, 1), cbnz(1, 2), hvc(0), *mov(2, there), br(2), at=here)
    for times in (1000, 7):
        world.start(pc=DATA, x0=0, x1=times)
        begin = world.s.count
        world.finish()
        assert (world.s.x[0], world.s.count - begin) == (times, times * 8 - 4)


def test_endless_loop_ends_at_the_limit(world: World) -> None:
    world.code(B_SELF)
    world.start()
    assert world.run(10_000_000) == Exit.LIMIT
    assert (world.s.count, world.s.pc) == (10_000_000, CODE)


def test_calls_link_to_the_next_instruction(world: World) -> None:
    """BL in the last word of a page, to the next page and back."""
    world.code(bl(1), hvc(0), at=CODE + 0xFFC)
    world.code(hvc(0), at=CODE + 0x1000)
    world.start(pc=CODE + 0xFFC)
    world.finish()
    assert world.s.x[LR] == CODE + 0x1000


def test_last_page_of_the_address_space(world: World) -> None:
    """Behind 2**64 comes 0."""
    low, upper = Space(world), Space(world, high=True)
    low.map(0, CODE, CODE_FLAGS)
    upper.map(0xFFFF_FFFF_FFFF_F000, DATA, CODE_FLAGS)
    low.install(upper)
    world.code(hvc(5))
    world.code(ONE, at=DATA + 0xFFC)
    world.start(pc=(1 << 64) - 4)
    world.finish()
    assert (world.s.pc, world.s.x[0]) == (4, 1)


@pytest.mark.parametrize("pstate", [EL1H, EL0])
def test_read_only_code(world: World, pstate: int) -> None:
    """A fault of the store leaves the code as it was decoded."""
    low = Space(world)
    low.map(CODE, CODE, AF | USER | RO)
    low.install()
    t = world.fault(strw(2, 1), pstate=pstate, x1=CODE, x2=TWO)
    assert t.fsc == 0x0F
    assert world.read(CODE, 4) == strw(2, 1).to_bytes(4, "little")
