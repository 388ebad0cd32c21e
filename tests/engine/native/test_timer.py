"""Counters and timers: what their registers read, and the exact instruction at which they fire."""

from __future__ import annotations

import random

import pytest
from tests.engine.a64 import B_SELF, NOP, add, b, hvc, mrs, msr, svc
from tests.engine.world import CODE, EL0, EL1H, VECTORS, World

from armkvm.arch.timer import CTL_ENABLE as ENABLE
from armkvm.arch.timer import CTL_IMASK as IMASK
from armkvm.arch.timer import CTL_ISTATUS as ISTATUS
from armkvm.arch.timer import FREQUENCY, NEVER
from armkvm.engine.cpu import Exit

M64 = (1 << 64) - 1
TIMERS = pytest.mark.parametrize(("t", "off"), [("cntv", "cntvoff"), ("cntp", "cntpoff")])


def now_ns(world: World, count: int | None = None) -> int:
    """The definition, in integers without a width."""
    s = world.s
    passed = (s.count if count is None else count) - s.ns_count
    return int(s.ns_base + (passed * s.ns_mult >> 16))


def ticks(world: World, off: str, count: int | None = None) -> int:
    """The counter, with its offset."""
    offset: int = getattr(world.s, off)
    return (now_ns(world, count) >> 4) - offset & M64


def loop(world: World) -> None:
    """A loop of three instructions, for ever."""
    world.code(NOP, add(0, 0, 1), b(-2))
    world.start(x0=0)


# -- registers ------------------------------------------------------------------------------


@pytest.mark.parametrize("mult", [1 << 16, 1, 12345, 5 << 16, 0])
@pytest.mark.parametrize("counter", ["cntvct_el0", "cntpct_el0"])
def test_counters(world: World, counter: str, mult: int) -> None:
    s = world.s
    s.ns_base, s.ns_count, s.ns_mult, s.count = 1_000_000_007, 100, mult, 100
    s.cntvoff, s.cntpoff = 5000, 7
    world.code(*[NOP] * 50, mrs(0, counter), hvc(0))
    for _ in range(3):
        world.start()
        world.finish()
        assert s.x[0] == ticks(world, counter[:4] + "off", s.count - 2)
    s.cntvoff = s.cntpoff = 1 << 62  # before its zero the counter is far in the future
    world.start()
    world.finish()
    assert s.x[0] >> 63


def test_frequency(world: World) -> None:
    world.execute(mrs(0, "cntfrq_el0"))
    assert world.s.x[0] == FREQUENCY == 62_500_000


def test_time_does_not_wrap(world: World) -> None:
    """After 2**48 instructions without a new base, 78 hours at one a nanosecond."""
    world.s.count = 1 << 52
    world.execute(mrs(0, "cntvct_el0"))
    assert world.s.x[0] == 1 << 48


@TIMERS
def test_tval(world: World, t: str, off: str) -> None:
    """CVAL = counter + SignExtend(TVAL); reading gives the low half of the difference."""
    s = world.s
    s.ns_base = 10**12
    setattr(s, off, 1234)
    for tval in (0, 1, 1000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xABCD_0000_0005):
        world.code(msr(f"{t}_tval_el0", 1), mrs(2, f"{t}_cval_el0"), NOP, mrs(3, f"{t}_tval_el0"))
        world.start(x1=tval)
        at = ticks(world, off)
        world.run(4)
        signed = (tval & 0xFFFF_FFFF) - ((tval >> 31 & 1) << 32)
        assert s.x[2] == at + signed & M64
        left = s.x[2] - ticks(world, off, s.count - 1)
        assert s.x[3] == left & 0xFFFF_FFFF


@TIMERS
def test_ctl(world: World, t: str, off: str) -> None:
    """ISTATUS shows the condition of an enabled timer, masked or not; nothing else is kept."""
    s = world.s
    s.ns_base = 1 << 40
    setattr(s, off, 99)
    setattr(s, f"{t}_masked", 1)
    for ctl in range(8):
        for distance, met in ((-1, True), (0, True), (1000, False)):
            setattr(s, f"{t}_cval", ticks(world, off) + distance)
            world.execute(msr(f"{t}_ctl_el0", 1), mrs(0, f"{t}_ctl_el0"), x1=ctl | M64 & ~7)
            enabled = ctl & ENABLE
            assert s.x[0] == ctl & 3 | (ISTATUS if enabled and met else 0)
            assert getattr(s, f"{t}_ctl") == ctl & 3


