"""Advanced SIMD two-register miscellaneous that change the lanes' width (Arm ARM, C4.1).

XTN, SQXTN, UQXTN and SQXTUN narrow; SHLL widens; SADDLP, UADDLP, SADALP and UADALP add neighbours.

Lane-by-lane operations of the class are in misc.py; FCVTN and FCVTL in fp*.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import (
    BHS,
    Entry,
    LaneOp,
    V_part,
    esize,
    lane_type,
    lanes_asm,
    narrower,
    paired,
    sat_narrow,
    set_V_part,
)
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def extract_narrow(opcode: str, mnemonic: str, title: str, *, scalar: bool = False) -> Entry:
    """Enter a narrowing lane operation; Q=1 writes the upper half of the destination."""
    u, op = opcode.split()

    def enter(operation: LaneOp) -> LaneOp:
        @insn(
            f"0 Q {u} 01110 size:2 10000 {op} 10 Rn:5 Rd:5",
            asm=lanes_asm(mnemonic + "{q2} v{Rd}.{T}, v{Rn}.{Ta}"),
            ref=f"C7.2 {title}",
            feature="asimd",
            where=lambda size, **_: size in BHS,
            name=operation.__name__ + "_vector",
        )
        def vector_form(m: Machine, Q: int, size: int, Rn: Field, Rd: Field, **U: int) -> None:
            set_V_part(m, Rd, Q, operation(m, m.V(Rn, lane_type(1, size + 1)), **U))

        if scalar:

            @insn(
                f"01 {u} 11110 size:2 10000 {op} 10 Rn:5 Rd:5",
                asm=lanes_asm(mnemonic + " {e}{Rd}, {ea}{Rn}"),
                ref=f"C7.2 {title}",
                feature="asimd",
                where=lambda size, **_: size in BHS,
                name=operation.__name__ + "_scalar",
            )
            def scalar_form(m: Machine, size: int, Rn: Field, Rd: Field, **U: int) -> None:
                m.set_V(Rd, operation(m, m.V(Rn, f"i{16 << size}"), **U))

        return operation

    return enter


@extract_narrow("0 10010", "xtn", "XTN, XTN2")
def XTN(m: Machine, a: Value) -> Value:
    return a.trunc(narrower(a.ty))


@extract_narrow("U 10100", "{us}qxtn", "SQXTN, UQXTN", scalar=True)
def QXTN(m: Machine, a: Value, U: int) -> Value:
    return sat_narrow(m, a, source=U, result=U)


@extract_narrow("1 10010", "sqxtun", "SQXTUN, SQXTUN2", scalar=True)
def SQXTUN(m: Machine, a: Value) -> Value:
    return sat_narrow(m, a, source=0, result=1)


def _shll_text(**fields: int) -> str:
    template = "shll{q2} v{Rd}.{Ta}, v{Rn}.{T}, #"
    return lanes_asm(template)(**fields) + str(8 << fields["size"])


@insn(
    "0 Q 1 01110 size:2 10000 10011 10 Rn:5 Rd:5",
    asm=_shll_text,
    ref="C7.2 SHLL, SHLL2",
    feature="asimd",
    where=lambda size, **_: size in BHS,
)
def SHLL(m: Machine, Q: int, size: int, Rn: Field, Rd: Field) -> None:
    """Shifted left by the width: the amount SSHLL cannot express."""
    m.set_V(Rd, V_part(m, Rn, Q, size).zext(lane_type(1, size + 1)) << (8 << size))


def pair_sums(v: Value, U: int) -> Value:
    """Sums of neighbouring lanes in lanes twice as wide."""
    e = esize(v.ty)
    pairs = v.bitcast(paired(v.ty))
    low = pairs << e
    if U:
        return pairs.lshr(e) + low.lshr(e)
    return pairs.ashr(e) + low.ashr(e)


@insn(
    "0 Q U 01110 size:2 10000 00 accumulate 10 10 Rn:5 Rd:5",
    asm=lambda accumulate, **f: lanes_asm(
        "{us}" + ("addlp", "adalp")[accumulate] + " v{Rd}.{Tp}, v{Rn}.{T}"
    )(**f),
    ref="C7.2 SADDLP, UADDLP, SADALP, UADALP",
    feature="asimd",
    where=lambda size, **_: size in BHS,
)
def ADDLP_ADALP(
    m: Machine, Q: int, U: int, size: int, accumulate: int, Rn: Field, Rd: Field
) -> None:
    sums = pair_sums(m.V(Rn, lane_type(Q, size)), U)
    m.set_V(Rd, m.V(Rd, sums.ty) + sums if accumulate else sums)
