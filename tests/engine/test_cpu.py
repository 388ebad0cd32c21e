"""The engine's Python side: guest memory, CPU state, and stopping from another thread."""

from __future__ import annotations

import ctypes
import mmap
import random
import threading
import time

import pytest
from tests.engine.a64 import B_SELF, NOP, add, b, hvc, ldr, mov, movz, str_, svc
from tests.engine.world import AF, CODE, DATA, EL0, EL1H, EL1T, VECTORS, Space, World

from armkvm.arch.timer import NEVER
from armkvm.engine import layout
from armkvm.engine.cpu import Cpu, Engine, Exit, Stage2

M64 = (1 << 64) - 1


# -- guest memory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ipa", "host", "size"), [(1, 0, 4096), (0, 8, 4096), (0, 0, 4095), (0, 0, 0), (0, 0, -4096)]
)
def test_whole_pages(engine: Engine, ipa: int, host: int, size: int) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        Stage2(engine).map(ipa, host, size)


def test_many_segments(world: World) -> None:
    """Each is found, in whatever order they came; all can go again."""
    n = 5000
    memory = mmap.mmap(-1, 4096 * n)
    host = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    order = list(range(n))
    random.Random(1).shuffle(order)
    for i in order:
        world.stage2.map(0x1000_0000 + i * 0x3000, host + i * 4096, 4096)
        ctypes.memmove(host + i * 4096, (0xA000 + i).to_bytes(8, "little"), 8)
    words = [*mov(1, 0x1000_0000), *mov(2, n)]
    words += [
        ldr(3, 1),
        0x8B030084,  # add x4, x4, x3
        add(1, 1, 0x3000 >> 12) | 1 << 22,
        0xF1000442,  # subs x2, x2, #1
        0x54FFFF81,  # b.ne to the load
    ]
    world.execute(*words, x4=0)
    assert world.s.x[4] == sum(0xA000 + i for i in range(n))
    world.stage2.unmap(0x1000_0000, 3 * 0x3000 * n)
    assert world.run_at(ldr(0, 1), x1=0x1000_0000) == Exit.TRAP
    world.execute(ldr(0, 1), x1=0)  # the first one is still there


def test_unmap_and_map_again(world: World) -> None:
    """Neither the data TLB nor decoded code of the old memory is used."""
    at = 0x1000_0000
    for value in (1, 2, 3):
        host = world.map(at, 0x2000)
        code = [movz(5, value), hvc(value)]
        ctypes.memmove(host, b"".join(w.to_bytes(4, "little") for w in code), 8)
        ctypes.memmove(host + 0x1000, value.to_bytes(8, "little"), 8)
        world.execute(ldr(0, 1), str_(0, 1, 8), x1=at + 0x1000)
        assert world.s.x[0] == value
        world.start(pc=at)
        world.finish()
        assert world.s.x[5] == value
        world.stage2.unmap(at, 0x2000)
        world.start(pc=at)  # first of all: the segment was the last one used
        assert world.run() == Exit.TRAP
        assert world.s.esr_el2 >> 26 == 0x20
        for word in (ldr(0, 1), str_(0, 1)):
            assert world.run_at(word, x1=at + 0x1000) == Exit.TRAP
            assert world.s.hpfar_el2 == at + 0x1000 >> 8


def test_unmap_takes_whole_segments(world: World) -> None:
    """Those that lie inside; others stay, and so do their decoded instructions."""
    host = world.map(0x1000_0000, 0x2000)
    other = world.map(0x1000_2000, 0x1000)
    world.stage2.unmap(0x1000_1000, 0x2000)
    world.execute(str_(0, 1), x0=5, x1=0x1000_1FF8)
    assert ctypes.string_at(host + 0x1FF8, 1) == b"\x05"
    assert world.run_at(ldr(0, 1), x1=0x1000_2000) == Exit.TRAP
    assert other


def test_written(world: World) -> None:
    """The host changes code and tells: the new code runs."""
    world.code(movz(0, 1), hvc(0))
    for value in (1, 2):
        word = movz(0, value)
        ctypes.memmove(world.host + CODE, word.to_bytes(4, "little"), 4)
        world.stage2.written(CODE, 4)
        world.start()
        world.finish()
        assert world.s.x[0] == value


