"""Pairs: faults in the second page, one register named twice."""

import pytest
from tests.isa.bench import GAP, RW, RW2, Bench, at

LDP_POST, STP_PRE = 0xA8C10820, 0xA9BF0820  # ldp x0, x2, [x1], #16; stp x0, x2, [x1, #-16]!
LDPSW = 0x69400820  # ldpsw x0, x2, [x1]
LDP_Q, STP_Q = 0xAD400420, 0xAD000420  # q0, q1, [x1]
DATA_ABORT = 0x25


@pytest.mark.parametrize("before", [8, 3, 1, 15])
def test_load_that_faults_in_its_second_page(bench: Bench, before: int) -> None:
    """Neither register of the first page is loaded, and there is no writeback."""
    base = at(GAP, -before)
    r = bench.run(LDP_POST, x={0: 10, 1: base, 2: 12})
    assert (r.ec, r.far, r.wnr, r.pc) == (DATA_ABORT, at(GAP), 0, 0)
    assert (r.x[0], r.x[1], r.x[2]) == (10, base, 12)


@pytest.mark.parametrize("before", [8, 3, 1, 15])
def test_store_that_faults_in_its_second_page(bench: Bench, before: int) -> None:
    base = at(GAP, 16 - before)
    r = bench.run(STP_PRE, x={0: 10, 1: base, 2: 12})
    assert (r.ec, r.far, r.wnr, r.x[1]) == (DATA_ABORT, at(GAP), 1, base)
    assert bench.read(at(GAP, -32), 32) == bytes(32)


def test_quadwords_across_pages(bench: Bench) -> None:
    low, high = int.from_bytes(range(16), "little"), int.from_bytes(range(16, 32), "little")
    base = at(RW2, -13)
    bench.run(STP_Q, x={1: base}, v={0: low, 1: high})
    assert bench.read(base, 32) == bytes(range(32))
    r = bench.run(LDP_Q, x={1: base})
    assert (r.v[0], r.v[1]) == (low, high)


def test_ldpsw(bench: Bench) -> None:
    bench.write(at(RW), bytes.fromhex("ffffff7f 00000080"))
    r = bench.run(LDPSW, x={1: at(RW)})
    assert (r.x[0], r.x[2]) == (0x7FFF_FFFF, 0xFFFF_FFFF_8000_0000)


def test_one_register_named_twice(bench: Bench) -> None:
    """CONSTRAINED UNPREDICTABLE (K1.2): QEMU's choice."""
    bench.write(at(RW), bytes([1] * 8 + [2] * 8 + [3] * 16))
    ldp_x0_x0, ldp_q0_q0 = 0xA9400020, 0xAD400020
    assert bench.run(ldp_x0_x0, x={1: at(RW)}).x[0] == 0x0101_0101_0101_0101
    assert bench.run(ldp_q0_q0, x={1: at(RW)}).v[0] == int.from_bytes([3] * 16, "little")
