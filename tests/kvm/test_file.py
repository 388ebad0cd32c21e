"""The same calls by number and byte layout, from a client with its own address space."""

from __future__ import annotations

import errno
import mmap
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kvm.client import result
from tests.kvm.process import BASE, ProcessMemory
from tests.kvm.rig import IO, Ops, fails

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.host.scripted import ScriptedBackend, ScriptedCpu, Store
from armkvm.kvm import System, Vcpu, Vm
from armkvm.kvm.file import File, fail


class Process(ProcessMemory):
    """A client: one mapping at BASE, and file descriptors."""

    def __init__(self) -> None:
        super().__init__(0x8000)
        self.files: dict[int, object] = {}
        self.pages = mmap.mmap(-1, 8192)

    def share(self, address: int, size: int) -> list[tuple[int, memoryview]]:
        at = self.offset(address, size)
        return [(0, memoryview(self.memory)[at : at + size])]

    def vcpu_pages(self, size: int) -> mmap.mmap:
        assert size == len(self.pages)
        return self.pages

    def install(self, file: File) -> int:
        fd = 3 + len(self.files)
        self.files[fd] = file
        return fd

    def file(self, fd: int) -> object:
        if fd not in self.files:
            fail(errno.EBADF)
        return self.files[fd]


def guest(_cpu: ScriptedCpu) -> Ops:
    yield Store(IO + 8, 0x1234)
    while True:
        yield Store(IO)


def start() -> tuple[Process, System, Vm, Vcpu]:
    client = Process()
    system = System(backend=ScriptedBackend(guest))
    vm = client.file(system.ioctl(nr.KVM_CREATE_VM, ctx=client))
    assert isinstance(vm, Vm)
    vcpu = client.file(vm.ioctl(nr.KVM_CREATE_VCPU, 0, ctx=client))
    assert isinstance(vcpu, Vcpu)
    return client, system, vm, vcpu


def test_a_guest_from_start_to_exit_with_numbers_only() -> None:
    client, system, vm, vcpu = start()
    assert system.ioctl(nr.KVM_GET_API_VERSION) == 12
    assert system.ioctl(nr.KVM_GET_VCPU_MMAP_SIZE) == 8192
    assert vm.ioctl(nr.KVM_CHECK_EXTENSION, 144) == 1
    region = struct.pack("<IIQQQ", 0, 0, 0x4000_0000, 0x4000, BASE + 0x4000)
    client.write(BASE, region)
    vm.ioctl(nr.KVM_SET_USER_MEMORY_REGION, BASE, ctx=client)
    vm.ioctl(nr.KVM_ARM_PREFERRED_TARGET, BASE, ctx=client)
    target = bytearray(client.read(BASE, 32))
    assert target[:8] == struct.pack("<II", 5, 0)
    target[4] = 1 << k.KVM_ARM_VCPU_PSCI_0_2
    vcpu.ioctl(nr.KVM_ARM_VCPU_INIT, 0, target)
    client.write(BASE + 0x100, (0x4000_0000).to_bytes(8, "little"))
    one_reg = bytearray(struct.pack("<QQ", regs.CORE_PC, BASE + 0x100))
    vcpu.ioctl(nr.KVM_SET_ONE_REG, 0, one_reg, client)
    vm.ioctl(nr.KVM_IRQ_LINE, 0, bytearray(struct.pack("<II", 0, 1)))
    assert vcpu.ioctl(nr.KVM_RUN) == 0
    page = client.pages
    assert struct.unpack_from("<I", page, 8) == (k.KVM_EXIT_MMIO,)
    assert struct.unpack_from("<QQIB", page, 32) == (IO + 8, 0x1234, 4, 1)
    vcpu.ioctl(nr.KVM_GET_ONE_REG, 0, one_reg, client)
    assert client.read(BASE + 0x100, 8) == (0x4000_0000).to_bytes(8, "little")


def test_memory_by_the_second_ioctl() -> None:
    client, _system, vm, _vcpu = start()
    region = struct.pack("<IIQQQQI116x", 0, 0, 0x4000_0000, 0x4000, BASE + 0x4000, 0, 0xFFFF_FFFF)
    client.write(BASE, region)
    vm.ioctl(nr.KVM_SET_USER_MEMORY_REGION2, BASE, ctx=client)
    assert [(slot.base, slot.size, slot.userspace_addr) for slot in vm.memslots.all()] == [
        (0x4000_0000, 0x4000, BASE + 0x4000)
    ]


