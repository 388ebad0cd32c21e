"""Scalar floating-point compare, conditional compare and conditional select (Arm ARM, C4.1).

0 0 0 11110 ftype 1 Rm 001000 Rn opc 000       FCMP FCMPE
0 0 0 11110 ftype 1 Rm cond 01 Rn op nzcv      FCCMP FCCMPE
0 0 0 11110 ftype 1 Rm cond 11 Rn Rd           FCSEL
"""

from __future__ import annotations

from armkvm.isa.asm import CONDITIONS
from armkvm.isa.field import Field
from armkvm.isa.fp.fpcold import flush_to_zero
from armkvm.isa.fp.fpformat import FZ, IOC, fpcr_bit, is_snan, raise_flags
from armkvm.isa.fp.scalar import DOUBLE, LETTERS, TYPES, single_or_double
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value


def FPCompare(m: Machine, a: Value, b: Value, *, signal_nans: bool) -> tuple[Value, ...]:
    """FPCompare(): a value with PSTATE.N and Z, then C and V.

    All are one comparison on the host, which raises Invalid for signalling NaNs by itself.
    """
    less, not_less = a.fcmp("olt", b), a.fcmp("uge", b)
    greater, unordered = a.fcmp("ugt", b), a.fcmp("uno", b)

    def cold() -> Value:
        # Explicitly, because LLVM may compare behind flush_to_zero()'s collection of the flags.
        raise_flags(m, IOC, unordered if signal_nans else is_snan(a) | is_snan(b))
        flush_to_zero(m, (a, b))
        return unordered

    when = fpcr_bit(m, FZ)
    m.unlikely(when | unordered if signal_nans else when, unordered, cold)
    return greater.zext("i32") | less.sext("i32"), not_less, unordered


def _compare_text(ftype: int, Rm: int, Rn: int, opc: int) -> str:
    t = LETTERS[ftype]
    other = "#0.0" if opc & 1 else f"{t}{Rm}"
    return f"fcmp{'e' if opc & 2 else ''} {t}{Rn}, {other}"


@insn(
    "00011110 ftype:2 1 Rm:5 001000 Rn:5 opc:2 000",
    asm=_compare_text,
    ref="C7.2 FCMP, FCMPE",
    feature="fp",
    where=single_or_double,
)
def FCMP_FCMPE(m: Machine, ftype: int, Rm: Field, Rn: Field, opc: int) -> None:
    ty = TYPES[ftype]
    # With zero (opc<0>) Rm is ignored.
    b = m.const(ty, 0.0) if opc & 1 else m.V(Rm, ty)
    m.set_flags(*FPCompare(m, m.V(Rn, ty), b, signal_nans=opc >= 2))


@insn(
    "00011110 ftype:2 1 Rm:5 cond:4 01 Rn:5 op imm4:4",
    asm=lambda ftype, Rm, cond, Rn, op, imm4: "fccmp{0} {t}{1}, {t}{2}, #{3:#x}, {4}".format(
        "e" * op, Rn, Rm, imm4, CONDITIONS[cond], t=LETTERS[ftype]
    ),
    ref="C7.2 FCCMP, FCCMPE",
    feature="fp",
    where=single_or_double,
)
def FCCMP_FCCMPE(
    m: Machine, ftype: int, Rm: Field, cond: int, Rn: Field, op: int, imm4: Field
) -> None:
    ty = TYPES[ftype]
    holds = m.condition_holds(cond)
    # Where it does not hold zero is compared with zero, which raises nothing.
    zero = m.const(ty, 0.0)
    a, b = m.select(holds, m.V(Rn, ty), zero), m.select(holds, m.V(Rm, ty), zero)
    nz, c, v = FPCompare(m, a, b, signal_nans=op == 1)
    n, z = nz.lshr(31).zext("i64"), nz.eq(0).zext("i64")
    nzcv = n << 3 | z << 2 | c.zext("i64") << 1 | v.zext("i64")
    m.set_nzcv(m.select(holds, nzcv, m.imm(imm4)))


@insn(
    "00011110 ftype:2 1 Rm:5 cond:4 11 Rn:5 Rd:5",
    asm=lambda ftype, Rm, cond, Rn, Rd: "fcsel {t}{0}, {t}{1}, {t}{2}, {3}".format(
        Rd, Rn, Rm, CONDITIONS[cond], t=LETTERS[ftype]
    ),
    ref="C7.2 FCSEL",
    feature="fp",
    where=single_or_double,
)
def FCSEL(m: Machine, ftype: int, Rm: Field, cond: int, Rn: Field, Rd: Field) -> None:
    ty = "i64" if ftype == DOUBLE else "i32"
    m.set_V(Rd, m.select(m.condition_holds(cond), m.V(Rn, ty), m.V(Rm, ty)))
