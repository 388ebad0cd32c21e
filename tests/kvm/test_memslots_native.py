"""Memory slots on the engine: what a guest finds behind them, however many there are.

The scripted CPU has no memory; only real loads and stores show where a slot's bytes are.
"""

from __future__ import annotations

import mmap
import random
import subprocess
import sys

from tests.engine import a64
from tests.kvm.native import IO, RAM, Native, out

from armkvm.abi import regs
from armkvm.abi.caps import Cap

PAGE = 4096
SLOTS = 0x1_0000_0000

# X1 is an address: X2 is loaded from there, and told.
LOAD = [a64.ldr(2, 1), out(2)]
STORE = [a64.str_(2, 1), out(2)]


def load(m: Native, ipa: int) -> int | None:
    """What the guest reads there; None where it is MMIO."""
    m.set(regs.CORE_PC, RAM)
    m.set(regs.core_x(1), ipa)
    m.vcpu.run()
    mmio = m.struct.mmio
    if mmio.is_write:
        assert mmio.phys_addr == IO
        return int(mmio.value)
    m.vcpu.run_struct.immediate_exit = 1  # the load is completed, and the guest goes no further
    m.vcpu.run_raw()
    m.vcpu.run_struct.immediate_exit = 0
    return None


def test_as_many_slots_as_the_capability_says() -> None:
    """Each of two segments with a hole, entered in any order, all but slot 0 that has the code."""
    with Native(LOAD) as m:
        count = m.system.check_extension(Cap.NR_MEMSLOTS)
        assert count == 32767
        memory = mmap.mmap(-1, 2 * PAGE * count)
        view = memoryview(memory)
        order = list(range(1, count))
        random.Random(1).shuffle(order)
        for i in order:
            at = 2 * PAGE * i
            view[at : at + 8] = i.to_bytes(8, "little")
            view[at + PAGE : at + PAGE + 8] = (i << 32).to_bytes(8, "little")
            halves = [(0, view[at : at + PAGE]), (2 * PAGE, view[at + PAGE : at + 2 * PAGE])]
            m.vm.set_user_memory_region(i, SLOTS + 4 * PAGE * i, 3 * PAGE, halves)
        for i in (1, 2, count - 1, *random.Random(2).sample(order, 200)):
            base = SLOTS + 4 * PAGE * i
            assert load(m, base) == i
            assert load(m, base + 2 * PAGE) == i << 32
            assert load(m, base + 3 * PAGE) is None
        for i in order:
            m.vm.set_user_memory_region(i, 0, 0)
        assert load(m, SLOTS + 4 * PAGE) is None


def test_a_slot_moves_with_its_memory() -> None:
    with Native(LOAD) as m:
        memory = mmap.mmap(-1, PAGE)
        memory[0:2] = b"\x34\x12"
        m.vm.set_user_memory_region(1, SLOTS, PAGE, memory, userspace_addr=PAGE)
        assert load(m, SLOTS) == 0x1234
        m.vm.set_user_memory_region(1, 2 * SLOTS, PAGE, userspace_addr=PAGE)
        assert load(m, 2 * SLOTS) == 0x1234
        assert load(m, SLOTS) is None


# A slot whose second segment is too much for this process: refused or not, what KVM says and what
# the guest finds are the same, and a store goes nowhere if it was refused.
REFUSED = """
import mmap, resource
from tests.kvm.native import Native
from tests.kvm.test_memslots_native import PAGE, SLOTS, STORE
from armkvm.abi import kvm as k, regs

small = mmap.mmap(-1, PAGE)
large = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
with Native(STORE) as m:
    m.vcpu.run()  # everything that a run allocates is there
    used = int(open("/proc/self/statm").read().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20), resource.RLIM_INFINITY))
    flags = k.KVM_MEM_LOG_DIRTY_PAGES
    try:
        m.vm.set_user_memory_region(
            2, 4 * SLOTS, (1 << 40) - 8 * SLOTS,
            [(0, small), (PAGE, memoryview(large)[: (1 << 40) - 8 * SLOTS - PAGE])], flags,
        )
        refused = False
    except OSError as e:
        refused = True
    m.set(regs.CORE_PC, 0x4000_0000)
    m.set(regs.core_x(1), 4 * SLOTS)
    m.set(regs.core_x(2), 0x77)
    m.vcpu.run()
    stored = small[0] == 0x77
    assert stored == (not refused), (stored, refused)
    assert refused
print("right")
"""


def test_a_refused_slot_leaves_nothing_behind() -> None:
    """No memory for its dirty log: only OSError comes out, and a guest's store is MMIO."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)


def test_a_slot_behind_many_is_not_half_there() -> None:
    """1023 slots of a page, then one of two segments; the buffer of a refused one is free again."""
    with Native(STORE) as m:
        memory = mmap.mmap(-1, 1024 * PAGE)
        view = memoryview(memory)
        for i in range(1, 1023):
            at = PAGE * i
            m.vm.set_user_memory_region(i, SLOTS + 2 * at, PAGE, view[at : at + PAGE])
        last = mmap.mmap(-1, 2 * PAGE)
        parts = [(0, memoryview(last)[:PAGE]), (2 * PAGE, memoryview(last)[PAGE:])]
        try:
            m.vm.set_user_memory_region(1023, 2 * SLOTS, 3 * PAGE, parts)
        except OSError:
            refused = True
        else:
            refused = False
        m.set(regs.core_x(1), 2 * SLOTS)
        m.set(regs.core_x(2), 0x41)
        m.vcpu.run()
        assert (last[0] == 0x41) == (not refused)
        assert m.struct.mmio.phys_addr == (2 * SLOTS if refused else IO)
