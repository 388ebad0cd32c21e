"""List registers as the guest sees them: through ICC_* and through the GICV window."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armkvm.arch import gic as g
from armkvm.arch.sysreg import BY_NAME
from armkvm.engine.cpu import Cpu, Engine, Exit, Stage2

RAM = 0x4000_0000
GICV = 0x0801_0000
PENDING, ACTIVE = g.ICH_LR_PENDING, g.ICH_LR_ACTIVE
GROUP1, HW, EOI = g.ICH_LR_GROUP, g.ICH_LR_HW, g.ICH_LR_EOI
OPEN = 0xFF << g.ICH_VMCR_PMR_SHIFT | g.ICH_VMCR_ENG0 | g.ICH_VMCR_ENG1
MASKED = 0x3C5  # EL1h, nothing unmasked
MOV_X9 = 0xD2800009
B_SELF = 0x14000000
HVC = 0xD4000002


def mrs(name: str, rt: int) -> int:
    op0, op1, crn, crm, op2 = BY_NAME[name].enc
    return 0xD5300000 | (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt


def msr(name: str, rt: int) -> int:
    return mrs(name, rt) & ~(1 << 21)


def ldr(rt: int, offset: int, rn: int = 1) -> int:
    return 0xB9400000 | offset // 4 << 10 | rn << 5 | rt


def store(rt: int, offset: int, rn: int = 1) -> int:
    return 0xB9000000 | offset // 4 << 10 | rn << 5 | rt


class Rig:
    """A CPU with a page of code, and X1 at the window."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 0x4000)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.stage2 = Stage2(Engine.load())
        self.stage2.map(RAM, self.address, 0x4000)
        self.cpu = Cpu(self.stage2.engine, self.stage2)
        self.s = self.cpu.state
        self.s.ich_hcr = g.ICH_HCR_EN
        self.s.ich_vmcr = OPEN

    def run(self, *code: int, x0: int = 0, pstate: int = MASKED) -> int:
        """Run the code to its HVC, or to another exit; returns X0."""
        words = [*code, HVC]
        self.memory[: 4 * len(words)] = b"".join(w.to_bytes(4, "little") for w in words)
        self.stage2.written(RAM, 0x1000)
        s = self.s
        s.pc, s.x[0], s.x[1] = RAM, x0, GICV
        self.cpu.pstate = pstate
        self.code = self.cpu.run()
        return int(s.x[0])

    def icc(self, name: str, value: int | None = None) -> int:
        """Read or write ICC_`name`_EL1."""
        name = f"ICC_{name}_EL1"
        return self.run(mrs(name, 0) if value is None else msr(name, 0), x0=value or 0)

    def gicv(self, offset: int, value: int | None = None) -> int:
        """Read or write a register of the window."""
        self.s.gicv_base, self.s.gicv_size = GICV, g.GICC_SIZE
        if offset >= 0x1000:
            # ADD X2, X1, #0x1000
            return self.run(0x91400422, store(0, offset - 0x1000, 2), x0=value or 0)
        return self.run(ldr(0, offset) if value is None else store(0, offset), x0=value or 0)

    def lrs(self, *values: int) -> None:
        for i in range(g.NR_LR):
            setattr(self.s, f"ich_lr{i}", values[i] if i < len(values) else 0)

    def close(self) -> None:
        self.cpu.close()


@pytest.fixture
def v3() -> Iterator[Rig]:
    rig = Rig()
    rig.s.icc_sre = 7
    yield rig
    rig.close()


@pytest.fixture
def v2() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def lr(intid: int, priority: int = 0xA0, state: int = PENDING, more: int = GROUP1) -> int:
    return state | more | priority << g.ICH_LR_PRIORITY_SHIFT | intid


def test_without_an_interface_the_registers_trap(v2: Rig) -> None:
    v2.icc("IAR1")
    assert v2.code == Exit.TRAP
    assert v2.s.esr_el2 >> 26 == 0x18


def test_at_el0_they_are_undefined(v3: Rig) -> None:
    v3.s.vbar_el1 = RAM + 0x1000
    v3.memory[0x1400:0x1404] = HVC.to_bytes(4, "little")
    v3.run(mrs("ICC_IAR1_EL1", 0), pstate=0x3C0)
    assert v3.s.esr_el1 >> 26 == 0


def test_acknowledge_makes_active_and_end_makes_inactive(v3: Rig) -> None:
    v3.lrs(lr(40))
    assert v3.icc("IAR1") == 40
    assert v3.s.ich_lr0 == lr(40, state=ACTIVE)
    assert v3.s.ich_ap1r == 1 << (0xA0 >> 3)
    assert v3.icc("RPR") == 0xA0
    assert v3.icc("IAR1") == g.INTID_SPURIOUS
    v3.icc("EOIR1", 40)
    assert v3.s.ich_lr0 >> g.ICH_LR_STATE_SHIFT == 0
    assert v3.s.ich_ap1r == 0
    assert v3.icc("RPR") == g.IDLE_PRIORITY


