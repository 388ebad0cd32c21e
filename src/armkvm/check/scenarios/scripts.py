"""Guest programs for the scenarios: an instruction a line, time in ticks of the counter."""

from __future__ import annotations

from collections.abc import Generator

from armkvm.arch.gic import (
    GICC_CTLR,
    GICC_EOIR,
    GICC_IAR,
    GICC_PMR,
    INTID_SPURIOUS,
    PPI_PHYSICAL_TIMER,
    PPI_PMU,
    PPI_VIRTUAL_TIMER,
)
from armkvm.arch.sysreg import BY_NAME
from armkvm.check.world.guest import ICC_EOIR1, ICC_IAR1, ICC_IGRPEN1, ICC_PMR, Guest, Memory
from armkvm.check.world.user import END, EOI, GICC, GICD, GICR, IAR, MARK
from armkvm.host.scripted import Load, Mask, Mrs, Msr, Native, Op, Store, Wfi

Ops = Generator[Op, int, None]

SOON, LATER = 5_000, 9_000
PHYSICAL_ZERO = 1 << 16  # the physical counter where the virtual one is 0: a scenario's start
CNTP_TVAL, CNTP_CTL, CNTP_CVAL, CNTPCT = (
    BY_NAME[f"{name}_EL0"].enc for name in ("CNTP_TVAL", "CNTP_CTL", "CNTP_CVAL", "CNTPCT")
)
GICR_SGI = 0x1_0000  # the second frame of a redistributor
VTIMER, PTIMER, PMU = PPI_VIRTUAL_TIMER, PPI_PHYSICAL_TIMER, PPI_PMU


def virtual(cval: int, ctl: int = 1) -> Ops:
    """Program the virtual timer: no exit."""
    yield Native("cntv_cval", cval)
    yield Native("cntv_ctl", ctl)


def physical(cval: int, ctl: int = 1, *, direct: bool = False) -> Ops:
    """Program the physical timer: traps where it is emulated. A time of 0 has long passed."""
    cval += PHYSICAL_ZERO if cval else 0
    if direct:
        yield Native("cntp_cval", cval)
        yield Native("cntp_ctl", ctl)
    else:
        yield Msr(CNTP_CVAL, cval)
        yield Msr(CNTP_CTL, ctl)


def handler(*, move: int = 0, direct: bool = False) -> Guest:
    """An interrupt handler: IAR, silence the timer (or move its deadline), EOI."""

    def irq(memory: Memory) -> Ops:
        intid = yield Load(IAR)
        if intid == INTID_SPURIOUS:
            return
        if intid == VTIMER:
            yield Native("cntv_cval", move) if move and not memory.irqs else Native("cntv_ctl", 3)
        elif direct:
            yield Native("cntp_ctl", 3)
        elif move and not memory.irqs:
            yield Msr(CNTP_CVAL, PHYSICAL_ZERO + move)
        else:
            yield Msr(CNTP_CTL, 3)
        memory.irqs += 1
        memory.log += (intid,)
        yield Store(EOI, intid)

    return irq


def until(memory: Memory, irqs: int) -> Ops:
    """WFI until so many interrupts have come, then done."""
    yield Mask(False)
    while memory.irqs < irqs:
        yield Wfi()
    yield Store(END)


def one_shot(cval: int = SOON) -> Guest:
    """One interrupt of the virtual timer."""

    def guest(memory: Memory) -> Ops:
        yield from virtual(cval)
        yield from until(memory, 1)

    return guest


def marks(*values: int) -> Ops:
    """Device writes, which are exits."""
    for value in values:
        yield Store(MARK, value)


def vgic_on(intid: int) -> Ops:
    """Switch the GICv2 in the kernel on, and one private interrupt."""
    yield Store(GICD + 0x100, 1 << intid)
    yield Store(GICD, 1)
    yield Store(GICC + GICC_PMR, 0xF0)
    yield Store(GICC + GICC_CTLR, 1)


def with_vgic(cval: int = SOON, *, emulated: int = 0, irqs: int = 1) -> Guest:
    """Interrupts through the GICv2 in the kernel."""

    def guest(memory: Memory) -> Ops:
        intid = PTIMER if emulated else VTIMER
        yield from vgic_on(intid)
        if emulated:
            yield from physical(emulated if irqs == 1 else 0)
        else:
            yield from virtual(cval)
        yield Mask(False)
        if irqs > 1:
            yield Store(GICD, 1)  # an exit that stays in the kernel
            for n in range(4):
                yield Native("x5", n)
        while memory.irqs < irqs:
            yield Wfi()
        yield from marks(1)  # an exit: what is still pending comes now
        yield Store(END)

    return guest


def vgic_handler(*, move: int = 0, leave: tuple[int, ...] = ()) -> Guest:
    """The same handler through the interface that KVM maps: no exits."""

    def irq(memory: Memory) -> Ops:
        intid = yield Load(GICC + GICC_IAR)
        if intid == INTID_SPURIOUS:
            return
        yield from marks(*leave)  # the interrupt stays active while user space runs
        if intid == VTIMER:
            yield Native("cntv_cval", move) if move and not memory.irqs else Native("cntv_ctl", 3)
        elif move and not memory.irqs:
            yield Msr(CNTP_CVAL, PHYSICAL_ZERO + move)
        else:
            yield Msr(CNTP_CTL, 3)
        memory.irqs += 1
        yield Store(GICC + GICC_EOIR, intid)

    return irq


def with_vgic_v3(memory: Memory) -> Ops:
    """One interrupt of the virtual timer through the GICv3 in the kernel."""
    yield Store(GICR + GICR_SGI + 0x100, 1 << VTIMER)
    yield Store(GICD, 2)  # group 1
    yield Msr(ICC_PMR, 0xF0)
    yield Msr(ICC_IGRPEN1, 1)
    yield from virtual(SOON)
    yield from until(memory, 1)


def vgic_v3_handler(memory: Memory) -> Ops:
    """Its handler."""
    intid = yield Mrs(ICC_IAR1)
    if intid == INTID_SPURIOUS:
        return
    yield Native("cntv_ctl", 3)
    memory.irqs += 1
    yield Msr(ICC_EOIR1, intid)
