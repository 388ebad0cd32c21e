"""The timers and their lines to user space, on a scripted guest.

api.rst 8.9: a change of a level leads to at least one return to user space before the guest runs;
the bits are right on every return; a level that stays is reported once.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kvm.rig import IO, Ops, Rig, fails

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.host.scripted import Load, Mrs, Msr, Native, Run, ScriptedCpu, Store, Wfi

V, P = k.KVM_ARM_DEV_EL1_VTIMER, k.KVM_ARM_DEV_EL1_PTIMER
CNTP_TVAL, CNTP_CTL, CNTP_CVAL = (3, 3, 14, 2, 0), (3, 3, 14, 2, 1), (3, 3, 14, 2, 2)
CNTPCT = (3, 3, 14, 0, 1)
KINDS = ("nvhe-gicv2", "vhe-gicv3", "nvhe-nogic")


def spinning_past_the_deadline(_cpu: ScriptedCpu) -> Ops:
    yield Store(IO)
    yield Native("cntv_cval", 20_000)
    yield Native("cntv_ctl", 1)
    yield Run(10**6)
    yield Store(IO + 4)
    yield Native("cntv_ctl", 3)
    yield Run(10)
    yield Store(IO + 8)


@pytest.mark.parametrize("kind", KINDS)
def test_one_notification_a_change(kind: str) -> None:
    rig = Rig(spinning_past_the_deadline, kind=kind)
    assert rig.stored() == 0
    assert rig.notified() == V
    assert rig.counter() == 20_000  # at the deadline, exactly
    assert rig.stored() == 4  # the level stays, and the guest gets on
    assert rig.level == V
    assert rig.stored() == 8  # lowered in the guest, seen on the next exit
    assert rig.level == 0
    assert rig.vcpu.stat.notifications == 1


def is_masked(rig: Rig) -> bool:
    return rig.pcpu.vtimer_irq.masked


@pytest.mark.parametrize("kind", KINDS)
def test_host_interrupt_is_masked_exactly_while_the_line_is_high(kind: str) -> None:
    rig = Rig(spinning_past_the_deadline, kind=kind)
    rig.run()
    assert not is_masked(rig)
    rig.notified()
    rig.run()
    assert is_masked(rig)
    assert rig.cpu.state.cntv_masked
    rig.run()  # the guest lowered it: sync_user unmasks on this very exit
    assert not is_masked(rig)
    assert not rig.cpu.state.cntv_masked
    if kind == "nvhe-nogic":
        assert rig.pcpu.vtimer_irq.enabled


def test_scribbling_on_the_shared_word() -> None:
    """The comparison is with the user's page: who clears it is notified again."""
    rig = Rig(spinning_past_the_deadline)
    rig.run()
    for _ in range(3):
        assert rig.notified() == V
        rig.struct.s_regs.device_irq_level = 0
    rig.struct.s_regs.device_irq_level = V | 0x100
    assert rig.stored() == 4
    assert rig.level == V | 0x100  # bits of others are kept


def test_the_pmu_bit_of_a_vcpu_without_pmu_is_ours_too() -> None:
    """kvm_pmu_should_notify_user() and kvm_pmu_update_run() ask for no feature: the output is low.

    Who set the bit was not notified, and found it set for ever.
    """
    rig = Rig(spinning_past_the_deadline)
    rig.run()
    assert rig.notified() == V
    rig.struct.s_regs.device_irq_level = V | k.KVM_ARM_DEV_PMU
    assert rig.notified() == V
    assert rig.stored() == 4


def test_notification_leaves_the_guest_where_it_was() -> None:
    rig = Rig(spinning_past_the_deadline)
    rig.run()
    rig.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CVAL, 0)
    rig.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CTL, 1)
    retired = rig.vcpu.instructions
    pc = rig.get(regs.CORE_PC)
    assert rig.notified() == V
    assert rig.get(regs.CORE_PC) == pc + 4  # the completed store, nothing else
    assert rig.vcpu.instructions == retired


def wfi_for_both_timers(cpu: ScriptedCpu) -> Ops:
    yield Native("cntv_cval", 1_000_000)
    yield Native("cntv_ctl", 1)
    yield Msr(CNTP_CVAL, 1_500_000)
    yield Msr(CNTP_CTL, 1)
    yield Wfi()
    yield Store(IO)
    yield Wfi()
    yield Store(IO + 4)
    yield Wfi()
    yield Store(IO + 8)


