"""A stack of its own that runs until it hands over to another: greenlets, or threads without them.

A greenlet switches in less than a microsecond. Where the package is missing, a thread that waits
for its lock does the same, ten times slower. Left out: parallelism; one strand runs at any moment.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

_greenlets: Any
try:
    _greenlets = importlib.import_module("greenlet")
except ImportError:
    _greenlets = None

Body = Callable[[], None]


class GreenletStrand:
    """A strand by the greenlet package."""

    def __init__(self, body: Body | None, parent: GreenletStrand | None = None) -> None:
        if body is None:
            self._greenlet = _greenlets.getcurrent()
        else:
            assert parent is not None
            self._greenlet = _greenlets.greenlet(body, parent._greenlet)

    def switch(self, to: GreenletStrand) -> None:
        """Hand over; returns when somebody hands back. When a body ends, its parent goes on."""
        to._greenlet.switch()


class ThreadStrand:
    """A strand by a thread."""

    def __init__(self, body: Body | None, parent: ThreadStrand | None = None) -> None:
        self._go = threading.Semaphore(0)
        self._body = body
        self._parent = parent
        self._thread: threading.Thread | None = None

    def switch(self, to: ThreadStrand) -> None:
        """Hand over; returns when somebody hands back. When a body ends, its parent goes on."""
        to._resume()
        self._go.acquire()

    def _resume(self) -> None:
        if self._body is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._go.release()

    def _run(self) -> None:
        assert self._body is not None
        assert self._parent is not None
        self._body()
        self._parent._resume()


Strand = GreenletStrand | ThreadStrand
KIND: type[GreenletStrand] | type[ThreadStrand] = (
    ThreadStrand if _greenlets is None else GreenletStrand
)


def hand_over(this: Strand, to: Strand) -> None:
    """`this` stops here and `to` goes on."""
    this.switch(to)  # type: ignore[arg-type]
