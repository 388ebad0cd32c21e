"""CRC32 instructions (Arm ARM C6.2, CRC32B to CRC32X and CRC32CB to CRC32CX; FEAT_CRC32).

The manual divides bit-reversed polynomials; working on the numbers as they are is the same division
with the reversed polynomial and shifts to the right.
"""

from __future__ import annotations

from armkvm.isa.asm import W, X
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.table import feature, insn

CRC = feature("crc32", consists=("CRC32",), field=("id_aa64isar0_el1", 16, 1))

# 0x04C11DB7 and 0x1EDC6F41, bits reversed.
POLYNOMIALS = (0xEDB88320, 0x82F63B78)


def _asm(sf: int, Rm: int, C: int, sz: int, Rn: int, Rd: int) -> str:
    return f"crc32{'c' * C}{'bhwx'[sz]} {W(Rd)}, {W(Rn)}, {X(Rm) if sf else W(Rm)}"


@insn("sf 0 0 11010110 Rm:5 010 C sz:2 Rn:5 Rd:5", feature=CRC, asm=_asm,
      where=lambda sf, sz, **_: sf == (sz == 3), ref="CRC32, CRC32C")
def CRC32(m: Machine, sf: int, Rm: Field, C: int, sz: int, Rn: Field, Rd: Field) -> None:
    ty = "i64" if sf else "i32"
    size = 8 << sz
    data = m.X(Rm, ("i8", "i16", "i32", "i64")[sz]).zext(ty)
    r = m.X(Rn, "i32").zext(ty) ^ data
    for _ in range(size):
        r = r.lshr(1) ^ -(r & 1) & POLYNOMIALS[C]
    m.set_X(Rd, r.trunc("i32"))
