"""PL011, the PrimeCell UART: the machine's console.

Mirrors the PL011 Technical Reference Manual (ARM DDI 0183), chapter 3 and section 2.8
(interrupts). The line has no bit times: a byte is transmitted in the moment it is written, the
receive timeout expires in the moment the line falls silent, and the baud rate, word length,
parity, stop bits and IrDA settings are stored and never acted on. Left out: DMA, the integration
test registers, IrDA. Beyond CTS, DSR and DCD asserted the other end has no modem lines.

Threat model: a guest writes any value at any rate and may never read what it receives. Both FIFOs
are bounded by their 16 entries; input that does not fit stays with the VMM (``receive`` says how
much was taken); each byte of output passes straight to the VMM's callable and is not kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from armkvm.vmm.board import APB_CLOCK_HZ, LABEL_APB_CLOCK, Describe, Place, interrupt_fdt
from armkvm.vmm.devices.device import (
    Line,
    Register,
    RegisterBlock,
    Report,
    disconnected,
    on_change,
    primecell_ids,
    unreported,
)
from armkvm.vmm.devices.platform import Fitted, Platform
from armkvm.vmm.fdt import Fdt

PLACE = Place(0x0900_0000, 0x1000, spi=1, gpu_irq=57)

FIFO_DEPTH = 16
# Section 3.3.9: 1/8, 1/4, 1/2, 3/4, 7/8 of the FIFO; the reserved encodings act as the last.
TRIGGER = (2, 4, 8, 12, 14, 14, 14, 14)

# Data register, section 3.3.1: the error flags in bits 11:8 of a received entry.
DR_FE, DR_PE, DR_BE, DR_OE = 1 << 8, 1 << 9, 1 << 10, 1 << 11
RSR_OE = 1 << 3

# Flag register, section 3.3.3. The modem bits are the complement of the active-low inputs.
FR_CTS, FR_DSR, FR_DCD, FR_RI = 1 << 0, 1 << 1, 1 << 2, 1 << 8
FR_BUSY, FR_RXFE, FR_TXFF, FR_RXFF, FR_TXFE = 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7

LCR_H_BRK, LCR_H_FEN, LCR_H_WLEN_8 = 1 << 0, 1 << 4, 3 << 5

# Section 3.3.6: the baud rate divisor, clock / (16 * rate), in 64ths: rounded, 13 and 1.
BAUD = 115_200
DIVISOR = (APB_CLOCK_HZ * 4 + BAUD // 2) // BAUD

CR_UARTEN, CR_LBE, CR_TXE, CR_RXE = 1 << 0, 1 << 7, 1 << 8, 1 << 9
CR_DTR, CR_RTS, CR_OUT1, CR_OUT2 = 1 << 10, 1 << 11, 1 << 12, 1 << 13
CR_CTSEN = 1 << 15

# Interrupts, one layout in UARTIMSC, UARTRIS, UARTMIS and UARTICR (section 3.3.10 and on).
INT_RI, INT_CTS, INT_DCD, INT_DSR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
INT_RX, INT_TX, INT_RT = 1 << 4, 1 << 5, 1 << 6
INT_FE, INT_PE, INT_BE, INT_OE = 1 << 7, 1 << 8, 1 << 9, 1 << 10

MODEM = (
    # input, its interrupt, the output that feeds it in loopback (section 3.3.8, LBE)
    (FR_CTS, INT_CTS, CR_RTS),
    (FR_DSR, INT_DSR, CR_DTR),
    (FR_DCD, INT_DCD, CR_OUT1),
    (FR_RI, INT_RI, CR_OUT2),
)


@dataclass(slots=True)
class Pl011State:
    """Everything that a snapshot of the UART holds. Reset values of TRM table 3-1."""

    rx: list[int] = field(default_factory=list)  # received entries: data and error flags
    tx: list[int] = field(default_factory=list)  # bytes waiting for the transmitter's enable
    overrun: bool = False  # the next entry carries DR.OE
    rsr: int = 0
    ilpr: int = 0
    ibrd: int = 0
    fbrd: int = 0
    lcr_h: int = 0
    cr: int = CR_TXE | CR_RXE
    ifls: int = 0x12
    imsc: int = 0
    ris: int = 0
    dmacr: int = 0

    def copy(self) -> "Pl011State":
        return replace(self, rx=list(self.rx), tx=list(self.tx))


def fit(platform: Platform) -> Iterator[Fitted]:
    """The machine's console."""
    console = platform.console

    def poll() -> None:
        """Pass on as much as the receiver has room for; it asks when there is room again."""
        if console.waiting:
            uart.receive(console.take(uart.room), more=bool(console.waiting))

    uart = Pl011(platform.output, platform.line(PLACE), on_room=poll, report=platform.report)
    yield Fitted("pl011", PLACE, uart, stdout=True)


