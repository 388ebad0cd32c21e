"""Advanced SIMD floating point: the register shapes and drawings that the fp_*.py files share.

Vectors are always computed in 128 bits: a 2S operand is widened with lanes that raise nothing,
because LLVM would widen it with unknown ones. size<0> (sz) says single or double, and 2D needs Q.
Half-precision lanes (FEAT_FP16) are not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value, vector

ELEMENTS = ("float", "double")
INTEGERS = ("i32", "i64")

Unary = Callable[[Machine, Value], Value]
Binary = Callable[[Machine, Value, Value], Value]


def arranged(Q: int, sz: int, **_: Any) -> bool:
    """ "if sz:Q == '10' then UNDEFINED": 2S, 4S and 2D."""
    return not (sz and not Q)


def V_lanes(m: Machine, r: Field | int, Q: int, e: str, spare: float = 0) -> Value:
    """V[r] as 128 bits of elements e; with Q=0 the upper lanes hold `spare`."""
    n = 4 if e in ("float", "i32") else 2
    if Q:
        return m.V(r, vector(n, e))
    low = m.V(r, vector(n // 2, e))
    return low.shuffle(list(range(n)), m.const(low.ty, spare if e == "float" else int(spare)))


def set_V_lanes(m: Machine, r: Field | int, Q: int, v: Value) -> None:
    """V[r] = v, or its lower half with Q=0."""
    m.set_V(r, v if Q else v.shuffle(list(range(v.lanes // 2))))


def fp_asm(template: str) -> Callable[..., str]:
    """Assembly from a str.format template over the fields: {T} 2s 4s 2d, {e} s or d."""

    def text(**f: int) -> str:
        sz, Q = f.get("sz", 0), f.get("Q", 1)
        return template.format(**f, T="2d" if sz else ("2s", "4s")[Q], e="sd"[sz])

    return text


def three_same(
    opcode: str, mnemonic: str, operation: Binary, *, vectors: bool = True, scalars: bool = False,
    spare: float = 0
) -> None:  # fmt: skip
    """Enter a lane operation of two registers. `opcode` is U, a (size<1>) and the opcode field."""
    u, a, op = opcode.split()
    ref = f"C7.2 {mnemonic.upper()} (vector)"
    if vectors:

        @insn(
            f"0 Q {u} 01110 {a} sz 1 Rm:5 {op} 1 Rn:5 Rd:5",
            asm=fp_asm(mnemonic + " v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}"),
            ref=ref,
            feature="asimd",
            where=arranged,
            name=f"{mnemonic.upper()}_vector",
        )
        def vector_form(m: Machine, Q: int, sz: int, Rm: Field, Rn: Field, Rd: Field) -> None:
            e = ELEMENTS[sz]
            x, y = V_lanes(m, Rn, Q, e, spare), V_lanes(m, Rm, Q, e, spare)
            set_V_lanes(m, Rd, Q, operation(m, x, y))

    if scalars:

        @insn(
            f"01 {u} 11110 {a} sz 1 Rm:5 {op} 1 Rn:5 Rd:5",
            asm=fp_asm(mnemonic + " {e}{Rd}, {e}{Rn}, {e}{Rm}"),
            ref=ref,
            feature="asimd",
            name=f"{mnemonic.upper()}_simd_scalar",
        )
        def scalar_form(m: Machine, sz: int, Rm: Field, Rn: Field, Rd: Field) -> None:
            ty = ELEMENTS[sz]
            m.set_V(Rd, operation(m, m.V(Rn, ty), m.V(Rm, ty)))


def two_reg(
    opcode: str, mnemonic: str, operation: Unary, *, vectors: bool = True, scalars: bool = False,
    operands: str = "", integers: bool = False, spare: float = 0
) -> None:  # fmt: skip
    """Enter a lane operation of one register. `opcode` is U, a and the opcode field; `integers`: of
    integer lanes; `operands` is what the assembly has behind the source."""
    u, a, op = opcode.split()
    ref = f"C7.2 {mnemonic.upper()} (vector)"
    elements = INTEGERS if integers else ELEMENTS
    if vectors:

        @insn(
            f"0 Q {u} 01110 {a} sz 10000 {op} 10 Rn:5 Rd:5",
            asm=fp_asm(mnemonic + " v{Rd}.{T}, v{Rn}.{T}" + operands),
            ref=ref,
            feature="asimd",
            where=arranged,
            name=f"{mnemonic.upper()}{'_zero' if operands else ''}_vector",
        )
        def vector_form(m: Machine, Q: int, sz: int, Rn: Field, Rd: Field) -> None:
            set_V_lanes(m, Rd, Q, operation(m, V_lanes(m, Rn, Q, elements[sz], spare)))

    if scalars:

        @insn(
            f"01 {u} 11110 {a} sz 10000 {op} 10 Rn:5 Rd:5",
            asm=fp_asm(mnemonic + " {e}{Rd}, {e}{Rn}" + operands),
            ref=ref,
            feature="asimd",
            name=f"{mnemonic.upper()}{'_zero' if operands else ''}_simd_scalar",
        )
        def scalar_form(m: Machine, sz: int, Rn: Field, Rd: Field) -> None:
            m.set_V(Rd, operation(m, m.V(Rn, elements[sz])))
