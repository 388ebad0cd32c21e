"""Cases that are one guest run to its end, as a table: heading, guest, most runs, alarm in ms.

The guest's source says what it does; the log shows what came of it. Alarms are long where the guest
spins, and end the runs of a guest that waits for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from armkvm.conformance.rig import PSCI, Rig
from armkvm.conformance.session import Session


@dataclass(frozen=True)
class Simple:
    """One such case; calling it runs it."""

    heading: str
    guest: str
    most: int
    alarm_ms: int
    mirror: bool = False  # the timers' levels drive the CPU's IRQ line

    def __call__(self, session: Session) -> None:
        simple(session, self.heading, self.guest, self.most, self.alarm_ms, mirror=self.mirror)


def simple(
    session: Session,
    heading: str,
    guest: str,
    most: int,
    alarm_ms: int,
    *,
    features: int = PSCI,
    mirror: bool = False,
) -> None:
    """A fresh VM, one guest, run to its end."""
    session.emit(f"== {heading}")
    with Rig(session) as rig:
        rig.create_vcpu()
        if rig.init(features):
            rig.load(guest)
            rig.run_all(most, alarm_ms, mirror=mirror)


TIMERS = (
    Simple("T1 vtimer, CVAL=0 (past), CTL 1,3,1,0, MMIO checkpoints", "vt_mmio", 40, 500),
    Simple(
        "T2 vtimer, CVAL past, long spins (16M iterations) between checkpoints",
        "vt_spin", 40, 5000,
    ),
    Simple("T3 vtimer +30ms, spin until ISTATUS", "vt_future", 40, 1000),
    Simple(
        "T4 WFI, DAIF masked, vtimer +50ms; then WFI again while level high; then IMASK and WFI",
        "wfi_vt_masked", 12, 300,
    ),
    Simple("T5 WFI with vtimer already past", "wfi_vt_past", 12, 300),
    Simple("T6 WFI, nothing armed", "wfi_none", 8, 300),
    Simple("T7 WFI, vtimer +50ms but IMASK set", "wfi_vt_imask", 8, 300),
    Simple(
        "T8 IRQ flow: vtimer +20ms, WFI, host mirrors level onto CPU_IRQ line (twice)",
        "irq_vt", 40, 1000, mirror=True,
    ),
    Simple("T9 IRQ flow, spin instead of WFI", "irq_vt_spin", 40, 1000, mirror=True),
    Simple("T10 IRQ flow with the physical timer", "irq_pt", 40, 1000, mirror=True),
    Simple("T11 ptimer, CVAL=0 (past), CTL 1,3,1,0, MMIO checkpoints", "pt_mmio", 40, 500),
    Simple("T12 ptimer past, long spins", "pt_spin", 40, 5000),
    Simple("T13 ptimer +30ms spin until ISTATUS", "pt_future", 40, 1000),
    Simple("T14 WFI, ptimer +50ms masked DAIF, WFI again", "wfi_pt_masked", 12, 300),
    Simple("T15 both timers", "both", 20, 500),
    Simple("T16 CNTV_TVAL=-5", "tval", 20, 500),
    Simple("T17 WFE", "wfe", 12, 300),
    Simple("T18 PSCI CPU_SUSPEND with vtimer +30ms", "cpu_suspend", 12, 500),
)  # fmt: skip

EXITS = (
    Simple(
        "M1 MMIO reads/writes of several sizes (host returns 0x8877665544332211)",
        "mmio_rd", 30, 500,
    ),
    Simple("M2 ldp to MMIO (no ISV)", "ldp", 6, 500),
    Simple("M3 post-index ldr to MMIO (no ISV)", "postidx", 6, 500),
    Simple("M4 fetch from unbacked IPA", "badfetch", 8, 500),
    Simple("M5 PSCI_VERSION by hvc, smc", "psci_ver", 8, 500),
    Simple("M6 PSCI SYSTEM_OFF", "psci_off", 6, 500),
    Simple("M7 PSCI SYSTEM_RESET", "psci_reset", 6, 500),
    Simple("M8 PSCI CPU_OFF", "cpu_off", 4, 300),
    Simple("M9 GICD address + ICC_SRE_EL1 with no vgic", "gicread", 8, 500),
)  # fmt: skip
