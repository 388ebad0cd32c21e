"""Floating point off the fast path: NaNs, underflow before rounding, and flush-to-zero.

A host operation's result is looked at once (`settled`): NaNs, numbers at the edge of underflow, and
everything with FPCR.FZ set, go to a cold block that does what the manual's FPProcessNaNs(),
FPProcessNaNs3(), FPRound() and FPUnpack() say.

With FPCR.FZ the host flushes operands and results too, but may have no IDC, and may raise Inexact
for a result that it flushes, where Arm raises Underflow alone. So while FZ is set every operation
moves the flags that it raised from the host to FPSR; one that flushed a result drops them and is
done again with harmless operands in those lanes, to find the flags of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from armkvm.isa.fp.fpformat import (
    DN,
    FZ,
    IDC,
    UFC,
    absolute,
    any_lane,
    both,
    compare,
    format_of,
    fpcr_bit,
    int_type,
    is_denormal,
    is_nan,
    is_snan,
    magnitude,
    pattern,
    raise_flags,
    with_sign_of,
)
from armkvm.isa.machine import Machine
from armkvm.isa.value import Value

Operation = Callable[..., Value]  # of the operands, on the host


# -- NaNs -------------------------------------------------------------------------------------
def process_nans(m: Machine, r: Value, operands: Sequence[Value]) -> Value:
    """FPProcessNaNs() in the lanes where r is a NaN: the first signalling operand, made quiet, else
    the first quiet one, else the default NaN; with FPCR.DN always the default NaN."""
    f = format_of(r.ty)
    default = m.const(int_type(r.ty), f.default_nan)
    nan = default
    for x in reversed(operands):
        nan = m.select(is_nan(x), pattern(x), nan)
    for x in reversed(operands):
        nan = m.select(is_snan(x), pattern(x) | f.quiet, nan)
    nan = m.select(fpcr_bit(m, DN), default, nan)
    return m.select(is_nan(r), nan, pattern(r)).bitcast(r.ty)


def default_nans(m: Machine, r: Value) -> Value:
    """NaNs of r replaced where FPCR.DN says so; the host has made them quiet."""
    lane = both(m, is_nan(r), fpcr_bit(m, DN))
    default = m.const(int_type(r.ty), format_of(r.ty).default_nan)
    return m.select(lane, default, pattern(r)).bitcast(r.ty)


# -- underflow --------------------------------------------------------------------------------
def at_edge(r: Value) -> Value:
    """Lanes that hold the smallest normal number, of either sign."""
    return magnitude(r).eq(format_of(r.ty).min_normal)


def nan_or_edge(m: Machine, r: Value) -> Value:
    """Lanes that hold a NaN or the smallest normal number, by one comparison; r is no operand, so
    no signalling NaN, and nothing is raised."""
    return compare(m, "ueq", absolute(m, r), m.const(r.ty, format_of(r.ty).smallest))


def underflow(m: Machine, r: Value, lane: Value) -> Value:
    """FPRound() of numbers below the smallest normal one that the host rounded up to it.

    "Underflow occurs if exponent is too small before rounding, and result is inexact", and flushing
    looks before rounding too; the host looks after. `lane`: at the edge, and below it when exact.
    """
    raise_flags(m, UFC, lane)
    return m.select(both(m, lane, fpcr_bit(m, FZ)), with_sign_of(r, 0), r)


# -- flush-to-zero ----------------------------------------------------------------------------
def flushed(m: Machine, x: Value) -> Value:
    """FPUnpack()'s value: with FPCR.FZ a denormal number is a zero of its sign."""
    zero = both(m, is_denormal(x), fpcr_bit(m, FZ))
    return m.select(zero, with_sign_of(x, 0), x)


def flush_to_zero(
    m: Machine,
    unpacked: Sequence[Value],
    r: Value | None = None,
    operation: Operation | None = None,
    operands: Sequence[Value] = (),
) -> None:
    """What FPCR.FZ adds behind an operation; nothing where it is clear. FPUnpack(): IDC for
    denormals among `unpacked`. With r = operation(operands) the result may have been flushed."""

    def with_fz() -> Value:
        for x in unpacked:
            raise_flags(m, IDC, is_denormal(x))
        if r is not None and operation is not None:
            # The host holds what this operation raised: each one leaves it clear.
            raised = m.ask("fp_raised")
            raise_flags(m, UFC, (raised & UFC).ne(0))
            m.tell("fp_enter")
            gone = magnitude(r).eq(0)
            operation(*(m.select(gone, m.const(x.ty, 1.0), x) for x in operands))
        m.tell("fp_harvest")
        return m.const("i1", 0)

    m.unlikely(fpcr_bit(m, FZ), m.const("i1", 0), with_fz)


# -- behind the fast path ---------------------------------------------------------------------
def settled(
    m: Machine,
    operation: Operation,
    operands: Sequence[Value],
    *,
    nan_operands: Sequence[Value] | None = None,
    below: Callable[[Value], Value] | None = None,
    flushes: bool = True,
) -> Value:
    """operation(operands) on the host, made Arm's: NaNs chosen as FPProcessNaNs() does, underflow
    before rounding, flush-to-zero.

    nan_operands: the manual's operands, where the host gets other ones. below(at): which of the
    lanes `at` are below the smallest normal number before rounding; None for operations of which no
    result is both tiny and inexact. flushes=False: no result is ever flushed.
    """
    r = operation(*operands)
    originals = operands if nan_operands is None else nan_operands

    def cold() -> Value:
        out = process_nans(m, r, originals)
        if below is not None:
            at = at_edge(r)
            out = underflow(m, out, at & below(at))
        flush_to_zero(m, originals, out, operation if flushes else None, operands)
        return out

    if below is None:
        odd = compare(m, "uno", r, r)
    else:
        odd = nan_or_edge(m, r)
    return m.unlikely(any_lane(odd) | fpcr_bit(m, FZ), r, cold)