def test_code_at_the_end_of_a_segment(world: World) -> None:
    """Straight on from the last word of a segment, into the next and into nothing."""
    hosts = [world.map(0x1000_0000, 0x1000), world.map(0x1000_1000, 0x1000)]
    nops = NOP.to_bytes(4, "little") * 1024
    for host in hosts:
        ctypes.memmove(host, nops, 4096)
    world.start(pc=0x1000_0000)
    assert world.run(5000) == Exit.TRAP
    assert (world.s.pc, world.s.count, world.s.esr_el2 >> 26) == (0x1000_2000, 2048, 0x20)


# -- a CPU ----------------------------------------------------------------------------------


def test_reset(world: World) -> None:
    """EL1h with everything masked, MMU off, registers zero; a second time too."""
    world.execute(movz(0, 1))
    for _ in range(2):
        world.cpu.reset()
        s = world.s
        assert (world.cpu.pstate, s.pc, s.sp, world.cpu.sp_el0) == (EL1H, 0, 0, 0)
        assert bytes(s.x) == bytes(31 * 8)
        assert bytes(s.v) == bytes(64 * 8)
        assert s.sctlr_el1 & 0x1005 == 0
        assert s.sctlr_el1 == 0x30D5_0998
        assert s.vbar_el1 == s.ttbr0_el1 == s.tcr_el1 == s.cpacr_el1 == 0
        assert s.id_aa64pfr0_el1 == world.stage2.engine.id_registers["id_aa64pfr0_el1"]
        world.cpu.pstate = EL0
        s.x[5] = s.v[3] = s.sp = s.fpcr = s.vbar_el1 = 77
        s.sctlr_el1 |= 1


@pytest.mark.parametrize("mode", [0, 4, 5])
def test_pstate(world: World, mode: int) -> None:
    for bits in (0, 0xF000_0000, 0x8000_0000, 0x4000_0000, 0x2000_0000, 0x1000_0000, 0x3C0, 0x40):
        value = bits | mode | 1 << 21
        world.cpu.pstate = value
        assert world.cpu.pstate == value


def test_banked_stack_pointers(world: World) -> None:
    cpu = world.cpu
    for first in (EL0, EL1T, EL1H):
        cpu.pstate = first
        cpu.sp_el0, cpu.sp_el1 = 0x1000, 0x2000
        for second in (EL0, EL1T, EL1H):
            cpu.pstate = second
            assert (cpu.sp_el0, cpu.sp_el1) == (0x1000, 0x2000)
            assert world.s.sp == (0x2000 if second == EL1H else 0x1000)


def test_vector_registers(world: World) -> None:
    value = 0x0123456789ABCDEF_FEDCBA9876543210
    world.cpu.set_v(31, value)
    assert world.cpu.get_v(31) == value
    assert (world.s.v[62], world.s.v[63]) == (value & M64, value >> 64)


def test_system_registers_by_encoding(world: World) -> None:
    cpu = world.cpu
    cpu.set_sysreg(3, 0, 12, 0, 0, 0x1234_5FFF)  # VBAR_EL1
    assert cpu.get_sysreg(3, 0, 12, 0, 0) == 0x1234_5800
    assert cpu.get_sysreg(3, 0, 0, 0, 0) == world.s.midr_el1
    for absent in ((3, 7, 15, 15, 7), (3, 0, 4, 2, 2), (3, 3, 14, 0, 2)):  # CURRENTEL, CNTVCT
        with pytest.raises(KeyError):
            cpu.get_sysreg(*absent)
        with pytest.raises(KeyError):
            cpu.set_sysreg(*absent, 0)


def test_what_follows_from_a_register(world: World) -> None:
    """set_sysreg has the same effect as MSR: CPACR_EL1 opens floating point."""
    fmov = 0x1E204000
    for fpen, ec in ((0, 7), (3, None), (1, None), (0, 7)):
        world.cpu.set_sysreg(3, 0, 1, 0, 2, fpen << 20)
        world.code(fmov)
        world.start()
        world.run()
        t = world.taken()
        assert (t and t.ec) == ec


