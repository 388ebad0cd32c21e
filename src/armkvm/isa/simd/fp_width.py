"""Advanced SIMD floating-point conversions that widen or narrow the lanes (Arm ARM, C4.1).

0 Q 0 01110 0 sz 10000 1011x 10 Rn Rd          FCVTN FCVTL: half and single, or single and double
0 Q 1 01110 0 1 10000 10110 10 Rn Rd           FCVTXN, and its scalar form
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.fp.fpconvert import (
    FPConvertRoundOdd,
    double_to_single,
    half_to_single,
    single_to_double,
    single_to_half,
)
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import set_V_part
from armkvm.isa.table import insn


def _text(template: str, sz: int, Q: int, **f: int) -> str:
    wide, narrow = ("4s", "2d")[sz], (("4h", "8h"), ("2s", "4s"))[sz][Q]
    return template.format(**f, q2="2" * Q, Ta=wide, Tb=narrow)


@insn(
    "0 Q 0 01110 0 sz 10000 10111 10 Rn:5 Rd:5",
    asm=lambda **f: _text("fcvtl{q2} v{Rd}.{Ta}, v{Rn}.{Tb}", **f),
    ref="C7.2 FCVTL, FCVTL2",
    feature="asimd",
)
def FCVTL(m: Machine, Q: int, sz: int, Rn: Field, Rd: Field) -> None:
    n = 2 if sz else 4
    ty, convert = ("float", single_to_double) if sz else ("i16", half_to_single)
    part = m.V(Rn, f"<{2 * n} x {ty}>").shuffle([i + n * Q for i in range(n)])
    m.set_V(Rd, convert(m, part))


@insn(
    "0 Q 0 01110 0 sz 10000 10110 10 Rn:5 Rd:5",
    asm=lambda **f: _text("fcvtn{q2} v{Rd}.{Tb}, v{Rn}.{Ta}", **f),
    ref="C7.2 FCVTN, FCVTN2",
    feature="asimd",
)
def FCVTN(m: Machine, Q: int, sz: int, Rn: Field, Rd: Field) -> None:
    if sz:
        r = double_to_single(m, m.V(Rn, "<2 x double>"))
    else:
        r = single_to_half(m, m.V(Rn, "<4 x float>"))
    set_V_part(m, Rd, Q, r)


@insn(
    "0 Q 1 01110 0 1 10000 10110 10 Rn:5 Rd:5",
    asm=lambda **f: _text("fcvtxn{q2} v{Rd}.{Tb}, v{Rn}.{Ta}", 1, **f),
    ref="C7.2 FCVTXN, FCVTXN2",
    feature="asimd",
)
def FCVTXN(m: Machine, Q: int, Rn: Field, Rd: Field) -> None:
    set_V_part(m, Rd, Q, FPConvertRoundOdd(m, m.V(Rn, "<2 x double>")))


@insn(
    "01 1 11110 0 1 10000 10110 10 Rn:5 Rd:5",
    asm="fcvtxn {Rd:s}, {Rn:d}",
    ref="C7.2 FCVTXN, FCVTXN2",
    feature="asimd",
)
def FCVTXN_scalar(m: Machine, Rn: Field, Rd: Field) -> None:
    m.set_V(Rd, FPConvertRoundOdd(m, m.V(Rn, "double")))