def test_wfi_sleeps_until_each_change_and_not_for_a_level_already_told() -> None:
    rig = Rig(wfi_for_both_timers)
    assert rig.notified() == V
    assert rig.counter() == 1_000_000
    assert rig.stored() == 0
    assert rig.notified() == V | P
    assert rig.get(regs.KVM_REG_ARM_PTIMER_CNT) == 1_500_000
    assert rig.stored() == 4
    fails(errno.EINTR, rig.vcpu.run)  # nothing will change any more: asleep until the kick
    assert rig.level == V | P
    assert rig.vcpu.stat.signal_exits == 1


def test_a_trapped_write_to_the_counter_is_undefined() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Msr(CNTPCT, 1)
        yield Store(IO)

    rig = Rig(guest)
    rig.stored()
    assert [esr >> 26 for _kind, esr, _far in rig.cpu.injected] == [0]


def test_each_new_vcpu_rebases_the_virtual_counter_unless_an_offset_is_set() -> None:
    """gVisor#5739: KVM does this to running vCPUs too."""
    rig = Rig(spinning_past_the_deadline)
    rig.run()
    assert rig.counter() > 0
    physical = rig.get(regs.KVM_REG_ARM_PTIMER_CNT)
    rig.vm.create_vcpu(1)
    assert rig.counter() == 0
    assert rig.get(regs.KVM_REG_ARM_PTIMER_CNT) == physical
    rig.vm.arm_set_counter_offset(5)
    rig.vm.create_vcpu(2)
    assert rig.counter() == rig.get(regs.KVM_REG_ARM_PTIMER_CNT) == physical - 5
    rig.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CNT, 10**6)
    assert rig.counter() == physical - 5  # ignored from now on
    fails(errno.EINVAL, lambda: rig.vm.arm_set_counter_offset(5, reserved=1))


@pytest.mark.parametrize("kind", ["nvhe-gicv2", "vhe-gicv3"])
def test_physical_offset_traps_the_physical_counter(kind: str) -> None:
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO)
        seen.append((yield Mrs(CNTPCT)))
        yield Msr(CNTP_CVAL, 10_000)
        yield Msr(CNTP_CTL, 1)
        yield Run(10**6)

    rig = Rig(guest, kind=kind)
    rig.run()
    allowed = 3 if kind == "vhe-gicv3" else 1
    assert rig.cpu.state.cnthctl == allowed
    rig.vm.arm_set_counter_offset(1000)
    assert rig.notified() == P
    assert rig.cpu.state.cnthctl == 0
    now = rig.system.clock.now() >> 4
    assert seen[0] <= now - 1000
    assert now - 1000 == 10_000


def test_counter_offset_needs_idle_vcpus() -> None:
    rig = Rig(spinning_past_the_deadline)
    with rig.vcpu.mutex:
        fails(errno.EBUSY, lambda: rig.vm.arm_set_counter_offset(1))


def test_reset_switches_the_timers_off_and_keeps_cval_and_lines() -> None:
    """6.12: after the first run, INIT leaves VI/VF as KVM_IRQ_LINE drove them."""
    rig = Rig(spinning_past_the_deadline)
    rig.run()
    rig.notified()
    rig.line(1)
    rig.vcpu.arm_vcpu_init(features=4)
    assert rig.get(regs.KVM_REG_ARM_TIMER_CTL) & 3 == 0
    assert rig.get(regs.KVM_REG_ARM_TIMER_CVAL) == 20_000
    assert rig.level == V  # kvm_run is not touched: the next run tells
    assert rig.vcpu.hcr
    assert rig.notified() == 0


