"""Syndromes from the instruction word (Arm ARM D17.2.37), written apart from the engine's.

unicorn tells the physical address of an access that failed, not its syndrome nor its virtual
address; both follow from the word and the registers.
"""

from __future__ import annotations

from typing import Any

M64 = (1 << 64) - 1


def sys_iss(word: int) -> int:
    """ISS of a trapped MSR, MRS or SYS instruction (EC 0x18)."""
    op0, op1, crn = word >> 19 & 3, word >> 16 & 7, word >> 12 & 15
    crm, op2, rt, read = word >> 8 & 15, word >> 5 & 7, word & 31, word >> 21 & 1
    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | read


def access_syndrome(word: int) -> int:
    """ISV, SAS, SSE, SRT, SF and AR of a load or store; 0 where the architecture gives none."""
    rt = word & 31
    if word >> 24 & 0x3F == 0x18:  # LDR (literal)
        opc = word >> 30
        size, signed, is64 = (3, 0, 1) if opc == 1 else (2, int(opc == 2), int(opc == 2))
        return _valid(size, signed, rt, is64)
    size = word >> 30
    if word & 0x3FA0_8000 == 0x0880_8000:  # LDAR, STLR, LDLAR, STLLR
        return _valid(size, 0, rt, int(size == 3)) | 1 << 14
    if word >> 27 & 7 != 7 or word >> 26 & 1:
        return 0
    unsigned_offset = word >> 24 & 3 == 1
    register_offset = word >> 24 & 3 == 0 and word >> 21 & 1 == 1 and word >> 10 & 3 == 2
    # Unscaled and unprivileged; pre- and post-index write back and have no syndrome.
    unscaled = word >> 24 & 3 == 0 and word >> 21 & 1 == 0 and word >> 10 & 1 == 0
    if not (unsigned_offset or register_offset or unscaled):
        return 0
    opc = word >> 22 & 3
    signed = int(opc >= 2)
    is64 = int(size == 3 or opc == 2)
    return _valid(size, signed, rt, is64)


def _valid(size: int, signed: int, rt: int, is64: int) -> int:
    return 1 << 24 | size << 22 | signed << 21 | rt << 16 | is64 << 15


def access_va(word: int, pc: int, x: Any) -> int:
    """The virtual address of the access: base, plus offset where there is no post-index."""
    if word >> 24 & 0x3B == 0x18:
        return pc + (_signed(word >> 5 & 0x7FFFF, 19) << 2) & M64
    base = int(x[word >> 5 & 31])
    if word >> 27 & 7 == 5:  # pairs
        if word >> 23 & 3 == 1:
            return base
        scale = 2 + (word >> 30) if word >> 26 & 1 else 2 + (word >> 31)
        return base + (_signed(word >> 15 & 0x7F, 7) << scale) & M64
    if word >> 27 & 7 != 7:
        return base  # exclusives, ordered, structures
    if word >> 24 & 3 == 1:
        scale = word >> 30 | (word >> 23 & 1) << 2 if word >> 26 & 1 else word >> 30
        return base + ((word >> 10 & 0xFFF) << scale) & M64
    if word >> 21 & 1:
        return base + _extended(word, x) & M64 if word >> 10 & 3 == 2 else base
    if word >> 10 & 3 == 1:
        return base
    return base + _signed(word >> 12 & 0x1FF, 9) & M64


def _extended(word: int, x: Any) -> int:
    rm = word >> 16 & 31
    value = 0 if rm == 31 else int(x[rm])
    option = word >> 13 & 7
    if option == 2:
        value &= 0xFFFF_FFFF
    elif option == 6:
        value = _signed(value & 0xFFFF_FFFF, 32)
    scale = word >> 30 | (word >> 23 & 1) << 2 if word >> 26 & 1 else word >> 30
    return value << scale if word >> 12 & 1 else value


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value
