"""Random guests, many seeds: the program that test_fuzz.py runs in a process of its own.

All memory, the guest's and the engine's, lies between pages that cannot be touched, and the
read-only segment is read-only for the host too: a guest that gets anywhere else ends the process.
"""

from __future__ import annotations

import sys

from tests.engine.random_guest import RandomGuest, fenced

from armkvm.engine import hostmem
from armkvm.engine.cpu import Engine

ROUND = 5_000  # instructions between two shakes
ROUNDS = 40  # of one guest


def main(first_seed: int, instructions: int) -> None:
    """Run guests until so many instructions have retired; prints what was run."""
    hostmem.anonymous = fenced
    engine = Engine.load()
    retired, seed = 0, first_seed
    while retired < instructions:
        guest = RandomGuest(engine, seed, cpus=1 + seed % 2)
        for i in range(ROUNDS):
            cpu = guest.cpus[i % len(guest.cpus)]
            if i >= len(guest.cpus):
                guest.shake(cpu)
            if i % 16 == 7:
                guest.remap()
            guest.run(cpu, guest.rng.randrange(1, 2 * ROUND))
            guest.check()
        retired += sum(cpu.state.count for cpu in guest.cpus)
        seed += 1
    print(f"{retired} instructions, {seed - first_seed} guests")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
