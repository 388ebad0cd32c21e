"""KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG: which pages the guest has written."""

from __future__ import annotations

import errno
import mmap

from tests.engine import a64
from tests.kvm.native import Native, Words, out
from tests.kvm.rig import fails

from armkvm.abi import kvm as k
from armkvm.abi.caps import Cap

DATA, PAGES = 0x5000_0000, 100
LOG = k.KVM_MEM_LOG_DIRTY_PAGES


def touch(*pages: int) -> Words:
    return [[a64.mov(1, DATA + 4096 * n), a64.str_(31, 1)] for n in pages]


def slot(m: Native, flags: int = LOG, memory: mmap.mmap | None = None) -> mmap.mmap:
    memory = memory or mmap.mmap(-1, PAGES * 4096)
    m.vm.set_user_memory_region(1, DATA, PAGES * 4096, memory, flags)
    return memory


def dirty(m: Native) -> set[int]:
    log = m.vm.get_dirty_log(1)
    assert len(log) == 16  # whole words
    bits = int.from_bytes(log, "little")
    return {n for n in range(128) if bits >> n & 1}


def test_writes_are_logged_and_the_log_begins_anew() -> None:
    with Native(touch(3, 99), out(31), touch(3), a64.ldr(2, 1), out(31), out(31)) as m:
        slot(m)
        assert dirty(m) == set()
        m.stored()
        assert dirty(m) == {3, 99}
        m.stored()
        assert dirty(m) == {3}
        m.stored()
        assert dirty(m) == set()


def test_manual_protection() -> None:
    with Native(touch(1, 2, 70), out(31), touch(2), out(31)) as m:
        m.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 0, [k.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE])
        slot(m)
        m.stored()
        assert dirty(m) == dirty(m) == {1, 2, 70}

        def clear(first: int, count: int, bits: int) -> None:
            m.vm.clear_dirty_log(1, first, count, lambda size: bits.to_bytes(size, "little"))

        clear(0, 64, 0b10)
        assert dirty(m) == {2, 70}
        clear(64, 36, (1 << 64) - 1)
        clear(0, 64, 0b100)
        assert dirty(m) == set()
        m.stored()
        assert dirty(m) == {2}
        fails(errno.EINVAL, lambda: clear(1, 64, 0))
        fails(errno.EINVAL, lambda: clear(0, 101, 0))
        fails(errno.EINVAL, lambda: clear(0, 65, 0))
        fails(errno.EINVAL, lambda: clear(128, 0, 0))


def test_initially_set() -> None:
    with Native(a64.NOP) as m:
        both = k.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | k.KVM_DIRTY_LOG_INITIALLY_SET
        fails(errno.EINVAL, lambda: m.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 0, [2]))
        fails(errno.EINVAL, lambda: m.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 0, [4]))
        m.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, 0, [both])
        slot(m)
        assert dirty(m) == set(range(PAGES))


def test_logging_may_be_switched_on_and_off() -> None:
    with Native(touch(5), out(31), touch(6), out(31)) as m:
        memory = slot(m, 0)
        fails(errno.ENOENT, lambda: m.vm.get_dirty_log(1))
        m.stored()
        slot(m, LOG, memory)
        assert dirty(m) == set()
        m.stored()
        assert dirty(m) == {6}
        slot(m, 0, memory)
        fails(errno.ENOENT, lambda: m.vm.get_dirty_log(1))
        fails(errno.ENOENT, lambda: m.vm.get_dirty_log(9))
        fails(errno.EINVAL, lambda: m.vm.get_dirty_log(1 << 16))


def test_what_kvm_writes_is_logged_too() -> None:
    with Native(a64.NOP) as m:
        memory = slot(m)
        assert m.vm.memslots.write_guest(DATA + 0x7010, b"abc")
        assert memory[0x7010:0x7013] == b"abc"
        assert dirty(m) == {7}
        assert not m.vm.memslots.write_guest(0x9000_0000, b"x")
