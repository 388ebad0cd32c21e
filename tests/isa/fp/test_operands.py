"""Floating point against unicorn and qemu-aarch64, with every setting of FPCR.

`make compare-fp` is the long run.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tests.conftest import Oracle
from tests.oracle import operands
from tests.oracle.operands import AFTER, BATCH, BEFORE, Armkvm, Operands, QemuUser, Unicorn

from armkvm.isa.disasm import decode, text

TUPLES = 300  # of each form


@pytest.fixture
def cpus(tmp_path: Path, oracle: Oracle) -> list[Unicorn | QemuUser]:
    programs = [oracle(name) for name in QemuUser.PROGRAMS]
    return [Unicorn(), *([QemuUser(tmp_path)] if all(programs) else [])]


def test_results_and_flags_are_theirs(cpus: list[Unicorn | QemuUser]) -> None:
    chosen = operands.floating_point()
    assert len(chosen) > 500
    found = [f"{peer}: {line}" for peer, _, line in operands.compare(cpus, chosen, TUPLES, seed=1)]
    assert found == [], f"{len(found)}\n" + "\n".join(found[:5])
    for cpu in cpus:
        cpu.close()


def test_a_wrong_result_would_be_reported(cpus: list[Unicorn | QemuUser]) -> None:
    """The peers get FMUL where armkvm gets FMULX: infinity times zero differs."""
    fmulx, fmul = 0x5E62DC20, 0x1E620820
    batch = Operands(1).batch(BATCH)
    mine = Armkvm().run(fmulx, batch)
    for cpu in cpus:
        assert list(operands.differences(fmul, batch, mine, cpu.run(fmulx, batch))) == []
        lines = list(operands.differences(fmulx, batch, mine, cpu.run(fmul, batch)))
        assert 0 < len(lines) < BATCH // 4
        assert all("fmulx d0, d1, d2 fpcr=" in line for line in lines)
        assert any("4000000000000000 x=0 fpsr=0 " in line for line in lines)
        cpu.close()


def test_a_batch_draws_every_control_and_many_nans() -> None:
    batch = Operands(7).batch(BATCH)
    tuples = [struct.unpack_from("<6QQQ", batch, 64 * i) for i in range(BATCH)]
    assert {t[6] & 0xFFFF_FFFF for t in tuples} == {
        rmode << 22 | bits << 24 for rmode in range(4) for bits in range(8)
    }
    nans = [[t[i] & (1 << 63) - 1 > 0x7FF << 52 for i in (0, 2, 4)] for t in tuples]
    assert sum(all(one) for one in nans) > 3
    assert sum(sum(one) == 2 for one in nans) > 30


def test_the_loop_is_what_it_says() -> None:
    for i, (word, said) in enumerate([*BEFORE, (0, ""), *AFTER]):
        form = decode(word)
        if said:
            assert form is not None
            assert text(form, word, 4 * i) == said
