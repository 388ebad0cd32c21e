"""KVM's objects are files: what they share. Ioctl dispatch, closing, and the caller's context.

A method that carries `ioctl` (kvm/ioctl.py) is an ioctl: its class's table, IOCTLS, is made of
them. `data` is the structure that the argument points to; it is written in place, also when the
call fails (E2BIG leaves `n` behind). Pointers inside structures go through the caller's context:
KVM itself never follows a client's address.

Left out: poll, file descriptor numbers (the context's business).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol, Self, TypeVar

from armkvm.abi.ioctl import IOC_READ, ioc_dir, ioc_size
from armkvm.arch.word import M64
from armkvm.host.clock import run_delay_ns

if TYPE_CHECKING:
    from armkvm.kvm.vm import Vm

Writable = bytearray | memoryview | ctypes.Array[Any] | Any

S = TypeVar("S")

Read = Callable[[int], bytes]  # so many bytes of the client's; EFAULT
# What an ioctl reads from where its structure points to: a number, as many bytes of it as are
# asked for (C's conversion), the bytes themselves, or whatever reads them when their turn comes.
Value = int | bytes | Read


def fail(code: int) -> NoReturn:
    """Raise OSError as a system call that returned -code would."""
    raise OSError(code, os.strerror(code))


def load(value: Value, size: int) -> bytes:
    """`size` bytes of a value; EFAULT when it has fewer."""
    if isinstance(value, int):
        return (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    raw = bytes(value[:size]) if isinstance(value, bytes) else value(size)
    if len(raw) != size:
        fail(errno.EFAULT)
    return raw


def load_int(value: Value, size: int) -> int:
    """A value as an unsigned number of `size` bytes."""
    return int.from_bytes(load(value, size), "little")


class Context(Protocol):
    """The process that makes an ioctl: its memory and its file descriptors."""

    def read(self, address: int, size: int) -> bytes:
        """Copy from the client; EFAULT."""

    def write(self, address: int, data: bytes) -> None:
        """Copy to the client; EFAULT."""

    def share(self, address: int, size: int) -> Sequence[tuple[int, Writable]]:
        """The client's memory as (offset, buffer) segments, shared with it; without its holes."""

    def vcpu_pages(self, size: int) -> Writable | None:
        """A buffer for kvm_run that the client can map; None lets KVM allocate it."""

    def install(self, file: File) -> int:
        """A new file descriptor of the client for `file`."""

    def file(self, fd: int) -> object:
        """What a file descriptor of the client stands for; EBADF."""

    def run_delay(self) -> int:
        """How long the client's thread has waited for a CPU of its machine since it began, ns."""


class NoContext:
    """A caller without memory of its own: structures may not hold pointers."""

    def read(self, address: int, size: int) -> bytes:
        fail(errno.EFAULT)

    def write(self, address: int, data: bytes) -> None:
        fail(errno.EFAULT)

    def share(self, address: int, size: int) -> Sequence[tuple[int, Writable]]:
        fail(errno.EFAULT)

    def vcpu_pages(self, size: int) -> Writable | None:
        return None

    def install(self, file: File) -> int:
        fail(errno.EMFILE)

    def file(self, fd: int) -> object:
        fail(errno.EBADF)

    def run_delay(self) -> int:
        return run_delay_ns()


class ThisProcess(NoContext):
    """Who calls a method: file descriptors are this process's own."""

    def file(self, fd: int) -> object:
        if fd >> 31:
            fail(errno.EBADF)
        os.fstat(fd)  # EBADF
        return fd


THIS_PROCESS: Final = ThisProcess()


class Call:
    """One ioctl: number, raw argument, the structure it points to, the caller."""

    __slots__ = ("arg", "cmd", "ctx", "data")

    def __init__(self, cmd: int, arg: int, data: Writable | None, ctx: Context) -> None:
        self.cmd = cmd
        self.arg = arg
        self.ctx = ctx
        if data is None:
            size = ioc_size(cmd)
            data = bytearray(ctx.read(arg, size) if size else b"")
        try:
            self.data = memoryview(data).cast("B")
        except TypeError:  # no buffer, or one in pieces
            fail(errno.EFAULT)
        if self.data.readonly:
            fail(errno.EFAULT)

    def struct(self, cls: type[S]) -> S:
        """The structure, in place: what is written to it is what the client gets back."""
        kind: Any = cls
        if len(self.data) < ctypes.sizeof(kind):
            fail(errno.EFAULT)
        made: S = kind.from_buffer(self.data)
        return made

    def tail(self, offset: int, size: int) -> bytes:
        """Bytes of a flexible array that follows the structure."""
        if len(self.data) >= offset + size:
            return bytes(self.data[offset : offset + size])
        return self.ctx.read(self.arg + offset, size)

    def put_tail(self, offset: int, data: bytes) -> None:
        """Write a flexible array that follows the structure."""
        if len(self.data) >= offset + len(data):
            self.data[offset : offset + len(data)] = data
        else:
            self.ctx.write(self.arg + offset, data)

    def install(self, file: File) -> int:
        """A file descriptor of the client for a new file, which is closed if there is none."""
        try:
            return self.ctx.install(file)
        except OSError:
            file.close()
            raise


Handler = Callable[[Any, Call], int]


class File:
    """An open file of KVM."""

    IOCTLS: ClassVar[dict[int, Handler]] = {}
    UNKNOWN_IOCTL: ClassVar[int] = errno.EINVAL

    def __init_subclass__(cls) -> None:
        """The methods that are ioctls."""
        entries = (getattr(member, "ioctl", None) for member in vars(cls).values())
        cls.IOCTLS = {**cls.IOCTLS, **dict(entry for entry in entries if entry is not None)}

    def __init__(self) -> None:
        self.closed = False

    def ioctl(
        self, cmd: int, arg: int = 0, data: Writable | None = None, ctx: Context | None = None
    ) -> int:
        """Do an ioctl with the kernel's number and byte layout; OSError with the kernel's errno.

        `data` is the structure, in a writable buffer; without it, it is read from and written to
        address `arg` of the context.
        """
        if self.closed:
            fail(errno.EBADF)
        handler = self.IOCTLS.get(cmd) if isinstance(cmd, int) else None
        if handler is None:
            fail(self.UNKNOWN_IOCTL)
        if not isinstance(arg, int):
            fail(errno.EFAULT)
        arg &= M64
        call = Call(cmd, arg, data, ctx or NoContext())
        try:
            return handler(self, call)
        finally:
            if data is None and ioc_dir(cmd) & IOC_READ:
                call.ctx.write(arg, bytes(call.data))

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        if not self.closed:
            self.closed = True
            self.release()

    def release(self) -> None:
        """The last reference is gone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class VmFile(File):
    """A file that belongs to a VM: a vCPU, a device."""

    vm: Vm

    def _alive(self) -> None:
        """EBADF when it is closed; EIO when its VM is dead."""
        if self.closed:
            fail(errno.EBADF)
        if self.vm.vm_dead:
            fail(errno.EIO)
