"""The machine as its guests see it."""

from __future__ import annotations

import inspect
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.test_house import imports
from tests.vmm import programs as p

from armkvm.kvm.system import System
from armkvm.vmm import snapshot
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import load
from armkvm.vmm.machine import Config, Machine, Outcome

MEMORY = 8 << 20
GICD, GICC, RTC = 0x0800_0000, 0x0801_0000, 0x0901_0000
ISR_EL1 = (3, 0, 12, 1, 0)


def boot(code: bytes, *, host: str = "nvhe-gicv2", **config: Any) -> tuple[Outcome, bytes, float]:
    """Run a flat binary: how it ended, what it printed, how long it took in guest seconds."""
    console = BufferConsole()
    with System(host, "virtual") as system:
        image = load(code, mem_bytes=MEMORY, flat=True)
        machine = Machine(Config(system, image, console, mem_bytes=MEMORY, timeout=30, **config))
        try:
            outcome = machine.run()
            return outcome, bytes(console.output), machine.stats()["guest_seconds"]
        finally:
            machine.close()


GIC = [
    *p.put(GICD, 1), *p.put(GICD + 0x104, 1 << 2), *p.put(GICD + 0x820, 0x0001_0000),
    *p.put(GICC + 4, 0xFF), *p.put(GICC, 1),
]  # fmt: skip
ARMCTRL = p.put(0x0801_0000 + 0x14, 1 << 52 - 32)


@pytest.mark.parametrize(
    ("irqchip", "setup"), [("gicv2", GIC), ("kernel-gicv2", GIC), ("bcm2836", ARMCTRL)]
)
@pytest.mark.parametrize("asleep", [True, False])
def test_the_clocks_alarm_interrupts(irqchip: str, setup: list[int], asleep: bool) -> None:
    """At its second, to a guest that sleeps for it, and to one that never leaves."""
    code = p.flat(
        setup, p.mov(1, RTC), p.ldr(2, 1), p.add(2, 2, 1), p.put(RTC + 0x10, 1),
        p.mov(1, RTC + 4), p.store(2, 1),  # RTCMR: in a second
        p.WFI if asleep else p.NOP, p.mrs(3, *ISR_EL1), p.cbz(3, -2),
        p.mov(1, RTC + 0x18), p.ldr(4, 1), p.add(4, 4, 0x30), p.show(4), p.OFF,
    )  # fmt: skip
    outcome, output, seconds = boot(code, irqchip=irqchip)
    assert (outcome.reason, output) == ("shutdown", b"1")
    assert 1.0 <= seconds < 1.001


PPI_PMU = [*p.put(GICD, 1), *p.put(GICD + 0x100, 1 << 23), *p.put(GICC + 4, 0xFF), *p.put(GICC, 1)]
PMCR, PMCNTENSET, PMCCNTR = (3, 3, 9, 12, 0), (3, 3, 9, 12, 1), (3, 3, 9, 13, 0)
PMINTENSET = (3, 0, 9, 14, 1)


@pytest.mark.parametrize(
    ("irqchip", "setup"),
    [("gicv2", PPI_PMU), ("kernel-gicv2", PPI_PMU), ("bcm2836", p.put(0x0800_0010, 1))],
)
def test_the_pmu_interrupts(irqchip: str, setup: list[int]) -> None:
    code = p.flat(
        setup, p.mov(1, 1 << 6 | 1), p.msr(1, *PMCR), p.mov(1, 2**64 - 1000), p.msr(1, *PMCCNTR),
        p.mov(1, 1 << 31), p.msr(1, *PMINTENSET), p.msr(1, *PMCNTENSET),
        p.NOP, p.mrs(3, *ISR_EL1), p.cbz(3, -2), p.mov(4, 0x31), p.show(4), p.OFF,
    )  # fmt: skip
    outcome, output, _ = boot(code, irqchip=irqchip, pmu=True)
    assert (outcome.reason, output) == ("shutdown", b"1")


def chosen(host: str = "nvhe-gicv2", **config: Any) -> dict[str, bytes]:
    """Properties of a machine's device tree, of any node, by name."""
    with System(host, "virtual") as system:
        image = load(p.flat(p.OFF), mem_bytes=MEMORY, flat=True)
        machine = Machine(Config(system, image, BufferConsole(), mem_bytes=MEMORY, **config))
        try:
            return dict(properties(machine.dtb()))
        finally:
            machine.close()


