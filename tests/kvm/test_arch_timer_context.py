"""One timer: where its registers are, what it compares with, the soft timer of an emulated one."""

from __future__ import annotations

import pytest
from tests.kvm.rig import IO, Ops, Rig

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.arch.timer import NEVER
from armkvm.host.scripted import Mrs, Msr, Run, ScriptedCpu, Store
from armkvm.kvm.arch_timer_context import TIMER_REG_CTL, TIMER_REG_CVAL, TIMER_REG_TVAL

P = k.KVM_ARM_DEV_EL1_PTIMER
CNTP_TVAL, CNTP_CTL, CNTP_CVAL = (3, 3, 14, 2, 0), (3, 3, 14, 2, 1), (3, 3, 14, 2, 2)


def nothing(_cpu: ScriptedCpu) -> Ops:
    yield Store(IO)


@pytest.mark.parametrize("which", [0, 1])
def test_registers_go_to_the_hardware_and_come_back(which: int) -> None:
    """The virtual counter has its offset in hardware; the physical one's is added to CVAL."""
    rig = Rig(nothing, kind="vhe-gicv3")
    state = rig.cpu.state
    rig.vm.arm_set_counter_offset(1000)
    ctx = rig.vcpu.arch_timer.timers[which]
    ctx.write(TIMER_REG_CVAL, 5000)
    ctx.write(TIMER_REG_CTL, 1)
    ctx.restore_state(rig.pcpu)
    if which == 0:
        assert (state.cntv_ctl, state.cntv_cval, state.cntvoff) == (1, 5000, 1000)
        state.cntv_ctl, state.cntv_cval = 3, 7000
    else:
        assert (state.cntp_ctl, state.cntp_cval, state.cntpoff) == (1, 6000, 0)
        state.cntp_ctl, state.cntp_cval = 3, 8000
    ctx.restore_state(rig.pcpu)  # they are there, and newer
    ctx.save_state()
    assert (ctx.ctl, ctx.cval, ctx.loaded_on) == (3, 7000, None)
    assert (state.cntv_ctl, state.cntp_ctl) == (0, 0)
    ctx.cval = 1
    ctx.save_state()
    assert ctx.cval == 1


@pytest.mark.parametrize("loaded", [False, True])
def test_the_output_is_high_from_the_deadline_on(loaded: bool) -> None:
    rig = Rig(nothing)
    ctx = rig.vcpu.arch_timer.vtimer
    rig.system.clock.work(16 * 100)
    begins = ctx.counter()
    for cval, ctl, output in (
        (begins, 1, True), (begins + 1, 1, False), (begins, 0, False), (begins, 3, False),
    ):  # fmt: skip
        ctx.write(TIMER_REG_CVAL, cval)
        ctx.write(TIMER_REG_CTL, ctl)
        if loaded:
            rig.pcpu.ns = rig.system.clock.now()
            ctx.restore_state(rig.pcpu)
        assert ctx.should_fire() == output
        ctx.save_state()
        assert ctx.can_fire() == (ctl == 1)


def test_a_deadline_is_at_the_beginning_of_its_tick() -> None:
    """A tick is 16 ns; one that has passed is now, one that is too far is never."""
    rig = Rig(nothing)
    ctx = rig.vcpu.arch_timer.ptimer
    rig.system.clock.work(16 * 100 + 5)
    now = rig.vcpu.now()
    ctx.cval = ctx.counter() + 2
    assert ctx.expiry_ns() == (now & -16) + 32
    ctx.cval = ctx.counter()
    assert ctx.expiry_ns() == now
    ctx.cval = (1 << 64) - 1
    assert ctx.expiry_ns() == NEVER


def test_tval_is_a_signed_distance_of_32_bits() -> None:
    rig = Rig(nothing)
    ctx = rig.vcpu.arch_timer.ptimer
    rig.system.clock.work(16 * 100)
    ctx.write(TIMER_REG_TVAL, 0x1_8000_0000)
    assert ctx.read(TIMER_REG_CVAL) == ctx.counter() - (1 << 31) & (1 << 64) - 1
    assert ctx.read(TIMER_REG_TVAL) == 0x8000_0000
    ctx.write(TIMER_REG_TVAL, 0x7FFF_FFFF)
    assert ctx.read(TIMER_REG_CVAL) == ctx.counter() + 0x7FFF_FFFF


def emulated(_cpu: ScriptedCpu) -> Ops:
    yield Msr(CNTP_CVAL, 50_000)
    yield Msr(CNTP_CTL, 1)
    yield Run(10**7)
    yield Store(IO)
    yield Msr(CNTP_CTL, 3)
    yield Store(IO + 4)
    yield Msr(CNTP_TVAL, -1 & (1 << 64) - 1)
    yield Msr(CNTP_CTL, 1)
    yield Store(IO + 8)


def test_emulated_timer_interrupts_a_guest_that_runs() -> None:
    """B20: a soft timer must watch the deadline also right after a level change."""
    rig = Rig(emulated)
    assert rig.notified() == P
    assert 50_000 <= rig.get(regs.KVM_REG_ARM_PTIMER_CNT) < 50_001
    assert rig.stored() == 0
    assert rig.notified() == 0
    assert rig.stored() == 4
    assert rig.notified() == P  # TVAL is signed: -1 is in the past
    assert rig.stored() == 8
    assert not rig.pcpu.hrtimers.timers


def test_no_soft_timer_stays_behind_in_user_space() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Msr(CNTP_CVAL, 1 << 40)
        yield Msr(CNTP_CTL, 1)
        yield Store(IO)

    rig = Rig(guest)
    rig.stored()
    assert not rig.pcpu.hrtimers.timers


def test_emulated_registers_read_back() -> None:
    seen: dict[str, int] = {}

    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Msr(CNTP_CVAL, 1 << 40)
        yield Msr(CNTP_CTL, 7)
        seen["ctl"] = yield Mrs(CNTP_CTL)
        seen["cval"] = yield Mrs(CNTP_CVAL)
        seen["tval"] = yield Mrs(CNTP_TVAL)
        yield Msr(CNTP_CVAL, 0)
        seen["ctl past"] = yield Mrs(CNTP_CTL)
        yield Msr(CNTP_CTL, 0)
        seen["ctl off"] = yield Mrs(CNTP_CTL)
        yield Store(IO)

    rig = Rig(guest)
    assert rig.stored() == 0
    now = rig.get(regs.KVM_REG_ARM_PTIMER_CNT)
    assert seen["ctl"] == 3  # ISTATUS is not writable
    assert seen["cval"] == 1 << 40
    assert 0 < (-seen["tval"] & 0xFFFF_FFFF) <= now
    assert seen["ctl past"] == 7
    assert seen["ctl off"] == 4  # the condition, even when the timer is off


def test_time_passes_while_a_guest_polls_a_trapped_counter() -> None:
    seen: list[int] = []

    def guest(cpu: ScriptedCpu) -> Ops:
        yield Msr(CNTP_TVAL, 1000)
        for _ in range(20):
            seen.append((yield Mrs(CNTP_TVAL)))
        yield Store(IO)

    Rig(guest).stored()
    assert sorted(seen, reverse=True) == seen
    assert seen[0] - seen[-1] > 19 * 20
