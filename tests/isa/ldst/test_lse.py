"""Atomics: what the comparison with unicorn 2.1.4 cannot say.

It compares the narrow LDSMAX and LDSMIN without extending their signs, and does not check the
permission of a compare-and-swap whose comparison fails.
"""

import pytest
from tests.isa.bench import RO, RW, Bench

DATA_ABORT, ALIGNMENT, PERMISSION_L3 = 0x25, 0x21, 0x0F
X1 = Bench.data + RW * Bench.page + 0x40
# op w0, w2, [x1], with size and opc as in C4.1
BASE = 0x38200022
SMAX, SMIN, UMAX, UMIN = range(4, 8)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("op", [SMAX, SMIN, UMAX, UMIN])
def test_minimum_and_maximum(bench: Bench, op: int, size: int) -> None:
    bits = 8 << size
    corners = [0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1]
    flip = 1 << bits - 1 if op in (SMAX, SMIN) else 0  # order of signed numbers
    pick = max if op in (SMAX, UMAX) else min
    for old in corners:
        for x in corners:
            bench.write(X1, old.to_bytes(8, "little"))
            # Bits above the size must not matter.
            noise = 0 if size == 3 else (x ^ 1) << bits & (1 << 64) - 1
            r = bench.run(size << 30 | BASE | op << 12, x={0: x | noise, 1: X1})
            new = pick(old ^ flip, x ^ flip) ^ flip
            assert r.x[2] == old
            assert bench.read(X1, 8) == new.to_bytes(8, "little")


LDADD, CAS, CASP = 0xF8200022, 0xC8A07C22, 0x48227C24  # x0, x2, [x1]; x2, x3, x4, x5, [x1]


def test_compare_that_fails_writes_nothing(bench: Bench) -> None:
    bench.write(X1, bytes(range(16)))
    r = bench.run(CAS, x={0: 5, 1: X1, 2: 6})
    assert (r.x[0], r.x[2]) == (0x0706_0504_0302_0100, 6)
    r = bench.run(CASP, x={1: X1, 2: 0x0706_0504_0302_0100, 3: 1})
    assert (r.x[2], r.x[3]) == (0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908)
    assert bench.read(X1, 16) == bytes(range(16))


@pytest.mark.parametrize(("word", "size"), [(LDADD, 8), (CAS, 8), (CASP, 16)])
def test_alignment_and_permission(bench: Bench, word: int, size: int) -> None:
    """Both are checked whatever would be written, and the registers stay."""
    read_only = Bench.data + RO * Bench.page
    for address, dfsc in ((X1 + size // 2, ALIGNMENT), (read_only, PERMISSION_L3)):
        bench.write(read_only, bytes([1] * 16))
        r = bench.run(word, x={0: 5, 1: address, 2: 6, 3: 7})
        assert (r.ec, r.dfsc, r.far) == (DATA_ABORT, dfsc, address)
        assert (r.x[0], r.x[2], r.x[3]) == (5, 6, 7)
        assert bench.read(read_only, 16) == bytes([1] * 16)
        assert bench.read(X1, 32) == bytes(32)
