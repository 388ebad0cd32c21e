"""Whole systems on two independent CPUs agree after every stretch of instructions.

The same kvm, vmm and guest run on the engine and on unicorn (unicorn_cpu.py). Debian's kernels are
compared by `make lockstep`, which fetches them; what is here needs nothing that is not in the
repository.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lockstep import mixed
from tests.lockstep.compare import Pair, guest, lockstep
from tests.lockstep.machine import SteppedMachine
from tests.lockstep.syndrome import access_syndrome, access_va
from tests.lockstep.unicorn_cpu import UnicornBackend

from armkvm.arch.sysreg import SYSREGS
from armkvm.host.cpu import EngineBackend
from armkvm.vmm.guest import loader

BARE_MEMORY = 8 << 20

MakePair = Callable[..., Pair]


@pytest.fixture
def pair() -> Iterator[MakePair]:
    """Make a pair of machines; they are closed when the test ends."""
    made: list[Pair] = []

    def make(image: loader.Image, mem_bytes: int) -> Pair:
        made.append(Pair(image, "", mem_bytes))
        return made[-1]

    yield make
    for p in made:
        p.close()


def test_the_bare_guest_instruction_by_instruction(pair: MakePair) -> None:
    """Both timers, their interrupts through the user-space GIC, WFI, PSCI.

    Once its stack was not aligned, which QEMU does not see and the engine does.
    """
    p = pair(guest(None, BARE_MEMORY), BARE_MEMORY)
    report = ""
    while not p.ended and not report:
        p.advance(p.ours.vcpu.instructions + 1)
        report = "\n".join(p.differences(memory=False))
    assert report == ""
    assert p.differences(memory=True) == []
    assert p.ours.outcome is not None
    assert p.ours.outcome.reason == "shutdown"
    assert b"BOOT-OK" in p.ours.output.output


@pytest.mark.parametrize("seed", range(3))
def test_user_programs_under_a_kernel(pair: MakePair, seed: int) -> None:
    """Exceptions of all kinds, ticks, address spaces, rewritten code: about 2.4 million
    instructions and 25 thousand exceptions."""
    p = pair(mixed.image(seed, ticks=100), mixed.MEMORY)
    assert lockstep(p, every=1009, until=10**9) == ""
    assert p.ours.outcome is not None
    assert p.ours.outcome.reason == "shutdown"
    assert p.ours.vcpu.instructions > 2_000_000
    exceptions = p.ours.memory[mixed.LOG + 8 - 0x4000_0000 :][:8]
    assert int.from_bytes(exceptions, "little") > 10_000


def test_odd_steps_change_nothing(pair: MakePair) -> None:
    """A run in pieces of any size is the same run."""
    whole = pair(mixed.image(9, ticks=8), mixed.MEMORY)
    whole.advance(10**9)
    pieces = pair(mixed.image(9, ticks=8), mixed.MEMORY)
    size = 1
    while not pieces.ended:
        pieces.advance(pieces.ours.vcpu.instructions + size)
        size = size * 5 % 1021
    for one, other in ((whole.ours, pieces.ours), (whole.theirs, pieces.theirs)):
        assert one.vcpu.instructions == other.vcpu.instructions
        assert one.output.output == other.output.output
        assert one.memory[:] == other.memory[:]


@pytest.mark.parametrize("at", [1, 40_000, 100_001])
def test_bisection_finds_the_instruction(pair: MakePair, at: int) -> None:
    """A register that changes by itself on one CPU is reported at that count.

    The comparison would be worth nothing if it could not see a difference.
    """
    p = pair(mixed.image(1, ticks=8), mixed.MEMORY)
    honest = p.ours.advance

    def advance(count: int) -> None:
        if p.ours.vcpu.instructions < at <= count:
            honest(at)
            state: Any = p.ours.vcpu.state
            state.v[63] ^= 1
        honest(count)

    p.ours.advance = advance  # type: ignore[method-assign]
    report = lockstep(p, every=30_000, until=150_000)
    first, *rest = report.splitlines()
    assert first.startswith(f"equal at {at - 1} instructions, before PC 0x")
    assert any(line.startswith("v31: ") for line in rest)


def test_a_difference_in_memory_is_found(pair: MakePair) -> None:
    p = pair(guest(None, BARE_MEMORY), BARE_MEMORY)
    p.advance(1000)
    assert p.differences(memory=True) == []
    p.theirs.memory[0x12_3456] ^= 1
    assert p.differences(memory=False) == []
    (line,) = p.differences(memory=True)
    assert "memory differs in 1 pages, first at 0x40123450" in line


def test_the_same_registers_have_the_same_values() -> None:
    """Every system register that EL1 can read is read on both, with what reset left in it."""
    image = guest(None, BARE_MEMORY)
    machines = [
        SteppedMachine(b, image, "", BARE_MEMORY) for b in (EngineBackend(), UnicornBackend())
    ]
    for r in SYSREGS:
        op0, op1, crn, crm, op2 = r.enc
        word = 0xD530_0000 | op0 - 2 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
        values = []
        for machine in machines:
            machine.memory[0x10_0000:0x10_0004] = word.to_bytes(4, "little")
            machine.vcpu.vm.memory_written(0x4010_0000, 4)
            cpu, state = machine.vcpu.cpu, machine.vcpu.state
            cpu.set_sysreg(3, 0, 1, 0, 2, 3 << 20)  # CPACR_EL1: unicorn does not trap FPCR
            state.pc, state.x[0] = 0x4010_0000, 0
            state.limit = state.count + 1
            values.append((cpu.run(), state.pc, state.x[0], state.esr_el1))
        assert values[0] == values[1], r.name
    for machine in machines:
        machine.close()
        machine.system.close()


# word, ISS without WnR, address: A64 loads and stores of general registers with their syndromes.
@pytest.mark.parametrize(
    ("word", "iss", "offset"),
    [
        (0xB9000C20, 1 << 24 | 2 << 22, 12),  # str w0, [x1, #12]
        (0x39401C22, 1 << 24 | 2 << 16, 7),  # ldrb w2, [x1, #7]
        (0xF85F8023, 1 << 24 | 3 << 22 | 3 << 16 | 1 << 15, -8),  # ldur x3, [x1, #-8]
        (0xB8A26820, 1 << 24 | 2 << 22 | 1 << 21 | 1 << 15, 64),  # ldrsw x0, [x1, x2]
        (0xB8405C20, 0, 5),  # ldr w0, [x1, #5]!
        (0xA9410820, 0, 16),  # ldp x0, x2, [x1, #16]
        (0x3DC00420, 0, 16),  # ldr q0, [x1, #16]
        (0x88DFFC20, 1 << 24 | 2 << 22 | 1 << 14, 0),  # ldar w0, [x1]
    ],
)
def test_syndromes(word: int, iss: int, offset: int) -> None:
    x = (ctypes.c_uint64 * 32)(0, 0x1000, 64)
    assert access_syndrome(word) == iss
    assert access_va(word, 0, x) == 0x1000 + offset


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_forks_leave_nothing_behind(pair: MakePair) -> None:
    p = pair(guest(None, BARE_MEMORY), BARE_MEMORY)
    before, had = os.listdir("/proc/self/fd"), children()
    assert lockstep(p, every=7, until=2000) == ""
    assert os.listdir("/proc/self/fd") == before
    assert children() == had
