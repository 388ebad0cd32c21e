"""How SIGINT, SIGTERM and SIGHUP end this process: once is enough, and twice is at once.

The first one raises KeyboardInterrupt or SystemExit(128 + number) in the main thread. While the
signals are held it only tells whoever holds them, who leaves at a point of his own choosing; the
exception comes when they are released. So nothing is raised in the midst of what must not be cut
in two, and nothing is lost where an exception would be swallowed.

The second one ends the process with 128 + number, by a thread of its own: the main thread may be in
native code, or wait for something that does not come. What must be put back is put back first (the
terminal). A signal that is ignored, as nohup ignores SIGHUP, stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Those of this process; there is one, `SIGNALS`."""

    def __init__(self) -> None:
        self.asked = 0  # the first one that came
        self.last_words: list[Callable[[], None]] = []  # before the process ends at once
        self._depth = 0
        self._holder: Callable[[int], None] | None = None
        self._old: dict[int, Any] = {}
        self._old_wakeup = -1
        self._pipe = (-1, -1)
        self._thread: threading.Thread | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """They are handled in here; may be nested. Elsewhere than in the main thread: nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        try:
            self._depth += 1
            if self._depth == 1:
                self._install()
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._remove()

    def hold(self, tell: Callable[[int], None]) -> None:
        """From now on `tell` is called with each signal's number, in another thread, also with
        those that are not ours. Raises what has come already."""
        self._holder = tell
        self.deliver()

    def release(self) -> None:
        """No longer; `deliver` raises what came meanwhile."""
        self._holder = None

    def deliver(self) -> None:
        """Raise what has come."""
        if self.asked:
            raise _error(self.asked)

    def _install(self) -> None:
        self.asked = 0
        self._pipe = os.pipe()
        for fd in self._pipe:
            os.set_blocking(fd, fd == self._pipe[0])
        self._old_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._came)
        self._thread = threading.Thread(target=self._listen, name="armkvm-signals", daemon=True)
        self._thread.start()

    def _remove(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()
        signal.set_wakeup_fd(self._old_wakeup)
        self._old_wakeup = -1
        if self._thread is not None:
            os.write(self._pipe[1], b"\0")
            with suppress(RuntimeError):  # it could not be started
                self._thread.join()
            self._thread = None
        for fd in self._pipe:
            os.close(fd)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = number
            if self._holder is None:
                raise _error(number)

    def _listen(self) -> None:
        """The thread: the numbers of signals come through the pipe, 0 is the end."""
        count = 0
        while True:
            for number in os.read(self._pipe[0], 512):
                if number == 0:
                    return
                if number in self._old:
                    count += 1
                if count > 1:
                    self._end(number)
                holder = self._holder
                if holder is not None:
                    holder(number)

    def _end(self, number: int) -> None:
        for act in reversed(self.last_words):
            with suppress(Exception):
                act()
        os._exit(128 + number)


def _error(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


SIGNALS = Signals()
