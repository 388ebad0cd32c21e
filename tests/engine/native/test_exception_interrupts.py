"""Virtual interrupts: when they are taken, and what the hypervisor makes a guest take."""

from __future__ import annotations

import itertools

import pytest
from tests.engine.a64 import ERET, NOP, daifclr, hvc, mrs, msr
from tests.engine.world import CODE, EL0, EL1H, EL1T, VECTORS, World

from armkvm.engine.cpu import Exit

MODES = pytest.mark.parametrize("pstate", [EL0, EL1T, EL1H], ids=["el0", "el1t", "el1h"])
FLAGS = 0xA << 28  # N and C: they are saved like the rest
LINES = [("hcr_vi", 0x80, 0x80), ("hcr_vf", 0x40, 0x100), ("hcr_vse", 0x100, 0x180)]
IDS = ["irq", "fiq", "serror"]
SERROR = 0x2F << 26 | 1 << 25


@MODES
@pytest.mark.parametrize(("line", "mask", "vector"), LINES, ids=IDS)
def test_at_entry(world: World, pstate: int, line: str, mask: int, vector: int) -> None:
    world.code(NOP, NOP)
    setattr(world.s, line, 1)
    world.start(pstate=pstate)
    assert world.run() == Exit.LIMIT
    assert world.s.pc == CODE + 4  # masked
    world.start(pstate=pstate & ~mask)
    assert world.run() == Exit.LIMIT
    t = world.taken()
    assert t is not None
    assert t.offset == vector + {EL0: 0x400, EL1T: 0, EL1H: 0x200}[pstate]
    assert (t.elr, t.spsr, t.esr) == (
        CODE,
        pstate & ~mask,
        SERROR if line == "hcr_vse" else 0,
    )
    assert world.cpu.pstate == EL1H


@pytest.mark.parametrize(("line", "mask", "vector"), LINES, ids=IDS)
@pytest.mark.parametrize("how", ["daifclr", "msr daif", "eret"])
@pytest.mark.parametrize("free", [False, True])
def test_at_unmasking(
    world: World, line: str, mask: int, vector: int, how: str, free: bool
) -> None:
    """Taken between the instruction that unmasks and the next one, without leaving guest code."""
    word = {"daifclr": daifclr(mask >> 6), "msr daif": msr("daif", 1), "eret": ERET}[how]
    world.code(NOP, word, NOP, hvc(1))
    world.code(hvc(2), at=VECTORS + 0x200 + vector)
    setattr(world.s, line, 1)
    world.start(x1=0x3C0 & ~mask)
    world.s.elr_el1, world.s.spsr_el1 = CODE + 8, EL1H & ~mask
    if free:
        world.finish()
        assert world.s.esr_el2 & 0xFFFF == 2
    else:
        world.run(1)
        assert world.s.pc == CODE + 4
        world.run(1)
        assert world.s.pc == VECTORS + 0x200 + vector
    assert (world.s.elr_el1, world.s.spsr_el1) == (CODE + 8, EL1H & ~mask)


def test_fiq_comes_first(world: World) -> None:
    world.code(NOP)
    world.s.hcr_vi = world.s.hcr_vf = 1
    world.start(pstate=5)
    world.run()
    assert world.s.pc == VECTORS + 0x300


def test_isr(world: World) -> None:
    for vi, vf, vse in itertools.product((0, 1), repeat=3):
        world.s.hcr_vi, world.s.hcr_vf, world.s.hcr_vse = vi, vf, vse
        world.execute(mrs(0, "isr_el1"))
        assert world.s.x[0] == vse << 8 | vi << 7 | vf << 6


def test_an_serror_is_taken_once_with_its_syndrome(world: World) -> None:
    world.code(NOP, hvc(1))
    world.code(daifclr(4), hvc(2), at=VECTORS + 0x380)
    s = world.s
    s.hcr_vse, s.vsesr_el2 = 1, 0x123_4567
    s.hcr_vi = 1  # which is masked when it could be taken
    world.start(pstate=5)
    s.far_el1 = 0x1234
    world.finish()
    assert (s.esr_el2 & 0xFFFF, s.hcr_vse) == (2, 0)
    assert (s.esr_el1, s.far_el1) == (SERROR | 0x123_4567, 0x1234)
    assert (s.elr_el1, s.spsr_el1) == (CODE, 5)


@pytest.mark.parametrize(
    ("kind", "offset"), [("sync", 0), ("irq", 0x80), ("fiq", 0x100), ("serror", 0x180)]
)
@MODES
def test_injection(world: World, pstate: int, kind: str, offset: int) -> None:
    """What the hypervisor makes a guest take."""
    world.start(pc=CODE + 0x20, pstate=pstate | FLAGS)
    world.cpu.take_exception(0x25 << 26 | 0x210, 0x1234, kind=kind)
    s = world.s
    assert s.pc == VECTORS + offset + {EL0: 0x400, EL1T: 0, EL1H: 0x200}[pstate]
    assert (s.elr_el1, s.spsr_el1, world.cpu.pstate & 0x3FF) == (CODE + 0x20, pstate | FLAGS, EL1H)
    has_syndrome = kind in ("sync", "serror")
    assert (s.esr_el1, s.far_el1) == ((0x25 << 26 | 0x210, 0x1234) if has_syndrome else (0, 0))
