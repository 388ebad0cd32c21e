"""PL031 against its Technical Reference Manual."""

import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armkvm.vmm.board import LABEL_APB_CLOCK, Place, apb_clock_fdt
from armkvm.vmm.devices.device import OddAccesses
from armkvm.vmm.devices.pl031 import Pl031
from armkvm.vmm.fdt import Fdt

DR, MR, LR, CR, IMSC, RIS, MIS, ICR = range(0, 0x20, 4)
M32 = 0xFFFF_FFFF


class Rig:
    def __init__(self, now: float = 1_700_000_000.75, *, handover: bool = True) -> None:
        self.now = now
        self.line: list[bool] = []
        self.odd = OddAccesses()
        self.armed: list[int | None] = []
        self.rtc = Pl031(
            lambda: self.now, self.line.append, self.armed.append,
            report=self.odd, handover=handover,
        )  # fmt: skip

    def deadline(self) -> int | None:
        assert [None, *self.armed][-1] == self.rtc.deadline
        return self.rtc.deadline

    def read(self, offset: int) -> int:
        return self.rtc.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.rtc.write(offset, 4, value)


def test_it_tells_the_seconds_of_the_given_clock() -> None:
    rig = Rig()
    assert rig.read(DR) == 1_700_000_000
    rig.now += 0.25
    assert rig.read(DR) == 1_700_000_001


def test_a_load_sets_the_counter_and_reads_back() -> None:
    rig = Rig()
    rig.write(LR, 100)
    rig.now += 5
    assert (rig.read(DR), rig.read(LR)) == (105, 100)


def test_after_reset_it_stands_still_until_enabled_and_cannot_be_stopped() -> None:
    rig = Rig(handover=False)
    rig.now += 50
    assert (rig.read(DR), rig.read(CR)) == (0, 0)
    rig.write(LR, 7)
    rig.now += 50
    assert rig.read(DR) == 7
    rig.write(CR, 1)
    rig.now += 3
    rig.write(CR, 0)
    assert (rig.read(DR), rig.read(CR)) == (10, 1)


def test_the_alarm_raises_the_line_at_its_second_and_not_before() -> None:
    rig = Rig()
    rig.write(IMSC, 1)
    rig.write(MR, rig.read(DR) + 10)
    assert rig.deadline() == 1_700_000_010
    rig.now = 1_700_000_009.99
    rig.rtc.tick()
    assert rig.line == []
    rig.now = 1_700_000_010
    rig.rtc.tick()
    assert (rig.line, rig.read(RIS), rig.read(MIS)) == ([True], 1, 1)
    assert rig.deadline() is None
    rig.write(ICR, 1)
    assert rig.line == [True, False]
    # Section 2.2.2: the next match is a whole turn of the counter away.
    assert rig.deadline() == 1_700_000_010 + (1 << 32)


def test_an_alarm_in_the_present_second_is_due_at_once() -> None:
    rig = Rig()
    rig.write(IMSC, 1)
    rig.write(MR, rig.read(DR))
    assert rig.line == [True]


def test_a_masked_alarm_shows_in_the_raw_status_only() -> None:
    rig = Rig()
    rig.write(MR, rig.read(DR) + 1)
    assert rig.deadline() is None
    rig.now += 2
    assert (rig.read(RIS), rig.read(MIS)) == (1, 0)
    rig.write(IMSC, 1)
    assert rig.line == [True]
    rig.write(IMSC, 0)
    assert rig.line == [True, False]


def test_an_alarm_that_passed_unseen_is_not_lost_by_setting_the_next() -> None:
    rig = Rig()
    rig.write(IMSC, 1)
    rig.write(MR, rig.read(DR) + 1)
    rig.now += 5
    rig.write(MR, rig.read(DR) + 100)
    assert rig.line == [True]


def test_loading_the_counter_moves_the_alarm() -> None:
    rig = Rig()
    rig.write(IMSC, 1)
    rig.write(MR, 50)
    rig.write(LR, 40)
    assert rig.deadline() == 1_700_000_010


