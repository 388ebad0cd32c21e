"""The GICv2 Distributor: state and routing of all interrupts, and its registers.

Mirrors the GICv2 architecture specification (ARM IHI 0048B), sections 3.1, 3.2, 4.1 and 4.3, for
a GIC with both interrupt groups and without the Security Extensions. Registers, banked ones
marked with *, byte-accessible ones with B:

    0x000  CTLR       RW  4.3.1       0x400  IPRIORITYR *B  RW  4.3.11
    0x004  TYPER      RO  4.3.2       0x800  ITARGETSR  *B  RW  4.3.12 (RO for 0-31)
    0x008  IIDR       RO  4.3.3       0xC00  ICFGR      *   RW  4.3.13 (RO for SGIs)
    0x080  IGROUPR *  RW  4.3.4       0xF00  SGIR           WO  4.3.15
    0x100  ISENABLER* RW  4.3.5       0xF10  CPENDSGIR  *B  RW  4.3.16
    0x180  ICENABLER* RW  4.3.6       0xF20  SPENDSGIR  *B  RW  4.3.17
    0x200  ISPENDR *  RW  4.3.7       0xFD0  ICPIDR, ICCIDR RO  4.3.18
    0x280  ICPENDR *  RW  4.3.8
    0x300  ISACTIVER* RW  4.3.9
    0x380  ICACTIVER* RW  4.3.10

Registers are words; the ones marked B may also be read and written by bytes and halfwords
(section 4.1.4). Choices that the manual leaves open: SGIs are always enabled, PPIs have a
programmable configuration, among equal priorities the lowest ID wins. A uniprocessor has no
ITARGETSR (section 4.3.12). Left out: GICD_NSACR, which needs the Security Extensions, and
lockdown.

Threat model: offset and value are the guest's. Interrupt numbers come from offsets that are
compared with the implemented range; bits of interrupts or CPUs that do not exist are masked out.
Work for one access is bounded by the number of CPUs and, for priorities, by 256 levels.
"""

from collections.abc import Callable

from armkvm.vmm.irqchip.gicv2_bank import NONE, SGI_MASK, Bank

# (priority, interrupt ID, is in Group 1)
Candidate = tuple[int, int, bool]

CTLR, TYPER, IIDR, SGIR = 0x000, 0x004, 0x008, 0xF00
# One bit an interrupt, 0x80 bytes each.
IGROUPR, ISENABLER, ICENABLER, ISPENDR = 0x080, 0x100, 0x180, 0x200
ICPENDR, ISACTIVER, ICACTIVER = 0x280, 0x300, 0x380
# One byte an interrupt.
IPRIORITYR, ITARGETSR = 0x400, 0x800
ICFGR, CPENDSGIR, SPENDSGIR = 0xC00, 0xF10, 0xF20

IIDR_VALUE = 0x0200_143B
# Of a GIC-400: ICPIDR4-7, ICPIDR0-3 (architecture revision 2), ICCIDR0-3.
IDS = (0x04, 0, 0, 0, 0x90, 0xB4, 0x2B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)

PRIVATE = 32
SPI_LIMIT = 1020 - PRIVATE


