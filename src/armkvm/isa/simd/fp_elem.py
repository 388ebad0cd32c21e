"""Advanced SIMD floating point by element, vector and scalar (Arm ARM, C4.1).

0 Q U 01111 1 sz L M Rm opcode H 0 Rn Rd       0 1 U 11111 1 sz L M Rm opcode H 0 Rn Rd
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from armkvm.isa.field import Field
from armkvm.isa.fp.fpmath import FPMul, FPMulAdd, FPMulX, FPNeg
from armkvm.isa.machine import Machine
from armkvm.isa.simd.fp import ELEMENTS, V_lanes, arranged, fp_asm, set_V_lanes
from armkvm.isa.table import insn
from armkvm.isa.value import Value

Fused = Callable[[Machine, Value, Value, Value], Value]  # m, the old destination, and the operands


def _allocated(sz: int, immL: Field | int, Q: int = 1, **_: Any) -> bool | int | Field:
    """ "when '11x' UNDEFINED": sz:L for doubles, and 2D needs Q."""
    if not arranged(Q, sz):
        return False
    return True if sz == 0 else immL ^ 1


def _index(sz: int, L: Field | int, H: Field | int) -> Field | int:
    return H if sz else H << 1 | L


def _text(mnemonic: str, scalar: bool) -> Callable[..., str]:
    names = "{e}{Rd}, {e}{Rn}" if scalar else "v{Rd}.{T}, v{Rn}.{T}"
    plain = fp_asm(mnemonic + " " + names + ", v{Rm}.{e}[{index}]")
    return lambda **f: plain(**f, index=_index(f["sz"], f["immL"], f["immH"]))


def _by_element(opcode: str, mnemonic: str, operation: Fused, *, accumulates: bool) -> None:
    u, op = opcode.split()
    ref = f"C7.2 {mnemonic.upper()} (by element)"

    @insn(
        f"0 Q {u} 01111 1 sz immL Rm:5 {op} immH 0 Rn:5 Rd:5",
        asm=_text(mnemonic, False),
        ref=ref,
        feature="asimd",
        where=_allocated,
        name=f"{mnemonic.upper()}_element_vector",
    )
    def vector_form(
        m: Machine, Q: int, sz: int, immL: Field, Rm: Field, immH: Field, Rn: Field, Rd: Field
    ) -> None:
        e = ELEMENTS[sz]
        a = V_lanes(m, Rn, Q, e)
        element = m.V_elem(Rm, _index(sz, immL, immH) << (2 + sz), e).splat(a.lanes)
        if not Q:  # the unused lanes must raise nothing
            element = element.shuffle([0, 1, 4, 5], m.const(a.ty, 0.0))
        old = V_lanes(m, Rd, Q, e) if accumulates else a
        set_V_lanes(m, Rd, Q, operation(m, old, a, element))

    @insn(
        f"01 {u} 11111 1 sz immL Rm:5 {op} immH 0 Rn:5 Rd:5",
        asm=_text(mnemonic, True),
        ref=ref,
        feature="asimd",
        where=_allocated,
        name=f"{mnemonic.upper()}_element_scalar",
    )
    def scalar_form(
        m: Machine, sz: int, immL: Field, Rm: Field, immH: Field, Rn: Field, Rd: Field
    ) -> None:
        e = ELEMENTS[sz]
        a = m.V(Rn, e)
        element = m.V_elem(Rm, _index(sz, immL, immH) << (2 + sz), e)
        m.set_V(Rd, operation(m, m.V(Rd, e) if accumulates else a, a, element))


_by_element("0 0001", "fmla", FPMulAdd, accumulates=True)
_by_element("0 0101", "fmls", lambda m, d, a, b: FPMulAdd(m, d, FPNeg(m, a), b), accumulates=True)
_by_element("0 1001", "fmul", lambda m, _, a, b: FPMul(m, a, b), accumulates=False)
_by_element("1 1001", "fmulx", lambda m, _, a, b: FPMulX(m, a, b), accumulates=False)