def test_a_fresh_clock_does_not_match_its_reset_alarm() -> None:
    rig = Rig(now=0.0)
    rig.write(IMSC, 1)
    assert rig.line == []
    assert rig.deadline() == 1 << 32


def test_a_snapshot_keeps_counter_and_alarm_relative_to_the_clock() -> None:
    rig = Rig()
    rig.write(LR, 1000)
    rig.write(MR, 1020)
    rig.write(IMSC, 1)
    saved = rig.rtc.state()
    later = Rig(now=rig.now + 30)
    later.rtc.restore(saved)
    assert later.read(DR) == 1030
    assert later.line == [True]
    assert rig.line == []  # the copy is independent
    assert rig.rtc.state() == saved


def test_identification_is_that_of_a_pl031() -> None:
    rig = Rig()
    assert [rig.read(0xFE0 + 4 * i) for i in range(8)] == [
        0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1,
    ]  # fmt: skip
    assert rig.odd.count == 0


@pytest.mark.parametrize(
    ("offset", "size", "read_why", "write_why"),
    [
        (DR, 4, None, "write to a read-only register"),
        (0xFE0, 4, None, "write to a read-only register"),
        (ICR, 4, "read of a write-only register", None),
        (0x20, 4, "reserved register", "reserved register"),
        (MR + 1, 1, "not at a register's address", "not at a register's address"),
        (MR, 8, "wider than a register", "wider than a register"),
    ],
)
def test_odd_accesses_are_reported(
    offset: int, size: int, read_why: str | None, write_why: str | None
) -> None:
    rig = Rig()
    before = rig.rtc.state()
    value = rig.rtc.read(offset, size)
    reasons = list(rig.odd.by_reason.elements())
    assert reasons == ([("pl031", read_why)] if read_why else [])
    assert value == 0 or read_why is None
    rig.rtc.write(offset, size, 1)
    reasons = list(rig.odd.by_reason.elements())[len(reasons) :]
    if write_why:
        assert rig.odd.last[-1].why == write_why
        assert rig.odd.last[-1].value == 1
        assert rig.rtc.state() == before


def test_its_node_compiles(oracle: Callable[[str], str | None]) -> None:
    fdt = Fdt()
    fdt.prop("#address-cells", 2)
    fdt.prop("#size-cells", 2)
    apb_clock_fdt(fdt)
    Rig().rtc.fdt(fdt, Place(0x901_0000, 0x1000, spi=2))
    assert fdt.phandle(LABEL_APB_CLOCK) == 1
    blob = fdt.blob()
    if dtc := oracle("dtc"):
        text = subprocess.run(
            [dtc, "-q", "-I", "dtb", "-O", "dts"], input=blob, capture_output=True, check=True
        ).stdout.decode()
        assert "pl031@9010000" in text
        assert "interrupts = <0x00 0x02 0x04>" in text


accesses = st.lists(
    st.tuples(
        st.one_of(st.integers(-8, 0x1010), st.sampled_from(range(0, 0x20, 4))),
        st.sampled_from((1, 2, 4, 8)),
        st.one_of(st.none(), st.integers(0, (1 << 64) - 1), st.integers(0, 3)),
        st.floats(-10, 1e10),
    ),
    max_size=40,
)


@given(accesses, st.booleans())
def test_no_sequence_of_accesses_breaks_it(
    sequence: list[tuple[int, int, int | None, float]], handover: bool
) -> None:
    rig = Rig(handover=handover)
    for offset, size, value, step in sequence:
        rig.now += step
        if value is None:
            assert 0 <= rig.rtc.read(offset, size) < 1 << 8 * min(size, 4)
        else:
            rig.rtc.write(offset, size, value)
        s = rig.rtc.state()
        assert bool(rig.line and rig.line[-1]) == bool(s.ris & s.imsc)
        assert all(a != b for a, b in zip(rig.line, rig.line[1:], strict=False))
        deadline = rig.deadline()
        if deadline is not None:
            # The counter equals the match register in exactly that second.
            other = Rig(now=deadline)
            other.rtc.restore(s)
            assert other.read(DR) == s.mr
            assert other.line == [True]
