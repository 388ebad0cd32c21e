"""PL011 against its Technical Reference Manual, and the ways in which Linux's driver uses it."""

import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armkvm.vmm.board import Place, apb_clock_fdt
from armkvm.vmm.devices import pl011 as u
from armkvm.vmm.devices.device import OddAccesses
from armkvm.vmm.devices.pl011 import Pl011
from armkvm.vmm.fdt import Fdt

DR, RSR, FR, ILPR, IBRD, FBRD = 0x00, 0x04, 0x18, 0x20, 0x24, 0x28
LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR, DMACR = 0x2C, 0x30, 0x34, 0x38, 0x3C, 0x40, 0x44, 0x48


class Rig:
    def __init__(self, *, handover: bool = True) -> None:
        self.out = bytearray()
        self.line: list[bool] = []
        self.rooms = 0
        self.odd = OddAccesses()
        self.uart = Pl011(
            self.out.extend,
            self.line.append,
            on_room=self.count_room,
            report=self.odd,
            handover=handover,
        )

    def count_room(self) -> None:
        self.rooms += 1

    def read(self, offset: int, size: int = 4) -> int:
        return self.uart.read(offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.uart.write(offset, size, value)


def test_reset_values_of_table_3_1() -> None:
    rig = Rig(handover=False)
    values = {o: rig.read(o) for o in (RSR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, DMACR)}
    assert {o: v for o, v in values.items() if v} == {CR: 0x300, IFLS: 0x12}
    assert rig.read(FR) & 0xF8 == u.FR_TXFE | u.FR_RXFE
    assert rig.odd.count == 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_written_byte_goes_out_at_once(size: int) -> None:
    rig = Rig()
    rig.write(DR, ord("A"), size)
    assert rig.out == b"A"
    assert rig.read(FR) & (u.FR_TXFE | u.FR_BUSY | u.FR_TXFF) == u.FR_TXFE


def test_a_disabled_transmitter_holds_16_bytes_and_sends_them_when_enabled() -> None:
    rig = Rig(handover=False)
    rig.write(LCR_H, u.LCR_H_FEN)
    for i in range(17):
        rig.write(DR, i)
    assert rig.out == b""
    assert rig.read(FR) & (u.FR_BUSY | u.FR_TXFF | u.FR_TXFE) == u.FR_BUSY | u.FR_TXFF
    assert rig.odd.by_reason["pl011", "write to a full transmit FIFO"] == 1
    rig.write(CR, u.CR_UARTEN | u.CR_TXE)
    assert rig.out == bytes(range(16))
    assert rig.read(RIS) == u.INT_TX


def test_transmit_interrupt_comes_with_a_transmission_not_with_its_unmasking() -> None:
    # Section 2.8.3: it is a transition through the level; Linux therefore sends first.
    rig = Rig()
    rig.write(IMSC, u.INT_TX)
    assert rig.line == []
    rig.write(DR, 1)
    assert rig.line == [True]
    rig.write(ICR, u.INT_TX)
    assert rig.line == [True, False]
    rig.write(DR, 2)
    rig.write(IMSC, 0)
    assert rig.line == [True, False, True, False]
    # Masked, the status stays: Linux masks when it has nothing to send and unmasks later.
    assert rig.read(RIS) == u.INT_TX
    assert rig.read(MIS) == 0
    rig.write(IMSC, u.INT_TX)
    assert rig.line[-1] is True


def test_filling_above_the_trigger_clears_the_transmit_interrupt() -> None:
    rig = Rig()
    rig.write(DR, 0)
    rig.write(CR, u.CR_UARTEN)
    rig.write(IFLS, 2)  # half full
    for _ in range(8):
        rig.write(DR, 0)
    assert rig.read(RIS) & u.INT_TX
    rig.write(DR, 0)
    assert not rig.read(RIS) & u.INT_TX


@pytest.mark.parametrize(("select", "trigger"), [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14)])
def test_receive_interrupt_follows_the_trigger_level(select: int, trigger: int) -> None:
    rig = Rig()
    rig.write(IFLS, select << 3)
    rig.uart.receive(bytes(trigger - 1))
    assert not rig.read(RIS) & u.INT_RX
    rig.uart.receive(b"x")
    assert rig.read(RIS) & u.INT_RX
    rig.read(DR)
    assert not rig.read(RIS) & u.INT_RX


def test_receive_timeout_stays_until_the_fifo_is_empty() -> None:
    rig = Rig()
    rig.write(IMSC, u.INT_RT)
    assert rig.uart.receive(b"ab") == 2
    assert rig.line == [True]
    assert rig.read(DR) == ord("a")
    assert rig.read(MIS) == u.INT_RT
    assert rig.read(DR) == ord("b")
    assert rig.line == [True, False]
    assert rig.read(FR) & u.FR_RXFE


def test_input_left_after_clearing_the_timeout_is_announced_again() -> None:
    # A guest that clears UARTICR before it drains the FIFO must not sleep on waiting data.
    rig = Rig()
    rig.write(IMSC, u.INT_RT)
    rig.uart.receive(b"abc")
    rig.write(ICR, u.INT_RT)
    assert rig.line == [True, False]
    rig.read(DR)
    assert rig.line == [True, False, True]


