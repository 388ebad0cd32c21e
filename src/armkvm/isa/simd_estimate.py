"""URECPE and URSQRTE: estimates of the reciprocal and of its square root, of 32-bit fractions.

Arm ARM, shared pseudocode UnsignedRecipEstimate() and UnsignedRSqrtEstimate(), which compute with
small integers: so do these, all lanes at a time. The floating-point estimates are in simd_fp*.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd_lanes import lane_type, lanes_asm
from armkvm.isa.table import insn
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


@insn(
    "0 Q U 01110 10 10000 11100 10 Rn:5 Rd:5",
    asm=lambda U, **f: lanes_asm(("urecpe", "ursqrte")[U] + " v{Rd}.{T}, v{Rn}.{T}", size=2)(**f),
    ref="C7.2 URECPE, URSQRTE",
    feature="asimd",
)
def URECPE_URSQRTE(m: Machine, Q: int, U: int, Rn: Field, Rd: Field) -> None:
    a = m.V(Rn, lane_type(Q, 2))
    # A reciprocal beyond 2.0 (operands below 0.5, or 0.25 under the root) is all ones.
    if U:
        estimate, too_small = recip_sqrt_estimate(m, a.lshr(23)), a.ult(1 << 30)
    else:
        estimate, too_small = recip_estimate(m, a.lshr(23) | 256), a.ult(1 << 31)
    m.set_V(Rd, m.select(too_small, -1, estimate << 23))
