"""What the clients' descriptors stand for, and when they are closed.

A client's descriptor of a vCPU is the file of kvm_run's pages, which it maps; of any other object
it is one end of a pair of sockets. The other end, or inotify, tells when the last copy is closed,
in whatever process: then the object is released, as the kernel releases a file.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from dataclasses import dataclass

from armkvm.kvm.file import Context, File
from armkvm.kvm.vcpu import Vcpu
from armkvm.server.memory import Closings, Pages

Identity = tuple[int, int]  # st_dev, st_ino


class Runs:
    """The KVM_RUNs of a vCPU by the numbers of their calls, and their cancellations.

    A cancellation comes by another connection: it may overtake its KVM_RUN, or come when that is
    over. One that an exit has won against is taken back: the signal has done its work.
    """

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._lock = threading.Lock()
        self._running = self._done = self._ahead = 0
        self._cancelled = False

    def run(self, seq: int, ctx: Context) -> int:
        """KVM_RUN of a client: 0 or a negative errno."""
        with self._lock:
            self._running = seq
            if self._ahead == seq:
                self._cancelled = True
                self._vcpu.kick()
        try:
            return self._vcpu.run_raw(ctx)
        finally:
            with self._lock:
                self._running, self._done = 0, seq
                if self._cancelled:
                    self._cancelled = False
                    self._vcpu.unkick()

    def cancel(self, seq: int) -> None:
        """A signal has come for the thread in that call."""
        with self._lock:
            if seq == self._running:
                self._cancelled = True
                self._vcpu.kick()
            elif seq > self._done:
                self._ahead = seq


@dataclass(eq=False)
class Opened:
    """What a descriptor stands for, and the process that may use it (0: any, for /dev/kvm)."""

    file: File
    pid: int
    identity: Identity
    runs: Runs | None = None
    ours: socket.socket | None = None  # the other end
    watch: int = -1


class Registry:
    """All descriptors of all clients of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_identity: dict[Identity, Opened] = {}
        self._by_end: dict[int, Opened] = {}
        self._by_watch: dict[int, Opened] = {}
        self._closings = Closings()
        self._poll = select.epoll()
        self._poll.register(self._closings.fd, select.EPOLLIN)
        self._stop, stopped = socket.socketpair()
        self._poll.register(stopped, select.EPOLLIN)
        self._stopped = stopped
        self._thread = threading.Thread(target=self._reap, name="armkvm-closings", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._by_identity)

    def find(self, identity: Identity) -> Opened | None:
        """What a descriptor of that identity stands for."""
        return self._by_identity.get(identity)

    def enter(self, file: File, pid: int) -> int:
        """A descriptor for a file of KVM, to be sent to the client and closed here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened = Opened(file, pid, _identity(theirs.fileno()), ours=ours)
        with self._lock:
            self._by_identity[opened.identity] = opened
            self._by_end[ours.fileno()] = opened
        self._poll.register(ours, select.EPOLLRDHUP)
        return theirs.detach()

    def enter_vcpu(self, vcpu: Vcpu, pages: Pages, pid: int) -> None:
        """The client's descriptor will be that of the pages."""
        opened = Opened(vcpu, pid, _identity(pages.fd), runs=Runs(vcpu))
        with self._lock:
            opened.watch = self._closings.watch(pages.path)
            self._by_watch[opened.watch] = opened
            self._by_identity[opened.identity] = opened

    def close(self) -> None:
        """Release everything that clients still have."""
        self._stop.close()
        self._thread.join()
        for opened in list(self._by_identity.values()):
            self._release(opened)
        self._poll.close()
        self._closings.close()
        self._stopped.close()

    def _reap(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._stopped.fileno():
                    return
                if fd == self._closings.fd:
                    for number in self._closings.read():
                        self._release(self._by_watch.get(number))
                else:
                    self._release(self._by_end.get(fd))

    def _release(self, opened: Opened | None) -> None:
        """The last copy is closed; nothing for what has been released."""
        with self._lock:
            if opened is None or self._by_identity.pop(opened.identity, None) is None:
                return
            if opened.ours is not None:
                self._by_end.pop(opened.ours.fileno(), None)
                self._poll.unregister(opened.ours)
                opened.ours.close()
            else:
                self._by_watch.pop(opened.watch, None)
                self._closings.forget(opened.watch)
        if opened.pid:  # /dev/kvm itself is everybody's
            opened.file.close()


def _identity(fd: int) -> Identity:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino
