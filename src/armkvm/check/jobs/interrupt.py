"""Ctrl-C as a result that one waits for like others, so that it cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback of a weak
reference, a finaliser or the lock of an import it is printed and forgotten; just before the thread
goes to sleep on a lock, it waits until something else wakes it. Here nothing is raised: whichever
thread the kernel chose, Python writes the signal's number to a descriptor at once, and a thread of
its own reads it there.

Left out: other threads than the main one, and processes where Ctrl-C is ignored or somebody else's:
they keep what they have.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker

_current: Future[None] | None = None  # of this process, while somebody waits for it


@contextmanager
def awaited() -> Iterator[Future[None]]:
    """A future that is done when Ctrl-C was pressed; at the end that raises KeyboardInterrupt.

    Inside another one it is that one.
    """
    global _current
    interrupt: Future[None] = Future()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
    elif _current is not None:
        yield _current
        check(_current)
    elif signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
    else:
        with ExitStack() as stack:
            _listen(interrupt, stack)
            _current = interrupt
            try:
                yield interrupt
            finally:
                _current = None
        check(interrupt)


def _listen(interrupt: Future[None], stack: ExitStack) -> None:
    """Until the stack is unwound: first the handler, then the descriptor, then the thread."""
    reading, writing = (stack.enter_context(end) for end in socket.socketpair())
    writing.setblocking(False)

    def listen() -> None:
        while number := reading.recv(1):
            if number[0] == signal.SIGINT and not interrupt.done():
                interrupt.set_result(None)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(writing.shutdown, socket.SHUT_WR)
    stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing.fileno()))
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    stack.callback(signal.signal, signal.SIGINT, before)


def check(interrupt: Future[None]) -> None:
    """Raise KeyboardInterrupt if it has come."""
    if interrupt.done():
        raise KeyboardInterrupt


@contextmanager
def blocked() -> Iterator[None]:
    """Processes that are started inside never see Ctrl-C, not even while they start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting later, it would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
