"""Comparisons fused with the branch behind them do what the two instructions do one by one."""

from __future__ import annotations

import ctypes
import random

import pytest
from tests.engine.a64 import hvc
from tests.engine.world import CODE, World

from armkvm.engine import layout
from armkvm.engine.interp.fusion import CONDITIONS, compares, fused
from armkvm.isa.all import forms

CORNERS = (0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 63, (1 << 63) - 1, (1 << 64) - 1)
# The comparisons that fuse, as words with Rn = X1 and, where there is one, Rm = X2.
COMPARISONS = {
    "cmp x1, x2": 0xEB02003F,
    "cmp w1, w2": 0x6B02003F,
    "cmp x1, #1": 0xF100043F,
    "cmp w1, #1": 0x7100043F,
    "subs x3, x1, x2": 0xEB020023,
    "tst x1, #1": 0xF240003F,
    "tst x1, #0x100000001": 0xF200003F,
    "tst w1, #0x80000000": 0x7201003F,
    "ands x3, x1, #0xff": 0xF2401C23,
}


def _b_cond(cond: int, words: int) -> int:
    return 0x54000000 | (words & 0x7FFFF) << 5 | cond


def _result(world: World, budget: int | None) -> tuple[object, ...]:
    """Run to the HVC: in one go, or `budget` instructions at a time (stepping never fuses)."""
    s = world.s
    end = s.count + 1000
    while True:
        s.limit = min(end, s.count + budget) if budget else end
        if world.cpu.run() == 2 or s.count >= end:
            return (*s.x[:6], world.cpu.pstate, s.pc, s.esr_el2 >> 26)


@pytest.mark.parametrize("text", COMPARISONS)
def test_agrees_with_stepping(world: World, text: str) -> None:
    """Forward and backward branches, all conditions, operands at the corners."""
    choose = random.Random(text)
    s = world.s
    for cond in range(CONDITIONS):
        # 0: b 4;  1: add x4,x4,#1;  2: hvc;  3: nop;  4: compare;  5: b.cond back to 1;
        # 6: compare;  7: b.cond over 8;  8: add x5,x5,#1;  9: hvc
        compare = COMPARISONS[text]
        words = [0x14000004, 0x91000484, hvc(0), 0xD503201F, compare, _b_cond(cond, -4),
                 compare, _b_cond(cond ^ 1, 2), 0x910004A5, hvc(1)]  # fmt: skip
        world.code(*words)
        for _ in range(12):
            x1, x2 = choose.choice(CORNERS), choose.choice(CORNERS)
            got = []
            for budget in (None, 1):
                s.x[:6] = [0, x1, x2, 0, 0, 0]
                s.pc = CODE
                got.append(_result(world, budget))
            assert got[0] == got[1], f"{text}; cond {cond}; {x1:#x}, {x2:#x}"


def test_what_fuses() -> None:
    """SUBS and ANDS of an immediate, SUBS of a plain register, 32 and 64 bits: picked by name, so a
    description that is renamed would stop to fuse without a word."""
    fusing = [form for form in forms() if compares(form)]
    assert len(fusing) == 7
    for word in COMPARISONS.values():
        assert sum(form.matches(word) for form in fusing) == 1
    assert all(any(form.matches(word) for word in COMPARISONS.values()) for form in fusing)


def _handler(world: World, page: int, index: int) -> int:
    """The handler in a record."""
    return int.from_bytes(ctypes.string_at(page + index * layout.RECORD, 8), "little")


@pytest.mark.parametrize("text", COMPARISONS)
def test_each_pair_fuses(world: World, text: str) -> None:
    """The comparison's record has a handler of its own for each condition and direction, once a
    branch is decoded behind it."""
    s, word = world.s, COMPARISONS[text]
    [form] = [form for form in forms() if compares(form) and form.matches(word)]
    wanted = {(pair.cond, pair.back) for pair in fused(form, "h")}
    seen = {}
    for cond in range(CONDITIONS):
        for back in (False, True):
            # 0: the comparison alone;  1: b 3;  2: hvc;  3: compare;  4: b.cond to 2, or over 5;
            # 5: hvc
            branch = _b_cond(cond, -2 if back else 2)
            world.code(word, 0x14000002, hvc(0), word, branch, hvc(1), hvc(2))
            s.pc = CODE
            world.cpu.run()
            page = s.exit_op - s.pc // 4 % 1024 * layout.RECORD
            plain, both = _handler(world, page, 0), _handler(world, page, 3)
            assert (both != plain) == ((cond, back) in wanted), (cond, back)
            seen[both] = cond, back
    assert len(seen) == len(wanted) + (len(wanted) < 2 * CONDITIONS)


def test_the_branch_alone_still_works(world: World) -> None:
    """Who jumps to the branch itself finds a record of its own."""
    s = world.s
    # 0: b 2;  1: cmp x1, x1;  2: b.eq 4;  3: hvc 1;  4: hvc 2
    world.code(0x14000002, 0xEB01003F, _b_cond(0, 2), hvc(1), hvc(2))
    for flags, said in ((0, 1), (1 << 30, 2)):
        s.pc = CODE + 4  # first decode the pair
        world.cpu.run()
        s.pc = CODE
        world.cpu.pstate = 0x3C5 | flags
        world.cpu.run()
        assert s.esr_el2 & 0xFFFF == said


def test_a_new_branch_behind_an_old_comparison(world: World) -> None:
    """Writing over the branch takes the pair apart again."""
    s = world.s
    s.x[1] = 5
    for word, said in ((_b_cond(0, 2), 2), (0xD503201F, 1), (_b_cond(1, 2), 1)):
        world.code(0xEB01003F, word, hvc(1), hvc(2))
        s.pc = CODE
        world.cpu.run()
        assert s.esr_el2 & 0xFFFF == said
