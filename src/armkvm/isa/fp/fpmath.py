"""Floating-point arithmetic: FPAdd() to FPMulAdd(), FPMax(), FPMulX(), the comparisons.

The functions of the manual's shared pseudocode, by its names, over run-time values: scalars or
vectors, float or double (see fpformat.py and fpcold.py). Conversions are
in fpconvert.py, the estimates and steps of reciprocals in fpestimate.py.
"""

from __future__ import annotations

from armkvm.isa.fp.fpcold import (
    Operation,
    at_edge,
    flush_to_zero,
    flushed,
    nan_or_edge,
    process_nans,
    settled,
    underflow,
)
from armkvm.isa.fp.fpformat import (
    FZ,
    IOC,
    absolute,
    any_lane,
    compare,
    format_of,
    fpcr_bit,
    int_type,
    is_nan,
    is_snan,
    magnitude,
    pattern,
    raise_flags,
    strict,
    with_sign_of,
)
from armkvm.isa.machine import Machine
from armkvm.isa.value import Value, element

# Results at the edge of underflow are judged after scaling by 2**SCALE, away from it.
_SCALE = {"float": 64, "double": 256}


def _on_host(m: Machine, op: str) -> Operation:
    """The host's operation."""
    return lambda *operands: strict(m, op, operands[0].ty, *operands)


def FPAbs(m: Machine, a: Value) -> Value:
    """FPAbs(): NaNs are treated as numbers."""
    return absolute(m, a)


def FPNeg(m: Machine, a: Value) -> Value:
    """FPNeg(): NaNs are treated as numbers."""
    return a.fneg()


def FPAdd(m: Machine, a: Value, b: Value) -> Value:
    """FPAdd(). A sum of two numbers is never both tiny and inexact."""
    return settled(m, _on_host(m, "fadd"), (a, b))


def FPSub(m: Machine, a: Value, b: Value) -> Value:
    """FPSub()."""
    return settled(m, _on_host(m, "fsub"), (a, b))


def FPAbd(m: Machine, a: Value, b: Value) -> Value:
    """FPAbs(FPSub()): FABD."""
    return FPAbs(m, FPSub(m, a, b))


def FPMul(m: Machine, a: Value, b: Value) -> Value:
    """FPMul()."""
    return settled(m, _on_host(m, "fmul"), (a, b), below=lambda at: _product_below(m, at, a, b))


def FPNMul(m: Machine, a: Value, b: Value) -> Value:
    """FPNeg(FPMul()): FNMUL, which negates NaNs too."""
    return FPNeg(m, FPMul(m, a, b))


def FPDiv(m: Machine, a: Value, b: Value) -> Value:
    """FPDiv()."""

    def below(at: Value) -> Value:
        # |a| / |b| < min_normal where |a| < |b| * min_normal; both sides scaled are exact.
        k = _SCALE[element(a.ty)]
        dividend = m.select(at, absolute(m, a), m.const(a.ty, 0.0))
        divisor = m.select(at, absolute(m, b), m.const(a.ty, 0.0))
        scaled = strict(m, "fmul", a.ty, divisor, m.const(a.ty, format_of(a.ty).smallest * 2.0**k))
        return compare(m, "olt", strict(m, "fmul", a.ty, dividend, m.const(a.ty, 2.0**k)), scaled)

    return settled(m, _on_host(m, "fdiv"), (a, b), below=below)


def FPSqrt(m: Machine, a: Value) -> Value:
    """FPSqrt()."""
    return settled(m, _on_host(m, "sqrt"), (a,))


def FPMulAdd(m: Machine, addend: Value, a: Value, b: Value) -> Value:
    """FPMulAdd(): addend + a * b with one rounding. The addend is the first operand for NaNs."""
    operation: Operation = lambda z, x, y: strict(m, "fma", x.ty, x, y, z)  # noqa: E731
    operands = (addend, a, b)
    r = operation(*operands)

    def cold() -> Value:
        out = process_nans(m, r, operands)
        # "inf * 0 + QNaN" is an invalid operation and gives the default NaN.
        quiet = is_nan(addend) & ~is_snan(addend)
        invalid = quiet & infinity_times_zero(m, a, b)
        raise_flags(m, IOC, invalid)
        default = m.const(int_type(r.ty), format_of(r.ty).default_nan).bitcast(r.ty)
        out = m.select(invalid, default, out)
        at = at_edge(r)
        edge = any_lane(at)
        out = m.unlikely(edge, out, lambda: _sum_underflow(m, out, at, addend, a, b))
        flush_to_zero(m, operands, out, operation, operands)
        return out

    return m.unlikely(any_lane(nan_or_edge(m, r)) | fpcr_bit(m, FZ), r, cold)