@TIMERS
def test_condition_is_unsigned(world: World, t: str, off: str) -> None:
    """D11.2.4: counter and compare value are unsigned 64-bit numbers."""
    s = world.s
    setattr(s, f"{t}_masked", 1)
    for cval, offset, met in [
        (0, 0, True), (M64, 0, False), (1 << 63, 0, False), (0, 1 << 40, True),
        (M64 - 10, 1 << 40, False), (1 << 63, 1 << 40, True),
    ]:  # fmt: skip
        setattr(s, off, offset)
        setattr(s, f"{t}_cval", cval)
        world.execute(msr(f"{t}_ctl_el0", 1), mrs(0, f"{t}_ctl_el0"), x1=1)
        assert (s.x[0] & ISTATUS != 0) == met


# -- the instruction at which a run ends ----------------------------------------------------


def first_count(world: World, off: str, cval: int) -> int:
    """The first count at which the timer's condition is met, by search."""
    low: int = world.s.count
    high = low + (1 << 40)
    while low < high:
        middle = (low + high) // 2
        if ticks(world, off, middle) >= cval:
            high = middle
        else:
            low = middle + 1
    return low


@TIMERS
def test_exact_deadline(world: World, t: str, off: str) -> None:
    """IRQ at the first instruction boundary at which the output is high."""
    s, rng = world.s, random.Random(1)
    loop(world)
    s.count = start = 3_000_000
    for _ in range(60):
        setattr(s, f"{t}_ctl", 0)
        s.ns_base, s.ns_count = rng.randrange(1 << 45), s.count - rng.randrange(1000)
        s.ns_mult = rng.choice((1 << 16, 1 << 16, 30_000, 1 << 17, 65_537, 1_000_000))
        setattr(s, off, rng.choice((0, 1000)))
        cval = ticks(world, off) + rng.choice((1, 2, 50, 64, 65, 1000, 30_000))
        setattr(s, f"{t}_cval", cval)
        setattr(s, f"{t}_ctl", ENABLE)
        s.limit = s.count + 10_000_000
        expected = first_count(world, off, cval)
        assert world.cpu.run() == Exit.IRQ
        assert s.count == expected
        assert s.pc == CODE + 4 * ((s.count - start) % 3)
        assert world.cpu.run() == Exit.IRQ  # until the hypervisor masks it
        assert s.count == expected


def test_host_timer(world: World) -> None:
    s, rng = world.s, random.Random(2)
    loop(world)
    for _ in range(40):
        s.ns_base, s.ns_count = now_ns(world), s.count
        s.ns_mult = rng.choice((1 << 16, 30_000, 200_000))
        s.hyp_deadline_ns = now_ns(world) + rng.choice((0, 1, 100, 5000, 100_000))
        s.limit = s.count + 10_000_000
        assert world.cpu.run() == Exit.IRQ
        assert now_ns(world) >= s.hyp_deadline_ns
        assert s.count == s.ns_count or now_ns(world, s.count - 1) < s.hyp_deadline_ns


@TIMERS
def test_what_does_not_fire(world: World, t: str, off: str) -> None:
    del off
    s = world.s
    loop(world)
    setattr(s, f"{t}_cval", 10)
    for ctl, masked in ((0, 0), (IMASK, 0), (ENABLE | IMASK, 0), (ENABLE, 1)):
        setattr(s, f"{t}_ctl", ctl)
        setattr(s, f"{t}_masked", masked)
        assert world.run(10_000) == Exit.LIMIT


def test_the_nearest_of_all(world: World) -> None:
    s = world.s
    loop(world)
    s.cntv_ctl = s.cntp_ctl = ENABLE
    s.cntv_cval, s.cntp_cval, s.hyp_deadline_ns = 500, 300, 6000
    for expected, off in ((4800, "cntp"), (6000, ""), (8000, "cntv")):
        s.limit = 100_000
        assert world.cpu.run() == Exit.IRQ
        assert s.count == expected
        if off:
            setattr(s, f"{off}_masked", 1)
        else:
            s.hyp_deadline_ns = NEVER
    s.limit = 100_000
    assert world.cpu.run() == Exit.LIMIT


@TIMERS
@pytest.mark.parametrize("written", ["tval", "cval", "ctl"])
def test_write_that_fires_at_once(world: World, t: str, off: str, written: str) -> None:
    """A write that makes the output high ends the run behind it."""
    s = world.s
    s.ns_base = 1 << 30
    setattr(s, off, 0)
    setattr(s, f"{t}_cval", 0 if written == "ctl" else 1 << 60)
    setattr(s, f"{t}_ctl", 0 if written == "ctl" else ENABLE)
    world.code(NOP, msr(f"{t}_{written}_el0", 1), *[NOP] * 2000, B_SELF)
    world.start(x1=1 if written == "ctl" else M64 if written == "tval" else 5)
    assert world.run(1 << 40) == Exit.IRQ
    assert (s.pc, s.count) == (CODE + 8, 2)