@pytest.mark.parametrize("eoimode", [0, g.ICH_VMCR_EOIM])
def test_an_lpi_is_never_active(v3: Rig, eoimode: int) -> None:
    """Acknowledged, it leaves its list register; ended, its priority drops, and nobody counts."""
    v3.s.ich_vmcr = OPEN | eoimode
    v3.lrs(lr(g.FIRST_LPI - 1), lr(g.FIRST_LPI, 0x80))
    assert v3.icc("IAR1") == g.FIRST_LPI
    assert v3.s.ich_lr1 == lr(g.FIRST_LPI, 0x80, state=0)
    assert v3.icc("RPR") == 0x80
    for name in ("EOIR1", "DIR"):
        v3.icc(name, g.FIRST_LPI)
    assert v3.icc("RPR") == g.IDLE_PRIORITY
    assert v3.s.ich_hcr == g.ICH_HCR_EN
    assert v3.icc("IAR1") == g.FIRST_LPI - 1
    assert v3.s.ich_lr0 == lr(g.FIRST_LPI - 1, state=ACTIVE)


def test_the_highest_priority_comes_first_then_the_lowest_register(v3: Rig) -> None:
    v3.lrs(lr(40), lr(41, 0x80), lr(42, 0x80), lr(43, 0xC0))
    assert v3.icc("HPPIR1") == 41
    assert v3.icc("IAR1") == 41
    # Equal priority does not preempt, but it is what is pending.
    assert v3.icc("IAR1") == g.INTID_SPURIOUS
    assert v3.icc("HPPIR1") == 42


def test_higher_priority_preempts_as_far_as_the_binary_point_allows(v3: Rig) -> None:
    v3.lrs(lr(40, 0xA0))
    assert v3.icc("IAR1") == 40
    v3.s.ich_lr1 = lr(41, 0x98)
    v3.icc("BPR1", 7)  # group priority: the top bit alone
    assert v3.icc("IAR1") == g.INTID_SPURIOUS
    v3.icc("BPR1", 0)
    assert v3.icc("BPR1") == 3
    assert v3.icc("IAR1") == 41
    v3.icc("EOIR1", 41)
    assert v3.icc("RPR") == 0xA0


def test_the_priority_mask(v3: Rig) -> None:
    v3.lrs(lr(40, 0xA0))
    v3.icc("PMR", 0xA7)
    assert v3.icc("PMR") == 0xA0
    assert v3.icc("IAR1") == g.INTID_SPURIOUS
    assert v3.icc("HPPIR1") == 40
    v3.icc("PMR", 0xFF)
    assert v3.icc("PMR") == 0xF8
    assert v3.icc("IAR1") == 40


def test_split_end_and_deactivate(v3: Rig) -> None:
    v3.lrs(lr(40))
    v3.icc("CTLR", 2)
    assert v3.icc("CTLR") & 3 == 2
    v3.icc("IAR1")
    v3.icc("EOIR1", 40)
    assert v3.s.ich_lr0 == lr(40, state=ACTIVE)
    assert v3.icc("RPR") == g.IDLE_PRIORITY
    v3.icc("DIR", 40)
    assert v3.s.ich_lr0 >> g.ICH_LR_STATE_SHIFT == 0


def test_ending_what_is_in_no_register_is_counted(v3: Rig) -> None:
    v3.s.ich_ap1r = 1 << 20
    v3.icc("EOIR1", 99)
    assert v3.s.ich_hcr >> g.ICH_HCR_EOICOUNT_SHIFT == 1
    # Nothing is active: no count.
    v3.icc("EOIR1", 99)
    assert v3.s.ich_hcr >> g.ICH_HCR_EOICOUNT_SHIFT == 1


def test_hw_deactivates_the_physical_interrupt(v3: Rig) -> None:
    v3.lrs(lr(27, more=GROUP1 | HW | 27 << g.ICH_LR_PHYS_ID_SHIFT))
    v3.s.cntv_masked = v3.s.cntp_masked = 1
    v3.icc("IAR1")
    assert v3.s.cntv_masked == 1
    v3.icc("EOIR1", 27)
    assert v3.s.phys_deactivated == 1 << 27
    assert (v3.s.cntv_masked, v3.s.cntp_masked) == (0, 1)


