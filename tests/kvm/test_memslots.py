"""Memory slots: KVM's order of checks, segments, holes."""

from __future__ import annotations

import errno
import mmap
from bisect import bisect_right
from typing import Any

import pytest
from tests.kvm.rig import IO, Ops, Rig, fails

from armkvm.abi import kvm as k
from armkvm.abi.caps import Cap
from armkvm.host.scripted import NoMemory, ScriptedCpu, Store
from armkvm.kvm import Vm, memslots

PAGE = 4096


@pytest.fixture
def vm() -> Vm:
    def idle(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO)

    rig = Rig(idle)
    rig.vm.set_user_memory_region(0, 0, 0)
    return rig.vm


def pages(n: int) -> mmap.mmap:
    return mmap.mmap(-1, n * PAGE)


def mapped(vm: Vm) -> dict[int, tuple[int, bool]]:
    assert isinstance(vm.stage2, NoMemory)
    return vm.stage2.mapped


@pytest.mark.parametrize(
    ("slot", "base", "size", "flags", "code"),
    [
        (0, 0x1001, PAGE, 0, errno.EINVAL),
        (0, 0x1000, 100, 0, errno.EINVAL),
        (0, 0x1000, PAGE, 4, errno.EINVAL),
        (32767, 0x1000, PAGE, 0, errno.EINVAL),
        (1 << 16, 0x1000, PAGE, 0, errno.EINVAL),
        (0, (1 << 64) - PAGE, 2 * PAGE, 0, errno.EINVAL),
        (0, 1 << 40, PAGE, 0, errno.EFAULT),
        (0, (1 << 40) - PAGE, PAGE, 0, 0),
        (32766, 0, PAGE, k.KVM_MEM_READONLY, 0),
    ],
)
def test_arguments(vm: Vm, slot: int, base: int, size: int, flags: int, code: int) -> None:
    memory = pages(2)
    if code:
        fails(code, lambda: vm.set_user_memory_region(slot, base, size, memory, flags))
        assert mapped(vm) == {}
    else:
        vm.set_user_memory_region(slot, base, size, memory, flags)
        assert mapped(vm) == {base: (size, bool(flags))}


def test_overlap_move_delete(vm: Vm) -> None:
    memory, other = pages(2), pages(2)
    vm.set_user_memory_region(0, 0x10000, 2 * PAGE, memory)
    fails(errno.EEXIST, lambda: vm.set_user_memory_region(1, 0x11000, PAGE, other))
    vm.set_user_memory_region(1, 0x12000, PAGE, other)
    vm.set_user_memory_region(1, 0x20000, PAGE, other)  # moved
    assert mapped(vm) == {0x10000: (2 * PAGE, False), 0x20000: (PAGE, False)}
    fails(errno.EEXIST, lambda: vm.set_user_memory_region(1, 0x10000, PAGE, other))
    assert 0x20000 in mapped(vm)
    for size, buffer, flags in ((2 * PAGE, other, 0), (PAGE, memory, 0), (PAGE, other, 2)):
        with pytest.raises(OSError):
            vm.set_user_memory_region(1, 0x20000, size, buffer, flags)
    vm.set_user_memory_region(1, 0x20000, PAGE, other)  # nothing changed
    vm.set_user_memory_region(1, 0, 0)
    assert mapped(vm) == {0x10000: (2 * PAGE, False)}
    fails(errno.EINVAL, lambda: vm.set_user_memory_region(1, 0, 0))


def test_the_second_ioctl_is_the_first_without_guest_memfd(vm: Vm) -> None:
    assert vm.check_extension(Cap.USER_MEMORY2) == 1
    memory = pages(2)
    vm.set_user_memory_region2(0, 0x10000, 2 * PAGE, memory, guest_memfd=77, guest_memfd_offset=1)
    assert mapped(vm) == {0x10000: (2 * PAGE, False)}
    for flags in (k.KVM_MEM_GUEST_MEMFD, k.KVM_MEM_GUEST_MEMFD | k.KVM_MEM_READONLY, 1 << 31):
        fails(
            errno.EINVAL,
            lambda f=flags: vm.set_user_memory_region2(1, 0x20000, PAGE, pages(1), f),  # type: ignore[misc]
        )
    fails(errno.EEXIST, lambda: vm.set_user_memory_region2(1, 0x11000, PAGE, pages(1)))
    vm.set_user_memory_region(0, 0, 0)  # they are the same slots
    assert mapped(vm) == {}


def test_segments(vm: Vm) -> None:
    memory = memoryview(pages(4))
    vm.set_user_memory_region(
        0, 0x100000, 16 * PAGE, [(0, memory[:PAGE]), (5 * PAGE, memory[PAGE : 3 * PAGE])]
    )
    assert mapped(vm) == {0x100000: (PAGE, False), 0x105000: (2 * PAGE, False)}
    slot = vm.memslots.find(0x101000)
    assert slot is not None
    assert slot is vm.memslots.find(0x10F000)
    assert vm.memslots.find(0x110000) is None
    vm.set_user_memory_region(0, 0, 0)
    assert mapped(vm) == {}


@pytest.mark.parametrize(
    "segments",
    [
        [(100, 1)],
        [(0, 2), (PAGE, 1)],
        [(2 * PAGE, 1), (0, 1)],
        [(16 * PAGE, 1)],
    ],
)
def test_bad_segments(vm: Vm, segments: list[tuple[int, int]]) -> None:
    pairs = [(offset, pages(n)) for offset, n in segments]
    fails(errno.EINVAL, lambda: vm.set_user_memory_region(0, 0x100000, 16 * PAGE, pairs))


def test_bad_buffers(vm: Vm) -> None:
    unaligned = memoryview(pages(2))[8 : 8 + PAGE]
    for buffer in (bytes(PAGE), unaligned, pages(1)[:100], 5):
        fails(errno.EINVAL, lambda b=buffer: vm.set_user_memory_region(0, 0, PAGE, b))  # type: ignore[misc]


def test_a_look_up_may_meet_a_change(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a vCPU's thread, while another one deletes the slot: it is there, or it is not."""
    vm.set_user_memory_region(0, 0x1000, PAGE, pages(1))
    vm.set_user_memory_region(1, 0x2000, PAGE, pages(1))
    late = [1]

    def racing(*args: Any, **kwargs: Any) -> int:
        at = bisect_right(*args, **kwargs)
        if late:
            vm.set_user_memory_region(late.pop(), 0, 0)
        return at

    monkeypatch.setattr(memslots, "bisect_right", racing)
    found = vm.memslots.find(0x2000)
    assert found is None or found.base == 0x2000
    assert vm.memslots.find(0x2000) is None
