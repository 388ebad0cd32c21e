"""A host that is so slow that its clock overtakes every deadline that was made before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest


class SlowHost:
    """A host whose monotonic clock is a tenth of a millisecond further at each look.

    Who has looked 10,000 times is kicked: a guest that never gets on would look for ever.
    """

    LOOKS, STEP_NS = 10_000, 100_000

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kick: Callable[[], None] | None = None
        self.looks = 0
        time = SimpleNamespace(monotonic_ns=self.monotonic_ns, time_ns=lambda: 0)
        monkeypatch.setattr("armkvm.host.clock.time", time)

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        self.looks += 1
        if self.looks == self.LOOKS and self.kick is not None:
            self.kick()
        return self.looks * self.STEP_NS
