"""Faults of single loads and stores, the state after them, CONSTRAINED UNPREDICTABLE choices."""

import pytest
from tests.isa.bench import EL1_ONLY, GAP, RO, RW, RW2, Bench, at

LDR, STR = 0xF9400020, 0xF9000020  # ldr x0, [x1]; str x0, [x1]
LDR_POST, LDR_PRE = 0xF8408420, 0xF8408C20  # ldr x0, [x1], #8; ldr x0, [x1, #8]!
STR_POST, STR_PRE = 0xF8008420, 0xF8008C20
STR_Q, LDR_Q_POST = 0x3D800020, 0x3CC10420  # str q0, [x1]; ldr q0, [x1], #16

TRANSLATION_L3, PERMISSION_L3, ALIGNMENT = 0x07, 0x0F, 0x21
DATA_ABORT, SP_ALIGNMENT, FP_TRAP = 0x25, 0x26, 0x07


@pytest.mark.parametrize("word", [LDR_POST, LDR_PRE, STR_POST, STR_PRE, LDR_Q_POST])
def test_no_writeback_on_a_fault(bench: Bench, word: int) -> None:
    """D1: on a data abort the base register is restored."""
    base = at(GAP, 0x40)
    r = bench.run(word, x={0: 5, 1: base}, v={0: 6})
    assert (r.ec, r.dfsc, r.x[0], r.x[1], r.v[0]) == (DATA_ABORT, TRANSLATION_L3, 5, base, 6)
    assert r.far == base + (8 if word in (LDR_PRE, STR_PRE) else 0)
    assert r.wnr == (word in (STR_POST, STR_PRE))
    assert r.pc == 0


def test_store_to_read_only_memory(bench: Bench) -> None:
    bench.write(at(RO), b"8 bytes.")
    assert bench.run(LDR, x={1: at(RO)}).x[0] == int.from_bytes(b"8 bytes.", "little")
    r = bench.run(STR_PRE, x={1: at(RO) - 8})
    assert (r.ec, r.dfsc, r.wnr, r.x[1]) == (DATA_ABORT, PERMISSION_L3, 1, at(RO) - 8)
    assert bench.read(at(RO), 8) == b"8 bytes."


@pytest.mark.parametrize("offset", [-1, -4, -7])
def test_page_crossing(bench: Bench, offset: int) -> None:
    base = at(RW2, offset)
    bench.run(STR, x={0: 0x8877665544332211, 1: base})
    assert bench.read(base - 1, 10) == bytes([0, *range(0x11, 0x99, 0x11), 0])
    assert bench.run(LDR, x={1: base}).x[0] == 0x8877665544332211


@pytest.mark.parametrize(("word", "size"), [(STR, 8), (STR_Q, 16)])
def test_a_store_that_faults_in_its_second_page_writes_nothing(
    bench: Bench, word: int, size: int
) -> None:
    """FAR_EL1 names the first byte that faulted: the beginning of the second page."""
    r = bench.run(word, x={0: -1 & (1 << 64) - 1, 1: at(GAP, -1)})
    assert (r.ec, r.dfsc, r.wnr, r.far) == (DATA_ABORT, TRANSLATION_L3, 1, at(GAP))
    assert bench.read(at(GAP) - size, size) == bytes(size)


def test_a_load_that_faults_in_its_first_page(bench: Bench) -> None:
    r = bench.run(LDR_POST, x={0: 1, 1: at(RO, -3)})
    assert (r.ec, r.wnr, r.far, r.x[0], r.x[1]) == (DATA_ABORT, 0, at(RO, -3), 1, at(RO, -3))


def test_sp_must_be_aligned(bench: Bench) -> None:
    """CheckSPAlignment(); a prefetch checks nothing (C6.2)."""
    ldr, prfm = 0xF94003E0, 0xF98003E0  # [sp]
    assert bench.run(ldr, x={0: 3, 31: at(RW, 8)}).ec == SP_ALIGNMENT
    assert bench.run(ldr, x={31: at(RW, 16)}).ec is None
    assert bench.run(prfm, x={31: at(RW, 8)}).ec is None


def test_unprivileged(bench: Bench) -> None:
    """LDTR and STTR at EL1 have the permissions of EL0."""
    ldtr, sttr = 0xF8400820, 0xF8000820  # [x1]
    assert bench.run(LDR, STR, x={1: at(EL1_ONLY)}).ec is None
    for word in (ldtr, sttr):
        r = bench.run(word, x={1: at(EL1_ONLY)})
        assert (r.ec, r.dfsc, r.wnr) == (DATA_ABORT, PERMISSION_L3, word == sttr)
        assert bench.run(word, x={1: at(RW)}).ec is None
    # One after the other on the same page: neither may use what the other was allowed.
    assert bench.run(LDR, ldtr, x={1: at(EL1_ONLY)}).pc == 4


def test_writeback_to_the_transfer_register(bench: Bench) -> None:
    """A store writes the old value; after a load the register holds the address."""
    str_pre, ldr_pre = 0xF8008C21, 0xF8408C21  # str x1, [x1, #8]!; ldr x1, [x1, #8]!
    r = bench.run(str_pre, x={1: at(RW)})
    assert (r.x[1], bench.read(at(RW, 8), 8)) == (at(RW, 8), at(RW).to_bytes(8, "little"))
    assert bench.run(ldr_pre, x={1: at(RW, 8)}).x[1] == at(RW, 16)


@pytest.mark.parametrize(
    ("word", "size"), [(0xC8DFFC20, 8), (0x489FFC20, 2)], ids=["ldar x0", "stlrh w0"]
)
def test_ordered_accesses_are_aligned(bench: Bench, word: int, size: int) -> None:
    for offset in range(size):
        r = bench.run(word, x={0: 7, 1: at(RW, offset)})
        if offset:
            assert (r.ec, r.dfsc, r.far) == (DATA_ABORT, ALIGNMENT, at(RW, offset))
            assert r.x[0] == 7
        else:
            assert r.ec is None


def test_fp_trap_before_the_access(bench: Bench) -> None:
    """CheckFPEnabled64() comes first: neither an abort nor a write happens."""
    bench.cpu.set_sysreg(3, 0, 1, 0, 2, 0)  # CPACR_EL1
    assert bench.run(STR_Q, x={1: at(GAP)}).ec == FP_TRAP
    assert bench.run(STR_Q, x={1: at(RW)}).ec == FP_TRAP
    assert bench.read(at(RW), 16) == bytes(16)
