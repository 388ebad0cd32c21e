"""System registers: encodings, who may access them, which bits they keep (Arm ARM D17)."""

from __future__ import annotations

import re

import pytest
from tests.engine.a64 import mrs, msr, sys_word
from tests.engine.world import CODE, EL0, EL1H, World

from armkvm.arch.sysreg import ALL, BY_ENCODING, BY_NAME, STORED, SYSREGS, SysReg
from armkvm.engine.cpu import Engine, Exit

# What EL0 of an Armv8.0 CPU can name: read-write, read-only (D17.1, "Accessibility").
EL0_RW = {"TPIDR_EL0", "NZCV", "DAIF", "FPCR", "FPSR"}
EL0_RW |= {f"CNT{t}_{r}_EL0" for t in "PV" for r in ("TVAL", "CTL", "CVAL")}
EL0_RO = {"CTR_EL0", "DCZID_EL0", "TPIDRRO_EL0", "CNTFRQ_EL0", "CNTPCT_EL0", "CNTVCT_EL0"}

# Written with ones: what reads back. Everything else here keeps all that is written.
KEEPS = {
    # LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS, SED, ITD are RES1; EE, E0E, CP15BEN and all later RES0.
    "SCTLR_EL1": 0x34DD_DB9F,
    "CPACR_EL1": 0x0030_0000,  # FPEN: no SVE, no trace
    "TTBR0_EL1": ALL & ~1,  # no FEAT_TTCNP
    "TTBR1_EL1": ALL & ~1,
    "TCR_EL1": 0x77_FFFF_FFBF,  # up to TBI1; bits 6 and 35 are RES0
    "VBAR_EL1": ALL & ~0x7FF,
    "CSSELR_EL1": 0xF,
    "SPSR_EL1": 0xFFFF_FFFF,
    "ESR_EL1": 0xFFFF_FFFF,
    "CONTEXTIDR_EL1": 0xFFFF_FFFF,
    "MDSCR_EL1": 0xFFFF_FFFF,
    "CNTKCTL_EL1": 0x3FF,
}
RESET = {"SCTLR_EL1": 0x30D5_0998}
RES1 = {"SCTLR_EL1": 0x30D0_0980}

WRITABLE = [r for r in STORED if r.el1 == "rw"]
READ_ONLY = [r for r in SYSREGS if r.el1 == "ro"]


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def names(rows: list[SysReg]) -> list[str]:
    return [r.name for r in rows]


def test_rows() -> None:
    """No two rows share a name or an encoding; no encoding is outside the MSR/MRS space."""
    assert len(BY_NAME) == len(BY_ENCODING) == len(SYSREGS)
    for r in SYSREGS:
        op0, op1, crn, crm, op2 = r.enc
        assert op0 in (2, 3)
        assert op1 < 8
        assert crn < 16
        assert crm < 16
        assert op2 < 8
        assert r.name == r.name.upper()
        assert not r.ones & ~ALL
        # The suffix says the lowest level that may use it; op1 agrees with that (D17.1.2).
        level = re.search(r"_EL(\d)$", r.name)
        if level and op0 == 3:
            assert (op1 == 3) == (level[1] == "0" and r.name != "SP_EL0")


def test_id_space_has_no_holes() -> None:
    """3_0_c0_c1 to c7: all readable at EL1, reserved ones zero (D17.1.3)."""
    for crm in range(1, 8):
        for op2 in range(8):
            r = BY_ENCODING[(3, 0, 0, crm, op2)]
            assert (r.kind, r.el1, r.el0) == ("id", "ro", "")


@pytest.mark.parametrize("r", WRITABLE, ids=names(WRITABLE))
def test_bits_that_stay(world: World, r: SysReg) -> None:
    for value in (ALL, 0, 0x5555_5555_5555_5555):
        world.cpu.reset()
        world.code(msr(r.name, 1))
        world.start(x1=value)
        assert world.run() == Exit.LIMIT
        ones = RES1.get(r.name, 0)
        expected = value & KEEPS.get(r.name, ALL) | ones
        assert getattr(world.s, r.field) == expected
        world.cpu.reset()
        world.cpu.set_sysreg(*r.enc, value)
        assert getattr(world.s, r.field) == expected


