"""Atomic read-modify-write (FEAT_LSE; C4.1: atomic memory operations, compare and swap).

Each is one span, checked for writing whatever the outcome, and naturally aligned. Acquire and
release (A, R, L, o0) are operands that nothing reads: virtual CPUs take turns, so every access is
ordered. LDAPR belongs to FEAT_LRCPC and is left out.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.ldst import text
from armkvm.isa.machine import Machine
from armkvm.isa.table import feature, insn
from armkvm.isa.value import Value

LSE = feature("lse", consists=("LDADD", "CAS", "CASP"), field=("id_aa64isar0_el1", 20, 2))

OPS = ("add", "clr", "eor", "set", "smax", "smin", "umax", "umin", "swp")


def _order(acquire: int, release: int) -> str:
    return "a" * acquire + "l" * release


def _combine(m: Machine, op: str, old: Value, x: Value) -> Value:
    """MemAtomicOp: the new value in memory."""
    match op:
        case "add":
            return old + x
        case "clr":
            return old & ~x
        case "eor":
            return old ^ x
        case "set":
            return old | x
        case "smax":
            return m.select(old.sgt(x), old, x)
        case "smin":
            return m.select(old.sgt(x), x, old)
        case "umax":
            return m.select(old.ugt(x), old, x)
        case "umin":
            return m.select(old.ugt(x), x, old)
        case _:
            return x


def _atomic_text(
    size: int, immA: int, immR: int, Rs: int, o3: int, opc: int, Rn: int, Rt: int
) -> str:
    op, width = OPS[o3 << 3 | opc], ("b", "h", "", "")[size]
    rs, rt = text.R(size == 3, Rs), text.R(size == 3, Rt)
    if Rt == 31 and not immA and not o3:
        return f"st{op}{_order(0, immR)}{width} {rs}, {text.offset(Rn, 0)}"
    name = op if o3 else f"ld{op}"
    return f"{name}{_order(immA, immR)}{width} {rs}, {rt}, {text.offset(Rn, 0)}"


@insn("size:2 111 0 00 immA immR 1 Rs:5 o3 opc:3 00 Rn:5 Rt:5", asm=_atomic_text,
      ref="C6.2 LDADD", feature=LSE,
      where=lambda o3, opc, **_: not o3 or opc == 0)  # fmt: skip
def LDADD(
    m: Machine, size: int, immA: Field, immR: Field, Rs: Field, o3: int, opc: int, Rn: Field,
    Rt: Field,
) -> None:  # fmt: skip
    """LDADD, LDCLR, LDEOR, LDSET, LD[SU]MAX, LD[SU]MIN and SWP, all sizes and orderings."""
    ty = f"i{8 << size}"
    span = m.span(m.base(Rn), 1 << size, write=True, align=1 << size, acc="atomic")
    old = span.load(0, ty)
    span.store(0, _combine(m, OPS[o3 << 3 | opc], old, m.X(Rs, ty)))
    span.done()
    m.set_X(Rt, old)


def _cas_text(size: int, immL: int, Rs: int, immo0: int, Rn: int, Rt: int) -> str:
    name = f"cas{_order(immL, immo0)}{('b', 'h', '', '')[size]}"
    return f"{name} {text.R(size == 3, Rs)}, {text.R(size == 3, Rt)}, {text.offset(Rn, 0)}"


@insn("size:2 001000 1 immL 1 Rs:5 immo0 11111 Rn:5 Rt:5", asm=_cas_text, ref="C6.2 CAS",
      feature=LSE)  # fmt: skip
def CAS(m: Machine, size: int, immL: Field, Rs: Field, immo0: Field, Rn: Field, Rt: Field) -> None:
    """CAS, CASA, CASL, CASAL, all sizes: Rs is compared and gets the old value."""
    ty = f"i{8 << size}"
    span = m.span(m.base(Rn), 1 << size, write=True, align=1 << size, acc="atomic")
    old = span.load(0, ty)
    with m.when(old.eq(m.X(Rs, ty))):
        span.store(0, m.X(Rt, ty))
    span.done()
    m.set_X(Rs, old)


def _casp_text(sz: int, immL: int, Rs: int, immo0: int, Rn: int, Rt: int) -> str:
    regs = ", ".join(text.R(sz, r) for r in (Rs, Rs + 1, Rt, Rt + 1))
    return f"casp{_order(immL, immo0)} {regs}, {text.offset(Rn, 0)}"


@insn("0 sz 001000 0 immL 1 Rs:5 immo0 11111 Rn:5 Rt:5", asm=_casp_text, ref="C6.2 CASP",
      feature=LSE, where=lambda Rs, Rt, **_: ((Rs | Rt) & 1).is_(0))  # fmt: skip
def CASP(m: Machine, sz: int, immL: Field, Rs: Field, immo0: Field, Rn: Field, Rt: Field) -> None:
    """CASP of two words or two doublewords; both register pairs begin at an even number."""
    ty, n = ("i32", "i64")[sz], 4 << sz
    span = m.span(m.base(Rn), 2 * n, write=True, align=2 * n, acc="atomic")
    first, second = span.load(0, ty), span.load(n, ty)
    with m.when(first.eq(m.X(Rs, ty)) & second.eq(m.X(Rs + 1, ty))):
        span.store(0, m.X(Rt, ty))
        span.store(n, m.X(Rt + 1, ty))
    span.done()
    m.set_X(Rs, first)
    m.set_X(Rs + 1, second)
