"""Reciprocals: FPRecipEstimate(), FPRSqrtEstimate(), their Newton steps, and FPRecpX().

By the names of the manual's shared pseudocode. The estimates are integer arithmetic on eight bits
of fraction, all lanes at a time, and never inexact; the steps are one fused operation.
"""

from __future__ import annotations

from armkvm.isa.fp.fpcold import flush_to_zero, flushed, process_nans, settled
from armkvm.isa.fp.fpformat import (
    DZC,
    FZ,
    IOC,
    IXC,
    OFC,
    UFC,
    absolute,
    any_lane,
    both,
    compare,
    format_of,
    fpcr_bit,
    int_type,
    is_nan,
    is_snan,
    magnitude,
    mangled,
    pattern,
    raise_flags,
    splat_like,
    strict,
    with_sign_of,
)
from armkvm.isa.fp.fpmath import infinity_times_zero
from armkvm.isa.machine import Machine
from armkvm.isa.value import Value


def recip_estimate(m: Machine, a: Value) -> Value:
    """RecipEstimate(): 256..511 stand for 0.5 to 1.0; the result, 256..511, for 1.0 to 2.0."""
    a = a * 2 + 1
    return (m.const(a.ty, 1 << 19).udiv(a) + 1).lshr(1)


def recip_sqrt_estimate(m: Machine, a: Value) -> Value:
    """RecipSqrtEstimate(): 128..511 stand for 0.25 to 1.0; the result, 256..511, for 1.0 to 2.0.

    The manual counts b up from 512 while a * (b+1)**2 < 2**28; here b is found bit by bit.
    """
    a = m.select(a.ult(256), a * 2 + 1, (a | 1) * 2)
    b = m.const(a.ty, 512)
    for i in reversed(range(9)):
        higher = b + (1 << i)
        b = m.select((a * higher * higher).ult(1 << 28), higher, b)
    return (b + 1).lshr(1)


def FPRecipEstimate(m: Machine, a: Value) -> Value:
    """FPRecipEstimate(): 1/a to eight bits."""
    f, ity = format_of(a.ty), int_type(a.ty)
    top = f.fraction - 8
    x = flushed(m, a)
    mag = magnitude(x)
    exponent, fraction = mag.lshr(f.fraction), mag & (f.min_normal - 1)
    # Denormals of the upper two binades: the manual's exponents 0 and -1.
    denormal = exponent.eq(0)
    second = denormal & (fraction & (1 << (f.fraction - 1))).eq(0)
    shifted = (fraction << m.select(second, m.const(ity, 2), 1)) & (f.min_normal - 1)
    fraction = m.select(denormal, shifted, fraction)
    exponent = m.select(second, -1, exponent)
    estimate = recip_estimate(m, fraction.lshr(top) | 256) & 255
    exponent = m.const(ity, 2 * f.bias - 1) - exponent
    fraction = estimate << top
    # Large operands have denormal reciprocals.
    fraction = m.select(exponent.eq(0), (fraction | f.min_normal).lshr(1), fraction)
    fraction = m.select(exponent.eq(-1), (fraction | f.min_normal).lshr(2), fraction)
    exponent = m.select(exponent.eq(-1), 0, exponent)
    usual = with_sign_of(x, exponent << f.fraction | fraction)
    # Zeros and what overflows, what underflows with FPCR.FZ, infinities and NaNs.
    low, high = 1 << (f.fraction - 2), (2 * f.bias - 1) << f.fraction

    def cold() -> Value:
        zero, inf, nan = mag.eq(0), mag.eq(f.inf), is_nan(x)
        overflow = mag.ult(low) & ~zero
        flush = both(m, mag.uge(high) & mag.ult(f.inf), fpcr_bit(m, FZ))
        raise_flags(m, DZC, zero)
        raise_flags(m, OFC | IXC, overflow)
        raise_flags(m, UFC, flush)
        raise_flags(m, IOC, is_snan(x))
        limit = m.select(_overflows_to_infinity(m, x), m.const(ity, f.inf), f.inf - 1)
        bits = m.select(zero, f.inf, exponent << f.fraction | fraction)
        bits = m.select(overflow, limit, bits)
        bits = m.select(inf | flush, 0, bits)
        out = m.select(nan, a, with_sign_of(x, bits))
        out = process_nans(m, out, (a,))
        flush_to_zero(m, (a,))
        return out

    rare = (mag - low).uge(high - low)
    return m.unlikely(any_lane(rare) | fpcr_bit(m, FZ), usual, cold)


def _overflows_to_infinity(m: Machine, x: Value) -> Value:
    """Where FPCR.RMode answers an overflow with an infinity, not with the largest number."""
    mode = splat_like(m.get("fpcr").lshr(22).trunc("i32") & 3, x)
    toward = m.select(pattern(x).slt(0), mode.eq(2), mode.eq(1))
    return mode.eq(0) | toward


