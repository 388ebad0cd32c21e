"""One client at work: /dev/kvm is open, and everything that is asked goes to the log."""

from __future__ import annotations

from collections.abc import Callable

from armkvm.abi import ioctl as nr
from armkvm.client.protocol import Argument, Client
from armkvm.conformance.log import Answer

Emit = Callable[[str], None]


class Session:
    """`client` with /dev/kvm open; `emit` takes the log's lines, from any thread."""

    def __init__(self, client: Client, emit: Emit) -> None:
        self.client = client
        self.emit = emit
        self.kvm = client.open()
        self.mmap_size = client.ioctl(self.kvm, nr.KVM_GET_VCPU_MMAP_SIZE)

    def ask(self, fd: int, cmd: int, arg: Argument = 0) -> Answer:
        """An ioctl that may fail; not logged."""
        try:
            return Answer(self.client.ioctl(fd, cmd, arg))
        except OSError as error:
            return Answer(-1, error.errno or 0)

    def query(self, fd: int, cmd: int, arg: Argument, what: str) -> Answer:
        """An ioctl, logged with its answer."""
        answer = self.ask(fd, cmd, arg)
        self.emit(f"  {what:<70} {answer}")
        return answer
