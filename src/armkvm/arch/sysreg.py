"""The system registers of an Armv8.0-A processing element at EL1 and EL0 (Arm ARM, chapter D17).

One row a register: name, encoding, reset value, who may access it and what must be open for that,
which bits keep what is written, what follows. Rows of kind "stored" are plain state; "id" rows are
read-only state whose values the hypervisor sets; "special" rows are read and written by what their
columns name; "trapped" rows are EL2's business, from EL0 too where they say so. Encodings without
a row are trapped to EL2 when EL1 uses them, as under a hypervisor that traps what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from armkvm.arch.gic import ICC_SRE_SRE
from armkvm.arch.timer import (
    CNTHCTL_EL1PCEN,
    CNTHCTL_EL1PCTEN,
    CNTKCTL_EL0PCTEN,
    CNTKCTL_EL0PTEN,
    CNTKCTL_EL0VCTEN,
    CNTKCTL_EL0VTEN,
)
from armkvm.arch.word import M64

# Bits of SCTLR_EL1 that open something to EL0 (D17.2.118).
SCTLR_UMA: Final = 1 << 9
SCTLR_DZE: Final = 1 << 14
SCTLR_UCT: Final = 1 << 15
SCTLR_NTWI: Final = 1 << 16
SCTLR_NTWE: Final = 1 << 18
SCTLR_UCI: Final = 1 << 26

DCZID_BS: Final = 4  # log2 of the words that DC ZVA clears: 64 bytes
DCZID_DZP: Final = 1 << 4

# What a TLBI names, as the engine takes it.
TLBI_ALL: Final = 0
TLBI_VA: Final = 1
TLBI_ASID: Final = 2

Encoding = tuple[int, int, int, int, int]
ALL = M64  # a mask that keeps every bit


@dataclass(frozen=True, slots=True)
class SysReg:
    """One system register."""

    name: str
    enc: Encoding  # op0, op1, CRn, CRm, op2
    kind: str = "stored"  # stored | id | special | trapped
    el1: str = "rw"  # rw | ro | wo
    el0: str = ""  # what EL0 may do: "", ro, rw
    # (register, bits): EL0 goes on only where one of them is set, else EC 0x18 to EL1.
    gate: tuple[str, int] | None = None
    # (field of the CPU state, bits): where none of them is set, EL2 traps the access.
    trap: tuple[str, int] | None = None
    feature: str = "base"  # that its MRS and MSR belong to: "fp" traps as FP does
    # Special rows. A function of isa/base/registers.py; "" is the engine's read_ and write_.
    reader: str = ""
    writer: str = ""
    mask: int = ALL  # bits that keep what is written
    ones: int = 0  # bits that read as one
    reset: int | None = 0  # after a warm reset; None: UNKNOWN
    effect: str = ""  # engine routine that runs after a write

    @property
    def field(self) -> str:
        """Name of its field in the CPU state."""
        return self.name.lower()

    @property
    def has_field(self) -> bool:
        """It is state of its own."""
        return self.kind in ("stored", "id")


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

    ICC_SRE_EL1 and the registers that send SGIs always trap to EL2 and have no row. Some can only
    let an interrupt through that waits; after the others a deadline may have moved.
    """
    rows = (
        ("PMR", 4, 6, 0, "rw", "unmasked"),
        ("IAR0", 12, 8, 0, "ro", ""),
        ("EOIR0", 12, 8, 1, "wo", "check"),
        ("HPPIR0", 12, 8, 2, "ro", ""),
        ("BPR0", 12, 8, 3, "rw", "unmasked"),
        ("AP0R0", 12, 8, 4, "rw", "check"),
        ("AP1R0", 12, 9, 0, "rw", "check"),
        ("DIR", 12, 11, 1, "wo", "check"),
        ("RPR", 12, 11, 3, "ro", ""),
        ("IAR1", 12, 12, 0, "ro", ""),
        ("EOIR1", 12, 12, 1, "wo", "check"),
        ("HPPIR1", 12, 12, 2, "ro", ""),
        ("BPR1", 12, 12, 3, "rw", "unmasked"),
        ("CTLR", 12, 12, 4, "rw", "unmasked"),
        ("IGRPEN0", 12, 12, 6, "rw", "unmasked"),
        ("IGRPEN1", 12, 12, 7, "rw", "unmasked"),
    )
    return [
        SysReg(
            f"ICC_{name}_EL1",
            (3, 0, crn, crm, op2),
            "special",
            el1,
            # Without a virtual interface for the guest, EL2 traps all of them.
            trap=("icc_sre", ICC_SRE_SRE),
            effect=effect,
        )
        for name, crn, crm, op2, el1, effect in rows
    ]


