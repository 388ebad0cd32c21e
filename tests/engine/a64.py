"""Encodings of the few instructions that the engine's tests are made of, as 32-bit words.

Not an assembler: one function an instruction form, operands as in the manual. Registers are
numbers; 31 is XZR or SP as the instruction has it.
"""

from __future__ import annotations

from armkvm.arch.sysreg import BY_NAME

NOP, ISB, WFI, WFE, ERET = 0xD503201F, 0xD5033FDF, 0xD503207F, 0xD503205F, 0xD69F03E0
B_SELF = 0x14000000
UDF = 0x00000000
LR = 30

# Kinds of loads and stores of one register: unsigned offset, unscaled, unprivileged, by register.
UNSIGNED, UNSCALED, UNPRIV, REGISTER = 0x39000000, 0x38000000, 0x38000800, 0x3820E800

# op2 of the TLBI forms with CRm = 7; the Inner Shareable ones have CRm = 3.
TLBI = {"vmalle1": 0, "vae1": 1, "aside1": 2, "vaae1": 3, "vale1": 5, "vaale1": 7}


def movz(rd: int, imm16: int, lsl: int = 0) -> int:
    """MOVZ Xd, #imm16, LSL #lsl."""
    return 0xD2800000 | lsl // 16 << 21 | imm16 << 5 | rd


def movk(rd: int, imm16: int, lsl: int = 0) -> int:
    """MOVK Xd, #imm16, LSL #lsl."""
    return 0xF2800000 | lsl // 16 << 21 | imm16 << 5 | rd


def mov(rd: int, value: int) -> list[int]:
    """X[rd] = value, in four instructions."""
    parts = [value >> s & 0xFFFF for s in (0, 16, 32, 48)]
    return [movz(rd, parts[0]), *(movk(rd, p, 16 * i) for i, p in enumerate(parts) if i)]


def add(rd: int, rn: int, imm12: int) -> int:
    """ADD Xd|SP, Xn|SP, #imm12."""
    return 0x91000000 | imm12 << 10 | rn << 5 | rd


def subs(rd: int, rn: int, imm12: int) -> int:
    """SUBS Xd, Xn|SP, #imm12."""
    return 0xF1000000 | imm12 << 10 | rn << 5 | rd


def ldr(rt: int, rn: int, offset: int = 0) -> int:
    """LDR Xt, [Xn|SP, #offset]."""
    return 0xF9400000 | offset // 8 << 10 | rn << 5 | rt


def str_(rt: int, rn: int, offset: int = 0) -> int:
    """STR Xt, [Xn|SP, #offset]."""
    return 0xF9000000 | offset // 8 << 10 | rn << 5 | rt


def single(kind: int, size: int, opc: int, rt: int) -> int:
    """LDR, STR and their narrow and sign-extending forms at [X1], X2 the index."""
    return kind | size << 30 | opc << 22 | 1 << 5 | rt | (2 << 16 if kind == REGISTER else 0)


def strw(rt: int, rn: int) -> int:
    """STR Wt, [Xn|SP]."""
    return 0xB9000000 | rn << 5 | rt


def b(words: int) -> int:
    """B to `words` instructions from here."""
    return 0x14000000 | words & 0x3FFFFFF


def bl(words: int) -> int:
    """BL to `words` instructions from here."""
    return 0x94000000 | words & 0x3FFFFFF


def cbnz(rt: int, words: int) -> int:
    """CBNZ Xt, to `words` instructions from here."""
    return 0xB5000000 | (words & 0x7FFFF) << 5 | rt


def br(rn: int) -> int:
    """BR Xn."""
    return 0xD61F0000 | rn << 5


def blr(rn: int) -> int:
    """BLR Xn."""
    return 0xD63F0000 | rn << 5


def ret(rn: int = LR) -> int:
    """RET Xn."""
    return 0xD65F0000 | rn << 5


def svc(imm16: int) -> int:
    """SVC #imm16."""
    return 0xD4000001 | imm16 << 5


def hvc(imm16: int) -> int:
    """HVC #imm16."""
    return 0xD4000002 | imm16 << 5


def smc(imm16: int) -> int:
    """SMC #imm16."""
    return 0xD4000003 | imm16 << 5


def brk(imm16: int) -> int:
    """BRK #imm16."""
    return 0xD4200000 | imm16 << 5


def sys_word(read: int, op0: int, op1: int, crn: int, crm: int, op2: int, rt: int) -> int:
    """MRS, MSR (register), SYS: the whole class."""
    fields = op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
    return 0xD5000000 | read << 21 | fields | rt


def mrs(rt: int, name: str) -> int:
    """MRS Xt, name."""
    return sys_word(1, *BY_NAME[name.upper()].enc, rt)


def msr(name: str, rt: int) -> int:
    """MSR name, Xt."""
    return sys_word(0, *BY_NAME[name.upper()].enc, rt)


def daifset(imm: int) -> int:
    """MSR DAIFSet, #imm."""
    return 0xD50340DF | imm << 8


def daifclr(imm: int) -> int:
    """MSR DAIFClr, #imm."""
    return 0xD50340FF | imm << 8


def spsel(imm: int) -> int:
    """MSR SPSel, #imm."""
    return 0xD50040BF | imm << 8


def tlbi(name: str, rt: int = 31) -> int:
    """TLBI name{IS}, Xt."""
    shared = name.endswith("is")
    return sys_word(0, 1, 0, 8, 3 if shared else 7, TLBI[name.removesuffix("is")], rt)


def dc(name: str, rt: int) -> int:
    """DC name, Xt (and IC IVAU)."""
    op1, crm, op2 = {
        "ivac": (0, 6, 1), "cvac": (3, 10, 1), "cvau": (3, 11, 1), "civac": (3, 14, 1),
        "zva": (3, 4, 1), "ivau": (3, 5, 1),
    }[name]  # fmt: skip
    return sys_word(0, 1, op1, 7, crm, op2, rt)


def at(name: str, rt: int) -> int:
    """AT name, Xt."""
    return sys_word(0, 1, 0, 7, 8, ("s1e1r", "s1e1w", "s1e0r", "s1e0w").index(name), rt)
