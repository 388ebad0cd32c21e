"""Advanced SIMD modified immediate: MOVI, MVNI, ORR and BIC (Arm ARM, C4.1, AdvSIMDExpandImm()).

    0 Q op 0111100000 a b c cmode 0 1 d e f g h Rd

cmode and op make forms; the 64-bit immediate they make of the byte abcdefgh is computed when the
word is decoded. FMOV (cmode 1111) is in fp*.py.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.machine import Machine
from armkvm.isa.simd.lanes import arrangement
from armkvm.isa.table import insn

# Four bits to four bytes of ones: MOVI's 64-bit form.
NIBBLE_MASKS = tuple(sum(0xFF << 8 * i for i in range(4) if n >> i & 1) for n in range(16))


def replicated(imm8: Field, cmode: int, op: int) -> Field:
    """AdvSIMDExpandImm() of cmode 0000 to 1110, before MVNI and BIC invert it."""
    if cmode == 0b1110 and op:
        low, high = imm8 & 15, (imm8 >> 4) & 15
        return high.lookup(NIBBLE_MASKS) << 32 | low.lookup(NIBBLE_MASKS)
    if cmode == 0b1110:
        return imm8 * 0x01010101_01010101
    if cmode >= 0b1100:  # "shifting ones"
        return (imm8 << 8 | 0xFF if cmode == 0b1100 else imm8 << 16 | 0xFFFF) * 0x1_00000001
    if cmode >= 0b1000:
        return (imm8 << (cmode & 2) * 4) * 0x0001_0001_0001_0001
    return (imm8 << (cmode >> 1) * 8) * 0x1_00000001


def is_logical(cmode: int) -> bool:
    """True for ORR and BIC, which combine the immediate with the old register."""
    return cmode & 1 == 1 and cmode < 0b1100


def _text(Q: int, op: int, immabc: int, cmode: int, immdefgh: int, Rd: int) -> str:
    imm8 = immabc << 5 | immdefgh
    name = (("orr", "bic") if is_logical(cmode) else ("movi", "mvni"))[op]
    if cmode == 0b1110 and op:
        imm64 = sum(0xFF << 8 * i for i in range(8) if imm8 >> i & 1)
        return f"movi {f'v{Rd}.2d' if Q else f'd{Rd}'}, #{imm64:#x}"
    if cmode == 0b1110:
        return f"movi v{Rd}.{arrangement(Q, 0)}, #{imm8:#x}"
    if cmode >= 0b1100:
        return f"{name} v{Rd}.{arrangement(Q, 2)}, #{imm8:#x}, msl #{8 << (cmode & 1)}"
    half = cmode >= 0b1000
    amount = (cmode & 2) * 4 if half else (cmode >> 1) * 8
    shift = f", lsl #{amount}" if amount else ""
    return f"{name} v{Rd}.{arrangement(Q, 1 if half else 2)}, #{imm8:#x}{shift}"


@insn(
    "0 Q op 0111100000 immabc:3 cmode:4 0 1 immdefgh:5 Rd:5",
    asm=_text,
    ref="C7.2 MOVI, MVNI, ORR (vector, immediate), BIC (vector, immediate)",
    feature="asimd",
    where=lambda cmode, **_: cmode != 0b1111,
)
def MOVI_MVNI_ORR_BIC(
    m: Machine, Q: int, op: int, immabc: Field, cmode: int, immdefgh: Field, Rd: Field
) -> None:
    imm64 = replicated(immabc << 5 | immdefgh, cmode, op)
    inverted = op == 1 and cmode != 0b1110
    v = m.imm(~imm64 if inverted else imm64)
    if Q:
        v = v.splat(2)
    if is_logical(cmode):
        old = m.V(Rd, v.ty)
        v = old & v if op else old | v
    m.set_V(Rd, v)
