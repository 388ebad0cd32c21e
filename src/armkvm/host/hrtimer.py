"""High-resolution timers of the host, after kernel/time/hrtimer.c as far as KVM uses it.

Each physical CPU has a base that holds the timers started on it. The earliest expiry is what its
hypervisor timer is programmed with, so a guest that runs is left exactly then. Times are absolute
guest nanoseconds. Left out: slack, soft-interrupt expiry, several clocks.
"""

from __future__ import annotations

import threading
from bisect import insort_right
from collections.abc import Callable
from operator import attrgetter

from armkvm.arch.timer import NEVER

_expires = attrgetter("expires")


class Hrtimer:
    """One timer. `function(now)` runs at expiry and returns the next expiry (restart) or None."""

    __slots__ = ("_base", "expires", "function")

    def __init__(self, function: Callable[[int], int | None]) -> None:
        self.function = function
        self.expires = NEVER
        self._base: HrtimerBase | None = None

    @property
    def queued(self) -> bool:
        """Waiting to expire."""
        return self._base is not None

    def start(self, base: HrtimerBase, expires: int) -> None:
        """Arm for an absolute time, on `base`; armed already, it moves."""
        if self._base is not None:
            self.cancel()
        with base.lock:
            self.expires = expires
            self._base = base
            insort_right(base.timers, self, key=_expires)
            base.next_ns = base.timers[0].expires

    def cancel(self) -> None:
        """Disarm; harmless when it is not armed."""
        base = self._base
        if base is None:
            return
        with base.lock:
            if self._base is base:
                self._base = None
                base.remove(self)


class UserTimer:
    """A timer that user space asks for, as timerfd_create() gives one: one-shot, absolute."""

    def __init__(self, base: HrtimerBase, expired: Callable[[], None]) -> None:
        self._base = base
        self._expired = expired
        self._hrtimer = Hrtimer(self._expire)

    def set(self, ns: int | None) -> None:
        """Arm for a guest time in ns, which may have passed; None disarms."""
        if ns is None:
            self._hrtimer.cancel()
        else:
            self._hrtimer.start(self._base, ns)

    def _expire(self, _now: int) -> None:
        self._expired()


class HrtimerBase:
    """The timers of one physical CPU, earliest first. `next_ns` is the first one's expiry."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.timers: list[Hrtimer] = []
        self.next_ns = NEVER

    def remove(self, timer: Hrtimer) -> None:
        """Take a timer off the queue; the caller holds the lock."""
        self.timers.remove(timer)
        self.next_ns = self.timers[0].expires if self.timers else NEVER

    def run(self, now: int) -> int:
        """Expire what is due, earliest first; equal times in the order of starting.

        Returns how many.
        """
        expired = 0
        while self.next_ns <= now:
            with self.lock:
                if self.next_ns > now:
                    break  # somebody has cancelled it meanwhile
                timer = self.timers[0]
                timer._base = None
                self.remove(timer)
            expired += 1
            # Without the lock: the callback wakes vCPUs and starts timers.
            again = timer.function(now)
            if again is not None and not timer.queued:
                timer.start(self, again)
        return expired
