"""How loads and stores are written: register names, addresses and mnemonics (Arm ARM C4.1).

Pure text for the assembly callables of the ldst modules and lse, spelled as the manual (C1.3) and
binutils spell it.
"""

from __future__ import annotations

from armkvm.isa.asm import XSP, R
from armkvm.isa.field import MASK64, signed

__all__ = [
    "XSP", "R", "extended", "fpr", "label", "mnemonic", "offset", "post_index", "pre_index",
    "prefetch",
]  # fmt: skip


def fpr(n: int, width: int) -> str:
    """The SIMD&FP scalar of 1 << width bytes."""
    return f"{'bhsdq'[width]}{n}"


def offset(n: int, imm: int) -> str:
    """[Xn|SP, #imm], without a zero immediate."""
    return f"[{XSP(n)}, #{imm}]" if imm else f"[{XSP(n)}]"


def pre_index(n: int, imm: int) -> str:
    """[Xn|SP, #imm]!"""
    return f"[{XSP(n)}, #{imm}]!"


def post_index(n: int, imm: int) -> str:
    """[Xn|SP], #imm"""
    return f"[{XSP(n)}], #{imm}"


def extended(n: int, m: int, option: int, s: int, amount: int) -> str:
    """[Xn|SP, Rm, extend #amount] by the option and S fields (C6.2)."""
    extend = {2: "uxtw", 3: "lsl", 6: "sxtw", 7: "sxtx"}[option]
    index = R(option & 1, m)
    if s:
        return f"[{XSP(n)}, {index}, {extend} #{amount}]"
    return f"[{XSP(n)}, {index}]" if option == 3 else f"[{XSP(n)}, {index}, {extend}]"


def label(pc: int, imm19: int) -> str:
    """The address of a literal."""
    return f"{(pc + 4 * signed(imm19, 19)) & MASK64:#x}"


def mnemonic(stem: str, size: int, opc: int) -> str:
    """ldr, strb, ldursh, ...: stem is "r", "ur" or "tr"."""
    if opc < 2:
        return ("st", "ld")[opc] + stem + ("b", "h", "", "")[size]
    return f"ld{stem}s{'bhw'[size]}"


def prefetch(op: int) -> str:
    """The <prfop> of PRFM: type, target and policy, or the bare number (C6.2)."""
    kind, target, policy = op >> 3, (op >> 1) & 3, op & 1
    if kind == 3 or target == 3:
        return f"#{op:#04x}"
    return f"{('pld', 'pli', 'pst')[kind]}l{target + 1}{('keep', 'strm')[policy]}"