def test_lines_before_the_first_run_are_forgotten_by_init() -> None:
    rig = Rig(spinning_past_the_deadline)
    rig.line(1)
    rig.vcpu.arm_vcpu_init(features=4)
    assert rig.vcpu.hcr == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_vm_leaves_masked_does_not_mask_anothers_timer(kind: str) -> None:
    """d60d8b64280c (4.16): a VM with its line high left the host's interrupt masked for others."""
    rig = Rig(spinning_past_the_deadline, kind=kind)
    rig.run()
    rig.notified()
    rig.run()
    assert rig.pcpu.vtimer_irq.masked
    rig.backend._scripts.append(spinning_past_the_deadline)
    other = rig.system.create_vm()
    vcpu = other.create_vcpu(0)
    vcpu.arm_vcpu_init(features=4)
    vcpu.run()
    assert vcpu.last_pcpu is rig.pcpu
    fails(errno.EINTR, vcpu.run)
    assert vcpu.run_struct.s_regs.device_irq_level == V
    # At the deadline, not at some later exit.
    assert vcpu.get_one_reg(regs.KVM_REG_ARM_TIMER_CNT) == 20_000
    rig.vcpu.close()
    other.close()


def test_a_direct_physical_timer_that_falls_is_unmasked_at_the_next_load() -> None:
    """sync_user looks at the virtual timer only (arch_timer.c, unmask_vtimer_irq_user)."""

    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Native("cntp_ctl", 1)
        yield Store(IO)
        yield Native("cntp_ctl", 3)
        yield Store(IO + 4)
        yield Store(IO + 8)

    rig = Rig(guest, kind="vhe-gicv3")
    assert rig.notified() == P
    rig.stored()
    rig.stored()
    assert rig.level == 0
    assert rig.pcpu.ptimer_irq.masked
    rig.stored()
    assert not rig.pcpu.ptimer_irq.masked


def test_trace_events() -> None:
    events: list[tuple[object, ...]] = []
    rig = Rig(spinning_past_the_deadline)
    rig.system.trace.kvm_timer_update_irq = lambda *e: events.append(e)
    rig.run()
    rig.notified()
    assert (0, 27, True) in events


OPS = st.sampled_from(
    [
        Native("cntv_ctl", 0),
        Native("cntv_ctl", 1),
        Native("cntv_ctl", 3),
        Native("cntv_cval", 0),
        Native("cntv_cval", 9_000),
        Native("cntv_cval", 400_000),
        Msr(CNTP_CTL, 0),
        Msr(CNTP_CTL, 1),
        Msr(CNTP_CTL, 3),
        Msr(CNTP_CVAL, 0),
        Msr(CNTP_CVAL, 200_000),
        Msr(CNTP_TVAL, 700),
        Mrs(CNTP_CTL),
        Run(100),
        Run(5_000_000),
        Wfi(),
        Store(IO),
        Load(IO),
    ]
)


@settings(max_examples=150, deadline=None)
@given(ops=st.lists(OPS, max_size=25), kind=st.sampled_from(KINDS))
def test_invariants_of_the_level_bits(ops: list[object], kind: str) -> None:
    """At every entry what user space was told is the truth, and on every return the bits are.

    And no steady level makes KVM_RUN return again and again.
    """
    if kind == "vhe-gicv3":
        ops = [
            Native(f"cntp_{'ctl' if op.encoding == CNTP_CTL else 'cval'}", op.value)
            if isinstance(op, Msr)
            else op
            for op in ops
            if not isinstance(op, Mrs)
        ]

    def guest(_cpu: ScriptedCpu) -> Ops:
        yield from (op for op in ops)  # type: ignore[misc]
        yield Store(IO + 0xFF0)

    rig = Rig(guest, kind=kind)
    timer = rig.vcpu.arch_timer

    def bits() -> int:
        return V * timer.vtimer.should_fire() | P * timer.ptimer.should_fire()

    def at_entry(_vcpu: int, _pc: int) -> None:
        assert bits() == rig.level

    rig.system.trace.kvm_entry = at_entry
    notified = 0
    for _ in range(3 * len(ops) + 10):
        rig.vcpu.run_raw()
        assert rig.level == bits()
        if rig.struct.exit_reason == k.KVM_EXIT_INTR:
            notified += 1
        elif rig.struct.mmio.phys_addr == IO + 0xFF0:
            break
    else:
        pytest.fail("the guest does not get on")
    assert notified <= 2 * len(ops) + 2
    rig.vcpu.close()
    rig.vm.close()
    assert not rig.pcpu.hrtimers.timers  # no host resource outlives the VM