def test_a_cpu_leaves(engine: Engine) -> None:
    """The others of its VM go on; there is room for as many as the layout says."""
    stage2 = Stage2(engine, arena=1 << 20)
    cpus = [Cpu(engine, stage2) for _ in range(4)]
    cpus[1].close()
    cpus[0].close()
    assert stage2._words[layout.S2_NCPUS // 8] == 2
    assert stage2._words[layout.S2_CPU_LIST // 8] == cpus[2].address


def test_two_cpus_share_memory(world: World, engine: Engine) -> None:
    """Each has registers of its own; code that one writes is what the other runs."""
    other = Cpu(engine, world.stage2)
    low = Space(world)
    low.identity(CODE, DATA)
    low.map(0x4000_0000, CODE, AF)
    low.install()
    for name in ("mair_el1", "tcr_el1", "ttbr0_el1", "sctlr_el1"):
        setattr(other.state, name, getattr(world.s, name))
    other.changed()
    world.code(add(0, 0, 1), b(-1))
    for cpu in (world.cpu, other):
        cpu.state.pc = CODE
        cpu.state.limit = 2001
        assert cpu.run() == Exit.LIMIT
        assert (cpu.state.count, cpu.state.x[0], cpu.state.pc) == (2001, 1001, CODE + 4)
    # The other CPU stands in this code and has it decoded.
    store = [str_(2, 1), hvc(0)]
    for i, word in enumerate(store):
        world.quad(DATA + 8 * i, word | NOP << 32)
    world.start(pc=DATA, x1=0x4000_0000, x2=add(0, 0, 5) | b(-1) << 32)
    world.finish()
    other.state.limit = 4001
    assert other.run() == Exit.LIMIT
    assert other.state.x[0] == 1001 + 5 * 1000
    # And back: writes of the first still see that its page holds code again.
    world.start(pc=DATA, x1=0x4000_0000, x2=add(0, 0, 7) | b(-1) << 32)
    world.finish()
    other.state.limit = 6001
    other.run()
    assert other.state.x[0] == 1001 + 5 * 1000 + 7 * 1000
    other.close()


# -- stopping -------------------------------------------------------------------------------


def spin(world: World, how: str) -> None:
    """A guest that never leaves by itself."""
    if how == "loop":
        world.code(B_SELF)
    elif how == "calls":
        world.code(svc(0), b(-1))
        world.code(0xD69F03E0, at=VECTORS + 0x200)  # eret
    elif how == "faults":  # its vectors cannot be fetched
        world.s.vbar_el1 = 0xFFFF_0000_0000_0000
        world.s.sctlr_el1 |= 1
        world.cpu.changed()
    world.start()
    world.s.limit = NEVER


@pytest.mark.parametrize("how", ["loop", "calls", "faults"])
def test_kick_from_another_thread(world: World, how: str) -> None:
    """The GIL is free while guest code runs, and a kick ends it."""
    spin(world, how)
    left: list[int] = []
    runner = threading.Thread(target=lambda: left.append(world.cpu.run()))
    runner.start()
    while world.s.limit32 == 0:
        time.sleep(0.001)
    world.cpu.kick()
    runner.join()
    assert left == [Exit.IRQ]
    assert world.s.kick == 0


def test_kick_before_the_run(world: World) -> None:
    """It holds until a run has returned, and only so long."""
    world.code(B_SELF)
    world.start()
    world.cpu.kick()
    assert world.run(1000) == Exit.IRQ
    assert world.s.count == 0
    assert world.run(1000) == Exit.LIMIT


def test_kicks_without_end(world: World) -> None:
    """Whenever they come: no instruction is lost or done twice."""
    world.code(add(0, 0, 1), b(-1))
    world.start(x0=0)
    done = threading.Event()

    def kick() -> None:
        while not done.is_set():
            world.cpu.kick()
            time.sleep(0)

    kicker = threading.Thread(target=kick)
    kicker.start()
    try:
        kicked = 0
        world.s.limit = 3_000_000
        while (left := world.cpu.run()) == Exit.IRQ:
            kicked += 1
            assert world.s.x[0] == (world.s.count + 1) // 2
            assert world.s.pc == CODE + 4 * (world.s.count % 2)
            if kicked > 200:
                done.set()
    finally:
        done.set()
        kicker.join()
    assert left == Exit.LIMIT
    assert (world.s.count, world.s.x[0]) == (3_000_000, 1_500_000)
    assert kicked
