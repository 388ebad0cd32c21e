"""Bare-metal guests out of words, for tests that need a few instructions and no assembler."""

from __future__ import annotations

import struct
from collections.abc import Iterable

UART = 0x0900_0000
WFI = 0xD503207F
NOP = 0xD503201F


def mov(register: int, value: int) -> list[int]:
    """MOVZ and MOVK: a 64-bit number into X<register>."""
    words = [0xD2800000 | (value & 0xFFFF) << 5 | register]
    for part in range(1, 4):
        if piece := value >> 16 * part & 0xFFFF:
            words.append(0xF2800000 | part << 21 | piece << 5 | register)
    return words


def ldr(register: int, base: int) -> int:
    """LDR W<register>, [X<base>]."""
    return 0xB9400000 | base << 5 | register


def store(register: int, base: int) -> int:
    """STR W<register>, [X<base>]."""
    return 0xB9000000 | base << 5 | register


def add(register: int, source: int, number: int) -> int:
    """ADD W<register>, W<source>, #number."""
    return 0x11000000 | number << 10 | source << 5 | register


def cbz(register: int, words: int) -> int:
    """CBZ X<register>, to so many words from here."""
    return 0xB4000000 | (words & 0x7FFFF) << 5 | register


def mrs(register: int, op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """MRS X<register>, S<op0>_<op1>_<crn>_<crm>_<op2>."""
    return 0xD5200000 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | register


def msr(register: int, op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """MSR S<op0>_<op1>_<crn>_<crm>_<op2>, X<register>."""
    return mrs(register, op0, op1, crn, crm, op2) ^ 1 << 21


def put(address: int, value: int) -> list[int]:
    """Write a word; X9 and X10 are used."""
    return [*mov(9, address), *mov(10, value), store(10, 9)]


def show(register: int) -> list[int]:
    """Send the low byte of a register to the console; X9 is used."""
    return [*mov(9, UART), store(register, 9)]


def psci(function: int) -> list[int]:
    """HVC with a PSCI function in X0."""
    return [*mov(0, function), 0xD4000002]


OFF = psci(0x8400_0008)
RESET = psci(0x8400_0009)


def flat(*parts: int | Iterable[int]) -> bytes:
    """The binary."""
    words = [word for part in parts for word in ([part] if isinstance(part, int) else part)]
    return struct.pack(f"<{len(words)}I", *words)