def _counters() -> list[SysReg]:
    """The generic timer (D11.2): CNTKCTL_EL1 opens it to EL0, CNTHCTL_EL2 keeps EL2 out.

    After a write a deadline may have moved.
    """
    both = CNTKCTL_EL0PCTEN | CNTKCTL_EL0VCTEN
    rows: list[tuple[str, int, int, int, int]] = [  # name, CRm, op2; CNTKCTL_EL1, CNTHCTL_EL2
        ("CNTFRQ", 0, 0, both, 0),
        ("CNTPCT", 0, 1, CNTKCTL_EL0PCTEN, CNTHCTL_EL1PCTEN),
        ("CNTVCT", 0, 2, CNTKCTL_EL0VCTEN, 0),
    ]
    for crm, timer, opens, keeps in (
        (2, "CNTP", CNTKCTL_EL0PTEN, CNTHCTL_EL1PCEN),
        (3, "CNTV", CNTKCTL_EL0VTEN, 0),
    ):
        for op2, name in enumerate(("TVAL", "CTL", "CVAL")):
            rows.append((f"{timer}_{name}", crm, op2, opens, keeps))
    return [
        SysReg(
            f"{name}_EL0",
            (3, 3, 14, crm, op2),
            "special",
            "rw" if crm else "ro",
            "rw" if crm else "ro",
            gate=("cntkctl_el1", opens),
            trap=("cnthctl", keeps) if keeps else None,
            effect="check" if crm else "",
        )
        for name, crm, op2, opens, keeps in rows
    ]


