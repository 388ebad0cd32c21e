"""Copies between elements and general registers, and modified immediates (Arm ARM, C4.1, C7.2)."""

from __future__ import annotations

import pytest
from tests.isa.bench import Bench
from tests.isa.simd.simd_bench import HIGH, Simd, lanes

from armkvm.isa.disasm import disassemble

BYTES = 0x8F8E8D8C8B8A89888786858483828180
MASK64 = (1 << 64) - 1


@pytest.fixture
def run(bench: Bench) -> Simd:
    return Simd(bench)


def test_duplicate(run: Simd) -> None:
    assert run(0x4E1B0420, "dup v0.16b, v1.b[13]", v1=BYTES).d == 0x8D * (2**128 // 255)
    assert run(0x0E1C0400, "dup v0.2s, v0.s[3]", v0=BYTES).d == 0x8F8E8D8C_8F8E8D8C
    assert run(0x5E1E0420, "mov h0, v1.h[7]", v0=HIGH, v1=BYTES).d == 0x8F8E
    assert (
        run(0x0E020C20, "dup v0.4h, w1", v0=HIGH, x1=0x1234_5678_9ABC_DEF0).d
        == 0xDEF0_DEF0_DEF0_DEF0
    )
    assert run(0x4E080FE0, "dup v0.2d, xzr", v0=HIGH).d == 0


def test_the_index_bits_of_dup_general_are_ignored(run: Simd) -> None:
    assert run(0x4E1F0C20, "dup v0.16b, w1", x1=0x1FF).d == (1 << 128) - 1
    assert run(0x0E1E0C20, "dup v0.4h, w1", x1=0x1FFFF).d == MASK64


def test_insert_keeps_all_other_elements(run: Simd) -> None:
    assert (
        run(0x4E1F1C20, "mov v0.b[15], w1", v0=BYTES, x1=0x155).d
        == BYTES & (1 << 120) - 1 | 0x55 << 120
    )
    assert run(0x4E181C20, "mov v0.d[1], x1", v0=BYTES, x1=7).d == BYTES & MASK64 | 7 << 64
    assert run(0x6E046400, "mov v0.s[0], v0.s[3]", v0=BYTES).d == BYTES & ~0xFFFF_FFFF | 0x8F8E8D8C
    want = BYTES & ~(0xFFFF << 32) | 0x8F8E << 32
    assert run(0x6E0A7420, "mov v0.h[2], v1.h[7]", v0=BYTES, v1=BYTES).d == want
    # The bits of imm4 below the index are ignored: H[7] again.
    assert run(0x6E0A7C20, "mov v0.h[2], v1.h[7]", v0=BYTES, v1=BYTES).d == want


def test_move_to_general(run: Simd) -> None:
    assert run(0x0E012C23, "smov w3, v1.b[0]", v1=BYTES).x[3] == 0xFFFF_FF80
    assert run(0x4E1C2C23, "smov x3, v1.s[3]", v1=BYTES).x[3] == 0xFFFF_FFFF_8F8E_8D8C
    assert run(0x0E1E3C23, "umov w3, v1.h[7]", v1=BYTES).x[3] == 0x8F8E
    assert run(0x0E0C3C23, "mov w3, v1.s[1]", v1=BYTES).x[3] == 0x87868584
    assert run(0x4E183C23, "mov x3, v1.d[1]", v1=BYTES).x[3] == 0x8F8E8D8C8B8A8988


def expand_imm(op: int, cmode: int, imm8: int) -> int:
    """AdvSIMDExpandImm() as the manual writes it."""
    match cmode >> 1:
        case 0 | 1 | 2 | 3:
            word = imm8 << 8 * (cmode >> 1)
            return word << 32 | word
        case 4 | 5:
            half = imm8 << 8 * (cmode >> 1 & 1)
            return sum(half << at for at in range(0, 64, 16))
        case 6:
            word = imm8 << 16 | 0xFFFF if cmode & 1 else imm8 << 8 | 0xFF
            return word << 32 | word
        case _:
            if op:
                return sum(0xFF << 8 * i for i in range(8) if imm8 >> i & 1)
            return sum(imm8 << at for at in range(0, 64, 8))


@pytest.mark.parametrize("cmode", range(15))
@pytest.mark.parametrize("op", [0, 1])
@pytest.mark.parametrize("Q", [0, 1])
def test_modified_immediates(run: Simd, Q: int, op: int, cmode: int) -> None:
    for imm8 in (0, 1, 0x80, 0xA5, 0x5A, 0xFF):
        word = 0x0F000400 | Q << 30 | op << 29 | imm8 >> 5 << 16 | cmode << 12 | (imm8 & 31) << 5
        imm64 = expand_imm(op, cmode, imm8)
        imm = imm64 << 64 | imm64 if Q else imm64
        old = BYTES if Q else BYTES & MASK64
        everything = (1 << 128) - 1 if Q else MASK64
        if cmode & 1 and cmode < 12:
            want = old & ~imm if op else old | imm
        elif op and cmode != 14:
            want = ~imm & everything
        else:
            want = imm
        text = disassemble(word)
        assert text is not None
        assert run(word, text, v0=BYTES).d == want


def test_bitwise_selections(run: Simd) -> None:
    """BSL selects by the destination, BIT and BIF insert by the second operand."""
    d, n, m = lanes(8, 0b1100), lanes(8, 0b1010), lanes(8, 0b0110)
    assert run(0x6E621C20, "bsl v0.16b, v1.16b, v2.16b", v0=d, v1=n, v2=m).d == 0b1010
    assert run(0x6EA21C20, "bit v0.16b, v1.16b, v2.16b", v0=d, v1=n, v2=m).d == 0b1010
    assert run(0x6EE21C20, "bif v0.16b, v1.16b, v2.16b", v0=d, v1=n, v2=m).d == 0b1100
    assert run(0x0EE21C20, "orn v0.8b, v1.8b, v2.8b", v0=HIGH, v1=n, v2=m).d == MASK64 & ~0b0100
    assert run(0x0E621C20, "bic v0.8b, v1.8b, v2.8b", v0=HIGH, v1=n, v2=m).d == 0b1000
