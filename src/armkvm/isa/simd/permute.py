"""Advanced SIMD permute, extract and table lookup: UZP TRN ZIP, EXT, TBL TBX (Arm ARM, C4.1)."""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.ldst.simd_struct import list_text
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import BHSD, allocated, lane_type, lanes_asm
from armkvm.isa.table import insn
from armkvm.isa.value import Value

KINDS = {1: "uzp", 2: "trn", 3: "zip"}


def permutation(kind: int, part: int, n: int) -> list[int]:
    """The lanes of Vm:Vn that make the result, by number."""
    half = n // 2
    match KINDS[kind]:
        case "uzp":
            return [2 * i + part for i in range(n)]
        case "trn":
            return [i + j for i in range(part, n, 2) for j in (0, n)]
        case _:
            return [part * half + i + j for i in range(half) for j in (0, n)]


@insn(
    "0 Q 001110 size:2 0 Rm:5 0 part kind:2 10 Rn:5 Rd:5",
    asm=lambda part, kind, **f: lanes_asm(
        f"{KINDS[kind]}{part + 1}" + " v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}"
    )(**f),
    ref="C7.2 UZP1, UZP2, TRN1, TRN2, ZIP1, ZIP2",
    feature="asimd",
    where=lambda Q, size, kind, **_: allocated(Q, size, BHSD) and kind != 0,
)
def UZP_TRN_ZIP(
    m: Machine, Q: int, size: int, Rm: Field, part: int, kind: int, Rn: Field, Rd: Field
) -> None:
    ty = lane_type(Q, size)
    a, b = m.V(Rn, ty), m.V(Rm, ty)
    m.set_V(Rd, a.shuffle(permutation(kind, part, a.lanes), b))


@insn(
    "0 Q 101110 00 0 Rm:5 0 =imm4:4 0 Rn:5 Rd:5",
    asm=lanes_asm("ext v{Rd}.{T}, v{Rn}.{T}, v{Rm}.{T}, #{imm4}", size=0),
    ref="C7.2 EXT",
    feature="asimd",
    where=lambda Q, imm4, **_: Q == 1 or imm4 < 8,
)
def EXT(m: Machine, Q: int, Rm: Field, imm4: int, Rn: Field, Rd: Field) -> None:
    """Bytes imm4 and up of Vm:Vn; the position makes forms, since it decides the shuffle."""
    ty = lane_type(Q, 0)
    a, b = m.V(Rn, ty), m.V(Rm, ty)
    m.set_V(Rd, a.shuffle(list(range(imm4, imm4 + a.lanes)), b))


def lookup(table: Value, indices: Value) -> Value:
    """table[index] for 16 indices of 0..15. LLVM has no shuffle by a variable, but knows this
    pattern and makes one instruction of it where the host has one (PSHUFB)."""
    result = table
    for i in range(16):
        result = result.insert(i, table[indices[i].zext("i32")])
    return result


def _tbl_text(immQ: int, Rm: int, len: int, op: int, Rn: int, Rd: int) -> str:
    T = ("8b", "16b")[immQ]
    table = list_text(Rn, len + 1, "16b")
    return f"{('tbl', 'tbx')[op]} v{Rd}.{T}, {table}, v{Rm}.{T}"


@insn(
    "0 immQ 001110 00 0 Rm:5 0 len:2 op 00 Rn:5 Rd:5",
    asm=_tbl_text,
    ref="C7.2 TBL, TBX",
    feature="asimd",
)
def TBL_TBX(m: Machine, immQ: Field, Rm: Field, len: int, op: int, Rn: Field, Rd: Field) -> None:
    """Bytes of up to four registers, wrapping from V31 to V0; an index beyond them gives zero (TBL)
    or keeps the byte (TBX).

    All sixteen bytes are looked up, and Q masks the upper half away as a decode-time operand: where
    LLVM sees that it needs only eight, it no longer knows the pattern of lookup().
    """
    ty = "<16 x i8>"
    indices = m.V(Rm, ty)
    result = m.V(Rd, ty) if op else m.const(ty, 0)
    for i in range(len + 1):
        at = indices - 16 * i
        found = lookup(m.V((Rn + i) & 31, ty), at & 15)
        result = m.select(at.ult(16), found, result)
    m.set_V(Rd, result & m.const("<2 x i64>", -1).insert(1, m.imm(-immQ)).bitcast(ty))
