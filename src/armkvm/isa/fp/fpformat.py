"""Floating-point values: formats, and host operations with exact rounding and exception flags.

The ground that fpmath.py, fpconvert.py and fpestimate.py stand on (Arm ARM, shared pseudocode
FPUnpack(), FPProcessException()); what the host does otherwise than Arm is put right in fpcold.py.
A value is a scalar or a vector; every function works on both, lane by lane.

The host computes with the guest's rounding mode and gathers the flags (engine/hosts), so each
operation that rounds or raises is an LLVM *constrained* intrinsic: LLVM neither folds, moves,
merges nor drops it. Classification is done with integers, which raise nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from armkvm.isa.machine import Machine
from armkvm.isa.value import Value, element, lanes, same_shape

# FPSR, cumulative exception flags (D17.2.45).
IOC, DZC, OFC, UFC, IXC, IDC = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 7
# FPCR (D17.2.44).
RMODE_SHIFT, FZ, DN, AHP = 22, 1 << 24, 1 << 25, 1 << 26


@dataclass(frozen=True, slots=True)
class Format:
    """An IEEE 754 interchange format; all numbers are bit patterns of one lane."""

    exponent: int
    fraction: int

    @property
    def width(self) -> int:
        """Bits in all."""
        return 1 + self.exponent + self.fraction

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.width - 1)

    @property
    def bias(self) -> int:
        """What is added to the exponent."""
        return (1 << (self.exponent - 1)) - 1

    @property
    def inf(self) -> int:
        """FPInfinity('0')."""
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def quiet(self) -> int:
        """The fraction bit that tells a quiet NaN from a signalling one."""
        return 1 << (self.fraction - 1)

    @property
    def default_nan(self) -> int:
        """FPDefaultNaN(): positive, quiet, no payload."""
        return self.inf | self.quiet

    @property
    def min_normal(self) -> int:
        """The smallest normal number."""
        return 1 << self.fraction

    @property
    def smallest(self) -> float:
        """The smallest normal number, as a number."""
        return 2.0 ** (1 - self.bias)


_FORMATS = {"half": Format(5, 10), "float": Format(8, 23), "double": Format(11, 52)}
_MANGLED = {"half": "f16", "float": "f32", "double": "f64"}


def format_of(ty: str) -> Format:
    """The format of a floating-point type's lanes."""
    return _FORMATS[element(ty)]


def mangled(ty: str) -> str:
    """The type as it appears in an intrinsic's name: v4f32, f64, i64."""
    e = _MANGLED.get(element(ty), element(ty))
    return f"v{lanes(ty)}{e}" if ty.startswith("<") else e


def int_type(ty: str) -> str:
    """The integer type with the same lanes."""
    return same_shape(ty, f"i{format_of(ty).width}")


def pattern(x: Value) -> Value:
    """The bits of each lane, as integers."""
    return x.bitcast(int_type(x.ty))


def magnitude(x: Value) -> Value:
    """The bits of each lane without the sign."""
    return pattern(x) & (format_of(x.ty).sign - 1)


def splat_like(v: Value, like: Value) -> Value:
    """A scalar in as many lanes as `like` has."""
    return v.splat(like.lanes) if like.ty.startswith("<") else v


# -- host operations --------------------------------------------------------------------------
def _word(x: Value, text: str) -> Value:
    """An operand that is LLVM metadata, in x's trace."""
    return Value(x.m, "metadata", f'!"{text}"')


def strict(m: Machine, op: str, ty: str, *args: Value) -> Value:
    """llvm.experimental.constrained.OP returning ty, in the guest's rounding mode, flags exact."""
    name = f"llvm.experimental.constrained.{op}.{mangled(ty)}"
    if args[0].ty != ty:
        name += f".{mangled(args[0].ty)}"
    x = args[0]
    return m.intrinsic(name, ty, *args, _word(x, "round.dynamic"), _word(x, "fpexcept.strict"))


def strict_exact(m: Machine, op: str, ty: str, *args: Value) -> Value:
    """The same for operations that take no rounding mode (fpext, fptosi, floor, ...)."""
    name = f"llvm.experimental.constrained.{op}.{mangled(ty)}"
    if args[0].ty != ty:
        name += f".{mangled(args[0].ty)}"
    return m.intrinsic(name, ty, *args, _word(args[0], "fpexcept.strict"))


def compare(m: Machine, pred: str, a: Value, b: Value, *, signalling: bool = False) -> Value:
    """a PRED b per lane. A signalling NaN raises Invalid Operation; signalling=True: every NaN."""
    name = f"llvm.experimental.constrained.{'fcmps' if signalling else 'fcmp'}.{mangled(a.ty)}"
    words = _word(a, pred), _word(a, "fpexcept.strict")
    return m.intrinsic(name, same_shape(a.ty, "i1"), a, b, *words)


def absolute(m: Machine, x: Value) -> Value:
    """FPAbs(): the sign bit cleared, NaNs included."""
    return m.intrinsic(f"llvm.fabs.{mangled(x.ty)}", x.ty, x)


def any_lane(c: Value) -> Value:
    """True where any lane of a comparison holds."""
    return c.bitcast(f"i{c.lanes}").ne(0) if c.ty.startswith("<") else c


def both(m: Machine, lanewise: Value, everywhere: Value) -> Value:
    """A comparison's lanes, all false unless the scalar `everywhere` holds."""
    return m.select(everywhere, lanewise, m.const(lanewise.ty, 0))


# -- FPCR and FPSR ----------------------------------------------------------------------------
def fpcr_bit(m: Machine, bit: int) -> Value:
    """FPCR.FZ, DN or AHP as an i1."""
    return (m.get("fpcr") & bit).ne(0)


def raise_flags(m: Machine, flags: int, where: Value) -> None:
    """FPProcessException() in the lanes where `where` holds."""
    m.put("fpsr", m.get("fpsr") | m.select(any_lane(where), m.const("i64", flags), 0))


# -- classification, by integers: raises nothing ----------------------------------------------
def is_nan(x: Value) -> Value:
    """FPType_QNaN or FPType_SNaN."""
    return magnitude(x).ugt(format_of(x.ty).inf)


def is_snan(x: Value) -> Value:
    """FPType_SNaN."""
    return is_nan(x) & (pattern(x) & format_of(x.ty).quiet).eq(0)


def is_denormal(x: Value) -> Value:
    """Not zero and below the smallest normal number."""
    return (magnitude(x) - 1).ult(format_of(x.ty).min_normal - 1)


def _constant(m: Machine, ty: str, bits: int) -> Value:
    """A floating-point constant by its bit pattern."""
    return m.const(int_type(ty), bits).bitcast(ty)


def infinity(m: Machine, ty: str) -> Value:
    """FPInfinity('0') in every lane."""
    return _constant(m, ty, format_of(ty).inf)


def with_sign_of(x: Value, bits: Value | int) -> Value:
    """A magnitude, as bits, with the sign of x."""
    signs = pattern(x) & format_of(x.ty).sign
    return (signs | bits).bitcast(x.ty)
