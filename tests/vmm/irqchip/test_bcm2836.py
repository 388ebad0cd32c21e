"""The BCM2836's local interrupt controller against QA7 rev 3.4: routing, mailboxes, timers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armkvm.vmm.devices.device import OddAccesses
from armkvm.vmm.irqchip.bcm2836 import (
    CNTHP,
    CNTPNS,
    CNTPS,
    CNTV,
    CORES,
    LOCAL_TIMER_HZ,
    LT_CLEAR,
    LT_ENABLE,
    LT_FLAG,
    LT_IRQ_ENABLE,
    LT_RELOAD_NOW,
    SOURCE_GPU,
    SOURCE_LOCAL_TIMER,
    SOURCE_PMU,
    Bcm2836,
    R,
)

TIMERS = (CNTPS, CNTPNS, CNTHP, CNTV)


class Rig:
    """The chip, its clock and the lines that it drives."""

    def __init__(self) -> None:
        self.ns = 0
        self.odd = OddAccesses()
        self.lines = {"irq": [False] * CORES, "fiq": [False] * CORES}
        self.edges = 0
        self.armed: int | None = None
        self.chip = Bcm2836(
            CORES,
            self._moved("irq"),
            self._moved("fiq"),
            lambda: self.ns,
            self._arm,
            report=self.odd,
        )

    def _moved(self, line: str):  # type: ignore[no-untyped-def]
        def moved(core: int, level: bool) -> None:
            assert self.lines[line][core] != level  # only changes
            self.lines[line][core] = level
            self.edges += 1

        return moved

    def write(self, offset: int, value: int) -> None:
        self.chip.write(offset, 4, value)

    def read(self, offset: int) -> int:
        return self.chip.read(offset, 4)

    def _arm(self, when: int | None) -> None:
        assert when != self.armed  # only changes
        self.armed = when

    def deadline(self) -> int | None:
        assert self.armed == self.chip.deadline
        return self.armed

    def high(self) -> list[tuple[str, int]]:
        return [
            (line, core)
            for line, core in itertools.product(("irq", "fiq"), range(CORES))
            if self.lines[line][core]
        ]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("core", range(CORES))
@pytest.mark.parametrize("timer", TIMERS)
def test_timers_go_where_the_control_register_says(rig: Rig, core: int, timer: int) -> None:
    control, irq = R.TIMER_CONTROL + 4 * core, R.IRQ_SOURCE + 4 * core
    fiq = R.FIQ_SOURCE + 4 * core
    rig.chip.set_timer(core, timer, True)
    assert rig.high() == []  # nothing is enabled after reset
    rig.write(control, 1 << timer)
    assert (rig.read(irq), rig.read(fiq)) == (1 << timer, 0)
    assert rig.high() == [("irq", core)]
    # Section 4.6: enabled as FIQ, it is no IRQ.
    rig.write(control, 0x11 << timer)
    assert (rig.read(irq), rig.read(fiq)) == (0, 1 << timer)
    assert rig.high() == [("fiq", core)]
    # Pure levels: there is nothing to acknowledge.
    rig.chip.set_timer(core, timer, False)
    assert (rig.read(irq), rig.read(fiq)) == (0, 0)
    assert rig.high() == []


def test_a_mailbox_is_32_bits_that_are_set_and_cleared_one_by_one(rig: Rig) -> None:
    core, box = 2, 3
    offset = 16 * core + 4 * box
    rig.write(R.MAILBOX_CONTROL + 4 * core, 1 << box)
    rig.write(R.MAILBOX_SET + offset, 0x8000_0001)
    rig.write(R.MAILBOX_SET + offset, 0x10)
    assert rig.read(R.MAILBOX_CLEAR + offset) == 0x8000_0011
    assert rig.read(R.IRQ_SOURCE + 4 * core) == 0x80
    assert rig.high() == [("irq", core)]
    rig.write(R.MAILBOX_CLEAR + offset, 0x8000_0010)
    assert rig.high() == [("irq", core)]
    rig.write(R.MAILBOX_CLEAR + offset, 0xFFFF_FFFF)
    assert rig.read(R.MAILBOX_CLEAR + offset) == 0
    assert rig.high() == []
    assert rig.edges == 2


def test_an_ipi_reaches_its_core_and_no_other(rig: Rig) -> None:
    for core in range(CORES):
        rig.write(R.MAILBOX_CONTROL + 4 * core, 1)
    for core in range(CORES):
        rig.write(R.MAILBOX_SET + 16 * core, 1 << core)
        assert rig.high() == [("irq", core)]
        rig.write(R.MAILBOX_CLEAR + 16 * core, 1 << core)


@pytest.mark.parametrize("core", range(CORES))
def test_the_gpu_has_one_core_for_irq_and_one_for_fiq(rig: Rig, core: int) -> None:
    other = (core + 1) % CORES
    rig.write(R.GPU_ROUTING, other << 2 | core)
    rig.chip.set_gpu_irq(True)
    assert rig.high() == [("irq", core)]
    assert rig.read(R.IRQ_SOURCE + 4 * core) == 1 << SOURCE_GPU
    rig.chip.set_gpu_fiq(True)
    assert rig.high() == [("irq", core), ("fiq", other)]
    rig.write(R.GPU_ROUTING, core << 2 | other)
    assert rig.high() == [("irq", other), ("fiq", core)]


def test_performance_monitors_are_routed_by_set_and_clear(rig: Rig) -> None:
    rig.chip.set_pmu(1, True)
    rig.write(R.PM_ROUTING_SET, 0b1111)
    assert rig.read(R.IRQ_SOURCE + 4) == 1 << SOURCE_PMU
    assert rig.high() == [("irq", 1)]
    rig.write(R.PM_ROUTING_SET, 0x20)  # section 4.5: FIQ overrides IRQ
    assert rig.high() == [("fiq", 1)]
    rig.write(R.PM_ROUTING_CLEAR, 0x22)
    assert rig.read(R.PM_ROUTING_SET) == 0b1101
    assert rig.high() == []


def test_the_local_timer(rig: Rig) -> None:
    second = LOCAL_TIMER_HZ  # ticks
    assert rig.deadline() is None
    rig.write(R.LOCAL_ROUTING, 6)  # FIQ of core 2
    rig.write(R.LOCAL_TIMER, LT_ENABLE | LT_IRQ_ENABLE | second)
    assert rig.deadline() == 10**9
    rig.ns = 10**9 - 1
    rig.chip.tick()
    assert rig.high() == []
    rig.ns = 10**9
    rig.chip.tick()
    assert rig.high() == [("fiq", 2)]
    assert rig.read(R.FIQ_SOURCE + 8) == 1 << SOURCE_LOCAL_TIMER
    assert rig.read(R.LOCAL_TIMER) & LT_FLAG
    assert rig.deadline() is None  # the line is up: no zero will move it
    rig.write(R.LOCAL_TIMER_FLAGS, LT_CLEAR)
    assert rig.high() == []
    assert rig.deadline() == 2 * 10**9  # it has begun again
    # Several periods without anybody looking are one flag.
    rig.ns = 10**9 * 9 // 2
    assert rig.read(R.LOCAL_TIMER) & LT_FLAG
    rig.write(R.LOCAL_TIMER_FLAGS, LT_CLEAR)
    assert rig.deadline() == 5 * 10**9
    rig.write(R.LOCAL_TIMER_FLAGS, LT_RELOAD_NOW)
    assert rig.deadline() == 10**9 * 11 // 2
    rig.write(R.LOCAL_TIMER, LT_ENABLE | second)
    assert rig.deadline() is None  # it may be looked at, it does not interrupt
    rig.write(R.LOCAL_TIMER, LT_ENABLE | LT_IRQ_ENABLE | second)
    assert rig.deadline() == 10**9 * 11 // 2
    rig.write(R.LOCAL_TIMER, 0)
    assert rig.deadline() is None


def test_the_core_timer_as_linux_sets_it_counts_the_crystal(rig: Rig) -> None:
    rig.write(R.CONTROL, 0)
    rig.write(R.PRESCALER, 0x8000_0000)
    rig.ns = 1000 * 10**9
    assert rig.read(R.CORE_TIMER_LS) == 19_200_000_000 & 0xFFFF_FFFF
    assert rig.read(R.CORE_TIMER_MS) == 19_200_000_000 >> 32
    rig.write(R.CONTROL, 0x200)
    assert rig.read(R.CORE_TIMER_LS) == 38_400_000_000 & 0xFFFF_FFFF
    rig.write(R.CORE_TIMER_LS, 7)
    rig.write(R.CORE_TIMER_MS, 5)
    assert (rig.read(R.CORE_TIMER_LS), rig.read(R.CORE_TIMER_MS)) == (7, 5)


@pytest.mark.parametrize(
    ("offset", "written", "kept"),
    [
        (R.CONTROL, 0xFFFF_FFFF, 0x300),
        (R.PRESCALER, 0xFFFF_FFFF, 0xFFFF_FFFF),
        (R.GPU_ROUTING, 0xFFFF_FFFF, 0xF),
        (R.LOCAL_ROUTING, 0xFFFF_FFFF, 7),
        (R.AXI_IRQ, 0xFFFF_FFFF, 0x1F_FFFF),
        (R.TIMER_CONTROL + 12, 0xFFFF_FFFF, 0xFF),
        (R.MAILBOX_CONTROL, 0xFFFF_FFFF, 0xFF),
    ],
)
def test_reserved_bits_are_not_kept(rig: Rig, offset: int, written: int, kept: int) -> None:
    rig.write(offset, written)
    assert rig.read(offset) == kept
    assert rig.odd.count == 0


@pytest.mark.parametrize(
    ("offset", "size"), [(0x00, 1), (0x02, 2), (0x08, 8), (0x01, 4), (0x04, 4), (0x3C, 4)]
)
def test_odd_accesses_are_reported(rig: Rig, offset: int, size: int) -> None:
    assert rig.chip.read(offset, size, 3) == 0
    rig.chip.write(offset, size, 0xFF, 3)
    assert rig.odd.count == 2
    assert rig.odd.last[0].cpu == 3


def test_source_registers_are_read_only_and_mailbox_set_is_write_only(rig: Rig) -> None:
    rig.write(R.IRQ_SOURCE, 1)
    rig.write(R.FIQ_SOURCE + 12, 1)
    assert rig.read(R.MAILBOX_SET) == 0
    assert rig.odd.count == 3


inputs = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 0x110), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("timer"), st.integers(0, 3), st.integers(0, 7)),
    st.tuples(st.just("gpu"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("time"), st.integers(0, 10**10), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(inputs, max_size=30))
def test_the_lines_are_the_or_of_the_sources(steps: list[tuple[str, int, int]]) -> None:
    rig = Rig()
    for kind, a, b in steps:
        match kind:
            case "write":
                rig.chip.write(a & ~3 if b & 1 else a, 4, b)
            case "timer":
                rig.chip.set_timer(a, b & 3, b > 3)
            case "gpu":
                rig.chip.set_gpu_irq(bool(a & 1))
                rig.chip.set_gpu_fiq(bool(a & 2))
            case "time":
                rig.ns += a
                rig.chip.tick()
        for core in range(CORES):
            assert rig.lines["irq"][core] == (rig.chip.source(core, False) != 0)
            assert rig.lines["fiq"][core] == (rig.chip.source(core, True) != 0)
    # A snapshot in a fresh chip drives the same lines.
    other = Rig()
    other.ns = rig.ns
    other.chip.restore(rig.chip.state())
    assert other.lines == rig.lines
    assert other.chip.state() == rig.chip.state()


@pytest.mark.parametrize("cores", [0, 5])
def test_it_has_four_cores(cores: int) -> None:
    with pytest.raises(ValueError, match="1 to 4 cores"):
        Bcm2836(cores, lambda *_: None, lambda *_: None, lambda: 0)