class Distributor:
    """``present(cpu, candidate)`` is called when the best interrupt for a CPU may have changed."""

    def __init__(self, cpus: int, spis: int, *, priority_bits: int) -> None:
        self.cpus = cpus
        self.spis = spis
        self._priority_mask = 0xFF << (8 - priority_bits) & 0xFF
        self.ctlr = 0
        self.private = [Bank(PRIVATE, private=True) for _ in range(cpus)]
        self.spi = Bank(spis, private=False)
        # Section 4.3.12: a uniprocessor routes all to its CPU.
        self.targets = [0 if cpus > 1 else 1] * spis
        self._routed = [0] * cpus  # by CPU: the SPIs that target it
        self._spi_ready = 0
        self.present: Callable[[int, Candidate], None] = lambda _cpu, _candidate: None
        self.route()

    # What the CPU interfaces ask

    def exists(self, intid: int) -> bool:
        return intid < PRIVATE + self.spis

    def is_group1(self, cpu: int, intid: int) -> bool:
        bank, number = self._find(cpu, intid)
        return bool(bank.state.group >> number & 1)

    def source(self, cpu: int, intid: int) -> int:
        """The CPU that sent a pending SGI; 0 for other interrupts."""
        return self.private[cpu].source(intid) if intid < 16 else 0

    def acknowledge(self, cpu: int, intid: int) -> int:
        """The CPU takes the interrupt. Returns an SGI's source."""
        bank, number = self._find(cpu, intid)
        source = bank.acknowledge(number)
        self.refresh(bank, cpu)
        return source

    def deactivate(self, cpu: int, intid: int) -> bool:
        """Active to inactive; tell whether it was active."""
        bank, number = self._find(cpu, intid)
        bit = 1 << number
        if not bank.state.active & bit:
            return False
        bank.state.active ^= bit
        self.refresh(bank, cpu)
        return True

    # Interrupt inputs

    def set_private(self, cpu: int, intid: int, level: bool) -> None:
        bank = self.private[cpu]
        if bank.set_line(intid, level):
            self.refresh(bank, cpu)

    def set_spi(self, spi: int, level: bool) -> None:
        if self.spi.set_line(spi, level):
            self.refresh(self.spi, 0)

    # Choice

    def refresh(self, bank: Bank, cpu: int) -> None:
        """Which interrupts of a bank are ready may have changed; ``cpu`` owns a private bank.

        Not enough when priorities, groups or targets changed.
        """
        if bank.private:
            self._choose(cpu)
            return
        ready = self.spi.ready(self.ctlr)
        changed = ready ^ self._spi_ready
        if changed:
            self._spi_ready = ready
            for target, routed in enumerate(self._routed):
                if changed & routed:
                    self._choose(target)

    def refresh_all(self) -> None:
        self._spi_ready = self.spi.ready(self.ctlr)
        for cpu in range(self.cpus):
            self._choose(cpu)

    def route(self) -> None:
        """Build the CPUs' masks of SPIs from the targets."""
        self._routed = [
            sum(1 << n for n, targets in enumerate(self.targets) if targets >> cpu & 1)
            for cpu in range(self.cpus)
        ]

    def _choose(self, cpu: int) -> None:
        bank = self.private[cpu]
        ready = bank.ready(self.ctlr)
        priority, number = bank.best(ready) if ready else NONE
        # Section 3.2.3, 1-N model: each target sees the SPI, the first to acknowledge has it.
        shared = self._spi_ready & self._routed[cpu]
        if shared:
            spi_priority, spi = self.spi.best(shared)
            if spi_priority < priority:
                group1 = bool(self.spi.state.group >> spi & 1)
                self.present(cpu, (spi_priority, PRIVATE + spi, group1))
                return
        if ready:
            self.present(cpu, (priority, number, bool(bank.state.group >> number & 1)))
        else:
            self.present(cpu, (256, 1023, False))

    def _find(self, cpu: int, intid: int) -> tuple[Bank, int]:
        return (self.private[cpu], intid) if intid < PRIVATE else (self.spi, intid - PRIVATE)

    # Registers: words

    def read(self, offset: int, cpu: int) -> int | None:
        """A word; None when there is nothing to read."""
        if IGROUPR <= offset < IPRIORITYR:
            return self._read_bits(offset, cpu)
        if IPRIORITYR <= offset < ICFGR or CPENDSGIR <= offset < SPENDSGIR + 16:
            return self.read_bytes(offset, 4, cpu)
        if ICFGR <= offset < ICFGR + 0x100:
            return self._read_icfgr(offset, cpu)
        if offset == CTLR:
            return self.ctlr
        if offset == TYPER:
            return (PRIVATE + self.spis + 31) // 32 - 1 | self.cpus - 1 << 5
        if offset == IIDR:
            return IIDR_VALUE
        return IDS[(offset - 0xFD0) >> 2] if 0xFD0 <= offset < 0x1000 else None

    def write(self, offset: int, value: int, cpu: int) -> bool:
        """A word; False when there is nothing to write."""
        if IGROUPR <= offset < IPRIORITYR:
            self._write_bits(offset, value, cpu)
        elif IPRIORITYR <= offset < ICFGR or CPENDSGIR <= offset < SPENDSGIR + 16:
            return self.write_bytes(offset, 4, value, cpu)
        elif ICFGR <= offset < ICFGR + 0x100:
            return self._write_icfgr(offset, value, cpu)
        elif offset == SGIR:
            return self._write_sgir(value, cpu)
        elif offset == CTLR:
            self.ctlr = value & 3
            self.refresh_all()
        else:
            return False
        return True

    def _word(self, n: int, cpu: int) -> tuple[Bank, int]:
        """The bank and the shift of the n-th word of one bit an interrupt."""
        return (self.private[cpu], 0) if n == 0 else (self.spi, 32 * (n - 1))

    def _read_bits(self, offset: int, cpu: int) -> int:
        bank, shift = self._word((offset & 0x7F) >> 2, cpu)
        s = bank.state
        kind = offset & ~0x7F
        if kind == IGROUPR:
            bits = s.group
        elif kind <= ICENABLER:
            bits = s.enabled
        elif kind <= ICPENDR:
            bits = bank.pending()
        else:
            bits = s.active
        return bits >> shift & 0xFFFF_FFFF

    def _write_bits(self, offset: int, value: int, cpu: int) -> None:
        bank, shift = self._word((offset & 0x7F) >> 2, cpu)
        s = bank.state
        bits = value << shift & bank.mask
        # SGIs: always enabled; pending only through SGIR, CPENDSGIR and SPENDSGIR.
        no_sgi = bits & ~SGI_MASK if bank.private else bits
        kind = offset & ~0x7F
        if kind == IGROUPR:
            s.group = s.group & ~(0xFFFF_FFFF << shift) | bits
            self.refresh_all()
            return
        elif kind == ISENABLER:
            s.enabled |= bits
        elif kind == ICENABLER:
            s.enabled &= ~no_sgi
        elif kind == ISPENDR:
            s.latch |= no_sgi
        elif kind == ICPENDR:
            s.latch &= ~no_sgi
        elif kind == ISACTIVER:
            s.active |= bits
        else:
            s.active &= ~bits
        self.refresh(bank, cpu)

    def _read_icfgr(self, offset: int, cpu: int) -> int:
        first = 4 * (offset - ICFGR)
        bank, shift = self._word(first >> 5, cpu)
        edge = bank.state.edge >> shift + first % 32
        return sum((edge >> i & 1) << 2 * i + 1 for i in range(16))

    def _write_icfgr(self, offset: int, value: int, cpu: int) -> bool:
        first = 4 * (offset - ICFGR)
        if first == 0:
            return False  # SGIs are edge-triggered
        bank, shift = self._word(first >> 5, cpu)
        shift += first % 32
        edge = sum((value >> 2 * i + 1 & 1) << i for i in range(16)) << shift
        s = bank.state
        s.edge = (s.edge & ~(0xFFFF << shift) | edge) & bank.mask
        self.refresh(bank, cpu)
        return True

    def _write_sgir(self, value: int, cpu: int) -> bool:
        chosen = value >> 24 & 3
        if chosen == 0:
            targets = value >> 16 & 0xFF
        elif chosen == 1:
            targets = 0xFF & ~(1 << cpu)
        elif chosen == 2:
            targets = 1 << cpu
        else:
            return False  # reserved
        for target in range(self.cpus):
            if targets >> target & 1:
                self.private[target].send(value & 0xF, 1 << cpu)
                self._choose(target)
        return True

    # Registers: bytes

    def read_bytes(self, offset: int, size: int, cpu: int) -> int | None:
        """1, 2 or 4 bytes, naturally aligned; None where bytes cannot be read."""
        if not (IPRIORITYR <= offset < ICFGR or CPENDSGIR <= offset < SPENDSGIR + 16):
            return None
        data = (self._read_byte(offset + i, cpu) for i in range(size))
        return int.from_bytes(bytes(data), "little")

    def write_bytes(self, offset: int, size: int, value: int, cpu: int) -> bool:
        """1, 2 or 4 bytes, naturally aligned; False where bytes cannot be written."""
        if IPRIORITYR <= offset < ITARGETSR:
            first = offset - IPRIORITYR
            for i in range(size):
                if self.exists(first + i):
                    bank, number = self._find(cpu, first + i)
                    bank.set_priority(number, value >> 8 * i & self._priority_mask)
            self.refresh_all()
        elif ITARGETSR <= offset < ICFGR:
            first = offset - ITARGETSR
            if first < PRIVATE:
                return False
            for i in range(size):
                self._target(first + i - PRIVATE, value >> 8 * i)
            self.refresh_all()
        elif CPENDSGIR <= offset < SPENDSGIR + 16:
            bank = self.private[cpu]
            change = bank.unsend if offset < SPENDSGIR else bank.send
            for i in range(size):
                change(offset + i & 0xF, value >> 8 * i & (1 << self.cpus) - 1)
            self._choose(cpu)
        else:
            return False
        return True

    def _read_byte(self, offset: int, cpu: int) -> int:
        if offset >= CPENDSGIR:
            return self.private[cpu].state.sources[offset & 0xF]
        intid = offset & 0x3FF
        if not self.exists(intid):
            return 0
        if offset < ITARGETSR:
            bank, number = self._find(cpu, intid)
            return bank.state.priority[number]
        if self.cpus == 1:
            return 0  # section 4.3.12: RAZ/WI in a uniprocessor
        # Section 4.3.12: 0-31 read as the CPU that reads. Linux learns its own bit from that.
        return self.targets[intid - PRIVATE] if intid >= PRIVATE else 1 << cpu

    def _target(self, spi: int, targets: int) -> None:
        if spi >= self.spis or self.cpus == 1:
            return
        self.targets[spi] = targets & (1 << self.cpus) - 1
        for cpu in range(self.cpus):
            if targets >> cpu & 1:
                self._routed[cpu] |= 1 << spi
            else:
                self._routed[cpu] &= ~(1 << spi)
