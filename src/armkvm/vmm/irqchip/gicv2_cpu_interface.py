"""One CPU interface of the GICv2: priority mask, preemption, acknowledge, end of interrupt.

Mirrors the GICv2 architecture specification (ARM IHI 0048B), sections 3.2 (handling), 3.3
(prioritization and grouping) and 4.4 (registers), for a GIC with both interrupt groups and
without the Security Extensions. Registers, all of them words:

    0x0000  CTLR    RW  4.4.1      0x0020  AIAR     RO  4.4.9
    0x0004  PMR     RW  4.4.2      0x0024  AEOIR    WO  4.4.10
    0x0008  BPR     RW  4.4.3      0x0028  AHPPIR   RO  4.4.11
    0x000C  IAR     RO  4.4.4      0x00D0  APR0-3   RW  4.4.12
    0x0010  EOIR    WO  4.4.5      0x00E0  NSAPR0-3 RW  4.4.13
    0x0014  RPR     RO  4.4.6      0x00FC  IIDR     RO  4.4.14
    0x0018  HPPIR   RO  4.4.7      0x1000  DIR      WO  4.4.15
    0x001C  ABPR    RW  4.4.8

The running priority is not kept beside the active priorities registers but follows from them: a
guest or a snapshot that restores these has restored everything. Left out: the bypass of legacy
interrupt inputs (the bits are stored; nothing is connected), the virtualization extensions.

Where the manual says UNPREDICTABLE: an end of interrupt through the wrong register of the pair
(EOIR/AEOIR) is ignored; one without an active priority drops nothing; GICC_DIR without EOImode is
ignored. All are reported.

Threat model: the guest chooses everything here. An interrupt ID from EOIR or DIR is checked
against the implemented ones before it is used; all other state is masked words.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from armkvm.arch import gic as g
from armkvm.vmm.devices.device import Line
from armkvm.vmm.irqchip.gicv2_distributor import Candidate, Distributor

CTLR, PMR, BPR, IAR, EOIR = g.GICC_CTLR, g.GICC_PMR, g.GICC_BPR, g.GICC_IAR, g.GICC_EOIR
RPR, HPPIR, ABPR, AIAR = g.GICC_RPR, g.GICC_HPPIR, g.GICC_ABPR, g.GICC_AIAR
AEOIR, AHPPIR, APR, NSAPR = g.GICC_AEOIR, g.GICC_AHPPIR, g.GICC_APR, g.GICC_NSAPR
IIDR, DIR = g.GICC_IIDR, g.GICC_DIR

CTLR_MASK = 0x3FF

IIDR_VALUE = 0x0202_143B  # as a GIC-400: GICv2, revision 1, Arm

NO_CANDIDATE: Candidate = (256, g.INTID_SPURIOUS, False)

Odd = Callable[[str], None]


@dataclass(slots=True)
class CpuInterfaceState:
    """What a snapshot holds of one CPU interface. ``apr``/``nsapr``: bit n is group priority n."""

    ctlr: int = 0
    pmr: int = 0
    bpr: int = 0
    abpr: int = 0
    apr: int = 0
    nsapr: int = 0

    def copy(self) -> "CpuInterfaceState":
        return replace(self)


class CpuInterface:
    """``irq`` and ``fiq`` are called with the new level of these outputs, on changes."""

    def __init__(
        self,
        cpu: int,
        distributor: Distributor,
        irq: Line,
        fiq: Line,
        odd: Odd,
        *,
        priority_bits: int,
    ) -> None:
        self.cpu = cpu
        self._distributor = distributor
        self._set_irq, self._set_fiq = irq, fiq
        self._odd = odd
        self.irq = self.fiq = False
        self._pmr_mask = 0xFF << (8 - priority_bits) & 0xFF
        # Section 3.3.3: with fewer priority bits the lowest binary points are not needed.
        self._min_bpr = max(7 - priority_bits, 0)
        self._apr_mask = (1 << (128 >> self._min_bpr)) - 1
        self.state = CpuInterfaceState(bpr=self._min_bpr, abpr=self._min_bpr + 1)
        self._candidate = NO_CANDIDATE
        self._running = g.IDLE_PRIORITY

    # What the Distributor says

    def present(self, candidate: Candidate) -> None:
        """The Distributor's choice for this CPU has changed: (priority, ID, is in Group 1)."""
        self._candidate = candidate
        self._signal()

    def group_priority(self, priority: int, group1: bool) -> int:
        """The part of a priority that decides on preemption (section 3.3.3, 3.3.5)."""
        s = self.state
        if group1 and not s.ctlr & g.GICC_CTLR_CBPR:
            return priority & 0xFF << s.abpr
        return priority & 0xFE << s.bpr

    def _sufficient(self) -> bool:
        """May the candidate interrupt the CPU now (section 3.3.1, 3.3.2, 4.4.1)?"""
        priority, _intid, group1 = self._candidate
        s = self.state
        return (
            priority < s.pmr
            and bool(s.ctlr & (g.GICC_CTLR_ENABLE_GRP1 if group1 else g.GICC_CTLR_ENABLE_GRP0))
            and self.group_priority(priority, group1) < self._running
        )

    def _signal(self) -> None:
        irq = fiq = False
        if self._sufficient():
            # Section 3.3.4: only Group 0 can use the FIQ.
            fiq = bool(self.state.ctlr & g.GICC_CTLR_FIQ_EN) and not self._candidate[2]
            irq = not fiq
        if irq != self.irq:
            self.irq = irq
            self._set_irq(irq)
        if fiq != self.fiq:
            self.fiq = fiq
            self._set_fiq(fiq)

    def _active_changed(self) -> None:
        active = self.state.apr | self.state.nsapr
        lowest = (active & -active).bit_length() - 1
        self._running = lowest << (self._min_bpr + 1) if active else g.IDLE_PRIORITY

    # What software does

    def acknowledge(self, aliased: bool) -> int:
        """Read GICC_IAR or GICC_AIAR."""
        s = self.state
        priority, intid, group1 = self._candidate
        if not self._sufficient() or (aliased and not group1):
            return g.INTID_SPURIOUS
        if group1 and not aliased and not s.ctlr & g.GICC_CTLR_ACK_CTL:
            return g.INTID_OTHER_GROUP
        bit = 1 << (self.group_priority(priority, group1) >> (self._min_bpr + 1))
        if group1:
            s.nsapr |= bit
        else:
            s.apr |= bit
        self._active_changed()
        # The Distributor presents the next candidate before this returns.
        return intid | self._distributor.acknowledge(self.cpu, intid) << 10

    def highest_pending(self, aliased: bool) -> int:
        """Read GICC_HPPIR or GICC_AHPPIR: neither mask nor running priority matter."""
        s = self.state
        _priority, intid, group1 = self._candidate
        if not s.ctlr & (g.GICC_CTLR_ENABLE_GRP1 if group1 else g.GICC_CTLR_ENABLE_GRP0):
            return g.INTID_SPURIOUS
        if aliased and not group1:
            return g.INTID_SPURIOUS
        if group1 and not aliased and not s.ctlr & g.GICC_CTLR_ACK_CTL:
            return g.INTID_OTHER_GROUP
        return intid | self._distributor.source(self.cpu, intid) << 10

    def end(self, value: int, aliased: bool) -> None:
        """Write GICC_EOIR or GICC_AEOIR: priority drop, and deactivation unless EOImode."""
        s = self.state
        intid = value & 0x3FF
        if not self._distributor.exists(intid):
            # The special IDs 1020-1023 are to be ignored (section 4.4.5).
            if intid < 1020:
                self._odd("end of an interrupt that does not exist")
            return
        group1 = self._distributor.is_group1(self.cpu, intid)
        if group1 and not aliased and not s.ctlr & g.GICC_CTLR_ACK_CTL:
            self._odd("end of a Group 1 interrupt by EOIR without AckCtl")
            return
        if aliased and not group1:
            self._odd("end of a Group 0 interrupt by AEOIR")
            return
        if group1:
            dropped = s.nsapr
            s.nsapr &= dropped - 1 if dropped else 0
        else:
            dropped = s.apr
            s.apr &= dropped - 1 if dropped else 0
        if not dropped:
            self._odd("end of interrupt without an active priority")
        self._active_changed()
        # Deactivation first: if the same interrupt is pending again, the line moves once.
        if not s.ctlr & g.GICC_CTLR_EOIMODE:
            self._deactivate(intid)
        self._signal()

    def _deactivate(self, intid: int) -> None:
        if not self._distributor.deactivate(self.cpu, intid):
            self._odd("deactivation of an interrupt that is not active")

    def _write_dir(self, value: int) -> None:
        intid = value & 0x3FF
        if not self.state.ctlr & g.GICC_CTLR_EOIMODE:
            self._odd("write to DIR without EOImode")
        elif self._distributor.exists(intid):
            self._deactivate(intid)
        elif intid < 1020:
            self._odd("deactivation of an interrupt that does not exist")

    def read(self, offset: int) -> int | None:
        """A word; None when there is nothing to read."""
        s = self.state
        if offset in (IAR, AIAR):
            return self.acknowledge(offset == AIAR)
        if offset in (HPPIR, AHPPIR):
            return self.highest_pending(offset == AHPPIR)
        if offset == CTLR:
            return s.ctlr
        if offset == PMR:
            return s.pmr
        if offset == BPR:
            return s.bpr
        if offset == ABPR:
            return s.abpr
        if offset == RPR:
            return self._running
        if APR <= offset < APR + 16:
            return s.apr >> 8 * (offset - APR) & 0xFFFF_FFFF
        if NSAPR <= offset < NSAPR + 16:
            return s.nsapr >> 8 * (offset - NSAPR) & 0xFFFF_FFFF
        return IIDR_VALUE if offset == IIDR else None

    def write(self, offset: int, value: int) -> bool:
        """A word; False when there is nothing to write."""
        s = self.state
        if offset in (EOIR, AEOIR):
            self.end(value, offset == AEOIR)
            return True
        if offset == DIR:
            self._write_dir(value)
            return True
        if offset == CTLR:
            s.ctlr = value & CTLR_MASK
        elif offset == PMR:
            s.pmr = value & self._pmr_mask
        elif offset == BPR:
            # Section 4.4.3: a value below the minimum sets the minimum.
            s.bpr = max(value & 7, self._min_bpr)
        elif offset == ABPR:
            s.abpr = max(value & 7, self._min_bpr + 1)
        elif APR <= offset < APR + 16:
            s.apr = self._merge(s.apr, offset - APR, value)
        elif NSAPR <= offset < NSAPR + 16:
            s.nsapr = self._merge(s.nsapr, offset - NSAPR, value)
        else:
            return False
        self._active_changed()
        self._signal()
        return True

    def _merge(self, levels: int, at: int, value: int) -> int:
        shift = 8 * at
        return (levels & ~(0xFFFF_FFFF << shift) | value << shift) & self._apr_mask

    def restore(self, state: CpuInterfaceState) -> None:
        """Take over a snapshot; values that this GIC cannot hold become ones that it can."""
        s = self.state
        s.ctlr = state.ctlr & CTLR_MASK
        s.pmr = state.pmr & self._pmr_mask
        s.bpr = max(state.bpr & 7, self._min_bpr)
        s.abpr = max(state.abpr & 7, self._min_bpr + 1)
        s.apr = state.apr & self._apr_mask
        s.nsapr = state.nsapr & self._apr_mask
        self._active_changed()
