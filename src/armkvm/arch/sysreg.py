"""The system registers of an Armv8.0-A processing element at EL1 and EL0 (Arm ARM, chapter D17).

One row a register: name, encoding, reset value, who may access it, which bits keep what is written.
Rows of kind "stored" are plain state; "id" rows are read-only state whose values the hypervisor
sets; "special" rows have a meaning of their own in isa/base/system.py. Encodings without a row are
trapped to EL2 when EL1 uses them, as under a hypervisor that traps what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

Encoding = tuple[int, int, int, int, int]
ALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SysReg:
    """One system register."""

    name: str
    enc: Encoding  # op0, op1, CRn, CRm, op2
    kind: str = "stored"  # stored | id | special
    el1: str = "rw"  # rw | ro | wo
    el0: str = ""  # what EL0 may do: "", ro, rw
    el0_gate: tuple[int, ...] = ()  # SCTLR_EL1 bits that must be set for EL0, else EC 0x18 to EL1
    mask: int = ALL  # bits that keep what is written
    ones: int = 0  # bits that read as one
    reset: int = 0
    effect: str = ""  # engine routine that runs after a write

    @property
    def field(self) -> str:
        """Name of its field in the CPU state."""
        return self.name.lower()


def _id_space() -> list[SysReg]:
    """ID registers 3_0_c0_c1..c7: reserved ones read as zero (D17.1.3)."""
    named = {
        (4, 0): "ID_AA64PFR0_EL1",
        (4, 1): "ID_AA64PFR1_EL1",
        (4, 4): "ID_AA64ZFR0_EL1",
        (5, 0): "ID_AA64DFR0_EL1",
        (5, 1): "ID_AA64DFR1_EL1",
        (5, 4): "ID_AA64AFR0_EL1",
        (5, 5): "ID_AA64AFR1_EL1",
        (6, 0): "ID_AA64ISAR0_EL1",
        (6, 1): "ID_AA64ISAR1_EL1",
        (6, 2): "ID_AA64ISAR2_EL1",
        (7, 0): "ID_AA64MMFR0_EL1",
        (7, 1): "ID_AA64MMFR1_EL1",
        (7, 2): "ID_AA64MMFR2_EL1",
        (1, 0): "ID_PFR0_EL1",
        (1, 1): "ID_PFR1_EL1",
        (1, 2): "ID_DFR0_EL1",
        (1, 3): "ID_AFR0_EL1",
        **{(1, 4 + i): f"ID_MMFR{i}_EL1" for i in range(4)},
        **{(2, i): f"ID_ISAR{i}_EL1" for i in range(6)},
        (2, 6): "ID_MMFR4_EL1",
        (2, 7): "ID_ISAR6_EL1",
        (3, 0): "MVFR0_EL1",
        (3, 1): "MVFR1_EL1",
        (3, 2): "MVFR2_EL1",
        (3, 4): "ID_PFR2_EL1",
        (3, 5): "ID_DFR1_EL1",
        (3, 6): "ID_MMFR5_EL1",
    }
    return [
        SysReg(named.get((m, o), f"S3_0_C0_C{m}_{o}"), (3, 0, 0, m, o), "id", "ro")
        for m in range(1, 8)
        for o in range(8)
    ]


def _icc() -> list[SysReg]:
    """The GIC CPU interface's registers that a hypervisor lets a guest use (IHI 0069, 12.2).

    ICC_SRE_EL1 and the registers that send SGIs always trap to EL2 and have no row.
    """
    rows = (
        ("PMR", 4, 6, 0, "rw"),
        ("IAR0", 12, 8, 0, "ro"),
        ("EOIR0", 12, 8, 1, "wo"),
        ("HPPIR0", 12, 8, 2, "ro"),
        ("BPR0", 12, 8, 3, "rw"),
        ("AP0R0", 12, 8, 4, "rw"),
        ("AP1R0", 12, 9, 0, "rw"),
        ("DIR", 12, 11, 1, "wo"),
        ("RPR", 12, 11, 3, "ro"),
        ("IAR1", 12, 12, 0, "ro"),
        ("EOIR1", 12, 12, 1, "wo"),
        ("HPPIR1", 12, 12, 2, "ro"),
        ("BPR1", 12, 12, 3, "rw"),
        ("CTLR", 12, 12, 4, "rw"),
        ("IGRPEN0", 12, 12, 6, "rw"),
        ("IGRPEN1", 12, 12, 7, "rw"),
    )
    return [
        SysReg(f"ICC_{name}_EL1", (3, 0, crn, crm, op2), "special", el1)
        for name, crn, crm, op2, el1 in rows
    ]


# SCTLR_EL1 of an Armv8.0 CPU without AArch32 and without big-endian data (D17.2.118).
_SCTLR_RES1 = 0x30D0_0980  # LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS, SED, ITD
_SCTLR_BITS = 0x040D_D21F  # UCI, WXN, nTWE, nTWI, UCT, DZE, I, UMA, SA0, SA, C, A, M
_SCTLR_RESET = 0x0005_0018  # nTWE, nTWI, SA0, SA; MMU and caches off

SYSREGS: list[SysReg] = [
    SysReg("MIDR_EL1", (3, 0, 0, 0, 0), "id", "ro"),
    SysReg("MPIDR_EL1", (3, 0, 0, 0, 5), "id", "ro"),
    SysReg("REVIDR_EL1", (3, 0, 0, 0, 6), "id", "ro"),
    *_id_space(),
    SysReg("CCSIDR_EL1", (3, 1, 0, 0, 0), "id", "ro"),
    SysReg("CLIDR_EL1", (3, 1, 0, 0, 1), "id", "ro"),
    SysReg("AIDR_EL1", (3, 1, 0, 0, 7), "id", "ro"),
    SysReg("CSSELR_EL1", (3, 2, 0, 0, 0), mask=0xF),
    SysReg("CTR_EL0", (3, 3, 0, 0, 1), "id", "ro", "ro", el0_gate=(15,)),
    SysReg("DCZID_EL0", (3, 3, 0, 0, 7), "special", "ro", "ro"),
    SysReg(
        "SCTLR_EL1",
        (3, 0, 1, 0, 0),
        mask=_SCTLR_BITS,
        ones=_SCTLR_RES1,
        reset=_SCTLR_RESET,
        effect="wrote_sctlr",
    ),
    SysReg("ACTLR_EL1", (3, 0, 1, 0, 1)),
    SysReg("CPACR_EL1", (3, 0, 1, 0, 2), mask=3 << 20, effect="wrote_cpacr"),
    SysReg("TTBR0_EL1", (3, 0, 2, 0, 0), mask=ALL & ~1, effect="wrote_ttbr"),
    SysReg("TTBR1_EL1", (3, 0, 2, 0, 1), mask=ALL & ~1, effect="wrote_ttbr"),
    SysReg("TCR_EL1", (3, 0, 2, 0, 2), mask=0x77_FFFF_FFBF, effect="wrote_tcr"),
    SysReg("SPSR_EL1", (3, 0, 4, 0, 0), mask=0xFFFF_FFFF),
    SysReg("ELR_EL1", (3, 0, 4, 0, 1)),
    SysReg("SP_EL0", (3, 0, 4, 1, 0), "special"),
    SysReg("SPSEL", (3, 0, 4, 2, 0), "special"),
    SysReg("CURRENTEL", (3, 0, 4, 2, 2), "special", "ro"),
    SysReg("AFSR0_EL1", (3, 0, 5, 1, 0)),
    SysReg("AFSR1_EL1", (3, 0, 5, 1, 1)),
    SysReg("ESR_EL1", (3, 0, 5, 2, 0), mask=0xFFFF_FFFF),
    SysReg("FAR_EL1", (3, 0, 6, 0, 0)),
    SysReg("PAR_EL1", (3, 0, 7, 4, 0)),
    SysReg("MAIR_EL1", (3, 0, 10, 2, 0), effect="wrote_tcr"),
    SysReg("AMAIR_EL1", (3, 0, 10, 3, 0)),
    SysReg("VBAR_EL1", (3, 0, 12, 0, 0), mask=ALL & ~0x7FF),
    SysReg("ISR_EL1", (3, 0, 12, 1, 0), "special", "ro"),
    *_icc(),
    SysReg("CONTEXTIDR_EL1", (3, 0, 13, 0, 1), mask=0xFFFF_FFFF),
    SysReg("TPIDR_EL1", (3, 0, 13, 0, 4)),
    SysReg("CNTKCTL_EL1", (3, 0, 14, 1, 0), mask=0x3FF),
    SysReg("TPIDR_EL0", (3, 3, 13, 0, 2), el0="rw"),
    SysReg("TPIDRRO_EL0", (3, 3, 13, 0, 3), el0="ro"),
    SysReg("NZCV", (3, 3, 4, 2, 0), "special", el0="rw"),
    SysReg("DAIF", (3, 3, 4, 2, 1), "special", el0="rw", el0_gate=(9,)),
    SysReg("FPCR", (3, 3, 4, 4, 0), "special", el0="rw"),
    SysReg("FPSR", (3, 3, 4, 4, 1), "special", el0="rw"),
    SysReg("MDSCR_EL1", (2, 0, 0, 2, 2), mask=0xFFFF_FFFF),
    SysReg("CNTFRQ_EL0", (3, 3, 14, 0, 0), "special", "ro", "ro"),
    SysReg("CNTPCT_EL0", (3, 3, 14, 0, 1), "special", "ro", "ro"),
    SysReg("CNTVCT_EL0", (3, 3, 14, 0, 2), "special", "ro", "ro"),
    SysReg("CNTP_TVAL_EL0", (3, 3, 14, 2, 0), "special", el0="rw"),
    SysReg("CNTP_CTL_EL0", (3, 3, 14, 2, 1), "special", el0="rw"),
    SysReg("CNTP_CVAL_EL0", (3, 3, 14, 2, 2), "special", el0="rw"),
    SysReg("CNTV_TVAL_EL0", (3, 3, 14, 3, 0), "special", el0="rw"),
    SysReg("CNTV_CTL_EL0", (3, 3, 14, 3, 1), "special", el0="rw"),
    SysReg("CNTV_CVAL_EL0", (3, 3, 14, 3, 2), "special", el0="rw"),
]

BY_NAME = {r.name: r for r in SYSREGS}
BY_ENCODING = {r.enc: r for r in SYSREGS}
STORED = [r for r in SYSREGS if r.kind != "special"]
