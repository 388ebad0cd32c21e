"""The listening socket, and a thread for each connection.

    from armkvm.kvm import System
    from armkvm.server.server import Server

    with System("vhe-gicv3", clock="realtime") as kvm, Server(kvm, "@mine") as server:
        server.start()  # programs with ARMKVM_SERVER=@mine find a /dev/kvm

Only processes of the same user are served. Programs that use one server share one host: its
physical CPUs and its clock.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Self

from armkvm.kvm.system import System
from armkvm.server.connection import Connection, Stats, hang_up, peer
from armkvm.server.registry import Registry

VARIABLE = "ARMKVM_SERVER"  # where a client's shim looks for the address
_PACKETS = 1 << 20  # bytes that may wait in a connection


class Server:
    """KVM of a System at an address: the path of a socket, or @NAME for one without a file.

    OSError where the address cannot be had.
    """

    def __init__(self, system: System, address: str) -> None:
        self.address = address
        self.stats = Stats()
        self._system = system
        self._path = None if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.bind(self._path or "\0" + address[1:])
            if self._path:
                os.chmod(self._path, 0o600)
            self._socket.listen(128)
        except BaseException:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._registry: Registry | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def open_files(self) -> int:
        """Descriptors that clients have, of VMs, vCPUs, devices and /dev/kvm."""
        return len(self._registry) if self._registry is not None else 0

    def start(self) -> None:
        """Serve. Clients that came before have waited."""
        self._registry = Registry()
        self._thread = threading.Thread(target=self._accept, name="armkvm-server", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                if not self._closed:
                    time.sleep(0.05)  # no descriptors left, for now
                continue
            if self._closed or peer(sock)[1] != os.geteuid():
                sock.close()
                continue
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        assert self._registry is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKETS)
        connection = Connection(sock, self._system, self._registry, self.stats)

        def work() -> None:
            try:
                connection.loop()
            finally:
                with self._lock:
                    self._connections.pop(sock, None)

        thread = threading.Thread(target=work, name="armkvm-client", daemon=True)
        with self._lock:
            self._connections[sock] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads: this client has to do without
            with self._lock:
                self._connections.pop(sock, None)
            sock.close()

    def close(self) -> None:
        """Serve nobody any more, and release what clients have."""
        if self._closed:
            return
        self._closed = True
        hang_up(self._socket)
        self._socket.close()
        if self._path:
            with suppress(OSError):
                os.unlink(self._path)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            connections = dict(self._connections)
        for sock in connections:
            hang_up(sock)
        if self._registry is not None:
            self._registry.close()  # ends the KVM_RUNs too
        for thread in connections.values():
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
