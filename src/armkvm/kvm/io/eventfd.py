"""KVM_IOEVENTFD: a guest's write becomes a count of an eventfd, after virt/kvm/eventfd.c.

The guest goes on without an exit to user space. Left out: PIO and
virtio-ccw (the buses exist, nothing writes to them).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from armkvm.abi import kvm as k
from armkvm.arch.word import M64
from armkvm.kvm.file import Context, fail

if TYPE_CHECKING:
    from armkvm.abi.structs import KvmIoeventfd
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm

VALID_FLAGS: Final = (
    k.KVM_IOEVENTFD_FLAG_DATAMATCH | k.KVM_IOEVENTFD_FLAG_PIO | k.KVM_IOEVENTFD_FLAG_DEASSIGN
    | k.KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY
)  # fmt: skip


class EventFd:
    """eventfd_ctx: a reference to the client's eventfd that outlives its descriptor."""

    def __init__(self, ctx: Context, fd: int) -> None:
        """EBADF: not open; EINVAL: not an eventfd."""
        number = ctx.file(fd)
        if not isinstance(number, int):
            fail(errno.EINVAL)
        self.fd = os.dup(number)
        try:
            kind = os.readlink(f"/proc/self/fd/{self.fd}")
            self.id = _id(self.fd)
        except OSError:
            kind = ""
        if kind != "anon_inode:[eventfd]" or not self.id:
            os.close(self.fd)
            fail(errno.EINVAL)
        self._lock = threading.Lock()

    def signal(self) -> None:
        """eventfd_signal(): add one; a counter that is full stays full, nobody waits for it."""
        with self._lock:
            # A vCPU may have found the device just before another thread took it away.
            if self.fd >= 0 and self._poll(select.POLLOUT):
                os.eventfd_write(self.fd, 1)

    def take(self) -> bool:
        """eventfd_ctx_do_read(): was it signalled? Not any more. Never waits."""
        with contextlib.suppress(BlockingIOError):
            # Without waiting, as somebody else may read it too.
            os.preadv(self.fd, [bytearray(8)], -1, os.RWF_NOWAIT)
            return True
        return False

    def _poll(self, events: int) -> bool:
        poll = select.poll()  # select() stops at descriptor 1023
        poll.register(self.fd, events)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Drop the reference."""
        with self._lock:
            os.close(self.fd)
            self.fd = -1


def _id(fd: int) -> str:
    """Which eventfd it is: two descriptors of one have the same (fs/eventfd.c shows it)."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        for line in info:
            if line.startswith("eventfd-id:"):
                return line
    return ""


@dataclass(eq=False)
class IoEventFd:
    """struct _ioeventfd: a device on the MMIO bus that counts."""

    addr: int
    length: int  # 0: writes of any size
    event: EventFd
    datamatch: int | None  # None: whatever is written

    def read(self, _vcpu: Vcpu, _addr: int, _length: int) -> int | None:
        """Reads are somebody else's."""
        return None

    def write(self, _vcpu: Vcpu, addr: int, length: int, value: int) -> bool:
        """ioeventfd_in_range(): exact address and length, and the value if one is asked for."""
        if addr != self.addr or (self.length and length != self.length):
            return False
        if self.length and self.datamatch is not None:
            if value & (1 << 8 * length) - 1 != self.datamatch:
                return False
        self.event.signal()
        return True

    def collides(self, other: IoEventFd) -> bool:
        """ioeventfd_check_collision(): some write would be both's."""
        if self.addr != other.addr:
            return False
        if not self.length or not other.length:
            return True
        return self.length == other.length and (
            self.datamatch is None or other.datamatch is None or self.datamatch == other.datamatch
        )


class IoEventFds:
    """Those of one VM. The caller of `ioctl` holds its slots_lock."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.items: list[tuple[bool, IoEventFd]] = []  # (on the MMIO bus, device)

    def ioctl(self, args: KvmIoeventfd, ctx: Context) -> None:
        """KVM_IOEVENTFD (api.rst 4.59). EINVAL, EBADF, EEXIST, ENOENT, ENOSPC."""
        if args.flags & k.KVM_IOEVENTFD_FLAG_DEASSIGN:
            self._deassign(args, ctx)
            return
        if args.len not in (0, 1, 2, 4, 8) or args.addr + args.len > M64:
            fail(errno.EINVAL)
        if args.flags & ~VALID_FLAGS:
            fail(errno.EINVAL)
        if not args.len and args.flags & k.KVM_IOEVENTFD_FLAG_DATAMATCH:
            fail(errno.EINVAL)
        event = EventFd(ctx, args.fd)
        try:
            self._assign(args, event)
        except OSError:
            event.close()
            raise

    def _assign(self, args: KvmIoeventfd, event: EventFd) -> None:
        match = args.datamatch if args.flags & k.KVM_IOEVENTFD_FLAG_DATAMATCH else None
        new = IoEventFd(args.addr, args.len, event, match)
        on_mmio = _on_mmio(args.flags)
        if any(bus == on_mmio and item.collides(new) for bus, item in self.items):
            fail(errno.EEXIST)
        if on_mmio:
            # One of any length matches wherever an access begins at its address.
            ret = self.vm.mmio_bus.register(args.addr, args.len or 8, new)
            if ret:
                fail(-ret)
        self.items.append((on_mmio, new))

    def _deassign(self, args: KvmIoeventfd, ctx: Context) -> None:
        event = EventFd(ctx, args.fd)
        event.close()
        match = args.datamatch if args.flags & k.KVM_IOEVENTFD_FLAG_DATAMATCH else None
        wanted = (_on_mmio(args.flags), event.id, args.addr, args.len, match)
        for pair in self.items:
            item = pair[1]
            if (pair[0], item.event.id, item.addr, item.length, item.datamatch) == wanted:
                self.items.remove(pair)
                self.vm.mmio_bus.unregister(item)
                item.event.close()
                return
        fail(errno.ENOENT)

    def release(self) -> None:
        """The VM goes away."""
        for _bus, item in self.items:
            item.event.close()
        self.items.clear()


def _on_mmio(flags: int) -> bool:
    """ioeventfd_bus_from_flags()."""
    return not flags & (k.KVM_IOEVENTFD_FLAG_PIO | k.KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY)