def test_an_error_may_carry_output() -> None:
    """KVM_GET_REG_LIST with too little room: E2BIG, and n says how much is needed."""
    client, _system, _vm, vcpu = start()
    init = bytearray(32)
    init[0] = 5
    vcpu.ioctl(nr.KVM_ARM_VCPU_INIT, 0, init)
    ids = vcpu.get_reg_list()
    head = bytearray(8)
    fails(errno.E2BIG, lambda: vcpu.ioctl(nr.KVM_GET_REG_LIST, 0, head))
    assert struct.unpack("<Q", head) == (len(ids),)
    whole = bytearray(head + bytes(8 * len(ids)))
    vcpu.ioctl(nr.KVM_GET_REG_LIST, 0, whole)
    assert list(struct.unpack(f"<{len(ids)}Q", whole[8:])) == ids
    client.write(BASE, bytes(8))
    fails(errno.E2BIG, lambda: vcpu.ioctl(nr.KVM_GET_REG_LIST, BASE, ctx=client))
    assert client.read(BASE, 8) == bytes(head)
    vcpu.ioctl(nr.KVM_GET_REG_LIST, BASE, ctx=client)
    assert client.read(BASE + 8, 8 * len(ids)) == bytes(whole[8:])


def test_bad_pointers() -> None:
    client, _system, vm, vcpu = start()
    fails(errno.EFAULT, lambda: vm.ioctl(nr.KVM_IRQ_LINE, 5, ctx=client))
    fails(errno.EFAULT, lambda: vm.ioctl(nr.KVM_IRQ_LINE, BASE))  # nobody's address
    fails(errno.EFAULT, lambda: vm.ioctl(nr.KVM_IRQ_LINE, 0, bytearray(4)))
    init = bytearray(32)
    init[0] = 5
    vcpu.ioctl(nr.KVM_ARM_VCPU_INIT, 0, init)
    one_reg = bytearray(struct.pack("<QQ", regs.CORE_PC, 16))
    fails(errno.EFAULT, lambda: vcpu.ioctl(nr.KVM_GET_ONE_REG, 0, one_reg, client))


def test_unknown_numbers_and_closed_files() -> None:
    _client, system, vm, vcpu = start()
    for file in (system, vm, vcpu):
        fails(errno.EINVAL, lambda file=file: file.ioctl(0xAE55))  # type: ignore[misc]
    vcpu.close()
    vcpu.close()
    vm.close()
    for file in (vm, vcpu):
        fails(errno.EBADF, lambda file=file: file.ioctl(nr.KVM_CHECK_EXTENSION))  # type: ignore[misc]


def test_memory_written_answers_as_an_ioctl_does() -> None:
    """Also while vCPUs keep the VM alive: whoever has no file of it cannot speak to it."""
    _client, _system, vm, vcpu = start()
    vm.memory_written(0, 1 << 40)
    vm.kill()
    fails(errno.EIO, lambda: vm.memory_written(0, 1 << 40))
    vm.close()
    fails(errno.EBADF, lambda: vm.memory_written(0, 1 << 40))
    vcpu.close()
    fails(errno.EBADF, lambda: vm.memory_written(0, 1 << 40))


def test_a_vm_lives_until_its_last_vcpu_is_closed() -> None:
    client, _system, vm, vcpu = start()
    region = bytearray(struct.pack("<IIQQQ", 0, 0, 0x4000_0000, 0x4000, BASE + 0x4000))
    vm.ioctl(nr.KVM_SET_USER_MEMORY_REGION, 0, region, client)
    vm.close()
    vcpu.arm_vcpu_init()
    vcpu.run()
    assert vm.memslots.all()
    vcpu.close()
    assert not vm.memslots.all()
    assert vcpu.cpu.closed  # type: ignore[attr-defined]


NUMBERS = sorted({v for name, v in vars(nr).items() if name.startswith("KVM_") and v > 0x1000})


@settings(max_examples=300, deadline=None)
@given(
    cmd=st.sampled_from(NUMBERS),
    arg=st.one_of(st.integers(0, 8), st.integers(0, (1 << 64) - 1), st.just(BASE)),
    data=st.one_of(st.none(), st.binary(min_size=0, max_size=600)),
    on=st.sampled_from(["system", "vm", "vcpu"]),
)
def test_arbitrary_arguments_give_an_errno(cmd: int, arg: int, data: bytes | None, on: str) -> None:
    if cmd == nr.KVM_RUN:
        return
    client, system, vm, vcpu = start()
    file = {"system": system, "vm": vm, "vcpu": vcpu}[on]
    buffer = None if data is None else bytearray(data)
    code = result(lambda: file.ioctl(cmd, arg, buffer, client))
    assert code == 0 or code in errno.errorcode
    vcpu.close()
    vm.close()
