"""Standard descriptors: none is closed, and writing to one does not wait for who is not there.

A descriptor 0, 1 or 2 that is closed at the start would be the number of the next file that is
opened, and that file would get the guest's output: /dev/null takes its place.

`Output` writes without blocking, and where there is no room waits in poll(), which can be ended.
The descriptor's own flags are left alone: they belong to everybody who shares it. Pipes and
terminals are opened once more (/proc/self/fd), sockets have MSG_DONTWAIT. Where neither works it
writes as much as poll() promises room for.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
from contextlib import suppress

GRACE_MS = 1000  # for the rest of the output, when the process is to end
CHUNK = select.PIPE_BUF  # poll() promises so much room in a pipe


def secure() -> None:
    """No closed standard descriptors from here on; the first thing that a process does."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, fd)  # does nothing but make it inheritable if it is that number
            if opened != fd:
                os.close(opened)
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def finish() -> None:
    """Flush; what cannot be written is gone, and is not to be tried again at exit."""
    for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def has_room(fd: int, wait_ms: int = GRACE_MS) -> bool:
    """Whether a line can be written without waiting longer than that."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(wait_ms))


class Output:
    """Bytes to a descriptor. `give_up`, from any thread, ends the waiting for good."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.given_up = False
        self._deaf = False  # nobody read for as long as GRACE_MS since
        self._socket: socket.socket | None = None
        self._own = -1  # the descriptor, opened once more
        self._direct = False
        self._opened = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def give_up(self) -> None:
        """Whoever waits in `write` goes on, and drops what is not taken soon."""
        self.given_up = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def write(self, data: bytearray) -> None:
        """All of it, which is then empty; less only after `give_up`. OSError."""
        if not self._opened:
            self._open()
        while data:
            try:
                done = self._some(data)
            except BlockingIOError:
                if not self._room():
                    data.clear()
                    return
            except OSError:
                data.clear()  # do not try again while leaving
                raise
            else:
                del data[:done]

    def close(self) -> None:
        """Give back what was opened. May be called twice."""
        if self._own >= 0:
            os.close(self._own)
        if self._socket is not None:
            self._socket.close()
        self._own, self._socket, self._opened = -1, None, False
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    def _open(self) -> None:
        self._opened = True
        try:
            mode = os.fstat(self.fd).st_mode
        except OSError:
            self._direct = True  # and write() says what is wrong
            return
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(self.fd))
        elif stat.S_ISFIFO(mode) or os.isatty(self.fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with suppress(OSError):
                self._own = os.open(f"/proc/self/fd/{self.fd}", flags)
        else:
            self._direct = True

    def _some(self, data: bytearray) -> int:
        if self._own >= 0:
            return os.write(self._own, data)
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if not self._direct:
            if not has_room(self.fd, 0):
                raise BlockingIOError
            return os.write(self.fd, data[:CHUNK])
        return os.write(self.fd, data)

    def _room(self) -> bool:
        """Wait for some; false if there will be none."""
        if self._deaf:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not self.given_up:
            poll.register(self._wake, select.POLLIN)
        ready = poll.poll(GRACE_MS if self.given_up else None)
        self._deaf = not ready
        return bool(ready)