def infinity_times_zero(m: Machine, a: Value, b: Value) -> Value:
    """Lanes with an infinity and a zero, or, with FPCR.FZ, a denormal."""
    inf = format_of(a.ty).inf
    x, y = magnitude(flushed(m, a)), magnitude(flushed(m, b))
    return (x.eq(inf) & y.eq(0)) | (x.eq(0) & y.eq(inf))


def FPMulX(m: Machine, a: Value, b: Value) -> Value:
    """FPMulX(): as FPMul(), but infinity times zero is 2.0 and raises nothing."""
    special = infinity_times_zero(m, a, b)
    one = with_sign_of(a, pattern(m.const(a.ty, 1.0)))
    two = with_sign_of(b, pattern(m.const(a.ty, 2.0)))
    # These lanes are multiplied as 1.0 * 2.0 with the operands' signs.
    x, y = m.select(special, one, a), m.select(special, two, b)
    return settled(
        m,
        _on_host(m, "fmul"),
        (x, y),
        nan_operands=(a, b),
        below=lambda at: _product_below(m, at, x, y),
    )


# -- underflow before rounding ----------------------------------------------------------------
def _scaled_product(m: Machine, at: Value, a: Value, b: Value) -> tuple[Value, Value]:
    """The operands with a * b scaled; where `at` does not hold, ones that raise nothing."""
    ty, k = a.ty, _SCALE[element(a.ty)]
    smaller = magnitude(a).ult(magnitude(b))
    low, high = m.select(smaller, a, b), m.select(smaller, b, a)
    low = m.select(at, low, m.const(ty, format_of(ty).smallest))
    high = m.select(at, high, m.const(ty, 1.0))
    return strict(m, "fmul", ty, low, m.const(ty, 2.0**k)), high


def _product_below(m: Machine, at: Value, a: Value, b: Value) -> Value:
    """Where |a * b| is below the smallest normal number, of lanes that were rounded to it."""
    low, high = _scaled_product(m, at, a, b)
    edge = m.const(a.ty, -format_of(a.ty).smallest * 2.0 ** _SCALE[element(a.ty)])
    rest = strict(m, "fma", a.ty, absolute(m, low), absolute(m, high), edge)
    return compare(m, "olt", rest, m.const(a.ty, 0.0))


def _sum_underflow(m: Machine, r: Value, at: Value, addend: Value, a: Value, b: Value) -> Value:
    """FPRound()'s underflow of addend + a * b in the lanes `at`, where r is the edge itself."""
    ty = a.ty
    before = m.ask("host_fp")
    low, high = _scaled_product(m, at, a, b)
    k = m.const(ty, 2.0 ** _SCALE[element(ty)])
    edge = with_sign_of(r, pattern(m.const(ty, format_of(ty).smallest))).bitcast(ty)
    edge = strict(m, "fmul", ty, m.select(at, edge, m.const(ty, format_of(ty).smallest)), k)
    addend = strict(m, "fmul", ty, m.select(at, addend, m.const(ty, 0.0)), k)
    # rest = (addend - edge) + low * high; the difference's rounding error is brought back after.
    difference = strict(m, "fsub", ty, addend, edge)
    part = strict(m, "fsub", ty, difference, addend)
    error = strict(m, "fsub", ty, edge.fneg(), part)
    # Where the difference is nothing only the product's sign counts: a tiny one must not underflow.
    alone = magnitude(difference).eq(0)
    zero = magnitude(low).eq(0) | magnitude(high).eq(0)
    low = m.select(alone & ~zero, with_sign_of(low, pattern(m.const(ty, 1.0))), low)
    high = m.select(alone & ~zero, with_sign_of(high, pattern(m.const(ty, 1.0))), high)
    rest = strict(m, "fadd", ty, strict(m, "fma", ty, low, high, difference), error)
    m.tell("set_host_fp", before)  # what was rounded here is not the instruction's affair
    # Below the edge in magnitude: rest has the sign that the edge has not.
    signs = pattern(rest) ^ pattern(edge)
    below = signs.slt(0) & magnitude(rest).ne(0)
    return underflow(m, r, at & below)


