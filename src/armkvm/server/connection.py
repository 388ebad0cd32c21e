"""One thread of a client: the calls that it makes, one after the other.

A connection is the context of the ioctl that it is in: KVM reads the client's memory, shares it and
gives it descriptors through packets on this socket. Whatever a client says wrongly ends its
connection or gets an errno; nothing else.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from armkvm.abi.ioctl import IOC_READ, KVM_RUN, ioc_dir, ioc_size
from armkvm.host.clock import run_delay_ns
from armkvm.kvm.binary_stats import StatsFile
from armkvm.kvm.file import File, Writable, fail
from armkvm.kvm.system import System
from armkvm.kvm.vcpu import Vcpu
from armkvm.server.memory import Pages, map_file
from armkvm.server.registry import Opened, Registry
from armkvm.server.wire import (
    ANSWER,
    CHUNK,
    LONGEST,
    PIECE,
    PIECES,
    REQUEST,
    Ask,
    Request,
    Want,
)

_CREDENTIALS = struct.Struct("3i")  # struct ucred


class Hangup(OSError):
    """The client has gone, or does not speak our language.

    For KVM, in the middle of an ioctl, a failure like any other that a client's process may cause.
    """


class Stats:
    """What clients have asked for."""

    def __init__(self) -> None:
        self.runs = 0
        self.ioctls: dict[int, int] = {}  # by number, without KVM_RUN


class Connection:
    """One connection. `loop` serves it to its end."""

    def __init__(
        self, sock: socket.socket, system: System, registry: Registry, stats: Stats
    ) -> None:
        self._sock, self._system, self._registry, self._stats = sock, system, registry, stats
        self._pid = peer(sock)[0]
        self._seq = self._tid = 0
        self._buffer = bytearray(LONGEST)
        self._pages: Pages | None = None  # of a vCPU that is being made
        self._taken: list[int] = []  # descriptors of the client's, for this ioctl

    def loop(self) -> None:
        """Serve until the client hangs up."""
        try:
            while True:
                request, data = self._receive()
                self._seq, self._tid = request.seq, request.tid
                if request.op == Ask.IOCTL:
                    self._ioctl(request, data)
                elif request.op == Ask.CANCEL:
                    opened = self._opened(request.dev, request.ino)
                    if isinstance(opened, Opened) and opened.runs is not None:
                        opened.runs.cancel(request.seq)
                elif request.op == Ask.OPEN:
                    self._done(self._open())
                else:
                    raise Hangup
        except OSError:
            pass  # its process lives on or not: what it has open stays until it is closed
        finally:
            self._sock.close()

    # -- calls ------------------------------------------------------------------------------
    def _open(self) -> int:
        return self._guarded(lambda: self._give(self._registry.enter(self._system, 0)))

    def _opened(self, dev: int, ino: int) -> Opened | int:
        """What a descriptor of the client stands for, or a negative errno."""
        opened = self._registry.find((dev, ino))
        if opened is None:
            return -errno.ENOTTY
        if opened.pid not in (0, self._pid):
            return -errno.EIO  # another process has made it: kvm->mm != current->mm
        return opened

    def _ioctl(self, request: Request, data: bytes) -> None:
        opened = self._opened(request.dev, request.ino)
        if not isinstance(opened, Opened):
            self._done(opened)
        elif request.cmd == KVM_RUN and opened.runs is not None and not request.arg:
            self._stats.runs += 1
            runs = opened.runs
            self._done(self._guarded(lambda: runs.run(request.seq, self)))
        else:
            self._stats.ioctls[request.cmd] = self._stats.ioctls.get(request.cmd, 0) + 1
            self._call(opened.file, request, data)

    def _call(self, file: File, request: Request, data: bytes) -> None:
        size, way = ioc_size(request.cmd), ioc_dir(request.cmd)
        if len(data) != (size if way else 0):
            raise Hangup
        buffer = bytearray(data)
        try:
            ret = self._guarded(
                lambda: file.ioctl(request.cmd, request.arg, buffer if data else None, self)
            )
        finally:
            for fd in self._taken:
                os.close(fd)
            self._taken.clear()
            if self._pages is not None:  # KVM has made no vCPU of them
                self._pages.close()
                self._pages = None
        self._done(ret, bytes(buffer) if way & IOC_READ else b"")

    def _guarded(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except Hangup:
            raise
        except OSError as error:
            return -(error.errno or errno.EIO)
        except Exception:  # a defect of ours must not be felt by anybody else
            traceback.print_exc(file=sys.stderr)
            return -errno.EIO

    # -- packets ----------------------------------------------------------------------------
    def _receive(self) -> tuple[Request, bytes]:
        size = self._sock.recv_into(self._buffer)
        if size < REQUEST.size:
            raise Hangup
        head = Request._make(REQUEST.unpack_from(self._buffer))
        return head, bytes(self._buffer[REQUEST.size : size])

    def _reply(self) -> tuple[Request, bytes]:
        head, data = self._receive()
        if head.op != Ask.REPLY or head.seq != self._seq:
            raise Hangup
        return head, data

    def _reply_with(self, limit: int) -> tuple[Request, bytes, list[int]]:
        """A reply, with the descriptors that came with it."""
        packet, ancillary, _, _ = self._sock.recvmsg(
            LONGEST, socket.CMSG_SPACE(limit * 4), socket.MSG_CMSG_CLOEXEC
        )
        numbers = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(content[: len(content) & ~3])
        fds = list(numbers)
        try:
            if len(packet) < REQUEST.size:
                raise Hangup
            head = Request._make(REQUEST.unpack_from(packet))
            if head.op != Ask.REPLY or head.seq != self._seq:
                raise Hangup
        except Hangup:
            for fd in fds:
                os.close(fd)
            raise
        return head, packet[REQUEST.size :], fds

    def _want(self, op: Want, ret: int = 0, address: int = 0, size: int = 0) -> None:
        self._sock.sendall(ANSWER.pack(op, self._seq, ret, address, size))

    def _done(self, ret: int, data: bytes = b"") -> None:
        self._sock.sendall(ANSWER.pack(Want.DONE, self._seq, ret, 0, 0) + data)

    def _give(self, fd: int) -> int:
        """Send a descriptor, which is closed here; its number there."""
        try:
            socket.send_fds(self._sock, [ANSWER.pack(Want.INSTALL, self._seq, 0, 0, 0)], [fd])
        finally:
            os.close(fd)
        head, _ = self._reply()
        if head.arg >> 31:
            fail(errno.EMFILE)
        return head.arg

    # -- kvm.file.Context -------------------------------------------------------------------
    def read(self, address: int, size: int) -> bytes:
        read = b""
        while len(read) < size:
            length = min(CHUNK, size - len(read))
            self._want(Want.READ, address=address + len(read), size=length)
            head, data = self._reply()
            if head.arg or len(data) != length:
                fail(errno.EFAULT)
            read += data
        return read

    def write(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            chunk = data[at : at + CHUNK]
            self._want(Want.WRITE, address=address + at, size=len(chunk))
            self._sock.sendall(chunk)
            head, _ = self._reply()
            if head.arg:
                fail(errno.EFAULT)

    def share(self, address: int, size: int) -> Sequence[tuple[int, Writable]]:
        shared: list[tuple[int, Writable]] = []
        at, end = address, address + size
        while at < end:
            self._want(Want.SHARE, address=at, size=end - at)
            head, data, fds = self._reply_with(PIECES)
            try:
                if head.arg:
                    fail(head.arg if head.arg in errno.errorcode else errno.EFAULT)
                if head.cmd != len(fds) or len(data) != head.cmd * PIECE.size:
                    raise Hangup
                for (where, length, offset), fd in zip(PIECE.iter_unpack(data), fds, strict=True):
                    if where < at or where + length > end:
                        fail(errno.EFAULT)
                    shared.append((where - address, map_file(fd, length, offset)))
                    at = where + length
            finally:
                for fd in fds:
                    os.close(fd)
            if len(fds) < PIECES:
                break
        return shared

    def vcpu_pages(self, size: int) -> Writable | None:
        self._pages = Pages(size)
        return self._pages.map

    def install(self, file: File) -> int:
        if isinstance(file, Vcpu) and self._pages is not None:
            self._registry.enter_vcpu(file, self._pages, self._pid)
            fd, self._pages.fd = self._pages.fd, -1
            return self._give(fd)
        if isinstance(file, StatsFile):  # the client's own: it reads it without us
            with file:
                return self._give(os.dup(file.fileno()))
        return self._give(self._registry.enter(file, self._pid))

    def run_delay(self) -> int:
        return run_delay_ns(f"{self._pid}/task/{self._tid}")

    def file(self, fd: int) -> object:
        self._want(Want.TAKE, address=fd & 0xFFFF_FFFF)
        _, _, fds = self._reply_with(1)
        if len(fds) != 1:
            for extra in fds:
                os.close(extra)
            fail(errno.EBADF)
        self._taken += fds
        st = os.fstat(fds[0])
        opened = self._opened(st.st_dev, st.st_ino)
        return opened.file if isinstance(opened, Opened) else fds[0]


def peer(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def hang_up(sock: socket.socket) -> None:
    """End a connection from another thread."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
