"""A client in Python: the shim's part of the conversation, for what no good client says."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Callable
from typing import Self

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi import structs as st
from armkvm.server.wire import ANSWER, LONGEST, PIECE, REQUEST, Ask, Want

RAM, SIZE = 0x4000_0000, 0x1_0000
Shared = list[tuple[int, int, int, int]]  # addr, len, offset, descriptor


class Gone(Exception):
    """The server has hung up."""


class Peer:
    """One connection, used as a thread of a client uses it."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect("\0" + address[1:] if address.startswith("@") else address)
        self.seq = 0
        self.ram_fd = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.ram_fd, SIZE)
        self.ram = mmap.mmap(self.ram_fd, SIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.pages: dict[int, mmap.mmap] = {}  # kvm_run's, by vCPU
        self.shares: Callable[[int, int], Shared] = self._share
        self.refuses = False  # every address is a bad one
        self.reply_seq = 0  # what replies add to their numbers: 0 is right

    def _share(self, address: int, size: int) -> Shared:
        return [(address, size, address - self.address, self.ram_fd)]

    # -- packets ----------------------------------------------------------------------------
    def send(
        self, op: int, cmd: int = 0, arg: int = 0, data: bytes = b"", fds: list[int] | None = None,
        identity: tuple[int, int] = (0, 0), seq: int | None = None,
    ) -> None:  # fmt: skip
        number = self.seq if seq is None else seq
        head = REQUEST.pack(op, number & 0xFFFF_FFFF, *identity, cmd, arg, os.getpid(), 0)
        socket.send_fds(self.sock, [head + data], fds or [])

    def reply(
        self, cmd: int = 0, arg: int = 0, data: bytes = b"", fds: list[int] | None = None
    ) -> None:
        self.send(Ask.REPLY, cmd, arg, data, fds, seq=self.seq + self.reply_seq)

    def receive(self) -> tuple[int, int, int, int, bytes, list[int]]:
        packet, ancillary, _, _ = self.sock.recvmsg(LONGEST, 1024)
        if not packet:
            raise Gone
        numbers = array.array("i")
        for _, _, content in ancillary:
            numbers.frombytes(content)
        op, _, ret, address, size = ANSWER.unpack_from(packet)
        return op, ret, address, size, packet[ANSWER.size :], list(numbers)

    # -- calls ------------------------------------------------------------------------------
    def call(self, op: int, fd: int = -1, cmd: int = 0, arg: int = 0, data: bytes = b"") -> int:
        return self.call_with(op, fd, cmd, arg, data)[0]

    def call_with(
        self, op: int, fd: int, cmd: int, arg: int, data: bytes
    ) -> tuple[int, bytes]:
        """The result (negative: an errno) and the structure."""
        self.seq += 1
        identity = (0, 0)
        if fd >= 0:
            found = os.fstat(fd)
            identity = found.st_dev, found.st_ino
        self.send(op, cmd, arg, data, identity=identity)
        while True:
            want, ret, address, size, rest, fds = self.receive()
            if want == Want.DONE:
                return ret, rest
            if self.refuses:
                if want == Want.WRITE:
                    self.sock.recv(size)
                self.reply(arg=errno.EFAULT)
            elif want == Want.READ:
                self.reply(data=ctypes.string_at(address, size))
            elif want == Want.WRITE:
                ctypes.memmove(address, self.sock.recv(size), size)
                self.reply()
            elif want == Want.INSTALL:
                self.reply(arg=fds[0])
            elif want == Want.TAKE:
                self.reply(fds=[address])
            elif want == Want.SHARE:
                shared = self.shares(address, size)
                data = b"".join(PIECE.pack(*piece[:3]) for piece in shared)
                self.reply(len(shared), 0, data, [piece[3] for piece in shared])

    def open(self) -> int:
        return self.call(Ask.OPEN)

    def ioctl(self, fd: int, cmd: int, arg: int | ctypes.Structure = 0) -> int:
        if isinstance(arg, int):
            return self.call(Ask.IOCTL, fd, cmd, arg)
        ret, data = self.call_with(Ask.IOCTL, fd, cmd, ctypes.addressof(arg), bytes(arg))
        if data:
            ctypes.memmove(ctypes.addressof(arg), data, len(data))
        return ret

    # -- a guest ----------------------------------------------------------------------------
    def vcpu(self, *words: int, also: Callable[[int], None] = lambda vm: None) -> int:
        """A vCPU of a new VM, with a program. `also` is done to the VM."""
        kvm = self.open()
        vm = self.ioctl(kvm, nr.KVM_CREATE_VM)
        for n, word in enumerate(words):
            self.ram[4 * n : 4 * n + 4] = word.to_bytes(4, "little")
        assert self.ioctl(vm, nr.KVM_SET_USER_MEMORY_REGION, self.slot(0, RAM, SIZE)) == 0
        also(vm)
        vcpu = self.ioctl(vm, nr.KVM_CREATE_VCPU)
        init = st.KvmVcpuInit()
        self.ioctl(vm, nr.KVM_ARM_PREFERRED_TARGET, init)
        assert self.ioctl(vcpu, nr.KVM_ARM_VCPU_INIT, init) == 0
        self.set_reg(vcpu, regs.CORE_PC, RAM)
        self.pages[vcpu] = mmap.mmap(vcpu, self.ioctl(kvm, nr.KVM_GET_VCPU_MMAP_SIZE))
        os.close(vm)
        os.close(kvm)
        return vcpu

    def slot(self, slot: int, ipa: int, size: int) -> st.KvmUserspaceMemoryRegion:
        return st.KvmUserspaceMemoryRegion(slot, 0, ipa, size, self.address)

    def set_reg(self, vcpu: int, reg: int, value: int) -> None:
        number = ctypes.c_uint64(value)
        one = st.KvmOneReg(reg, ctypes.addressof(number))
        assert self.ioctl(vcpu, nr.KVM_SET_ONE_REG, one) == 0

    def run(self, vcpu: int) -> int:
        return self.ioctl(vcpu, nr.KVM_RUN)

    def exit_of(self, vcpu: int) -> st.KvmRun:
        return st.KvmRun.from_buffer_copy(self.pages[vcpu])

    def close(self) -> None:
        self.sock.close()
        os.close(self.ram_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


MMIO = k.KVM_EXIT_MMIO