def test_a_timer_that_is_still_high_ends_the_run_after_deactivation(v3: Rig) -> None:
    v3.lrs(lr(27, state=ACTIVE, more=GROUP1 | HW | 27 << g.ICH_LR_PHYS_ID_SHIFT))
    v3.s.ich_ap1r = 1 << 20
    v3.s.cntv_masked, v3.s.cntv_ctl = 1, 1
    v3.run(msr("ICC_EOIR1_EL1", 0), x0=27)
    assert v3.code == Exit.IRQ
    assert v3.s.pc == RAM + 4


def test_eoi_maintenance_interrupt_ends_the_run(v3: Rig) -> None:
    v3.lrs(lr(40, more=GROUP1 | EOI))
    v3.icc("IAR1")
    assert v3.code == Exit.TRAP
    v3.icc("EOIR1", 40)
    assert v3.code == Exit.IRQ


def test_underflow_maintenance_interrupt(v3: Rig) -> None:
    v3.lrs(lr(40), lr(41))
    v3.s.ich_hcr |= g.ICH_HCR_UIE
    v3.icc("IAR1")
    assert v3.code == Exit.TRAP
    v3.icc("EOIR1", 40)
    assert v3.code == Exit.IRQ


def test_no_pending_and_eoicount_maintenance_interrupts(v3: Rig) -> None:
    v3.s.ich_hcr |= g.ICH_HCR_NPIE
    assert v3.icc("RPR") is not None
    assert v3.code == Exit.IRQ
    v3.s.ich_hcr = g.ICH_HCR_EN | g.ICH_HCR_LRENPIE
    v3.s.ich_ap1r = 1
    v3.icc("EOIR1", 99)
    assert v3.code == Exit.IRQ


@pytest.mark.parametrize(("more", "vector"), [(GROUP1, 0x280), (0, 0x300)])
def test_a_pending_interrupt_is_taken_where_pstate_allows(v3: Rig, more: int, vector: int) -> None:
    v3.s.vbar_el1 = RAM + 0x1000
    for offset in (0x280, 0x300):
        v3.memory[0x1000 + offset : 0x1004 + offset] = HVC.to_bytes(4, "little")
    v3.lrs(lr(40, more=more))
    v3.run(mrs("ISR_EL1", 0))
    assert v3.s.x[0] == (0x80 if more else 0x40)
    # MSR DAIFCLR, #3
    v3.run(0xD50343FF, MOV_X9, B_SELF)
    assert v3.s.pc == RAM + 0x1000 + vector + 4
    assert v3.s.elr_el1 == RAM + 4


def test_unmasking_by_pmr_takes_it_at_once(v3: Rig) -> None:
    v3.s.vbar_el1 = RAM + 0x1000
    v3.memory[0x1280:0x1284] = HVC.to_bytes(4, "little")
    v3.lrs(lr(40))
    v3.s.ich_vmcr = g.ICH_VMCR_ENG1
    v3.run(msr("ICC_PMR_EL1", 0), B_SELF, x0=0xFF, pstate=0x345)
    assert v3.s.elr_el1 == RAM + 4


def test_wfi_does_not_wait_for_what_is_pending(v3: Rig) -> None:
    v3.run(0xD503207F)
    assert v3.s.esr_el2 >> 26 == 1
    v3.lrs(lr(40))
    v3.run(0xD503207F)
    assert v3.s.esr_el2 >> 26 == 0x16


def test_groups_are_kept_apart(v3: Rig) -> None:
    v3.lrs(lr(40, 0x80, more=0), lr(41))
    assert v3.icc("IAR1") == g.INTID_SPURIOUS
    assert v3.icc("HPPIR1") == g.INTID_SPURIOUS
    assert v3.icc("IAR0") == 40
    assert v3.s.ich_ap0r == 1 << 16
    v3.icc("EOIR0", 40)
    v3.icc("IGRPEN1", 0)
    assert v3.icc("IAR1") == g.INTID_SPURIOUS
    v3.icc("IGRPEN1", 1)
    assert v3.icc("IAR1") == 41


def test_common_binary_point(v3: Rig) -> None:
    v3.icc("BPR0", 5)
    v3.icc("CTLR", 1)
    assert v3.icc("BPR1") == 6
    v3.icc("BPR1", 7)
    v3.icc("CTLR", 0)
    assert v3.icc("BPR1") == 3


def test_window_acknowledge_and_end(v2: Rig) -> None:
    sgi = lr(3 | 2 << 10, more=0)  # from CPU 2
    v2.lrs(sgi)
    assert v2.gicv(g.GICC_HPPIR) == 3 | 2 << 10
    assert v2.gicv(g.GICC_IAR) == 3 | 2 << 10
    assert v2.gicv(g.GICC_RPR) == 0xA0
    assert v2.gicv(g.GICC_APR) == 1 << 20
    v2.gicv(g.GICC_EOIR, 3 | 1 << 10)  # another source: not this one
    assert v2.s.ich_lr0 >> g.ICH_LR_STATE_SHIFT == 2
    v2.s.ich_ap0r = 1 << 20
    v2.gicv(g.GICC_EOIR, 3 | 2 << 10)
    assert v2.s.ich_lr0 >> g.ICH_LR_STATE_SHIFT == 0
    assert v2.gicv(g.GICC_IAR) == g.INTID_SPURIOUS


