"""Assembly text of data processing: the preferred disassembly of the manual, aliases included.

Each function takes the fields of its drawing as integers. Spelling is that of binutils.
"""

from __future__ import annotations

from armkvm.isa.asm import CONDITIONS, EXTENDS, RSP, SHIFTS, R, W, X
from armkvm.isa.field import MASK64, signed


def adr(immlo: int, immhi: int, Rd: int, pc: int) -> str:
    return f"adr {X(Rd)}, {pc + signed(immhi << 2 | immlo, 21) & MASK64:#x}"


def adrp(immlo: int, immhi: int, Rd: int, pc: int) -> str:
    target = (pc & ~0xFFF) + (signed(immhi << 2 | immlo, 21) << 12)
    return f"adrp {X(Rd)}, {target & MASK64:#x}"


def addsub_imm(sf: int, op: int, S: int, sh: int, imm12: int, Rn: int, Rd: int) -> str:
    if (op, S, sh, imm12) == (0, 0, 0, 0) and 31 in (Rn, Rd):
        return f"mov {RSP(sf, Rd)}, {RSP(sf, Rn)}"
    tail = f"#{imm12:#x}" + (", lsl #12" if sh else "")
    if S and Rd == 31:
        return f"{('cmn', 'cmp')[op]} {RSP(sf, Rn)}, {tail}"
    name = ("add", "sub")[op] + "s" * S
    return f"{name} {R(sf, Rd) if S else RSP(sf, Rd)}, {RSP(sf, Rn)}, {tail}"


def _wide(value: int, size: int) -> bool:
    """True when one MOVZ or MOVN makes the value: then ORR is not called MOV, save for SP."""
    ones = (1 << size) - 1
    return any(v & ~(0xFFFF << s) == 0 for v in (value, value ^ ones) for s in range(0, size, 16))


def logical_imm(sf: int, opc: int, N: int, immr: int, imms: int, Rn: int, Rd: int) -> str:
    size = 1 << (N << 6 | ~imms & 63).bit_length() - 1
    ones = (1 << (imms & size - 1) + 1) - 1
    turn = immr & size - 1
    element = (ones >> turn | ones << size - turn) & (1 << size) - 1
    width = 64 if sf else 32
    value = sum(element << i for i in range(0, width, size))
    if opc == 3 and Rd == 31:
        return f"tst {R(sf, Rn)}, #{value:#x}"
    if opc == 1 and Rn == 31 and (Rd == 31 or not _wide(value, width)):
        return f"mov {RSP(sf, Rd)}, #{value:#x}"
    name = ("and", "orr", "eor", "ands")[opc]
    return f"{name} {R(sf, Rd) if opc == 3 else RSP(sf, Rd)}, {R(sf, Rn)}, #{value:#x}"


def move_wide(sf: int, opc: int, hw: int, imm16: int, Rd: int) -> str:
    tail = f"#{imm16:#x}" + (f", lsl #{16 * hw}" if hw else "")
    if opc == 3:
        return f"movk {R(sf, Rd)}, {tail}"
    size = 64 if sf else 32
    value = imm16 << 16 * hw
    if opc == 0:
        # MOVN is MOV unless MOVZ could say the same (only where W has both ways).
        if (imm16 == 0 and hw) or (not sf and imm16 == 0xFFFF):
            return f"movn {R(sf, Rd)}, {tail}"
        value ^= (1 << size) - 1
    elif imm16 == 0 and hw:
        return f"movz {R(sf, Rd)}, {tail}"
    return f"mov {R(sf, Rd)}, #{value:#x}"


def bitfield(sf: int, opc: int, N: int, immr: int, imms: int, Rn: int, Rd: int) -> str:
    size = 64 if sf else 32
    d, n = R(sf, Rd), R(sf, Rn)
    if opc == 1:
        if imms >= immr:
            return f"bfxil {d}, {n}, #{immr}, #{imms - immr + 1}"
        if Rn == 31:
            return f"bfc {d}, #{size - immr & size - 1}, #{imms + 1}"
        return f"bfi {d}, {n}, #{size - immr & size - 1}, #{imms + 1}"
    signed_ = opc == 0
    if imms == size - 1:
        return f"{'asr' if signed_ else 'lsr'} {d}, {n}, #{immr}"
    if not signed_ and imms + 1 == immr:
        return f"lsl {d}, {n}, #{size - 1 - imms}"
    if immr == 0 and imms in (7, 15, 31) and (signed_ or (imms < 31 and not sf)):
        return f"{'s' if signed_ else 'u'}xt{'bhw'[(7, 15, 31).index(imms)]} {d}, {W(Rn)}"
    name = "sbf" if signed_ else "ubf"
    if imms < immr:
        return f"{name}iz {d}, {n}, #{size - immr}, #{imms + 1}"
    return f"{name}x {d}, {n}, #{immr}, #{imms - immr + 1}"


def extr(sf: int, N: int, Rm: int, imms: int, Rn: int, Rd: int) -> str:
    if Rn == Rm:
        return f"ror {R(sf, Rd)}, {R(sf, Rn)}, #{imms}"
    return f"extr {R(sf, Rd)}, {R(sf, Rn)}, {R(sf, Rm)}, #{imms}"


