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
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import flag, native, param
from armkvm.isa.value import Value

_FAR = 1 << 46  # ns: further deadlines are looked at again later


def build() -> None:
    """Enter the native functions of this file."""
    with native("now_ns", "i64 %count", ret="i64") as fn:
        passed = (param(fn, "count") - fn.get("ns_count")).zext("i128")
        passed = (passed * fn.get("ns_mult").zext("i128")).lshr(16)
        fn.ret(fn.get("ns_base") + passed.trunc("i64"))
    _count_at()
    _timer_output()
    _deadline()
    _registers()


def _armed(fn: Function, timer: str) -> Value:
    """The timer may end a run: its output follows its condition, and the host listens to it."""
    on = (fn.get(f"{timer}_ctl") & (CTL_ENABLE | CTL_IMASK)).eq(CTL_ENABLE)
    return on & fn.get(f"{timer}_masked").eq(0)


def _count_at() -> None:
    """The first instruction count at which time is >= ns; NEVER when that is far away."""
    with native("count_at", "i64 %ns", ret="i64") as fn:
        ahead = param(fn, "ns") - fn.get("ns_base")
        with fn.if_(ahead.sle(0)):
            fn.ret(fn.get("ns_count"))
        with fn.if_(ahead.sgt(_FAR)):
            fn.ret(NEVER)
        mult = fn.get("ns_mult")
        with fn.if_(mult.eq(0)):  # time stands still
            fn.ret(NEVER)
        fn.ret(fn.get("ns_count") + ((ahead << 16) + mult - 1).udiv(mult))


def _timer_output() -> None:
    """Is an unmasked timer's output high at this count? Enabled, not IMASK, condition met."""
    with native("timer_output", "i64 %count", ret="i64") as fn:
        ticks = fn.call("now_ns", "i64", "ptr %cpu", param(fn, "count")).lshr(NS_PER_TICK_SHIFT)
        fires = [
            _armed(fn, t) & fn.get(f"{t}_cval").ule(ticks - fn.get(offset))
            for t, offset in (("cntv", "cntvoff"), ("cntp", "cntpoff"))
        ]
        fn.ret((fires[0] | fires[1]).zext("i64"))


def _deadline() -> None:
    """The instruction count at which the run has to stop and look."""
    with native("deadline", "i64 %count", ret="i64") as fn:
        stop = fn.var("i64", fn.get("limit"))

        def sooner(count: Value) -> None:
            stop.set(fn.select(count.ult(stop.get()), count, stop.get()))

        sooner(fn.call("count_at", "i64", "ptr %cpu", fn.get("hyp_deadline_ns")))
        ticks = fn.call("now_ns", "i64", "ptr %cpu", param(fn, "count")).lshr(NS_PER_TICK_SHIFT)
        for t, offset in (("cntv", "cntvoff"), ("cntp", "cntpoff")):
            with fn.if_(_armed(fn, t)):
                ahead = fn.get(f"{t}_cval") - (ticks - fn.get(offset))
                with fn.if_(ahead.ult(_FAR >> NS_PER_TICK_SHIFT)):
                    at = (ticks + ahead) << NS_PER_TICK_SHIFT
                    sooner(fn.call("count_at", "i64", "ptr %cpu", at))
        fn.ret(stop.get())


def istatus(fn: Function, timer: str, virtual_now: Value) -> Value:
    """CTL as read: ENABLE, IMASK and ISTATUS (which only an enabled timer shows)."""
    ctl = fn.get(f"{timer}_ctl")
    met = fn.get(f"{timer}_cval").ule(virtual_now) & flag(ctl, CTL_ENABLE)
    return ctl | fn.select(met, fn.const("i64", CTL_ISTATUS), 0)


def _registers() -> None:
    """Reads and writes of the timer registers, as MRS and MSR ask for them; `count` says when."""
    with native("read_cntfrq_el0", "i64 %count", ret="i64") as fn:
        fn.ret(FREQUENCY)
    with native("read_cntpct_el0", "i64 %count", ret="i64") as fn:
        fn.ret(_ticks(fn) - fn.get("cntpoff"))
    with native("read_cntvct_el0", "i64 %count", ret="i64") as fn:
        fn.ret(_ticks(fn) - fn.get("cntvoff"))
    for t, offset in (("cntp", "cntpoff"), ("cntv", "cntvoff")):
        with native(f"read_{t}_ctl_el0", "i64 %count", ret="i64") as fn:
            fn.ret(istatus(fn, t, _ticks(fn) - fn.get(offset)))
        with native(f"read_{t}_cval_el0", "i64 %count", ret="i64") as fn:
            fn.ret(fn.get(f"{t}_cval"))
        with native(f"read_{t}_tval_el0", "i64 %count", ret="i64") as fn:
            left = fn.get(f"{t}_cval") - (_ticks(fn) - fn.get(offset))
            fn.ret(left & 0xFFFF_FFFF)
        with native(f"write_{t}_ctl_el0", "i64 %count, i64 %v", ret="i64") as fn:
            fn.put(f"{t}_ctl", param(fn, "v") & (CTL_ENABLE | CTL_IMASK))
            fn.ret(0)
        with native(f"write_{t}_cval_el0", "i64 %count, i64 %v", ret="i64") as fn:
            fn.put(f"{t}_cval", param(fn, "v"))
            fn.ret(0)
        with native(f"write_{t}_tval_el0", "i64 %count, i64 %v", ret="i64") as fn:
            ahead = param(fn, "v").trunc("i32").sext("i64")
            fn.put(f"{t}_cval", _ticks(fn) - fn.get(offset) + ahead)
            fn.ret(0)


def _ticks(fn: Function) -> Value:
    return fn.call("now_ns", "i64", "ptr %cpu", param(fn, "count")).lshr(NS_PER_TICK_SHIFT)
