"""URECPE and URSQRTE: estimates of the reciprocal and of its square root, of 32-bit fractions.

Arm ARM, shared pseudocode UnsignedRecipEstimate() and UnsignedRSqrtEstimate(), over the same tables
as the floating-point estimates (isa/fp/fpestimate.py).
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.fp.fpestimate import recip_estimate, recip_sqrt_estimate
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import lane_type, lanes_asm
from armkvm.isa.table import insn


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
