"""The architected timers in native code (Arm ARM D11.2) and the counters' relation to instructions.

Time is `ns_base + ((count - ns_count) * ns_mult >> 16)` nanoseconds: a function of the retired
instructions that host/clock.py sets; nothing here reads the host's time. A tick of the counter is
16 ns (62.5 MHz). `deadline` turns everything that can end a run into one instruction count.
"""

from __future__ import annotations

from armkvm.arch.timer import (
    CTL_ENABLE,
    CTL_IMASK,
    CTL_ISTATUS,
    FREQUENCY,
    NEVER,
    NS_PER_TICK_SHIFT,
)
from armkvm.engine.llvm.ir import Function, flag
from armkvm.engine.llvm.native import Native, native, native_as
from armkvm.isa.value import Value

_FAR = 1 << 46  # ns: further deadlines are looked at again later
_TIMERS = (("cntv", "cntvoff"), ("cntp", "cntpoff"))


@native
def now_ns(fn: Function, count: Value) -> Value:
    """The time at an instruction count."""
    passed = (count - fn.get("ns_count")).zext("i128")
    passed = (passed * fn.get("ns_mult").zext("i128")).lshr(16)
    return fn.get("ns_base") + passed.trunc("i64")


def _ticks(fn: Function, count: Value) -> Value:
    return now_ns(fn, count).lshr(NS_PER_TICK_SHIFT)


def _armed(fn: Function, timer: str) -> Value:
    """The timer may end a run: its output follows its condition, and the host listens to it."""
    on = (fn.get(f"{timer}_ctl") & (CTL_ENABLE | CTL_IMASK)).eq(CTL_ENABLE)
    return on & fn.get(f"{timer}_masked").eq(0)


@native
def count_at(fn: Function, ns: Value) -> Value:
    """The first instruction count at which time is >= ns; NEVER when that is far away."""
    ahead = ns - fn.get("ns_base")
    with fn.if_(ahead.sle(0)):
        fn.ret(fn.get("ns_count"))
    with fn.if_(ahead.sgt(_FAR)):
        fn.ret(NEVER)
    mult = fn.get("ns_mult")
    with fn.if_(mult.eq(0)):  # time stands still
        fn.ret(NEVER)
    return fn.get("ns_count") + ((ahead << 16) + mult - 1).udiv(mult)


@native
def timer_output(fn: Function, count: Value) -> Value:
    """Is an unmasked timer's output high at this count? Enabled, not IMASK, condition met."""
    ticks = _ticks(fn, count)
    virtual, physical = (
        _armed(fn, t) & fn.get(f"{t}_cval").ule(ticks - fn.get(offset)) for t, offset in _TIMERS
    )
    return (virtual | physical).zext("i64")


@native
def deadline(fn: Function, count: Value) -> Value:
    """The instruction count at which the run has to stop and look."""
    stop = fn.var("i64", fn.get("limit"))

    def sooner(count: Value) -> None:
        stop.set(fn.select(count.ult(stop.get()), count, stop.get()))

    sooner(count_at(fn, fn.get("hyp_deadline_ns")))
    ticks = _ticks(fn, count)
    for t, offset in _TIMERS:
        with fn.if_(_armed(fn, t)):
            ahead = fn.get(f"{t}_cval") - (ticks - fn.get(offset))
            with fn.if_(ahead.ult(_FAR >> NS_PER_TICK_SHIFT)):
                sooner(count_at(fn, (ticks + ahead) << NS_PER_TICK_SHIFT))
    return stop.get()


# -- MRS and MSR ------------------------------------------------------------------------------


@native
def read_cntfrq_el0(fn: Function, count: Value) -> Value:
    """CNTFRQ_EL0."""
    return fn.i64(FREQUENCY)


@native
def read_cntpct_el0(fn: Function, count: Value) -> Value:
    """CNTPCT_EL0."""
    return _ticks(fn, count) - fn.get("cntpoff")


@native
def read_cntvct_el0(fn: Function, count: Value) -> Value:
    """CNTVCT_EL0."""
    return _ticks(fn, count) - fn.get("cntvoff")


def _registers(t: str, offset: str) -> list[Native[..., Value | None]]:
    """CTL, CVAL and TVAL of a timer."""

    @native_as(f"read_{t}_ctl_el0")
    def read_ctl(fn: Function, count: Value) -> Value:
        # ENABLE, IMASK, and ISTATUS, which only an enabled timer shows.
        now = _ticks(fn, count) - fn.get(offset)
        ctl = fn.get(f"{t}_ctl")
        met = fn.get(f"{t}_cval").ule(now) & flag(ctl, CTL_ENABLE)
        return ctl | fn.select(met, fn.i64(CTL_ISTATUS), 0)

    @native_as(f"read_{t}_cval_el0")
    def read_cval(fn: Function, count: Value) -> Value:
        return fn.get(f"{t}_cval")

    @native_as(f"read_{t}_tval_el0")
    def read_tval(fn: Function, count: Value) -> Value:
        left = fn.get(f"{t}_cval") - (_ticks(fn, count) - fn.get(offset))
        return left & 0xFFFF_FFFF

    @native_as(f"write_{t}_ctl_el0")
    def write_ctl(fn: Function, count: Value, v: Value) -> None:
        fn.put(f"{t}_ctl", v & (CTL_ENABLE | CTL_IMASK))

    @native_as(f"write_{t}_cval_el0")
    def write_cval(fn: Function, count: Value, v: Value) -> None:
        fn.put(f"{t}_cval", v)

    @native_as(f"write_{t}_tval_el0")
    def write_tval(fn: Function, count: Value, v: Value) -> None:
        ahead = v.trunc("i32").sext("i64")
        fn.put(f"{t}_cval", _ticks(fn, count) - fn.get(offset) + ahead)

    return [read_ctl, read_cval, read_tval, write_ctl, write_cval, write_tval]


REGISTERS = [native for timer in _TIMERS for native in _registers(*timer)]