def _pmu() -> list[SysReg]:
    """The Performance Monitors (D11): MDCR_EL2.TPM traps them, from EL0 as well.

    What PMUSERENR_EL0 holds back is for who emulates it to say.
    """
    rows: list[tuple[str, int, int, str]] = [  # name, CRm, op2, direction
        ("PMCR", 12, 0, "rw"),
        ("PMCNTENSET", 12, 1, "rw"),
        ("PMCNTENCLR", 12, 2, "rw"),
        ("PMOVSCLR", 12, 3, "rw"),
        ("PMSWINC", 12, 4, "wo"),
        ("PMSELR", 12, 5, "rw"),
        ("PMCEID0", 12, 6, "ro"),
        ("PMCEID1", 12, 7, "ro"),
        ("PMCCNTR", 13, 0, "rw"),
        ("PMXEVTYPER", 13, 1, "rw"),
        ("PMXEVCNTR", 13, 2, "rw"),
        ("PMUSERENR", 14, 0, "rw"),
        ("PMOVSSET", 14, 3, "rw"),
    ]
    return [
        SysReg("PMINTENSET_EL1", (3, 0, 9, 14, 1), "trapped"),
        SysReg("PMINTENCLR_EL1", (3, 0, 9, 14, 2), "trapped"),
        *(
            SysReg(f"{name}_EL0", (3, 3, 9, crm, op2), "trapped", way, way)
            for name, crm, op2, way in rows
        ),
        *(
            SysReg(f"{name}{n}_EL0", (3, 3, 14, crm + (n >> 3), n & 7), "trapped", el0="rw")
            for name, crm in (("PMEVCNTR", 8), ("PMEVTYPER", 12))
            for n in range(31)
        ),
        SysReg("PMCCFILTR_EL0", (3, 3, 14, 15, 7), "trapped", el0="rw"),
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
    SysReg("CCSIDR_EL1", (3, 1, 0, 0, 0), "trapped", "ro"),
    SysReg("CLIDR_EL1", (3, 1, 0, 0, 1), "id", "ro"),
    SysReg("AIDR_EL1", (3, 1, 0, 0, 7), "id", "ro"),
    SysReg("CSSELR_EL1", (3, 2, 0, 0, 0), mask=0xF),
    SysReg("CTR_EL0", (3, 3, 0, 0, 1), "id", "ro", "ro", gate=("sctlr_el1", SCTLR_UCT)),
    SysReg("DCZID_EL0", (3, 3, 0, 0, 7), "special", "ro", "ro", reader="dczid"),
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
    SysReg("TTBR0_EL1", (3, 0, 2, 0, 0), mask=ALL & ~1, reset=None, effect="wrote_ttbr"),
    SysReg("TTBR1_EL1", (3, 0, 2, 0, 1), mask=ALL & ~1, reset=None, effect="wrote_ttbr"),
    SysReg("TCR_EL1", (3, 0, 2, 0, 2), mask=0x77_FFFF_FFBF, effect="wrote_tcr"),
    SysReg("SPSR_EL1", (3, 0, 4, 0, 0), mask=0xFFFF_FFFF),
    SysReg("ELR_EL1", (3, 0, 4, 0, 1)),
    SysReg("SP_EL0", (3, 0, 4, 1, 0), "special", reader="sp_el0", writer="sp_el0"),
    SysReg("SPSEL", (3, 0, 4, 2, 0), "special", reader="spsel", writer="spsel"),
    SysReg("CURRENTEL", (3, 0, 4, 2, 2), "special", "ro", reader="currentel"),
    SysReg("AFSR0_EL1", (3, 0, 5, 1, 0), reset=None),
    SysReg("AFSR1_EL1", (3, 0, 5, 1, 1), reset=None),
    SysReg("ESR_EL1", (3, 0, 5, 2, 0), mask=0xFFFF_FFFF, reset=None),
    SysReg("FAR_EL1", (3, 0, 6, 0, 0), reset=None),
    SysReg("PAR_EL1", (3, 0, 7, 4, 0), reset=None),
    SysReg("MAIR_EL1", (3, 0, 10, 2, 0), reset=None, effect="wrote_tcr"),
    SysReg("AMAIR_EL1", (3, 0, 10, 3, 0)),
    SysReg("VBAR_EL1", (3, 0, 12, 0, 0), mask=ALL & ~0x7FF),
    SysReg("ISR_EL1", (3, 0, 12, 1, 0), "special", "ro"),
    *_icc(),
    SysReg("CONTEXTIDR_EL1", (3, 0, 13, 0, 1), mask=0xFFFF_FFFF),
    SysReg("TPIDR_EL1", (3, 0, 13, 0, 4), reset=None),
    SysReg("CNTKCTL_EL1", (3, 0, 14, 1, 0), mask=0x3FF),
    SysReg("TPIDR_EL0", (3, 3, 13, 0, 2), el0="rw", reset=None),
    SysReg("TPIDRRO_EL0", (3, 3, 13, 0, 3), el0="ro", reset=None),
    SysReg("NZCV", (3, 3, 4, 2, 0), "special", el0="rw", reader="nzcv", writer="nzcv"),
    SysReg(
        "DAIF",
        (3, 3, 4, 2, 1),
        "special",
        el0="rw",
        gate=("sctlr_el1", SCTLR_UMA),
        reader="daif",
        writer="daif",
        effect="unmasked",
    ),
    SysReg(
        "FPCR", (3, 3, 4, 4, 0), "special", el0="rw", feature="fp", reader="fpcr", writer="fpcr"
    ),
    SysReg(
        "FPSR", (3, 3, 4, 4, 1), "special", el0="rw", feature="fp", reader="fpsr", writer="fpsr"
    ),
    SysReg("MDSCR_EL1", (2, 0, 0, 2, 2), mask=0xFFFF_FFFF),
    *_counters(),
    *_pmu(),
]

BY_NAME = {r.name: r for r in SYSREGS}
BY_ENCODING = {r.enc: r for r in SYSREGS}
STORED = [r for r in SYSREGS if r.has_field]
