"""Time, as one injected object. The only module that reads the host's clock.

Guest time is nanoseconds since the clock was made. It is a function of the number of instructions
that the engine has executed: ``ns = ns_base + ((count - ns_count) * ns_mult >> 16)``, and this
module is what sets those three words. Modes:

- `VirtualClock`: one instruction is one nanosecond, and a machine that idles jumps to its next
  event. A run is a function of its inputs.
- `PacedClock`: the same, but idle time is slept. A sleep cut short by an input ends at the time
  that
  really passed, so the host's clock enters as an input there, and nowhere else.
- `RealtimeClock`: guest time follows the host's monotonic clock. At each entry to the guest the
  rate `ns_mult` is estimated again from the speed last seen; time never goes backwards.

Each physical CPU carries the time of its last stop in `PhysicalCpu.ns`; between two stops only the
engine knows it. Left out: suspend, NTP, the several clocks of a real host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armkvm.host.pcpu import PhysicalCpu

ONE = 1 << 16  # ns_mult of one nanosecond an instruction
VIRTUAL_EPOCH_NS = 1_704_067_200 * 10**9  # 2024-01-01: what a guest's RTC says at virtual time 0
LONGEST_SLEEP_NS = 3600 * 10**9


def monotonic_ns() -> int:
    """The host's monotonic clock, for measuring how long something took."""
    return time.monotonic_ns()