def FPRSqrtEstimate(m: Machine, a: Value) -> Value:
    """FPRSqrtEstimate(): 1/sqrt(a) to eight bits."""
    f, ity = format_of(a.ty), int_type(a.ty)
    top = f.fraction - 8
    x = flushed(m, a)
    mag = magnitude(x)
    exponent, fraction = mag.lshr(f.fraction), mag & (f.min_normal - 1)
    # A denormal is shifted until its first one is the implicit bit; the exponent goes below zero.
    zeros = m.intrinsic(f"llvm.ctlz.{mangled(ity)}", ity, fraction | 1, False) - f.exponent
    denormal = exponent.eq(0)
    shift = m.select(denormal, zeros, 0)
    fraction = (fraction << shift) & (f.min_normal - 1)
    exponent = m.select(denormal, -(zeros - 1), exponent)
    even = (exponent & 1).eq(0)
    eight = fraction.lshr(top)
    estimate = recip_sqrt_estimate(m, m.select(even, eight | 256, eight.lshr(1) | 128)) & 255
    exponent = (m.const(ity, 3 * f.bias - 1) - exponent).lshr(1)
    usual = (exponent << f.fraction | estimate << top).bitcast(a.ty)

    def cold() -> Value:
        zero, nan = mag.eq(0), is_nan(x)
        negative = pattern(x).slt(0) & ~zero & ~nan
        raise_flags(m, DZC, zero)
        raise_flags(m, IOC, negative | is_snan(x))
        bits = m.select(mag.eq(f.inf), 0, pattern(usual))
        bits = m.select(negative, f.default_nan, bits)
        out = m.select(zero, with_sign_of(x, f.inf), bits.bitcast(a.ty))
        # A negative operand is no NaN: process_nans() gives the default one.
        out = process_nans(m, m.select(nan, a, out), (a,))
        flush_to_zero(m, (a,))
        return out

    rare = (pattern(x) - 1).uge(f.inf - 1)
    return m.unlikely(any_lane(rare) | fpcr_bit(m, FZ), usual, cold)


def FPRecpX(m: Machine, a: Value) -> Value:
    """FPRecpX(): the exponent inverted, the fraction dropped (FRECPX)."""
    f = format_of(a.ty)
    x = flushed(m, a)
    exponent = magnitude(x) & f.inf
    largest = f.inf - f.min_normal
    bits = m.select(exponent.eq(0), largest, exponent ^ f.inf)
    usual = with_sign_of(x, bits)

    def cold() -> Value:
        raise_flags(m, IOC, is_snan(a))
        out = process_nans(m, m.select(is_nan(a), a, usual), (a,))
        flush_to_zero(m, (a,))
        return out

    return m.unlikely(any_lane(is_nan(a)) | fpcr_bit(m, FZ), usual, cold)


def FPRecipStepFused(m: Machine, a: Value, b: Value) -> Value:
    """FPRecipStepFused(): 2.0 - a * b, rounded once; infinity times zero counts as zero."""
    a = a.fneg()
    special = infinity_times_zero(m, a, b)
    zero = m.const(a.ty, 0.0)
    x, y = m.select(special, zero, a), m.select(special, zero, b)

    def operation(x: Value, y: Value) -> Value:
        return strict(m, "fma", x.ty, x, y, m.const(x.ty, 2.0))

    return settled(m, operation, (x, y), nan_operands=(a, b), flushes=False)


def FPRSqrtStepFused(m: Machine, a: Value, b: Value) -> Value:
    """FPRSqrtStepFused(): (3.0 - a * b) / 2.0, rounded once; infinity times zero counts as zero."""
    a = a.fneg()
    special = infinity_times_zero(m, a, b)
    zero = m.const(a.ty, 0.0)
    x, y = m.select(special, zero, a), m.select(special, zero, b)
    # Large factors are halved before, lest the product overflow where its half does not; a factor
    # below 1.0 is not: half of a denormal might be inexact. Halving is exact everywhere else.
    large = compare(m, "oge", absolute(m, x), m.const(a.ty, 1.0))
    x = m.select(large, strict(m, "fmul", a.ty, m.select(large, x, zero), m.const(a.ty, 0.5)), x)
    three = m.select(large, m.const(a.ty, 1.5), 3.0)
    half = m.select(large, m.const(a.ty, 1.0), 0.5)

    def operation(x: Value, y: Value) -> Value:
        return strict(m, "fmul", x.ty, strict(m, "fma", x.ty, x, y, three), half)

    return settled(m, operation, (x, y), nan_operands=(a, b), flushes=False)