def test_input_that_does_not_fit_stays_outside_and_room_is_announced() -> None:
    rig = Rig()
    assert rig.uart.room == 16
    assert rig.uart.receive(bytes(range(20))) == 16
    assert rig.read(FR) & u.FR_RXFF
    assert rig.uart.receive(b"z") == 0
    assert rig.rooms == 0
    assert rig.read(DR) == 0
    assert rig.rooms == 1
    rig.read(DR)
    assert rig.rooms == 1  # nobody was refused since
    assert not rig.read(RIS) & u.INT_OE
    assert [rig.read(DR) for _ in range(14)] == list(range(2, 16))


def test_who_has_more_is_told_of_room() -> None:
    rig = Rig()
    assert rig.uart.receive(bytes(16), more=True) == 16
    rig.read(DR)
    assert rig.rooms == 1
    assert rig.uart.receive(b"", more=True) == 0
    rig.read(DR)
    assert rig.rooms == 2
    rig.read(DR)
    assert rig.rooms == 2


@pytest.mark.parametrize("cr", [0, u.CR_UARTEN, u.CR_RXE, u.CR_UARTEN | u.CR_RXE | u.CR_LBE])
def test_a_receiver_that_does_not_listen_takes_nothing(cr: int) -> None:
    rig = Rig()
    rig.write(CR, cr)
    assert (rig.uart.room, rig.uart.receive(b"x"), rig.uart.receive_break()) == (0, 0, False)
    rig.write(CR, u.CR_UARTEN | u.CR_RXE)
    assert rig.rooms == 1
    assert rig.uart.receive(b"x") == 1


def test_without_fifos_there_is_one_byte() -> None:
    rig = Rig()
    rig.write(LCR_H, 0)
    assert rig.uart.receive(b"ab") == 1
    assert rig.read(FR) & (u.FR_RXFF | u.FR_RXFE) == u.FR_RXFF
    # Section 2.8.2: one character asserts the interrupt, reading it clears it.
    assert rig.read(RIS) == u.INT_RX
    assert rig.read(DR) == ord("a")
    assert rig.read(RIS) == 0


def test_switching_the_fifos_empties_them() -> None:
    rig = Rig()
    rig.write(IMSC, u.INT_RT)
    rig.uart.receive(b"abc")
    rig.write(LCR_H, 0)
    assert rig.read(FR) & u.FR_RXFE
    assert rig.line == [True, False]


def test_a_break_is_a_flagged_zero() -> None:
    rig = Rig()
    assert rig.uart.receive_break()
    rig.uart.receive(b"h")
    assert rig.read(RIS) & u.INT_BE
    assert rig.read(DR, 2) == u.DR_BE
    assert rig.read(RSR) == 4
    assert rig.read(DR, 2) == ord("h")
    assert rig.read(RSR) == 0


def test_loopback_feeds_the_receiver_and_overruns() -> None:
    rig = Rig()
    rig.write(CR, u.CR_UARTEN | u.CR_TXE | u.CR_RXE | u.CR_LBE)
    for i in range(17):
        rig.write(DR, i)
    assert rig.read(RIS) & u.INT_OE
    assert rig.read(RSR) == 8
    assert [rig.read(DR) for _ in range(16)] == list(range(16))
    rig.write(DR, 99)
    # Section 3.3.1: the first character after the loss carries the flag.
    assert rig.read(DR, 2) == u.DR_OE | 99
    rig.write(DR, 100)
    assert rig.read(DR, 2) == 100
    assert rig.read(RSR) == 8
    rig.write(RSR, 0)
    assert rig.read(RSR) == 0


def test_loopback_feeds_the_modem_lines_and_reports_their_changes() -> None:
    rig = Rig()
    modem = u.FR_CTS | u.FR_DSR | u.FR_DCD | u.FR_RI
    assert rig.read(FR, 2) & modem == u.FR_CTS | u.FR_DSR | u.FR_DCD
    rig.write(CR, u.CR_LBE | u.CR_RTS | u.CR_OUT2)
    assert rig.read(FR, 2) & modem == u.FR_CTS | u.FR_RI
    assert rig.read(RIS) == u.INT_DSR | u.INT_DCD | u.INT_RI
    rig.write(ICR, 0x7FF)
    rig.write(CR, u.CR_LBE | u.CR_DTR | u.CR_OUT1 | u.CR_OUT2)
    assert rig.read(FR, 2) & modem == u.FR_DSR | u.FR_DCD | u.FR_RI
    assert rig.read(RIS) == u.INT_CTS | u.INT_DSR | u.INT_DCD


def test_hardware_flow_control_waits_for_cts() -> None:
    rig = Rig()
    on = u.CR_UARTEN | u.CR_TXE | u.CR_LBE | u.CR_CTSEN
    rig.write(CR, on)
    rig.write(DR, 7)
    assert rig.out == b""
    rig.write(CR, on | u.CR_RTS)
    assert rig.out == b"\7"