def _shifted(sf: int, Rm: int, shift: int, imm6: int) -> str:
    plain = shift == 0 and imm6 == 0
    return R(sf, Rm) + ("" if plain else f", {SHIFTS[shift]} #{imm6}")


def logical(
    sf: int, opc: int, shift: int, N: int, Rm: int, imm6: int, Rn: int, Rd: int
) -> str:
    tail = _shifted(sf, Rm, shift, imm6)
    if (opc, N) == (3, 0) and Rd == 31:
        return f"tst {R(sf, Rn)}, {tail}"
    if opc == 1 and Rn == 31:
        if N:
            return f"mvn {R(sf, Rd)}, {tail}"
        if shift == 0 and imm6 == 0:
            return f"mov {R(sf, Rd)}, {R(sf, Rm)}"
    name = (("and", "orr", "eor", "ands"), ("bic", "orn", "eon", "bics"))[N][opc]
    return f"{name} {R(sf, Rd)}, {R(sf, Rn)}, {tail}"


def addsub(sf: int, op: int, S: int, shift: int, Rm: int, imm6: int, Rn: int, Rd: int) -> str:
    tail = _shifted(sf, Rm, shift, imm6)
    if S and Rd == 31:
        return f"{('cmn', 'cmp')[op]} {R(sf, Rn)}, {tail}"
    if op and Rn == 31:
        return f"neg{'s' * S} {R(sf, Rd)}, {tail}"
    return f"{('add', 'sub')[op]}{'s' * S} {R(sf, Rd)}, {R(sf, Rn)}, {tail}"


def addsub_ext(
    sf: int, op: int, S: int, Rm: int, option: int, imm3: int, Rn: int, Rd: int
) -> str:
    tail = X(Rm) if option & 3 == 3 and sf else W(Rm)
    # With SP among the operands the natural extension is called LSL, and left out at 0.
    natural = option == (3 if sf else 2) and (Rn == 31 or (Rd == 31 and not S))
    if not natural:
        tail += f", {EXTENDS[option]}" + (f" #{imm3}" if imm3 else "")
    elif imm3:
        tail += f", lsl #{imm3}"
    if S and Rd == 31:
        return f"{('cmn', 'cmp')[op]} {RSP(sf, Rn)}, {tail}"
    d = R(sf, Rd) if S else RSP(sf, Rd)
    return f"{('add', 'sub')[op]}{'s' * S} {d}, {RSP(sf, Rn)}, {tail}"


def carry(sf: int, op: int, S: int, Rm: int, Rn: int, Rd: int) -> str:
    if op and Rn == 31:
        return f"ngc{'s' * S} {R(sf, Rd)}, {R(sf, Rm)}"
    return f"{('adc', 'sbc')[op]}{'s' * S} {R(sf, Rd)}, {R(sf, Rn)}, {R(sf, Rm)}"


def ccmp_reg(sf: int, op: int, Rm: int, cond: int, Rn: int, imm_nzcv: int) -> str:
    name = ("ccmn", "ccmp")[op]
    return f"{name} {R(sf, Rn)}, {R(sf, Rm)}, #{imm_nzcv:#x}, {CONDITIONS[cond]}"


def ccmp_imm(sf: int, op: int, imm5: int, cond: int, Rn: int, imm_nzcv: int) -> str:
    name = ("ccmn", "ccmp")[op]
    return f"{name} {R(sf, Rn)}, #{imm5:#x}, #{imm_nzcv:#x}, {CONDITIONS[cond]}"


def csel(sf: int, op: int, Rm: int, cond: int, o2: int, Rn: int, Rd: int) -> str:
    d, n, m = R(sf, Rd), R(sf, Rn), R(sf, Rm)
    if (op or o2) and Rn == Rm and cond < 14:
        inverse = CONDITIONS[cond ^ 1]
        if (op, o2) == (1, 1):
            return f"cneg {d}, {n}, {inverse}"
        if Rn == 31:
            return f"{'csetm' if op else 'cset'} {d}, {inverse}"
        return f"{'cinv' if op else 'cinc'} {d}, {n}, {inverse}"
    name = ("csel", "csinc", "csinv", "csneg")[op << 1 | o2]
    return f"{name} {d}, {n}, {m}, {CONDITIONS[cond]}"


def madd(sf: int, Rm: int, o0: int, Ra: int, Rn: int, Rd: int) -> str:
    head = f"{R(sf, Rd)}, {R(sf, Rn)}, {R(sf, Rm)}"
    if Ra == 31:
        return f"{('mul', 'mneg')[o0]} {head}"
    return f"{('madd', 'msub')[o0]} {head}, {R(sf, Ra)}"


def maddl(U: int, Rm: int, o0: int, Ra: int, Rn: int, Rd: int) -> str:
    head = f"{X(Rd)}, {W(Rn)}, {W(Rm)}"
    kind = "us"[not U]
    if Ra == 31:
        return f"{kind}{('mull', 'mnegl')[o0]} {head}"
    return f"{kind}{('maddl', 'msubl')[o0]} {head}, {X(Ra)}"
