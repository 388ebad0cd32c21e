"""Floating-point conversions: FPRoundInt(), FPToFixed(), FixedToFP(), FPConvert() and its variants.

By the names of the manual's shared pseudocode, over scalars and vectors as in fpmath.py. The host
has no saturation, no rounding to odd and no alternative half precision: operands that need them are
kept away from the host's conversion (it would raise the wrong flags) and put right with integers.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.fp.fpcold import (
    Operation,
    at_edge,
    default_nans,
    flush_to_zero,
    flushed,
    nan_or_edge,
    settled,
    underflow,
)
from armkvm.isa.fp.fpformat import (
    AHP,
    DN,
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
    is_denormal,
    is_nan,
    magnitude,
    pattern,
    raise_flags,
    splat_like,
    strict,
    strict_exact,
    with_sign_of,
)
from armkvm.isa.machine import Machine
from armkvm.isa.value import Value, bits, element, lanes, same_shape

# Rounding modes of an instruction's name, and LLVM's operations that round so and raise nothing.
_ROUND = {"N": "roundeven", "P": "ceil", "M": "floor", "Z": "trunc"}


# -- to integral ------------------------------------------------------------------------------
def rounded(m: Machine, a: Value, rounding: str) -> Value:
    """a as an integral number; Inexact is not raised. NaNs become quiet (Invalid if signalling).

    rounding: N ties to even, P up, M down, Z to zero, A ties away, I as FPCR says.
    """
    if rounding in _ROUND:
        return strict_exact(m, _ROUND[rounding], a.ty, a)
    if rounding == "I":
        return strict(m, "nearbyint", a.ty, a)
    # Ties away. Numbers without a fraction (and infinities) are not touched: inf - inf would raise.
    f = format_of(a.ty)
    small = magnitude(a).ult(pattern(m.const(a.ty, 2.0 ** (f.fraction + 1))))
    x = m.select(small, absolute(m, a), m.const(a.ty, 0.0))
    whole = strict_exact(m, "trunc", a.ty, x)
    up = compare(m, "oge", strict(m, "fsub", a.ty, x, whole), m.const(a.ty, 0.5))
    whole = strict(m, "fadd", a.ty, whole, m.select(up, m.const(a.ty, 1.0), 0.0))
    other = strict_exact(m, "trunc", a.ty, a)  # for its NaNs
    return m.select(small, with_sign_of(a, pattern(whole)), other)


def FPRoundInt(m: Machine, a: Value, rounding: str, *, exact: bool = False) -> Value:
    """FPRoundInt(): rounding as in `rounded`; exact raises Inexact (FRINTX)."""

    def operation(a: Value) -> Value:
        return strict(m, "rint", a.ty, a) if exact else rounded(m, a, rounding)

    return settled(m, operation, (a,), flushes=False)


# -- to fixed point ---------------------------------------------------------------------------
def _scale(m: Machine, ty: str, fbits: Field | int, sign: int) -> Value:
    """2.0**(sign * fbits) in every lane."""
    f = format_of(ty)
    exponent = fbits * sign + f.bias
    v = m.imm(exponent << f.fraction, f"i{f.width}").bitcast(element(ty))
    return v.splat(lanes(ty)) if ty.startswith("<") else v


def FPToFixed(
    m: Machine, a: Value, ity: str, *, unsigned: bool, rounding: str, fbits: Field | int = 0
) -> Value:
    """FPToFixed() to the integer lanes ity: saturates; NaN gives 0; both raise Invalid."""
    if not unsigned and rounding == "Z" and isinstance(fbits, int) and not ity.startswith("<"):
        return _truncated(m, a, ity)
    width = bits(element(ity))
    r = rounded(m, a, rounding) if rounding != "Z" else a
    if not isinstance(fbits, int):
        # The limits are scaled, not the operand, which might overflow.
        limits = _scale(m, a.ty, fbits, -1)
    else:
        limits = None
    low, high = _limits(m, a, width, unsigned)
    if limits is not None:
        low = (low[0], strict(m, "fmul", a.ty, low[1], limits))
        high = strict(m, "fmul", a.ty, high, limits)
    fits = compare(m, low[0], r, low[1], signalling=True) & compare(
        m, "olt", r, high, signalling=True
    )
    zero = m.const(a.ty, 0.0)
    x = m.select(fits, r, zero)
    if limits is not None:
        x = strict(m, "fmul", a.ty, x, _scale(m, a.ty, fbits, 1))
    elif rounding != "Z":  # the host's own rounding of the same number raises Inexact
        strict(m, "rint", a.ty, m.select(fits, a, zero))
    converted = _to_integer(m, x, ity, unsigned)

    def cold() -> Value:
        raise_flags(m, IOC, ~fits)
        out = m.select(fits, converted, _saturation(m, a, ity, unsigned))
        flush_to_zero(m, (a,))
        return out

    return m.unlikely(any_lane(~fits) | fpcr_bit(m, FZ), converted, cold)


def _limits(m: Machine, a: Value, width: int, unsigned: bool) -> tuple[tuple[str, Value], Value]:
    """What is converted without saturation: the comparison and constant below, the constant above.

    Truncation takes numbers down to, but not including, the least integer minus one, where the
    format has that number; integral numbers satisfy the same comparison.
    """
    high = m.const(a.ty, 2.0 ** (width if unsigned else width - 1))
    if unsigned:
        return ("ogt", m.const(a.ty, -1.0)), high
    if width <= format_of(a.ty).fraction:
        return ("ogt", m.const(a.ty, -(2.0 ** (width - 1)) - 1)), high
    return ("oge", m.const(a.ty, -(2.0 ** (width - 1)))), high


def _to_integer(m: Machine, x: Value, ity: str, unsigned: bool) -> Value:
    """Truncation of numbers that fit, raising Inexact. Any host converts signed integers."""
    if not unsigned:
        return strict_exact(m, "fptosi", ity, x)
    width = bits(element(ity))
    if width == 32 and not ity.startswith("<"):
        return strict_exact(m, "fptosi", "i64", x).trunc(ity)
    half = m.const(x.ty, 2.0 ** (width - 1))
    big = compare(m, "oge", x, half)
    # A big number is integral after this too if it was before; the difference is exact.
    x = strict(m, "fsub", x.ty, x, m.select(big, half, 0.0))
    top = m.select(big, m.const(ity, 1 << (width - 1)), 0)
    return strict_exact(m, "fptosi", ity, x) ^ top


def _saturation(m: Machine, a: Value, ity: str, unsigned: bool) -> Value:
    """SatQ() of a number that does not fit; 0 for a NaN."""
    width = bits(element(ity))
    least, most = (0, (1 << width) - 1) if unsigned else (1 << (width - 1), (1 << (width - 1)) - 1)
    negative = pattern(a).slt(0)
    limit = m.select(negative, m.const(ity, least), m.const(ity, most))
    return m.select(is_nan(a), 0, limit)


def _truncated(m: Machine, a: Value, ity: str) -> Value:
    """FPToFixed() toward zero, signed, scalar: where Arm saturates, the host raises Invalid and
    answers the least integer, if not what Arm answers (engine/hosts)."""
    r = strict_exact(m, "fptosi", ity, a)
    r = Value(r.m, ity, r.m.emit(f"freeze {r!r}"))
    least = 1 << (r.bits - 1)

    def cold() -> Value:
        out = m.select(r.eq(least), _saturation(m, a, ity, False), r)
        flush_to_zero(m, (a,))
        return out

    return m.unlikely(r.eq(least) | fpcr_bit(m, FZ), r, cold)


# -- from fixed point -------------------------------------------------------------------------
def FixedToFP(m: Machine, x: Value, ty: str, *, unsigned: bool, fbits: Field | int = 0) -> Value:
    """FixedToFP(): x / 2**fbits, rounded once."""
    if not unsigned:
        r = strict(m, "sitofp", ty, x)
    elif x.ty == "i32":
        r = strict(m, "sitofp", ty, x.zext("i64"))
    else:
        # A number with the top bit set is halved; the bit lost stays as a sticky one.
        big = x.slt(0)
        half = strict(m, "sitofp", ty, m.select(big, x.lshr(1) | (x & 1), x))
        r = m.select(big, strict(m, "fadd", ty, half, half), half)
    if not isinstance(fbits, int):
        r = strict(m, "fmul", ty, r, _scale(m, ty, fbits, -1))  # exact
    flush_to_zero(m, (r,))
    return r


# -- between formats --------------------------------------------------------------------------
def single_to_double(m: Machine, a: Value) -> Value:
    """FPConvert() from float to double: exact."""
    r = strict_exact(m, "fpext", same_shape(a.ty, "double"), a)

    def cold() -> Value:
        out = default_nans(m, r)
        flush_to_zero(m, (a,))
        return out

    return m.unlikely(any_lane(compare(m, "uno", r, r)) | fpcr_bit(m, FZ), r, cold)


def double_to_single(m: Machine, a: Value) -> Value:
    """FPConvert() from double to float."""
    ty = same_shape(a.ty, "float")
    edge = format_of(ty).smallest
    operation: Operation = lambda x: strict(m, "fptrunc", ty, x)  # noqa: E731
    r = operation(a)

    def cold() -> Value:
        below = magnitude(a).ult(pattern(m.const(a.ty, edge)))
        out = underflow(m, default_nans(m, r), at_edge(r) & below)
        flush_to_zero(m, (a,), out, operation, (a,))
        return out

    return m.unlikely(any_lane(nan_or_edge(m, r)) | fpcr_bit(m, FZ), r, cold)


def half_to_single(m: Machine, h: Value) -> Value:
    """FPConvert() from half (as i16 lanes) to float. FPCR.FZ does not concern half denormals."""
    ty = same_shape(h.ty, "float")
    # FPCR.AHP: the exponent 31 holds numbers, of which the host must not see signalling NaNs.
    special = (h & 0x7C00).eq(0x7C00)
    ahp = both(m, special, fpcr_bit(m, AHP))
    r = strict_exact(m, "fpext", ty, m.select(ahp, 0, h).bitcast(same_shape(h.ty, "half")))

    def cold() -> Value:
        wide = same_shape(h.ty, "i32")
        number = (h & 0x3FF).zext(wide) << 13 | (127 + 16) << 23
        number = number | (h & 0x8000).zext(wide) << 16
        out = m.select(ahp, number.bitcast(ty), default_nans(m, r))
        flush_to_zero(m, (r,))  # no half is a denormal float
        return out

    return m.unlikely(any_lane(special), r, cold)


def half_to_double(m: Machine, h: Value) -> Value:
    """FPConvert() from half to double: exact by way of float."""
    return strict_exact(m, "fpext", same_shape(h.ty, "double"), half_to_single(m, h))


def single_to_half(m: Machine, a: Value, source: Value | None = None) -> Value:
    """FPConvert() from float to half, as i16 lanes. `source`: the double that a stands for."""
    ity = same_shape(a.ty, "i16")
    ahp = fpcr_bit(m, AHP)
    # The alternative format has neither infinities nor NaNs and raises otherwise: all by integers.
    x = m.select(ahp, m.const(a.ty, 0.0), a)
    h = strict(m, "fptrunc", same_shape(a.ty, "half"), x).bitcast(ity)
    edge = (h & 0x7FFF).eq(0x0400)
    odd = edge | (h & 0x7FFF).ugt(0x7C00)

    def cold() -> Value:
        original = source if source is not None else a
        small = magnitude(original).ult(pattern(m.const(original.ty, 2.0**-14)))
        raise_flags(m, UFC, edge & small)
        nan = both(m, (h & 0x7FFF).ugt(0x7C00), fpcr_bit(m, DN))
        ieee = m.select(nan, m.const(ity, 0x7E00), h)
        out = m.unlikely(ahp, ieee, lambda: _alternative_half(m, a))
        flush_to_zero(m, (original,))
        return out

    return m.unlikely(any_lane(odd) | fpcr_bit(m, FZ) | ahp, h, cold)


def _alternative_half(m: Machine, a: Value) -> Value:
    """FPRoundCV() to alternative half precision, with its flags, by integers."""
    wide, ity = int_type(a.ty), same_shape(a.ty, "i16")
    x = flushed(m, a)
    mag = magnitude(x)
    negative = pattern(x).slt(0)
    # 24 significant bits, of which `drop` go: 13, more below 2**-14, where the result is denormal.
    exponent = mag.lshr(23)
    fraction = m.select(exponent.eq(0), mag, (mag & 0x7FFFFF) | 0x800000)
    tiny = exponent.ult(127 - 14)
    drop = m.select(tiny, m.const(wide, 127 - 14 + 13) - exponent, 13)
    drop = m.select(drop.ugt(25), 25, drop)
    kept = fraction.lshr(drop)
    rest = fraction ^ (kept << drop)
    half = m.const(wide, 1) << (drop - 1)
    rmode = m.get("fpcr").lshr(22).trunc("i32") & 3
    mode = splat_like(rmode, x)
    odd = (kept & 1).ne(0)
    nearest = rest.ugt(half) | (rest.eq(half) & odd)
    inexact = rest.ne(0)
    up = m.select(mode.eq(0), nearest, inexact & m.select(negative, mode.eq(2), mode.eq(1)))
    kept = kept + up.zext(wide)
    # The implicit bit adds one to the exponent field, and so does the carry of rounding.
    biased = m.select(tiny, 0, exponent - (127 - 15) - 1) << 10
    packed = biased + kept
    nan, inf = mag.ugt(0x7F800000), mag.eq(0x7F800000)
    overflow = packed.ugt(0x7FFF) | exponent.ugt(127 + 16)
    invalid = overflow | nan | inf
    raise_flags(m, IOC, invalid)
    raise_flags(m, IXC, inexact & ~invalid)
    raise_flags(m, UFC, inexact & tiny & ~invalid)
    packed = m.select(overflow | inf, 0x7FFF, packed)
    packed = m.select(nan, 0, packed)
    return (packed | m.select(negative, m.const(wide, 0x8000), 0)).trunc(ity)


def double_to_half(m: Machine, a: Value) -> Value:
    """FPConvert() from double to half: rounded to odd float first, so that the second rounding sees
    whether anything was lost."""
    odd, _ = _round_odd(m, a)
    # Below float's normal numbers all are alike for half; FPCR.FZ must not see them.
    mag = magnitude(a)
    tiny = mag.ult(pattern(m.const(a.ty, 2.0**-126))) & mag.ne(0)
    flush = both(m, is_denormal(a), fpcr_bit(m, FZ))
    substitute = with_sign_of(a, pattern(m.const(a.ty, 2.0**-126)))
    odd = m.select(tiny, substitute, odd)
    odd = m.select(flush, with_sign_of(a, 0), odd)
    return single_to_half(m, strict(m, "fptrunc", same_shape(a.ty, "float"), odd), source=a)


def _round_odd(m: Machine, a: Value) -> tuple[Value, Value]:
    """a rounded to odd at float's precision and range, still a double; where that lost anything.

    NaNs and infinities stay as they are.
    """
    f = format_of(a.ty)
    mag = magnitude(a)
    exponent = mag.lshr(52)
    # The number of low bits that float has no room for: 29, more below 2**-126.
    least = 1023 - 126
    drop = m.select(exponent.ult(least), m.const(mag.ty, least + 29) - exponent, 29)
    nothing = drop.ugt(52)  # not even the implicit bit stays: the least denormal, if not zero
    drop = m.select(nothing, 52, drop)
    mask = (m.const(mag.ty, 1) << drop) - 1
    lost = (mag & mask).ne(0)
    # With 52 bits dropped only the implicit bit is kept, and that is odd already.
    sticky = m.select(lost & drop.ne(52), m.const(mag.ty, 1) << drop, 0)
    odd = (mag & ~mask) | sticky
    lost = lost | (nothing & mag.ne(0))
    least_denormal = m.const(mag.ty, (1023 - 149) << 52)
    odd = m.select(nothing, m.select(mag.eq(0), 0, least_denormal), odd)
    big = exponent.uge(1023 + 128)
    odd = m.select(big, m.const(mag.ty, 0x47EFFFFFE0000000), odd)
    special = mag.uge(f.inf)
    odd = m.select(special, mag, odd)
    return with_sign_of(a, odd), (lost | big) & ~special


def FPConvertRoundOdd(m: Machine, a: Value) -> Value:
    """FPConvertRoundOdd(): double to float, inexact results made odd (FCVTXN)."""
    ty = same_shape(a.ty, "float")
    odd, lost = _round_odd(m, a)
    fz = fpcr_bit(m, FZ)
    mag = magnitude(a)
    tiny = mag.ult(pattern(m.const(a.ty, 2.0**-126))) & mag.ne(0)
    big = mag.uge(pattern(m.const(a.ty, 2.0**128))) & mag.ult(format_of(a.ty).inf)
    gone = both(m, tiny, fz)
    raise_flags(m, UFC, (tiny & lost & ~gone) | (gone & ~is_denormal(a)))
    raise_flags(m, IXC, lost & ~gone)
    raise_flags(m, OFC, big)
    odd = m.select(gone, with_sign_of(a, 0), odd)
    r = strict(m, "fptrunc", ty, odd)  # exact

    def cold() -> Value:
        out = default_nans(m, r)
        flush_to_zero(m, (a,))
        return out

    return m.unlikely(any_lane(compare(m, "uno", r, r)) | fz, r, cold)