@pytest.mark.parametrize(
    ("offset", "mask"),
    [(ILPR, 0xFF), (IBRD, 0xFFFF), (FBRD, 0x3F), (LCR_H, 0xFF), (CR, 0xFFFF), (IFLS, 0x3F),
     (IMSC, 0x7FF), (DMACR, 7)],
)  # fmt: skip
def test_stored_registers_have_their_width(offset: int, mask: int) -> None:
    rig = Rig()
    rig.write(offset, 0xFFFF_FFFF)
    assert rig.read(offset) == mask
    assert rig.read(offset, 1) == mask & 0xFF
    rig.write(offset, 0)
    assert rig.read(offset) == 0


def test_identification_is_that_of_a_pl011() -> None:
    rig = Rig()
    ids = [rig.read(0xFE0 + 4 * i) for i in range(8)]
    assert ids == [0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


@pytest.mark.parametrize(
    ("offset", "size", "write", "why"),
    [
        (DR, 4, False, "read of an empty receive FIFO"),
        (FR, 4, True, "write to a read-only register"),
        (RIS, 2, True, "write to a read-only register"),
        (ICR, 4, False, "read of a write-only register"),
        (0x08, 4, False, "reserved register"),
        (0x80, 4, True, "reserved register"),
        (DR + 1, 1, True, "not at a register's address"),
        (DR, 8, True, "wider than a register"),
    ],
)
def test_odd_accesses_are_reported(offset: int, size: int, write: bool, why: str) -> None:
    rig = Rig()
    before = rig.uart.state()
    if write:
        rig.write(offset, 0x41, size)
    else:
        assert rig.read(offset, size) == 0
    assert rig.odd.by_reason == {("pl011", why): 1}
    assert rig.uart.state() == before
    assert rig.out == b""


def test_a_snapshot_carries_the_fifo_and_the_line() -> None:
    rig = Rig()
    rig.write(IMSC, u.INT_RT)
    rig.uart.receive(b"hello")
    saved = rig.uart.state()
    other = Rig(handover=False)
    other.uart.restore(saved)
    rig.read(DR)  # the snapshot is a copy
    assert other.line == [True]
    assert bytes(other.read(DR) for _ in range(5)) == b"hello"
    saved.rx = [0] * 17
    with pytest.raises(ValueError, match="more than 16"):
        other.uart.restore(saved)


def test_its_node_compiles(oracle: Callable[[str], str | None]) -> None:
    fdt = Fdt()
    fdt.prop("#address-cells", 2)
    fdt.prop("#size-cells", 2)
    apb_clock_fdt(fdt)
    Rig().uart.fdt(fdt, Place(0x900_0000, 0x1000, spi=1))
    blob = fdt.blob()
    if dtc := oracle("dtc"):
        text = subprocess.run(
            [dtc, "-q", "-I", "dtb", "-O", "dts"], input=blob, capture_output=True, check=True
        ).stdout.decode()
        assert "pl011@9000000" in text
        assert "interrupts = <0x00 0x01 0x04>" in text
        assert text.count('"arm,pl011\\0arm,primecell"') == 1


registers = st.sampled_from([r.offset for r in Pl011.REGISTERS if r.offset < 0x100])
actions = st.lists(
    st.one_of(
        st.tuples(st.just("r"), registers | st.integers(-4, 0x1004), st.sampled_from((1, 2, 4, 8))),
        st.tuples(st.just("w"), registers, st.integers(0, 0xFFFF)),
        st.tuples(st.just("W"), st.integers(-4, 0x1004), st.integers(0, (1 << 64) - 1)),
        st.tuples(st.just("in"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("break"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(actions)
def test_no_sequence_of_accesses_breaks_it(sequence: list[tuple[str, int, int]]) -> None:
    rig = Rig()
    for kind, a, b in sequence:
        if kind == "r":
            assert 0 <= rig.read(a, b) < 1 << 8 * min(b, 4)
        elif kind == "w":
            rig.write(a, b)
        elif kind == "W":
            rig.write(a, b, 8 if b >> 32 else 4)
        elif kind == "in":
            room = rig.uart.room
            assert rig.uart.receive(bytes(a)) == min(a, room)
        else:
            rig.uart.receive_break()
        s = rig.uart.state()
        fifos = bool(s.lcr_h & u.LCR_H_FEN)
        depth = 16 if fifos else 1
        assert len(s.rx) <= depth
        assert len(s.tx) <= depth
        assert bool(rig.line and rig.line[-1]) == bool(s.ris & s.imsc)
        assert all(x != y for x, y in zip(rig.line, rig.line[1:], strict=False))
        flags = rig.read(FR, 2)
        assert bool(flags & u.FR_RXFE) == (not s.rx)
        assert bool(flags & u.FR_RXFF) == (len(s.rx) == depth)
        assert bool(flags & u.FR_TXFE) == (not s.tx)
        if not s.rx:
            assert not s.ris & (u.INT_RX | u.INT_RT)
