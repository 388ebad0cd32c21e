"""System instructions on a CPU with memory."""

from __future__ import annotations

from tests.engine.world import CODE, EL1H, World

from armkvm.engine.cpu import Exit

UNDEFINED = 1 << 25  # ESR_EL1 of an instruction that is not there


def run(world: World, *words: int, pstate: int = EL1H, **x: int) -> None:
    """Run words that must not leave or take an exception."""
    world.code(*words)
    world.start(pstate=pstate, **x)
    assert world.run(len(words)) == Exit.LIMIT
    assert world.s.pc == CODE + 4 * len(words)
