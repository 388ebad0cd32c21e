"""Lanes of the Advanced SIMD registers: shapes, halves, saturation, the assembler's arrangements.

What the descriptions of the simd_*.py files share (Arm ARM, C4.1 "Advanced SIMD" and the shared
pseudocode's Vpart[], SignedSatQ(), UnsignedSatQ()). A lane operation is written once for any shape:
it is traced with vector types for the vector forms and with plain integers for the scalar ones.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.value import Value, bits, element, lanes, same_shape, vector

BHS = (0, 1, 2)
BHSD = (0, 1, 2, 3)
HS = (1, 2)
D = (3,)

FPSR_QC = 1 << 27

LaneOp = Callable[..., Value]
Entry = Callable[[LaneOp], LaneOp]


# -- shapes -----------------------------------------------------------------------------------
def lane_type(Q: int, size: int) -> str:
    """The type of a 64-bit (Q=0) or 128-bit register with lanes of 8 << size bits."""
    return vector((64 << Q) // (8 << size), f"i{8 << size}")


def allocated(Q: int, size: int, sizes: tuple[int, ...]) -> bool:
    """True for the element sizes given, except the reserved arrangement 1D."""
    return size in sizes and not (Q == 0 and size == 3)


def esize(ty: str) -> int:
    """Width of one lane in bits."""
    return bits(element(ty))


def wider(ty: str) -> str:
    """As many lanes, twice as wide."""
    return same_shape(ty, f"i{2 * esize(ty)}")


def narrower(ty: str) -> str:
    """As many lanes, half as wide."""
    return same_shape(ty, f"i{esize(ty) // 2}")


def paired(ty: str) -> str:
    """Half as many lanes, twice as wide: the same bits."""
    n = lanes(ty) // 2
    return vector(n, f"i{2 * esize(ty)}") if n > 1 else f"i{2 * esize(ty)}"


def extend(v: Value, U: int, ty: str) -> Value:
    """Lanes zero- (U=1) or sign-extended."""
    return v.zext(ty) if U else v.sext(ty)


def broadcast(v: Value, like: str) -> Value:
    """A scalar in every lane of the type `like`; unchanged where that is a scalar too."""
    return v.splat(lanes(like)) if like.startswith("<") else v


def imm_lanes(m: Machine, f: Field | int, ty: str) -> Value:
    """A decode-time operand in every lane."""
    return broadcast(m.imm(f, element(ty)), ty)


def even_lanes(a: Value, b: Value) -> Value:
    """Lanes 0, 2, ... of b:a."""
    return a.shuffle(list(range(0, 2 * a.lanes, 2)), b)


def odd_lanes(a: Value, b: Value) -> Value:
    """Lanes 1, 3, ... of b:a."""
    return a.shuffle(list(range(1, 2 * a.lanes, 2)), b)


# -- halves of registers ----------------------------------------------------------------------
def V_part(m: Machine, r: Field | int, part: int, size: int) -> Value:
    """Vpart[r, part]: the low or high 64 bits of V[r], as lanes of 8 << size bits."""
    if not part:
        return m.V(r, lane_type(0, size))
    n = 64 // (8 << size)
    return m.V(r, lane_type(1, size)).shuffle(list(range(n, 2 * n)))


def set_V_part(m: Machine, r: Field | int, part: int, v: Value) -> None:
    """Vpart[r, part] = v: the low half clears the high one, the high half keeps the low one.

    Written as one 16-byte store, so that a following read of the register can be forwarded.
    """
    m.set_V(r, m.V(r, v.ty).shuffle(list(range(2 * v.lanes)), v) if part else v)


# -- operations -------------------------------------------------------------------------------
def lane_op(m: Machine, name: str, a: Value, *rest: Value | bool) -> Value:
    """The LLVM intrinsic llvm.NAME whose operands and result have a's type."""
    suffix = f"v{a.lanes}{element(a.ty)}" if a.ty.startswith("<") else a.ty
    return m.intrinsic(f"llvm.{name}.{suffix}", a.ty, a, *rest)