def run_delay_ns(task: str = "thread-self") -> int:
    """How long a thread has been ready to run while others had its CPU (sched_info.run_delay).

    `task` is its directory in /proc, by default that of the thread that calls. 0 if it has none.
    """
    try:
        with open(f"/proc/{task}/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


class Clock:
    """What the modes have in common."""

    mode: str
    jumps = False  # idle time passes at once

    def __init__(self, epoch_ns: int) -> None:
        self.ns = 0  # the furthest time that any CPU has reached
        self.epoch_ns = epoch_ns
        # Called in a vCPU's thread when all of them sleep, with the time (ns) of the next event or
        # None if there is none. A VMM looks for input here and raises a line or kicks a vCPU:
        # then that one goes on.
        self.idle: Callable[[int | None], None] | None = None

    def host_ns(self) -> int:
        """The host's monotonic clock, for measuring how long something took."""
        return monotonic_ns()

    def now(self) -> int:
        """Guest time in ns at the last stop of any CPU."""
        return self.ns

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 for a real-time clock device."""
        return self.epoch_ns + self.now()

    def load(self, pcpu: PhysicalCpu) -> None:
        """A vCPU comes to a CPU that may have idled while others ran."""
        now = self.now()
        if now > pcpu.ns:
            pcpu.ns = now
            pcpu.stale = True

    def enter(self, pcpu: PhysicalCpu) -> None:
        """Before guest code runs: tell the engine the time."""
        if pcpu.stale:
            pcpu.rebase(ONE)

    def leave(self, pcpu: PhysicalCpu) -> None:
        """After guest code ran: take the time from the engine."""
        assert pcpu.state is not None
        pcpu.ns = ns = pcpu.base + pcpu.state.count - pcpu.count
        if ns > self.ns:
            self.ns = ns

    def advance(self, pcpu: PhysicalCpu, ns: int) -> None:
        """Time passes on one CPU without a guest instruction: the hypervisor works."""
        if ns > 0:
            pcpu.ns += ns
            pcpu.stale = True
            if pcpu.ns > self.ns:
                self.ns = pcpu.ns

    def work(self, ns: int) -> None:
        """The host works for a while with no vCPU loaded."""
        self.ns += ns

    def waited(self, run_delay: Callable[[], int]) -> int:
        """A thread's run_delay in ns, where guest time is the host's; counted time stops for it."""
        return 0

    def skip_to(self, ns: int) -> None:
        """Time was at `ns` when a guest that shall go on was saved: be there. It never goes back.

        No vCPU is loaded. The calendar does not move, unless it is counted like everything else.
        """
        self.ns = max(self.ns, ns)

    def sleep(self, cond: threading.Condition, deadline: int | None) -> int:
        """Wait for a notification or the deadline (ns). Returns the time afterwards.

        The caller holds `cond` and has seen that nothing woke it yet.
        """
        raise AssertionError("a mode of the clock defines sleep()")


class VirtualClock(Clock):
    """Counted time; idle costs nothing."""

    mode = "virtual"
    jumps = True

    def __init__(self, epoch_ns: int = VIRTUAL_EPOCH_NS) -> None:
        super().__init__(epoch_ns)

    def sleep(self, cond: threading.Condition, deadline: int | None) -> int:
        """Jump to the deadline. Without one only another thread ends it; time stands still."""
        if deadline is None:
            cond.wait()
            return self.ns
        return max(self.ns, deadline)


class PacedClock(Clock):
    """Counted time; idle is slept."""

    mode = "paced"

    def __init__(self, epoch_ns: int | None = None) -> None:
        super().__init__(time.time_ns() if epoch_ns is None else epoch_ns)

    def skip_to(self, ns: int) -> None:
        self.epoch_ns -= max(0, ns - self.ns)
        super().skip_to(ns)

    def sleep(self, cond: threading.Condition, deadline: int | None) -> int:
        begin = self.ns
        started = time.monotonic_ns()
        if deadline is None:
            cond.wait()
            return begin + time.monotonic_ns() - started
        if deadline <= begin:
            return begin
        timeout = min(deadline - begin, LONGEST_SLEEP_NS)
        if cond.wait(timeout / 1e9):
            return min(deadline, begin + time.monotonic_ns() - started)
        return begin + timeout


class RealtimeClock(Clock):
    """The host's monotonic clock."""

    mode = "realtime"

    # A slice shorter than this many instructions says more about the cost of an exit than about
    # speed.
    SHORTEST_SAMPLE = 100_000

    def __init__(self, epoch_ns: int | None = None) -> None:
        super().__init__(time.time_ns() if epoch_ns is None else epoch_ns)
        self._origin = time.monotonic_ns()
        self._rate = float(ONE)  # ns per instruction, times ONE
        self._entered: dict[int, int] = {}  # by physical CPU: host time at entry

    def now(self) -> int:
        return max(self.ns, time.monotonic_ns() - self._origin)

    def skip_to(self, ns: int) -> None:
        skipped = max(0, ns - self.now())
        self.epoch_ns -= skipped
        self._origin -= skipped

    def enter(self, pcpu: PhysicalCpu) -> None:
        host = time.monotonic_ns() - self._origin
        self._entered[pcpu.number] = host
        mult = self._rate
        ahead = pcpu.ns - host
        if ahead > 0:
            # Guest time must not go back: let it run slower until the host has caught up, at half
            # speed or less within one tick.
            mult *= max(0.1, 1 - ahead / pcpu.tick_period)
        else:
            pcpu.ns = host
        pcpu.rebase(max(1, int(mult)))

    def leave(self, pcpu: PhysicalCpu) -> None:
        host = time.monotonic_ns() - self._origin
        assert pcpu.state is not None
        done = pcpu.state.count - pcpu.count
        ns = pcpu.base + (done * pcpu.mult >> 16)
        if done >= self.SHORTEST_SAMPLE:
            speed = (host - self._entered[pcpu.number]) * ONE / done
            self._rate += (speed - self._rate) / 4
        pcpu.ns = max(ns, host)
        pcpu.stale = True
        if pcpu.ns > self.ns:
            self.ns = pcpu.ns

    def advance(self, pcpu: PhysicalCpu, ns: int) -> None:
        """Here idling and working take the time they take."""
        pcpu.ns = max(pcpu.ns, self.now())

    def work(self, ns: int) -> None:
        """It takes the time it takes."""

    def waited(self, run_delay: Callable[[], int]) -> int:
        return run_delay()

    def sleep(self, cond: threading.Condition, deadline: int | None) -> int:
        if deadline is None:
            cond.wait()
        else:
            left = deadline - self.now()
            if left > 0:
                cond.wait(min(left, LONGEST_SLEEP_NS) / 1e9)
        return self.now()


MODES: dict[str, type[VirtualClock] | type[PacedClock] | type[RealtimeClock]] = {
    "virtual": VirtualClock,
    "paced": PacedClock,
    "realtime": RealtimeClock,
}


def make_clock(mode: str) -> Clock:
    """The clock of a mode by name: virtual, paced or realtime."""
    return MODES[mode]()