@pytest.mark.parametrize("r", STORED, ids=names(STORED))
def test_read(world: World, r: SysReg) -> None:
    value = 0x0123_4567_89AB_CDEF
    if r.name == "SCTLR_EL1":
        value &= ~1
    world.code(mrs(3, r.name))
    world.start()
    setattr(world.s, r.field, value)
    assert world.run() == Exit.LIMIT
    assert world.s.x[3] == value


@pytest.mark.parametrize("r", WRITABLE, ids=names(WRITABLE))
def test_reset(world: World, r: SysReg) -> None:
    setattr(world.s, r.field, 0x55)
    world.cpu.reset()
    assert getattr(world.s, r.field) == RESET.get(r.name, 0)


@pytest.mark.parametrize("r", READ_ONLY, ids=names(READ_ONLY))
def test_writes_of_read_only_registers(world: World, r: SysReg) -> None:
    """No such register to write: UNDEFINED at EL0, the hypervisor's business at EL1."""
    world.code(msr(r.name, 1))
    world.start(pstate=EL0, x1=ALL)
    world.run()
    t = world.taken()
    assert t is not None
    assert t.esr == 1 << 25
    world.start(pstate=EL1H, x1=ALL)
    assert world.run() == Exit.TRAP
    assert world.s.esr_el2 >> 26 == 0x18


@pytest.mark.parametrize("r", SYSREGS, ids=names(SYSREGS))
@pytest.mark.parametrize("write", [False, True], ids=["mrs", "msr"])
def test_el0(world: World, r: SysReg, write: bool) -> None:
    """With every gate open, EL0 reaches what the manual lets it, and UNDEFINED else."""
    s = world.s
    s.sctlr_el1 |= 1 << 9 | 1 << 15 | 1 << 26
    s.cntkctl_el1, s.cnthctl = 0x3FF, 3
    world.cpu.changed()
    world.code(msr(r.name, 1) if write else mrs(1, r.name))
    world.start(pstate=EL0, x1=0)
    world.run()
    t = world.taken()
    if r.kind == "trapped" and r.el0 in ("rw", "wo" if write else "ro"):
        assert t is None  # what PMUSERENR_EL0 opens is the hypervisor's to say
        assert world.s.esr_el2 >> 26 == 0x18
    elif r.name in EL0_RW or (r.name in EL0_RO and not write):
        assert t is None
    else:
        assert t is not None
        assert (t.esr, t.elr) == (1 << 25, CODE)


def test_registers_without_a_row(world: World) -> None:
    """From EL1 they trap with all that the hypervisor has to know; from EL0 they are UNDEFINED."""
    for enc in ((3, 0, 15, 0, 0), (2, 0, 0, 0, 4), (3, 3, 9, 0, 0), (3, 1, 0, 0, 2)):
        assert enc not in BY_ENCODING
        for read in (0, 1):
            world.code(sys_word(read, *enc, 5))
            world.start()
            assert world.run() == Exit.TRAP
            op0, op1, crn, crm, op2 = enc
            iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | 5 << 5 | crm << 1 | read
            assert world.s.esr_el2 == 0x18 << 26 | 1 << 25 | iss
            world.start(pstate=EL0)
            world.run()
            t = world.taken()
            assert t is not None
            assert t.esr == 1 << 25


def test_id_registers_say_what_is_there(world: World) -> None:
    """Fields of an Armv8.0 CPU with LSE and CRC32 and nothing else."""
    s = world.s
    assert s.id_aa64pfr0_el1 & 0xFFFF_FFFF == 0x11  # AArch64 EL0 and EL1; FP and Advanced SIMD
    assert s.id_aa64isar0_el1 == 2 << 20 | 1 << 16
    assert s.id_aa64isar1_el1 == s.id_aa64mmfr1_el1 == s.id_aa64mmfr2_el1 == 0
    assert s.id_aa64mmfr0_el1 == 1 << 20 | 2 << 4 | 4  # 16 KiB too, 16-bit ASIDs, 44-bit PA
    assert s.ctr_el0 & 0xF == s.ctr_el0 >> 16 & 0xF == 4  # 64-byte lines