def clamp(m: Machine, v: Value, low: int, high: int) -> Value:
    """v limited to low..high, signed."""
    v = lane_op(m, "smax", v, m.const(v.ty, low))
    return lane_op(m, "smin", v, m.const(v.ty, high))


def absolute_difference(m: Machine, U: int, a: Value, b: Value) -> Value:
    """Abs(a - b) of the lanes read as signed or unsigned numbers."""
    high, low = ("umax", "umin") if U else ("smax", "smin")
    return lane_op(m, high, a, b) - lane_op(m, low, a, b)


def reduce(m: Machine, name: str, v: Value) -> Value:
    """llvm.vector.reduce.NAME of all lanes."""
    e = element(v.ty)
    return m.intrinsic(f"llvm.vector.reduce.{name}.v{v.lanes}{e}", e, v)


def most_negative(ty: str) -> int:
    """The least signed number of a lane."""
    return -1 << (esize(ty) - 1)


def saturated_like(v: Value) -> Value:
    """What a signed result saturates to when its sign is v's: the greatest or the least number."""
    e = esize(v.ty)
    return v.ashr(e - 1) ^ ((1 << (e - 1)) - 1)


# -- saturation -------------------------------------------------------------------------------
def set_QC(m: Machine, c: Value) -> None:
    """FPSR.QC = 1 where c (i1) holds."""
    with m.when(c):
        m.put("fpsr", m.get("fpsr") | FPSR_QC)


def any_lane(m: Machine, c: Value) -> Value:
    """True where any lane of a comparison's result is."""
    return reduce(m, "or", c) if c.ty.startswith("<") else c


def saturated(m: Machine, result: Value, exact: Value) -> Value:
    """`result`; sets QC where it differs from the result without saturation in any lane."""
    if result.ty.startswith("<"):
        set_QC(m, (result ^ exact).bitcast(f"i{result.bits}").ne(0))
    else:
        set_QC(m, result.ne(exact))
    return result


def sat_add(m: Machine, U: int, a: Value, b: Value) -> Value:
    """SatQ(a + b): a saturated sum never equals the wrapped one, so a comparison finds it."""
    return saturated(m, lane_op(m, "uadd.sat" if U else "sadd.sat", a, b), a + b)


def sat_sub(m: Machine, U: int, a: Value, b: Value) -> Value:
    """SatQ(a - b)."""
    return saturated(m, lane_op(m, "usub.sat" if U else "ssub.sat", a, b), a - b)


def sat_narrow(m: Machine, v: Value, *, source: int, result: int) -> Value:
    """SatQ(v) to half the width; source and result say 1 for unsigned, 0 for signed."""
    half = esize(v.ty) // 2
    if source:
        fit = lane_op(m, "umin", v, m.const(v.ty, (1 << half) - 1))
    elif result:
        fit = clamp(m, v, 0, (1 << half) - 1)
    else:
        fit = clamp(m, v, -1 << (half - 1), (1 << (half - 1)) - 1)
    return saturated(m, fit, v).trunc(narrower(v.ty))


# -- assembly ---------------------------------------------------------------------------------
def arrangement(Q: int, size: int) -> str:
    """The assembler's name of a shape: 8b 16b 4h 8h 2s 4s 1d 2d."""
    return f"{(8 << Q) >> size}{'bhsdq'[size]}"


def lanes_asm(template: str, size: int | None = None) -> Callable[..., str]:
    """Assembly from a str.format template over the fields and, by Q, U and size (given or a field):

    {T} the arrangement, {Ta} the one twice as wide over 128 bits, {Tp} over as many bits,
    {e} {ea} the scalar letters of both, {q2} the "2" of the upper-half forms, {us} "s" or "u".
    """

    def text(**fields: int) -> str:
        z = fields["size"] if size is None else size
        Q = fields.get("Q", 0)
        wide = min(z + 1, 4)
        return template.format(
            **fields,
            T=arrangement(Q, z),
            Ta=arrangement(1, wide),
            Tp=arrangement(Q, wide),
            e="bhsdq"[z],
            ea="bhsdq"[wide],
            q2="2" if Q else "",
            us="su"[fields.get("U", 0)],
        )

    return text
