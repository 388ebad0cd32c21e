"""The host's random numbers, as KVM passes them on to guests that ask for entropy.

The only place where randomness of the machine below comes to a guest through KVM, and only where
nobody has given a seed. With one, a number is a function of the seed and of the moment at which it
is asked for: nothing is kept, so a saved guest that goes on gets the numbers that it would have
got. Left out: a pool, and any claim about the quality of seeded numbers.
"""

from __future__ import annotations

import hashlib
import os


class Random:
    """get_random_bytes() of one host."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed  # None: they are the machine's own

    def draw(self, size: int, *moment: int) -> bytes:
        """`size` bytes. A moment is asked once: guest time in ns, and which vCPU it is."""
        if self.seed is None:
            return os.urandom(size)
        name = " ".join(map(str, ("armkvm entropy", self.seed, *moment)))
        return hashlib.shake_256(name.encode()).digest(size)
