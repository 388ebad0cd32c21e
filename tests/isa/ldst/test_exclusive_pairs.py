"""Load-exclusive and store-exclusive together: what one instruction alone cannot show.

A store-exclusive passes only after its load-exclusive (B2.9). Registers and memory are compared
with unicorn, and with what the manual says; test_exclusive.py has the monitor's own rules.
"""

from __future__ import annotations

import ctypes
import struct

import pytest
from tests.oracle.differ import Differ
from tests.oracle.samples import CODE, DATA, Sample

BASE = DATA + 0x100
CLREX, NOP = 0xD503305F, 0xD503201F
STR_X3_X0 = 0xF9000003
LDXP_SIZES = (2, 3)


@pytest.fixture(scope="module")
def differ() -> Differ:
    return Differ()


def _ldxr(size: int, acquire: int, rt: int, rn: int) -> int:
    return size << 30 | 0x085F7C00 | acquire << 15 | rn << 5 | rt


def _stxr(size: int, release: int, rs: int, rt: int, rn: int) -> int:
    return size << 30 | 0x08007C00 | release << 15 | rs << 16 | rn << 5 | rt


def _ldxp(size: int, rt: int, rt2: int, rn: int) -> int:
    return size << 30 | 0x087F0000 | rt2 << 10 | rn << 5 | rt


def _stxp(size: int, rs: int, rt: int, rt2: int, rn: int) -> int:
    return size << 30 | 0x08200000 | rs << 16 | rt2 << 10 | rn << 5 | rt


def _run(differ: Differ, words: list[int]) -> tuple[int, bytes]:
    """Run the words with X0 = BASE and X9 = BASE + 64: (X2, the 128 bytes at BASE)."""
    x = [0x1111_1111_1111_1111 * (i & 15) for i in range(32)]
    x[0], x[9] = BASE, BASE + 64
    sample = Sample(words[0], struct.pack("<32Q", *x) + bytes(512))
    image = bytes(range(128))
    out = []
    for cpu in (differ.subject, differ.peer):
        ctypes.memmove(cpu.data + 0x100, image, 128)
        cpu.place(struct.pack(f"<{len(words)}I", *words))
        assert cpu.step(CODE, sample, len(words)) == (False, CODE + 4 * len(words))
        out.append((cpu.registers(), ctypes.string_at(cpu.data + 0x100, 128)))
    assert out[0] == out[1]
    registers, memory = out[0]
    return struct.unpack_from("<Q", registers, 16)[0], memory


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("size", range(4))
def test_a_store_after_its_load_passes_once(differ: Differ, size: int, ordered: int) -> None:
    pair = [_ldxr(size, ordered, 1, 0), _stxr(size, ordered, 2, 3, 0)]
    status, memory = _run(differ, pair)
    assert status == 0
    assert memory[: 1 << size] == b"\x33" * (1 << size)
    again, _ = _run(differ, [*pair, _stxr(size, ordered, 2, 3, 0)])
    assert again == 1


@pytest.mark.parametrize("size", LDXP_SIZES)
def test_a_pair_passes(differ: Differ, size: int) -> None:
    status, memory = _run(differ, [_ldxp(size, 1, 5, 0), _stxp(size, 2, 3, 4, 0)])
    half = 1 << size
    assert status == 0
    assert memory[: 2 * half] == b"\x33" * half + b"\x44" * half


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([_stxr(3, 0, 2, 3, 0)], "no load before it"),
        ([_ldxr(3, 0, 1, 0), CLREX, _stxr(3, 0, 2, 3, 0)], "CLREX opens the monitor"),
        ([_ldxr(3, 0, 1, 9), _stxr(3, 0, 2, 3, 0)], "another address"),
        ([_ldxr(3, 0, 1, 0), STR_X3_X0, _stxr(3, 0, 2, 4, 0)], "memory has changed"),
        ([_ldxp(3, 1, 5, 0), STR_X3_X0, _stxp(3, 2, 3, 4, 0)], "half of the pair has changed"),
    ],
    ids=lambda x: x.replace(" ", "_") if isinstance(x, str) else "",
)
def test_a_store_fails(differ: Differ, words: list[int], why: str) -> None:
    status, memory = _run(differ, [NOP, *words])
    assert status == 1, why
    assert b"\x44" * 8 not in memory