@TIMERS
def test_write_that_fires_later(world: World, t: str, off: str) -> None:
    """The new deadline holds although the run had set out for a later one."""
    s = world.s
    world.code(*[NOP] * 10, msr(f"{t}_tval_el0", 1), msr(f"{t}_ctl_el0", 2), B_SELF)
    world.start(x1=1000, x2=1)
    s.limit = s.count + 10_000_000
    assert world.cpu.run() == Exit.IRQ
    cval = getattr(s, f"{t}_cval")
    assert (ticks(world, off), ticks(world, off, s.count - 1)) == (cval, cval - 1)


@pytest.mark.parametrize("far", [1 << 47, 1 << 62, NEVER, (1 << 64) - 1])
def test_far_deadlines(world: World, far: int) -> None:
    s = world.s
    loop(world)
    s.cntv_ctl, s.cntv_cval, s.hyp_deadline_ns = ENABLE, far, min(far, NEVER)
    assert world.run(100_000) == Exit.LIMIT
    assert s.count == 100_000


def test_time_that_stands_still(world: World) -> None:
    s = world.s
    loop(world)
    s.ns_mult, s.cntv_ctl, s.cntv_cval, s.hyp_deadline_ns = 0, ENABLE, 1, 1
    assert world.run(100_000) == Exit.LIMIT


def test_interrupt_before_limit(world: World) -> None:
    """Both at the same instruction: the interrupt is told first, and nothing has run."""
    s = world.s
    loop(world)
    s.cntv_ctl, s.cntv_cval = ENABLE, 100
    assert world.run(1600) == Exit.IRQ
    s.cntv_masked = 1
    s.limit = 1600
    assert world.cpu.run() == Exit.LIMIT
    assert s.count == 1600


# -- who may use them -----------------------------------------------------------------------

EL0_BITS = {
    "cntfrq_el0": (0, 1), "cntpct_el0": (0,), "cntvct_el0": (1,),
    "cntv_tval_el0": (8,), "cntv_ctl_el0": (8,), "cntv_cval_el0": (8,),
    "cntp_tval_el0": (9,), "cntp_ctl_el0": (9,), "cntp_cval_el0": (9,),
}  # fmt: skip


@pytest.mark.parametrize("name", EL0_BITS)
@pytest.mark.parametrize("write", [False, True])
def test_cntkctl(world: World, name: str, write: bool) -> None:
    """EL0 asks CNTKCTL_EL1; refused, the access traps to EL1 with EC 0x18."""
    if write and name in ("cntfrq_el0", "cntpct_el0", "cntvct_el0"):
        return
    word = msr(name, 3) if write else mrs(3, name)
    for bit in (None, *range(10)):
        world.s.cntkctl_el1 = 0 if bit is None else 1 << bit
        world.code(word)
        world.start(pstate=EL0, x3=0)
        world.run()
        t = world.taken()
        if bit in EL0_BITS[name]:
            assert t is None
        else:
            assert t is not None
            assert (t.ec, t.iss & 1, t.elr, t.iss >> 5 & 31) == (0x18, not write, CODE, 3)


@pytest.mark.parametrize("name", EL0_BITS)
@pytest.mark.parametrize("pstate", [EL0, EL1H])
def test_cnthctl(world: World, name: str, pstate: int) -> None:
    """EL1PCTEN clear traps CNTPCT, EL1PCEN clear the physical timer: to EL2, from both levels."""
    world.s.cntkctl_el1 = 0x3FF
    for cnthctl in range(4):
        world.s.cnthctl = cnthctl
        world.code(mrs(3, name))
        world.start(pstate=pstate)
        refused = {"cntpct_el0": not cnthctl & 1}.get(name, "cntp_" in name and cnthctl < 2)
        assert world.run() == (Exit.TRAP if refused else Exit.LIMIT)
        if refused:
            assert world.s.esr_el2 >> 25 == 0x18 << 1 | 1
            assert world.s.pc == CODE
    world.s.cntkctl_el1 = world.s.cnthctl = 0
    world.start(pstate=EL0)
    assert world.run() == Exit.LIMIT  # EL1's own trap comes first
    assert world.s.pc == VECTORS + 0x400


def test_timer_in_a_system_call(world: World) -> None:
    """A deadline inside an exception handler, seen by the handler's counter."""
    s = world.s
    world.code(svc(0), b(-1))
    world.code(mrs(0, "cntvct_el0"), b(-1), at=VECTORS + 0x200)
    world.start()
    s.cntv_ctl, s.cntv_cval = ENABLE, 1000
    s.limit = s.count + 10_000_000
    assert world.cpu.run() == Exit.IRQ
    assert s.count == 16_000
    assert s.x[0] in (999, 1000)
