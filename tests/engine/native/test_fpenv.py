"""FPCR and FPSR, and the host's floating-point environment around a run, on any host."""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Iterator

import pytest
from tests.engine.a64 import NOP, mrs, msr
from tests.engine.world import EL0, World

from armkvm.engine.cpu import Exit

FDIV, FADD, FCVTZS = 0x1E611800, 0x1E612800, 0x9E780000  # d0, d0, d1; x0, d0
FPCR_BITS, FPSR_BITS = 0x07C0_0000, 0xF800_009F
IOC, DZC, OFC, UFC, IXC, IDC, QC = 1, 2, 4, 8, 16, 128, 1 << 27
UP, DOWN, ZERO, FZ, DN = 1 << 22, 2 << 22, 3 << 22, 1 << 24, 1 << 25


def double(x: float) -> int:
    """Its bits."""
    return int.from_bytes(struct.pack("<d", x), "little")


def quotient(world: World, a: float, b: float, fpcr: int = 0) -> int:
    """Bits of a / b."""
    world.cpu.set_v(0, double(a))
    world.cpu.set_v(1, double(b))
    world.execute(msr("fpcr", 3), FDIV, x3=fpcr)
    return world.cpu.get_v(0)


@pytest.mark.parametrize("pstate", [EL0, 0x3C5])
def test_registers_keep_their_bits(world: World, pstate: int) -> None:
    for name, bits in (("fpcr", FPCR_BITS), ("fpsr", FPSR_BITS)):
        for value in (0, (1 << 64) - 1, 0x5555_5555, 0xAAAA_AAAA):
            world.code(msr(name, 1), mrs(0, name))
            world.start(pstate=pstate, x1=value)
            assert world.run(2) == Exit.LIMIT
            assert world.s.x[0] == value & bits
            assert getattr(world.s, name) == value & bits
    world.execute(msr("fpcr", 31))


def test_rounding_modes(world: World) -> None:
    """Each mode, set by MSR and still there in the next run."""
    nearest = quotient(world, 1.0, 3.0)
    assert nearest == double(1 / 3)
    results = {mode: quotient(world, 1.0, 3.0, mode) for mode in (UP, DOWN, ZERO)}
    assert results == {UP: nearest + 1, DOWN: nearest, ZERO: nearest}
    assert quotient(world, -1.0, 3.0, DOWN) == (1 << 63 | nearest + 1)
    world.cpu.set_v(0, double(1.0))
    world.execute(FDIV)  # still DOWN
    assert world.cpu.get_v(0) == nearest
    world.s.fpcr = UP  # as the hypervisor sets it
    world.cpu.set_v(0, double(1.0))
    world.execute(FDIV)
    assert world.cpu.get_v(0) == nearest + 1


@pytest.mark.parametrize(
    ("a", "b", "flags"),
    [
        (1.0, 2.0, 0), (1.0, 3.0, IXC), (1.0, 0.0, DZC), (0.0, 0.0, IOC),
        (1e308, 1e-10, OFC | IXC), (1e-308, 1e10, UFC | IXC),
    ],
)  # fmt: skip
def test_cumulative_flags(world: World, a: float, b: float, flags: int) -> None:
    """They gather until FPSR is written; reading does not clear them."""
    world.cpu.fpsr = QC
    quotient(world, a, b)
    assert world.cpu.fpsr == QC | flags
    world.execute(mrs(0, "fpsr"), mrs(1, "fpsr"))
    assert (world.s.x[0], world.s.x[1]) == (QC | flags, QC | flags)
    quotient(world, 1.0, 3.0)
    assert world.cpu.fpsr == QC | flags | IXC
    world.execute(msr("fpsr", 31), mrs(0, "fpsr"))
    assert world.s.x[0] == 0
    assert world.cpu.fpsr == 0


def test_flags_survive_a_change_of_mode(world: World) -> None:
    world.cpu.set_v(0, double(1.0))
    world.cpu.set_v(1, double(3.0))
    world.execute(FDIV, msr("fpcr", 1), mrs(0, "fpsr"), x1=UP)
    assert world.s.x[0] == IXC
    world.s.fpcr = 0


def test_flush_to_zero(world: World) -> None:
    """FZ: denormal operands are zero and raise IDC, not UFC or IXC."""
    tiny = 5e-324
    assert quotient(world, tiny, 1.0) == 1
    assert quotient(world, tiny, 1.0, 1 << 24) == 0
    assert world.cpu.fpsr & (IDC | UFC | IXC) == IDC


def test_two_guests_do_not_mix(world: World) -> None:
    other = World(world.stage2.engine)
    quotient(world, 1.0, 0.0, UP)
    assert quotient(other, 1.0, 3.0) == double(1 / 3)
    assert (world.cpu.fpsr, other.cpu.fpsr) == (DZC, IXC)
    assert (world.s.fpcr, other.s.fpcr) == (UP, 0)


# -- the host -------------------------------------------------------------------------------
_libm = ctypes.CDLL("libm.so.6")
# glibc's fenv_t: bytes of the control and status registers, and values to leave them with:
# other roundings, flush-to-zero, flags raised.
_ENVIRONMENTS = {
    "x86_64": (slice(28, 32), [0x1F80, 0x5F80, 0x9FC0, 0x1FA0, 0x1FBF]),
    "aarch64": (slice(0, 8), [0, UP, ZERO | FZ | DN, IXC << 32, UP | (IOC | UFC | IDC) << 32]),
}
_PLACE, _VALUES = _ENVIRONMENTS[platform.machine()]


class _Host:
    """The registers of this thread, through fegetenv(3) and fesetenv(3)."""

    def __init__(self) -> None:
        self.env = ctypes.create_string_buffer(64)

    def get(self) -> int:
        assert _libm.fegetenv(self.env) == 0
        return int.from_bytes(self.env.raw[_PLACE], "little")

    def set(self, value: int) -> None:
        self.get()
        raw = bytearray(self.env.raw)
        raw[_PLACE] = value.to_bytes(_PLACE.stop - _PLACE.start, "little")
        self.env.raw = bytes(raw)
        assert _libm.fesetenv(self.env) == 0


@pytest.fixture
def host() -> Iterator[_Host]:
    """The host's environment, put back afterwards."""
    h = _Host()
    before = h.get()
    yield h
    h.set(before)


@pytest.mark.parametrize("own", _VALUES)
@pytest.mark.parametrize("fpcr", [0, UP, ZERO | FZ])
def test_environment_of_the_host(world: World, host: _Host, own: int, fpcr: int) -> None:
    """Rounding, flush-to-zero and flags of the process are what they were, whatever ran."""
    world.cpu.set_v(0, double(1.0))
    world.cpu.set_v(1, double(3.0))
    world.code(msr("fpcr", 3), FDIV, NOP)
    world.start(x3=fpcr)
    world.s.limit = world.s.count + 3
    host.set(own)
    left = world.cpu.run()
    after = host.get()
    host.set(_VALUES[0])
    assert after == own
    assert left == Exit.LIMIT
    assert world.cpu.fpsr == IXC
    assert world.cpu.get_v(0) == double(1 / 3) + (fpcr == UP)
