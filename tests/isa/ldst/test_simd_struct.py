"""Structure loads and stores across pages, into a fault, and around V31."""

import pytest
from tests.isa.bench import GAP, RW, RW2, Bench, at

LD4_POST, ST4_POST = 0x4CDF0020, 0x4C820020  # {v0.16b-v3.16b}, [x1], #64 and [x1], x2
LD3 = 0x4C404420  # ld3 {v0.8h-v2.8h}, [x1]
LD4_WRAP = 0x0C40043E  # ld4 {v30.4h, v31.4h, v0.4h, v1.4h}, [x1]
LD2_LANE = 0x4DFF903F  # ld2 {v31.s, v0.s}[3], [x1], #8
LD1R = 0x0D40C820  # ld1r {v0.2s}, [x1]
DATA_ABORT = 0x25
IMAGE = bytes((7 * i + 3) & 0xFF for i in range(64))


def number(data: bytes) -> int:
    """A register's value from its bytes."""
    return int.from_bytes(data, "little")


@pytest.mark.parametrize("offset", [0, -1, -32, -63])
def test_ld4_across_pages(bench: Bench, offset: int) -> None:
    base = at(RW2, offset)
    bench.write(base, IMAGE)
    r = bench.run(LD4_POST, x={1: base})
    assert r.v[:4] == [number(IMAGE[i::4]) for i in range(4)]
    assert r.x[1] == base + 64


@pytest.mark.parametrize("offset", [0, -1, -32, -63])
def test_st4_across_pages(bench: Bench, offset: int) -> None:
    base = at(RW2, offset)
    r = bench.run(ST4_POST, x={1: base, 2: 5}, v={i: number(IMAGE[i::4]) for i in range(4)})
    assert bench.read(base - 1, 66) == b"\0" + IMAGE + b"\0"
    assert r.x[1] == base + 5


@pytest.mark.parametrize("word", [LD4_POST, ST4_POST])
def test_fault_in_the_second_page(bench: Bench, word: int) -> None:
    base = at(GAP, -50)
    r = bench.run(word, x={1: base, 2: 5}, v={i: i + 9 for i in range(4)})
    assert (r.ec, r.far, r.x[1], r.v[:4]) == (DATA_ABORT, at(GAP), base, [9, 10, 11, 12])
    assert bench.read(base, 50) == bytes(50)


def test_ld3(bench: Bench) -> None:
    bench.write(at(RW), IMAGE)
    r = bench.run(LD3, x={1: at(RW)})
    lanes = [IMAGE[i : i + 2] for i in range(0, 48, 2)]
    assert r.v[:3] == [number(b"".join(lanes[i::3])) for i in range(3)]


def test_registers_wrap_and_upper_halves_clear(bench: Bench) -> None:
    bench.write(at(RW), IMAGE)
    r = bench.run(LD4_WRAP, x={1: at(RW)})
    lanes = [IMAGE[i : i + 2] for i in range(0, 32, 2)]
    wanted = [number(b"".join(lanes[i::4])) for i in range(4)]
    assert [r.v[30], r.v[31], r.v[0], r.v[1]] == wanted


def test_one_lane_leaves_the_others(bench: Bench) -> None:
    bench.write(at(RW), IMAGE)
    old = number(bytes(range(16)))
    r = bench.run(LD2_LANE, x={1: at(RW)}, v={31: old, 0: old})
    assert r.v[31] == number(bytes(range(12)) + IMAGE[:4])
    assert r.v[0] == number(bytes(range(12)) + IMAGE[4:8])
    assert r.x[1] == at(RW, 8)


def test_replicate(bench: Bench) -> None:
    bench.write(at(RW), IMAGE)
    assert bench.run(LD1R, x={1: at(RW)}).v[0] == number(IMAGE[:4] * 2)
