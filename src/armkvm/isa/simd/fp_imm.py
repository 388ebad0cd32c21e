"""Advanced SIMD FMOV (vector, immediate), and fixed-point conversions by shift immediate (C4.1).

    0 Q op 0111100000 abc 1111 01 defgh Rd         FMOV
    0 Q U 011110 immh immb opcode 1 Rn Rd          SCVTF UCVTF FCVTZS FCVTZU, and scalar forms

immh says single (01xx) or double (1xxx); immh:immb is twice the element size less fbits.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.isa.field import Field
from armkvm.isa.fp.fpconvert import FixedToFP, FPToFixed
from armkvm.isa.fp.fpformat import int_type
from armkvm.isa.fp.scalar import vfp_expand_imm, vfp_number
from armkvm.isa.machine import Machine
from armkvm.isa.simd.fp import ELEMENTS, INTEGERS, V_lanes, arranged, fp_asm, set_V_lanes
from armkvm.isa.table import insn
from armkvm.isa.value import Value, same_shape


@insn(
    "0 Q sz 0111100000 immabc:3 1111 01 immdefgh:5 Rd:5",
    asm=lambda immabc, immdefgh, **f: fp_asm(
        f"fmov v{{Rd}}.{{T}}, #{vfp_number(immabc << 5 | immdefgh)}"
    )(**f),
    ref="C7.2 FMOV (vector, immediate)",
    feature="asimd",
    where=arranged,
)
def FMOV_vector_immediate(
    m: Machine, Q: int, sz: int, immabc: Field, immdefgh: Field, Rd: Field
) -> None:
    v = m.imm(vfp_expand_imm(immabc << 5 | immdefgh, sz), INTEGERS[sz])
    m.set_V(Rd, v.splat(2 if sz or not Q else 4))


# -- fixed point ------------------------------------------------------------------------------
Fixed = Callable[[Machine, Value, bool, Field], Value]


def _from_fixed(m: Machine, x: Value, unsigned: bool, fbits: Field) -> Value:
    ty = same_shape(x.ty, "double" if "i64" in x.ty else "float")
    return FixedToFP(m, x, ty, unsigned=unsigned, fbits=fbits)


def _to_fixed(m: Machine, a: Value, unsigned: bool, fbits: Field) -> Value:
    return FPToFixed(m, a, int_type(a.ty), unsigned=unsigned, rounding="Z", fbits=fbits)


def _text(mnemonic: str, operands: str, sz: int) -> Callable[..., str]:
    def text(U: int, immshift: int, **f: int) -> str:
        name = mnemonic.replace("?", "su"[U])
        return f"{name} {fp_asm(operands)(sz=sz, **f)}, #{(32 << sz) - immshift}"

    return text


def _fixed_point(
    opcode: str, mnemonic: str, operation: Fixed, elements: tuple[str, str], sz: int
) -> None:
    """Enter the forms of one element size, which fixes how many bits of immh:immb are a number."""
    immh = "1 immshift:6" if sz else "01 immshift:5"
    e = elements[sz]
    title = mnemonic.replace("?", "").upper()

    @insn(
        f"0 Q U 011110 {immh} {opcode} 1 Rn:5 Rd:5",
        asm=_text(mnemonic, "v{Rd}.{T}, v{Rn}.{T}", sz),
        ref=f"C7.2 {title} (vector, fixed-point)",
        feature="asimd",
        where=lambda Q, **_: arranged(Q, sz),
        name=f"{title}_fixed_vector_{'sd'[sz]}",
    )
    def vector_form(m: Machine, Q: int, U: int, immshift: Field, Rn: Field, Rd: Field) -> None:
        r = operation(m, V_lanes(m, Rn, Q, e), U == 1, (32 << sz) - immshift)
        set_V_lanes(m, Rd, Q, r)

    @insn(
        f"01 U 111110 {immh} {opcode} 1 Rn:5 Rd:5",
        asm=_text(mnemonic, "{e}{Rd}, {e}{Rn}", sz),
        ref=f"C7.2 {title} (vector, fixed-point)",
        feature="asimd",
        name=f"{title}_fixed_simd_scalar_{'sd'[sz]}",
    )
    def scalar_form(m: Machine, U: int, immshift: Field, Rn: Field, Rd: Field) -> None:
        m.set_V(Rd, operation(m, m.V(Rn, e), U == 1, (32 << sz) - immshift))


for _sz in (0, 1):
    _fixed_point("11100", "?cvtf", _from_fixed, INTEGERS, _sz)
    _fixed_point("11111", "fcvtz?", _to_fixed, ELEMENTS, _sz)