def test_window_registers(v2: Rig) -> None:
    v2.gicv(g.GICC_CTLR, 0xFFFF_FFFF)
    assert v2.gicv(g.GICC_CTLR) == 0x21F
    v2.gicv(g.GICC_CTLR, 1)
    v2.gicv(g.GICC_PMR, 0xF7)
    assert v2.gicv(g.GICC_PMR) == 0xF0
    assert v2.gicv(g.GICC_BPR) == 2
    v2.gicv(g.GICC_BPR, 5)
    assert v2.gicv(g.GICC_BPR) == 5
    v2.gicv(g.GICC_ABPR, 6)
    assert v2.gicv(g.GICC_ABPR) == 6
    assert v2.gicv(g.GICC_IIDR) & 0xFF0FFF == 0x2043B & 0xFF0FFF


def test_window_group1_needs_ackctl_or_the_alias(v2: Rig) -> None:
    v2.lrs(lr(40))
    assert v2.gicv(g.GICC_IAR) == g.INTID_OTHER_GROUP
    assert v2.gicv(g.GICC_AIAR) == 40
    v2.gicv(g.GICC_AEOIR, 40)
    v2.lrs(lr(41))
    v2.s.ich_vmcr |= g.ICH_VMCR_ACK_CTL
    assert v2.gicv(g.GICC_IAR) == 41


def test_window_deactivate(v2: Rig) -> None:
    v2.lrs(lr(40, more=0))
    v2.s.ich_vmcr |= g.ICH_VMCR_EOIM
    assert v2.gicv(g.GICC_IAR) == 40
    v2.gicv(g.GICC_EOIR, 40)
    assert v2.s.ich_lr0 >> g.ICH_LR_STATE_SHIFT == 2
    v2.gicv(g.GICC_DIR, 40)
    assert v2.s.ich_lr0 >> g.ICH_LR_STATE_SHIFT == 0


def test_window_group0_is_an_irq_unless_fiqen(v2: Rig) -> None:
    v2.lrs(lr(40, more=0))
    assert v2.run(mrs("ISR_EL1", 0)) == 0x80
    v2.s.ich_vmcr |= g.ICH_VMCR_FIQ_EN
    assert v2.run(mrs("ISR_EL1", 0)) == 0x40


def test_outside_the_window_it_is_an_abort(v2: Rig) -> None:
    v2.s.gicv_base, v2.s.gicv_size = GICV + 0x2000, g.GICC_SIZE
    v2.run(ldr(0, 0))
    assert v2.s.esr_el2 >> 26 == 0x24


_REGISTERS = ["PMR", "IAR1", "HPPIR1", "BPR0", "BPR1", "CTLR", "IGRPEN0", "IGRPEN1", "RPR",
              "AP0R0", "AP1R0", "IAR0", "HPPIR0", "EOIR0", "EOIR1", "DIR"]  # fmt: skip
_LR = st.builds(
    lr,
    st.integers(0, 60),
    st.integers(0, 31).map(lambda p: p << 3),
    st.sampled_from([0, PENDING, ACTIVE, PENDING | ACTIVE]),
    st.sampled_from([0, GROUP1, GROUP1 | HW | 27 << 32, GROUP1 | EOI]),
)
_ACCESS = st.tuples(st.sampled_from(_REGISTERS), st.integers(0, 0xFFFF_FFFF))


@settings(max_examples=60, deadline=None)
@given(st.lists(_LR, max_size=4), st.lists(_ACCESS, max_size=12))
def test_any_accesses_keep_the_interface_sound(
    values: list[int], accesses: list[tuple[str, int]]
) -> None:
    """No access hangs, invents an interrupt or leaves a field that its register has not."""
    rig = Rig()
    rig.s.icc_sre = 7
    rig.lrs(*values)
    intids = {v & 0xFFFF_FFFF for v in values} | {0}
    for name, value in accesses:
        access = BY_NAME[f"ICC_{name}_EL1"].el1
        got = rig.icc(name, None if access == "ro" or (access == "rw" and value & 1) else value)
        assert rig.code in (Exit.TRAP, Exit.IRQ)
        if name.startswith("IAR"):
            assert got in {*intids, g.INTID_SPURIOUS}
        assert rig.s.ich_vmcr <= 0xFFFF_FFFF
        assert {getattr(rig.s, f"ich_lr{i}") & 0xFFFF_FFFF for i in range(4)} <= intids
    rig.close()
