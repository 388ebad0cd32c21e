"""Guests that cannot go on: each is named, and one that can is left alone."""

from __future__ import annotations

import pytest
from tests.vmm import programs as p
from tests.vmm.test_machine import MEMORY, boot

from armkvm.kvm.system import System
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import load
from armkvm.vmm.machine import Config, Machine

RAM = 0x4000_0000
VBAR_EL1 = (3, 0, 12, 0, 0)
UDF = 0x0000_0000


def vectors(address: int) -> list[int]:
    return [*p.mov(1, address), p.msr(1, *VBAR_EL1)]


def lost(*parts: int | list[int], host: str = "nvhe-gicv2", cpus: int = 1) -> str:
    """How a guest ended that shall have no end of its own."""
    outcome, _, _ = boot(p.flat(*parts), host=host, cpus=cpus)
    assert outcome.reason == "crash"
    return outcome.message


@pytest.mark.parametrize("host", ["nvhe-gicv2", "vhe-gicv3"])
def test_vectors_where_nothing_is(host: str) -> None:
    """As after reset, VBAR_EL1 zero: KVM injects an abort of the fetch, for ever."""
    said = lost(UDF, host=host)
    assert "takes the same exception at its vector for ever" in said
    assert "vector 0x200, ESR_EL1 0x86000010 (instruction abort), ELR_EL1 0x200" in said


def test_vectors_that_hold_no_instructions() -> None:
    said = lost(vectors(RAM), UDF)
    assert f"vector {RAM + 0x200:#x}, ESR_EL1 0x2000000 (undefined instruction)" in said


def test_a_vector_that_uses_a_stack_which_is_not_there() -> None:
    """The kind that a first instruction hides: two work, the third faults."""
    at = RAM + 0x200
    code = [*p.mov(3, at)]
    for word in (p.NOP, p.add(2, 2, 1), 0xF94003E0):  # nop; add w2, w2, #1; ldr x0, [sp]
        code += [*p.mov(4, word), p.store(4, 3), 0x91001063]  # add x3, x3, #4
    said = lost(code, p.mov(5, 0x7000_0001), 0x910000BF, vectors(RAM), UDF)  # mov sp, x5
    assert f"vector {at:#x}, ESR_EL1" in said
    assert f"ELR_EL1 {at + 8:#x}" in said


def test_a_handler_whose_stack_is_not_there() -> None:
    """The vector branches to it; its first store faults, with interrupts masked."""
    handler = RAM + 0x1000
    code = [*p.mov(3, RAM + 0x200), *p.mov(4, 0x14000000 | 0xE00 >> 2), p.store(4, 3)]  # b handler
    code += [*p.mov(3, handler), *p.mov(4, 0xA9BF7BFD), p.store(4, 3)]  # stp x29, x30, [sp, #-16]!
    said = lost(code, p.mov(5, 0x7000_0001), 0x910000BF, vectors(RAM), UDF)
    assert f"vector {RAM + 0x200:#x}, ESR_EL1" in said
    assert f"(SP alignment), ELR_EL1 {handler:#x}" in said


def test_a_handler_that_counts_goes_on() -> None:
    """It faults for every step of a count, with interrupts masked, and never returns by ERET."""
    # sub x1, x1, #1; cbnz x1, .+8; b .+8; udf; then power off
    words = [0xD1000421, 0xB5000041, 0x14000002, UDF, *p.OFF]
    at = RAM + 0x1000
    code = [
        *p.mov(3, RAM + 0x200),
        *p.mov(4, 0x14000000 | 0xE00 >> 2),
        p.store(4, 3),
        *p.mov(3, at),
    ]
    for word in words:
        code += [*p.mov(4, word), p.store(4, 3), 0x91001063]
    outcome, _, _ = boot(p.flat(code, vectors(RAM), p.mov(1, 300_000), UDF))
    assert outcome.reason == "shutdown"


def test_one_of_several_vcpus_is_named_when_the_others_rest() -> None:
    said = lost(UDF, cpus=4)
    assert said.startswith("vCPU 0 takes")


def test_exceptions_that_are_handled_go_on() -> None:
    """A million in a loop, from EL1, to a vector that returns."""
    stub = [*p.mov(3, RAM + 0x200), *p.mov(4, 0xD69F03E0), p.store(4, 3)]  # eret
    loop = [0xD4000001, 0xD1000421, 0xB5FFFFC1]  # svc #0; sub x1, x1, #1; cbnz x1, .-8
    code = p.flat(stub, vectors(RAM), p.mov(1, 1_000_000), loop, p.OFF)
    outcome, _, _ = boot(code)
    assert outcome.reason == "shutdown"


def test_a_vector_that_faults_a_few_times_goes_on() -> None:
    """Its registers look as if it were lost, for as long as no other exception is taken."""
    # add x2, x2, #1; cmp x2, #20; b.eq .+8; udf; count down from x5; power off
    words = [0x91000442, 0xF100505F, 0x54000040, UDF, 0xD10004A5, 0xB5FFFFE5, *p.OFF]
    code = p.mov(3, RAM + 0x200)
    for word in words:
        code += [*p.mov(4, word), p.store(4, 3), 0x91001063]
    outcome, _, _ = boot(p.flat(code, p.mov(2, 0), p.mov(5, 1_000_000), vectors(RAM), UDF))
    assert outcome.reason == "shutdown"


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("time", ["virtual", "paced", "realtime"])
def test_a_guest_that_sleeps_for_ever_ends_the_run(time: str, cpus: int) -> None:
    console = BufferConsole()
    console.ended = True
    with System("nvhe-gicv2", time) as system:
        image = load(p.flat(p.WFI, 0x17FFFFFF), mem_bytes=MEMORY, flat=True)
        machine = Machine(Config(system, image, console, mem_bytes=MEMORY, cpus=cpus, timeout=30))
        try:
            outcome = machine.run()
        finally:
            machine.close()
    assert outcome.reason == "asleep"


def test_a_guest_that_waits_for_its_timer_does_not_end_it() -> None:
    """CNTV_TVAL, enabled: its output ends the WFI with the interrupt masked."""
    code = p.flat(
        p.mov(1, 62_500), p.msr(1, 3, 3, 14, 3, 0), p.mov(1, 1), p.msr(1, 3, 3, 14, 3, 1),
        p.put(0x0800_0000, 1), p.put(0x0800_0100, 1 << 27), p.put(0x0801_0004, 0xFF),
        p.put(0x0801_0000, 1), p.WFI, p.OFF,
    )  # fmt: skip
    console = BufferConsole()
    console.ended = True
    with System("nvhe-gicv2", "virtual") as system:
        image = load(code, mem_bytes=MEMORY, flat=True)
        machine = Machine(Config(system, image, console, mem_bytes=MEMORY))
        try:
            assert machine.run().reason == "shutdown"
        finally:
            machine.close()


def test_a_panic_is_told_with_the_reset() -> None:
    text = b"[    0.1] Kernel panic - not syncing: VFS: Unable to mount root fs\r\nmore\r\n"
    code = p.flat([word for byte in text for word in (*p.mov(2, byte), *p.show(2))], p.RESET)
    outcome, output, _ = boot(code)
    assert output == text
    assert (outcome.reason, outcome.message) == ("reset", "VFS: Unable to mount root fs")