# -- maximum and minimum ----------------------------------------------------------------------
def _pick(m: Machine, a: Value, b: Value, *, larger: bool) -> Value:
    """The larger (smaller) of two numbers; of equal ones -0.0 counts as less than +0.0."""
    r = m.select(compare(m, "ogt" if larger else "olt", a, b), a, b)
    x, y = pattern(a), pattern(b)
    same = x & y if larger else x | y
    return m.select(compare(m, "oeq", a, b), same.bitcast(a.ty), r)


def _extremum(m: Machine, a: Value, b: Value, *, larger: bool, numeric: bool) -> Value:
    """FPMax() and kin. Comparisons here are quiet: they raise for signalling NaNs, as they must."""
    r = _pick(m, a, b, larger=larger)
    f = format_of(a.ty)

    def cold() -> Value:
        x, y = flushed(m, a), flushed(m, b)
        if numeric:  # a quiet NaN against a number counts as the infinity that loses
            least = m.const(int_type(a.ty), f.inf | (f.sign if larger else 0)).bitcast(a.ty)
            quiet_x, quiet_y = is_nan(x) & ~is_snan(x), is_nan(y) & ~is_snan(y)
            x = m.select(quiet_x & ~quiet_y, least, x)
            y = m.select(quiet_y & ~quiet_x, least, y)
        out = _pick(m, x, y, larger=larger)
        # Where either is a NaN the choice above means nothing.
        nan = m.const(int_type(a.ty), f.default_nan).bitcast(a.ty)
        out = process_nans(m, m.select(is_nan(x) | is_nan(y), nan, out), (x, y))
        flush_to_zero(m, (a, b))
        return out

    unordered = compare(m, "uno", a, b)
    return m.unlikely(any_lane(unordered) | fpcr_bit(m, FZ), r, cold)


def FPMax(m: Machine, a: Value, b: Value) -> Value:
    """FPMax()."""
    return _extremum(m, a, b, larger=True, numeric=False)


def FPMin(m: Machine, a: Value, b: Value) -> Value:
    """FPMin()."""
    return _extremum(m, a, b, larger=False, numeric=False)


def FPMaxNum(m: Machine, a: Value, b: Value) -> Value:
    """FPMaxNum()."""
    return _extremum(m, a, b, larger=True, numeric=True)


def FPMinNum(m: Machine, a: Value, b: Value) -> Value:
    """FPMinNum()."""
    return _extremum(m, a, b, larger=False, numeric=True)


# -- comparisons ------------------------------------------------------------------------------
def _compared(m: Machine, pred: str, a: Value, b: Value, *, signalling: bool) -> Value:
    """All ones where a PRED b, else zero, as integers of the lanes' width."""
    r = compare(m, pred, a, b, signalling=signalling).sext(int_type(a.ty))
    flush_to_zero(m, (a, b))
    return r


def FPCompareEQ(m: Machine, a: Value, b: Value) -> Value:
    """FPCompareEQ(): a quiet NaN raises nothing."""
    return _compared(m, "oeq", a, b, signalling=False)


def FPCompareGE(m: Machine, a: Value, b: Value) -> Value:
    """FPCompareGE(): every NaN is an invalid operation."""
    return _compared(m, "oge", a, b, signalling=True)


def FPCompareGT(m: Machine, a: Value, b: Value) -> Value:
    """FPCompareGT(): every NaN is an invalid operation."""
    return _compared(m, "ogt", a, b, signalling=True)


def FPCompareAbsGE(m: Machine, a: Value, b: Value) -> Value:
    """FPCompareGE() of the absolute values: FACGE."""
    return FPCompareGE(m, FPAbs(m, a), FPAbs(m, b))


def FPCompareAbsGT(m: Machine, a: Value, b: Value) -> Value:
    """FPCompareGT() of the absolute values: FACGT."""
    return FPCompareGT(m, FPAbs(m, a), FPAbs(m, b))