def properties(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Chapter 5 of the specification, without the nodes."""
    structure, strings = struct.unpack_from(">2I", blob, 8)
    at = structure
    while (token := int.from_bytes(blob[at : at + 4], "big")) != 9:
        at += 4
        if token == 1:
            at = blob.index(b"\0", at) + 4 & ~3
        elif token == 3:
            size, name = struct.unpack_from(">2I", blob, at)
            begin = strings + name
            yield blob[begin : blob.index(b"\0", begin)].decode(), blob[at + 8 : at + 8 + size]
            at += 8 + size + 3 & ~3


def test_the_guest_gets_random_numbers_that_a_seed_repeats() -> None:
    first, same, other = chosen(seed=1), chosen(seed=1), chosen(seed=2)
    for name, size in (("rng-seed", 32), ("kaslr-seed", 8)):
        assert len(first[name]) == size
        assert first[name] == same[name] != other[name]
    assert first["rng-seed"][:8] != first["kaslr-seed"]


@pytest.mark.parametrize("host", ["nvhe-gicv2", "vhe-gicv3"])
def test_caches_have_one_set_of_one_way(host: str) -> None:
    """Of lines of 64 bytes, as 6.12 makes them up: nobody shall clean them by set and way."""
    code = p.flat(p.mrs(4, 3, 1, 0, 0, 0), p.add(4, 4, 0x30), p.show(4), p.OFF)
    outcome, output, _ = boot(code, host=host)
    assert (outcome.reason, output) == ("shutdown", b"2")


@pytest.mark.parametrize(
    ("host", "irqchip", "cpus"),
    [
        ("nvhe-gicv2", "gicv2", 6), ("nvhe-gicv2", "bcm2836", 4),
        ("nvhe-gicv2", "kernel-gicv2", 8), ("vhe-gicv3", "kernel-gicv3", 17),
        ("vhe-gicv3", "kernel-gicv3-its", 2),
    ],
)  # fmt: skip
def test_the_device_tree_compiles(
    host: str, irqchip: str, cpus: int, oracle: Callable[[str], str | None]
) -> None:
    """Without a warning, with everything in it."""
    image = load(p.flat(p.OFF), mem_bytes=MEMORY, flat=True)
    with System(host, "virtual") as system:
        config = Config(system, image, BufferConsole(), mem_bytes=MEMORY, cpus=cpus, pmu=True)
        machine = Machine(replace(config, irqchip=irqchip))
        blob = machine.dtb()
        machine.close()
    assert blob.count(b"l2-cache") == (cpus if host == "vhe-gicv3" else -(-cpus // 4))
    if dtc := oracle("dtc"):
        done = subprocess.run([dtc, "-I", "dtb", "-O", "dts"], input=blob, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")


def test_an_armed_alarm_survives_a_restore() -> None:
    """A machine that sleeps for its clock is saved, and another one is woken by its own."""
    code = p.flat(
        GIC, p.mov(1, RTC), p.ldr(2, 1), p.add(2, 2, 3), p.put(RTC + 0x10, 1),
        p.mov(1, RTC + 4), p.store(2, 1), p.mov(5, 1000), 0xD10004A5, 0xB5FFFFE5,
        p.WFI, p.mov(1, RTC + 0x18), p.ldr(4, 1), p.add(4, 4, 0x30), p.show(4), p.OFF,
    )  # fmt: skip
    with System("nvhe-gicv2", "virtual") as system:
        image = load(code, mem_bytes=MEMORY, flat=True)
        first = Machine(Config(system, image, BufferConsole(), mem_bytes=MEMORY, max_insns=500))
        assert first.run().reason == "limit"
        saved = snapshot.save(first)
        first.close()
    console = BufferConsole()
    with System("nvhe-gicv2", "virtual") as system:
        second = Machine(Config(system, None, console, mem_bytes=MEMORY, timeout=30))
        snapshot.restore(second, saved)
        assert second.run().reason == "shutdown"
        assert 3.0 <= second.stats()["guest_seconds"] < 3.001
        second.close()
    assert console.output == b"1"


def test_machine_and_snapshot_import_one_way() -> None:
    """Who saves a machine calls snapshot; the machine knows nothing of it."""
    source = Path(inspect.getfile(Machine))
    assert not [name for name in imports(source) if name.startswith("armkvm.vmm.snapshot")]
