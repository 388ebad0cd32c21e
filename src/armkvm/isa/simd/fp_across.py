"""Advanced SIMD floating point inside one register: pairwise and across lanes (Arm ARM, C4.1).

0 1 1 11110 a sz 11000 opcode 10 Rn Rd         FADDP FMAXP ... (scalar)
0 Q 1 01110 a sz 11000 opcode 10 Rn Rd         FMAXV FMINV FMAXNMV FMINNMV
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.fp.fpmath import FPAdd, FPMax, FPMaxNum, FPMin, FPMinNum
from armkvm.isa.machine import Machine
from armkvm.isa.simd.fp import ELEMENTS, Binary, fp_asm
from armkvm.isa.table import insn
from armkvm.isa.value import vector


def _scalar_pairwise(opcode: str, mnemonic: str, operation: Binary) -> None:
    a, op = opcode.split()

    @insn(
        f"01 1 11110 {a} sz 11000 {op} 10 Rn:5 Rd:5",
        asm=fp_asm(mnemonic + " {e}{Rd}, v{Rn}.2{e}"),
        ref=f"C7.2 {mnemonic.upper()} (scalar)",
        feature="asimd",
        name=f"{mnemonic.upper()}_pairwise_scalar",
    )
    def pairwise(m: Machine, sz: int, Rn: Field, Rd: Field) -> None:
        pair = m.V(Rn, vector(2, ELEMENTS[sz]))
        m.set_V(Rd, operation(m, pair[0], pair[1]))


_scalar_pairwise("0 01100", "fmaxnmp", FPMaxNum)
_scalar_pairwise("0 01101", "faddp", FPAdd)
_scalar_pairwise("0 01111", "fmaxp", FPMax)
_scalar_pairwise("1 01100", "fminnmp", FPMinNum)
_scalar_pairwise("1 01111", "fminp", FPMin)


def _across(opcode: str, mnemonic: str, operation: Binary) -> None:
    """Reduce(): halves first, so lanes 0 and 1, and 2 and 3, meet before the pairs do."""
    a, op = opcode.split()

    @insn(
        f"0 1 1 01110 {a} 0 11000 {op} 10 Rn:5 Rd:5",
        asm=fp_asm(mnemonic + " s{Rd}, v{Rn}.4s"),
        ref=f"C7.2 {mnemonic.upper()}",
        feature="asimd",
        name=mnemonic.upper(),
    )
    def across(m: Machine, Rn: Field, Rd: Field) -> None:
        v = m.V(Rn, "<4 x float>")
        pairs = operation(m, v.shuffle([0, 2, 0, 2]), v.shuffle([1, 3, 1, 3]))
        m.set_V(Rd, operation(m, pairs[0], pairs[1]))


_across("0 01100", "fmaxnmv", FPMaxNum)
_across("0 01111", "fmaxv", FPMax)
_across("1 01100", "fminnmv", FPMinNum)
_across("1 01111", "fminv", FPMin)
