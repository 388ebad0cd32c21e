"""The local exclusive monitor (B2.9)."""

import pytest
from tests.isa.bench import GAP, RO, RW, Bench

LDXR, STXR = 0xC85F7C20, 0xC8027C23  # ldxr x0, [x1]; stxr w2, x3, [x1]
STXR_AT_X7, STXR_W = 0xC8027CE3, 0x88027C23  # stxr w2, x3, [x7]; stxr w2, w3, [x1]
LDXP, STXP = 0xC87F1020, 0xC8221423  # ldxp x0, x4, [x1]; stxp w2, x3, x5, [x1]
LDXP_W, STXP_W = 0x887F1020, 0x88221423
STR_W6 = 0xB9000026  # str w6, [x1]
DATA_ABORT, ALIGNMENT, PERMISSION_L3 = 0x25, 0x21, 0x0F
X1 = Bench.data + RW * Bench.page + 0x40
OLD, NEW = bytes(range(1, 17)), 0x1234_5678_9ABC_DEF0


@pytest.fixture
def armed(bench: Bench) -> Bench:
    """Memory at X1 holds OLD."""
    bench.write(X1, OLD)
    return bench


def stored(bench: Bench) -> bool:
    """Whether memory at X1 holds NEW; otherwise it must be as it was."""
    value = bench.read(X1, 16)
    if value == NEW.to_bytes(8, "little") + OLD[8:]:
        return True
    assert value == OLD
    return False


def test_pass(armed: Bench) -> None:
    r = armed.run(LDXR, STXR, x={1: X1, 3: NEW})
    assert (r.x[0].to_bytes(8, "little"), r.x[2], stored(armed)) == (OLD[:8], 0, True)


def test_store_without_load(armed: Bench) -> None:
    armed.cpu.state.excl_addr = (1 << 64) - 1
    r = armed.run(STXR, x={1: X1, 3: NEW})
    assert (r.x[2], stored(armed)) == (1, False)


def test_a_store_exclusive_opens_the_monitor(armed: Bench) -> None:
    """Even when it stored the very value that the load saw."""
    seen = int.from_bytes(OLD[:8], "little")
    assert armed.run(LDXR, STXR, x={1: X1, 3: seen}).x[2] == 0
    assert armed.run(LDXR, STXR, STXR, x={1: X1, 3: seen}).x[2] == 1


@pytest.mark.parametrize("wrong", [STXR_W, STXR_AT_X7])
def test_another_size_or_address_fails_and_opens_the_monitor(armed: Bench, wrong: int) -> None:
    r = armed.run(LDXR, wrong, x={1: X1, 3: NEW, 7: X1 + 16})
    assert (r.x[2], stored(armed), armed.read(X1 + 16, 8)) == (1, False, bytes(8))
    r = armed.run(LDXR, wrong, STXR, x={1: X1, 3: NEW, 7: X1 + 16})
    assert (r.x[2], stored(armed)) == (1, False)


def test_a_store_in_between(armed: Bench) -> None:
    r = armed.run(LDXR, STR_W6, STXR, x={1: X1, 3: NEW, 6: 0x99})
    assert r.x[2] == 1
    assert armed.read(X1, 8) == (0x99).to_bytes(4, "little") + OLD[4:8]


def test_a_store_from_outside(armed: Bench) -> None:
    """Another observer writes between load and store: here, the host."""
    armed.run(LDXR, x={1: X1})
    armed.write(X1 + 7, b"!")
    r = armed.run(STXR, x={1: X1, 3: NEW})
    assert (r.x[2], armed.read(X1, 8)) == (1, OLD[:7] + b"!")


@pytest.mark.parametrize("changed", [0, 7, 8, 15, None])
def test_pair(armed: Bench, changed: int | None) -> None:
    r = armed.run(LDXP, x={1: X1})
    assert r.x[0].to_bytes(8, "little") + r.x[4].to_bytes(8, "little") == OLD
    if changed is not None:
        armed.write(X1 + changed, b"!")
    before = armed.read(X1, 16)
    r = armed.run(STXP, x={1: X1, 3: NEW, 5: 5})
    assert r.x[2] == (changed is not None)
    wanted = NEW.to_bytes(8, "little") + (5).to_bytes(8, "little")
    assert armed.read(X1, 16) == (before if r.x[2] else wanted)


def test_word_pair(armed: Bench) -> None:
    r = armed.run(LDXP_W, STXP_W, x={1: X1, 3: NEW, 5: 5})
    assert (r.x[0], r.x[4], r.x[2]) == (0x0403_0201, 0x0807_0605, 0)
    assert armed.read(X1, 8) == (NEW & 0xFFFF_FFFF | 5 << 32).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("word", "size"),
    [(LDXR, 8), (STXR, 8), (STXR_W, 4), (LDXP, 16), (STXP, 16), (LDXP_W, 8), (STXP_W, 8)],
)
def test_alignment(armed: Bench, word: int, size: int) -> None:
    """B2.5.2: natural alignment, a pair's to its whole size, whatever SCTLR_EL1.A says."""
    r = armed.run(word, x={0: 9, 1: X1 + size // 2, 2: 9, 4: 9})
    assert (r.ec, r.dfsc, r.far) == (DATA_ABORT, ALIGNMENT, X1 + size // 2)
    assert (r.x[0], r.x[2], r.x[4]) == (9, 9, 9)
    assert armed.read(X1, 16) == OLD
    assert armed.run(word, x={1: X1 + size}).ec is None


def test_faults_leave_the_registers(armed: Bench) -> None:
    gap, read_only = Bench.data + GAP * Bench.page, Bench.data + RO * Bench.page
    r = armed.run(STXR, x={1: gap, 2: 9})
    assert (r.ec, r.wnr, r.x[2]) == (DATA_ABORT, 1, 9)
    r = armed.run(LDXR, STXR, x={1: read_only, 2: 9})
    assert (r.ec, r.dfsc, r.wnr, r.pc, r.x[2]) == (DATA_ABORT, PERMISSION_L3, 1, 4, 9)


def test_exception_return_opens_the_monitor(armed: Bench) -> None:
    armed.run(LDXR, x={1: X1})
    assert armed.cpu.state.excl_addr == X1
    s = armed.cpu.state
    s.elr_el1, s.spsr_el1 = s.pc, 0x3C5
    armed.run(0xD69F03E0)  # eret
    assert armed.cpu.state.excl_addr == (1 << 64) - 1