class Pl011(RegisterBlock):
    """``output`` is given each transmitted byte; ``on_room`` is called when the guest has made
    room for more input after ``receive`` refused some, and by ``poll``.

    ``handover``: the state in which boot firmware leaves the console: enabled, 115200 baud 8n1,
    FIFOs on. A kernel's early console relies on it, and its driver takes the speed from there.
    Without it the device is as after reset.
    """

    REGISTERS = (
        Register(0x000, "DR", "RW", "3.3.1"),
        Register(0x004, "RSR", "RW", "3.3.2"),  # a write is UARTECR
        Register(0x018, "FR", "RO", "3.3.3"),
        Register(0x020, "ILPR", "RW", "3.3.4", bits=8),
        Register(0x024, "IBRD", "RW", "3.3.5", bits=16),
        Register(0x028, "FBRD", "RW", "3.3.6", bits=6),
        Register(0x02C, "LCR_H", "RW", "3.3.7", bits=8),
        Register(0x030, "CR", "RW", "3.3.8", bits=16),
        Register(0x034, "IFLS", "RW", "3.3.9", bits=6),
        Register(0x038, "IMSC", "RW", "3.3.10", bits=11),
        Register(0x03C, "RIS", "RO", "3.3.11"),
        Register(0x040, "MIS", "RO", "3.3.12"),
        Register(0x044, "ICR", "WO", "3.3.13"),
        Register(0x048, "DMACR", "RW", "3.3.14", bits=3),
        *primecell_ids("3.3.15"),
    )
    PERIPHERAL_ID = (0x11, 0x10, 0x14, 0x00)

    name = "pl011"
    _state: Pl011State

    def __init__(
        self,
        output: Callable[[bytes], None],
        irq: Line = disconnected,
        *,
        on_room: Callable[[], None] | None = None,
        report: Report = unreported,
        handover: bool = True,
    ) -> None:
        super().__init__(report)
        self._output = output
        self._irq = on_change(irq)
        self._on_room = on_room
        self._refused = False
        self._state = Pl011State()
        if handover:
            self._state.cr |= CR_UARTEN
            self._state.lcr_h = LCR_H_FEN | LCR_H_WLEN_8
            self._state.ibrd, self._state.fbrd = divmod(DIVISOR, 64)

    # The other end of the line

    @property
    def room(self) -> int:
        """How many bytes ``receive`` would take now."""
        s = self._state
        # In loopback the receiver hears the transmitter, not the line.
        if s.cr & (CR_UARTEN | CR_RXE | CR_LBE) != CR_UARTEN | CR_RXE:
            return 0
        return max(self._depth() - len(s.rx), 0)

    def receive(self, data: bytes, *, more: bool = False) -> int:
        """Bytes arrive. Returns how many were taken; the caller keeps the rest for later.

        `more`: it has more than these, and wants to be told of room as if they had been refused.
        """
        taken = data[: self.room]
        for byte in taken:
            self._push(byte)
        self._refused = more or len(taken) < len(data)
        self._silence()
        self._update()
        return len(taken)

    def poll(self) -> None:
        """There may be input: whoever has it looks for room."""
        if self._on_room is not None:
            self._on_room()

    def receive_break(self) -> bool:
        """A break arrives (Linux's console takes it for SysRq). False when there is no room."""
        if not self.room:
            return False
        self._push(DR_BE)
        self._silence()
        self._update()
        return True

    def state(self) -> Pl011State:
        return self._state.copy()

    def restore(self, state: Pl011State) -> None:
        """Take over a snapshot; the line is moved to where it belongs."""
        if len(state.rx) > FIFO_DEPTH or len(state.tx) > FIFO_DEPTH:
            raise ValueError("pl011 snapshot: a FIFO holds more than 16 entries")
        if any(byte > 0xFF for byte in state.tx):
            raise ValueError("pl011 snapshot: more than a byte waits for the transmitter")
        self._state = state.copy()
        self._update()

    def fdt(self, fdt: Fdt, place: Place, interrupt: Describe = interrupt_fdt) -> None:
        with fdt.node(f"pl011@{place.base:x}"):
            fdt.prop("compatible", "arm,pl011", "arm,primecell")
            fdt.reg(place.base, place.size)
            interrupt(fdt, place)
            clock = fdt.phandle(LABEL_APB_CLOCK)
            fdt.prop("clocks", clock, clock)
            fdt.prop("clock-names", "uartclk", "apb_pclk")

    # Inside

    def _depth(self) -> int:
        # Section 3.3.7, FEN: without FIFOs there are 1-byte holding registers.
        return FIFO_DEPTH if self._state.lcr_h & LCR_H_FEN else 1

    def _push(self, entry: int) -> None:
        s = self._state
        if len(s.rx) >= self._depth():
            # Only loopback comes here: the outside is held back. The FIFO's content stays valid.
            s.overrun = True
            s.rsr |= RSR_OE
            s.ris |= INT_OE
            return
        if entry & DR_BE:
            s.ris |= INT_BE
        s.rx.append(entry | (DR_OE if s.overrun else 0))
        s.overrun = False
        # Section 2.8.2: asserted when the FIFO reaches the trigger level.
        if len(s.rx) >= self._rx_trigger():
            s.ris |= INT_RX

    def _rx_trigger(self) -> int:
        s = self._state
        return TRIGGER[s.ifls >> 3 & 7] if s.lcr_h & LCR_H_FEN else 1

    def _silence(self) -> None:
        """Section 2.8.4: data is waiting and none has arrived for a 32-bit period."""
        s = self._state
        if s.rx and s.lcr_h & LCR_H_FEN:
            s.ris |= INT_RT

    def _transmit(self) -> None:
        s = self._state
        if not s.tx or s.cr & (CR_UARTEN | CR_TXE) != CR_UARTEN | CR_TXE:
            return
        if s.cr & CR_CTSEN and not self._modem() & FR_CTS:
            return
        data = bytes(s.tx)
        s.tx.clear()
        # Section 2.8.3: the level passed the trigger on its way down.
        s.ris |= INT_TX
        if s.cr & CR_LBE:
            for byte in data:
                self._push(byte)
            self._silence()
        self._output(data)

    def _modem(self) -> int:
        cr = self._state.cr
        if not cr & CR_LBE:
            return FR_CTS | FR_DSR | FR_DCD
        return sum(flag for flag, _interrupt, output in MODEM if cr & output)

    def _update(self) -> None:
        self._irq(bool(self._state.ris & self._state.imsc))

    def _made_room(self) -> None:
        # Last in every access: the callable may feed the next bytes in at once.
        if self._refused and self._on_room is not None and self.room:
            self._refused = False
            self._on_room()

    def _read_dr(self) -> int:
        s = self._state
        if not s.rx:
            self._odd("read of an empty receive FIFO")
            return 0
        entry = s.rx.pop(0)
        # Section 3.3.2: the flags belong to the character read last; overrun stays.
        s.rsr = s.rsr & RSR_OE | entry >> 8 & 7
        if len(s.rx) < self._rx_trigger():
            s.ris &= ~INT_RX
        if s.rx:
            self._silence()  # the timeout runs again for what is left
        else:
            s.ris &= ~INT_RT
        self._update()
        self._made_room()
        return entry

    def _write_dr(self, value: int) -> None:
        s = self._state
        if len(s.tx) >= self._depth():
            self._odd("write to a full transmit FIFO")
            return
        s.tx.append(value & 0xFF)
        if len(s.tx) > (TRIGGER[s.ifls & 7] if s.lcr_h & LCR_H_FEN else 0):
            s.ris &= ~INT_TX
        self._transmit()
        self._update()

    def _write_rsr(self, _value: int) -> None:
        self._state.rsr = 0

    def _read_fr(self) -> int:
        s, depth = self._state, self._depth()
        flags = self._modem()
        flags |= FR_BUSY if s.tx else FR_TXFE
        if not s.rx:
            flags |= FR_RXFE
        if len(s.rx) >= depth:
            flags |= FR_RXFF
        if len(s.tx) >= depth:
            flags |= FR_TXFF
        return flags

    def _write_lcr_h(self, value: int) -> None:
        s = self._state
        before, s.lcr_h = s.lcr_h, value & 0xFF
        if (before ^ s.lcr_h) & LCR_H_FEN:
            # Software empties the FIFOs in this way.
            s.rx.clear()
            s.tx.clear()
            s.overrun = False
            s.ris &= ~(INT_RX | INT_RT)
        if s.lcr_h & ~before & LCR_H_BRK and s.cr & CR_LBE:
            self._push(DR_BE)
            self._silence()
        self._update()
        self._made_room()

    def _write_cr(self, value: int) -> None:
        s = self._state
        before = self._modem()
        s.cr = value & 0xFFFF
        changed = before ^ self._modem()
        for flag, interrupt, _output in MODEM:
            if changed & flag:
                s.ris |= interrupt
        self._transmit()
        self._update()
        self._made_room()

    def _write_imsc(self, value: int) -> None:
        self._state.imsc = value & 0x7FF
        self._update()

    def _read_mis(self) -> int:
        return self._state.ris & self._state.imsc

    def _write_icr(self, value: int) -> None:
        self._state.ris &= ~value
        self._update()
