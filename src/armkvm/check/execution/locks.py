"""Locks for kvm and host while they are checked: a thread that must wait is an actor that waits.

`controlled` puts them in the place of the module `threading` in every module of those packages,
and takes them out again. Outside an execution they are locks that nobody contends for.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from armkvm.check.execution.actors import Execution


class _Now:
    """The execution under way."""

    execution: Execution | None = None


def set_execution(execution: Execution | None) -> None:
    """Whose actors contend."""
    _Now.execution = execution


def get_ident() -> int:
    """threading.get_ident(): the actor's number; 0 outside."""
    execution = _Now.execution
    if execution is None or execution.current is None:
        return 0
    return execution.current.number


class RLock:
    """threading.RLock, and threading.Lock with `again` False."""

    __slots__ = ("count", "of", "owner")
    again = True

    def __init__(self) -> None:
        self.owner = -1
        self.count = 0
        self.of: Any = None  # the vCPU or VM that it belongs to (check/explorer/reduction.py)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, waiting if somebody else has it."""
        me = get_ident()
        if _Now.execution is not None:
            _Now.execution.touch(self.of)
        if self.count:
            if self.again and self.owner == me:
                self.count += 1
                return True
            if not blocking:
                return False
            execution = _Now.execution
            if execution is not None and not execution.over:
                execution.block(self._free, "waits for a lock")
        self.owner = me
        self.count = 1
        return True

    def _free(self) -> bool:
        return not self.count

    def release(self) -> None:
        """Give it back."""
        if _Now.execution is not None:
            _Now.execution.touch(self.of)
        if self.count:
            self.count -= 1

    def locked(self) -> bool:
        """Somebody has it."""
        return bool(self.count)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exc: object) -> None:
        self.release()


class Lock(RLock):
    """threading.Lock."""

    __slots__ = ()
    again = False


class Condition:
    """threading.Condition."""

    def __init__(self, lock: RLock | None = None) -> None:
        self._lock = lock or RLock()
        self._signals = 0

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a notification; a timeout passes when nobody else can go on."""
        execution = _Now.execution
        if execution is None or execution.over:
            return False
        count, self._lock.count = self._lock.count, 0
        before = self._signals
        execution.block(
            lambda: self._signals != before, "waits to be told", timed=timeout is not None
        )
        told = self._signals != before
        self._lock.acquire()
        self._lock.count = count
        return told

    def notify(self, n: int = 1) -> None:
        """Wake those who wait; more than asked for is allowed."""
        self._signals += 1

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._signals += 1


class Threading:
    """What a module sees as `threading`."""

    Lock = Lock
    RLock = RLock
    Condition = Condition
    get_ident = staticmethod(get_ident)


def belongs(to: object, *locks: object) -> None:
    """What kvm has made as its locks is of a vCPU or a VM: only threads that touch it contend."""
    for lock in locks:
        mutex = lock._lock if isinstance(lock, Condition) else lock
        assert isinstance(mutex, RLock)
        mutex.of = to


# These decide whose turn it is and what time is: the checker has its own.
_OWN = ("armkvm.host.turn", "armkvm.host.clock")


@contextmanager
def controlled() -> Iterator[None]:
    """kvm and host use these locks."""
    changed: list[tuple[object, str, object]] = []
    for name, module in list(sys.modules.items()):
        if name.startswith(("armkvm.kvm.", "armkvm.host.")) and name not in _OWN:
            for attribute, real, ours in (
                ("threading", threading, Threading),
                ("get_ident", threading.get_ident, get_ident),
            ):
                if getattr(module, attribute, None) is real:
                    changed.append((module, attribute, real))
                    setattr(module, attribute, ours)
    try:
        yield
    finally:
        for owner, attribute, value in changed:
            setattr(owner, attribute, value)
