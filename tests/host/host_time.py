"""A host whose time a test moves: what sleeps on it takes that long, and no longer."""

from __future__ import annotations

import threading

import pytest


class HostTime(threading.Condition):
    """The host's clock, and a condition on which sleeping is that clock moving."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.ns = 5_000_000_000
        self.slept: list[float | None] = []  # seconds, as asked for
        self.woken_after: int | None = None  # ns after which somebody notifies
        monkeypatch.setattr("armkvm.host.clock.time", self)

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return self.ns

    def time_ns(self) -> int:
        """CLOCK_REALTIME."""
        return 10**18 + self.ns

    def wait(self, timeout: float | None = None) -> bool:
        """Until the time is over, or somebody notifies."""
        self.slept.append(timeout)
        woken, self.woken_after = self.woken_after, None
        if woken is not None:
            self.ns += woken
            return True
        assert timeout is not None, "nobody would end this sleep"
        self.ns += round(timeout * 1e9)
        return False
