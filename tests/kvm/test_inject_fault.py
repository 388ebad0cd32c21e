"""Faults that user space injects: an external abort in place of a completion, an SError."""

from __future__ import annotations

import errno

import pytest
from tests.engine import a64
from tests.kvm.native import DEVICE, IO, PROLOGUE, RAM, VECTORS, Native, out
from tests.kvm.rig import Ops, Rig, fails

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi.structs import KvmGuestDebug, KvmVcpuEvents
from armkvm.arch import esr as e
from armkvm.host.scripted import Load, Mask, ScriptedCpu, Store

START = 4 * len(PROLOGUE)
EL1_DABT = e.EC_DABT_CUR << 26 | e.IL | e.FSC_EXTABT
EL1_VECTOR, EL0_VECTOR = VECTORS + 0x200, VECTORS + 0x400
X3 = 0xDEAD_BEEF_0BAD_F00D
RT = 3

ACCESSES = {
    "ldr": a64.ldr(RT, DEVICE, 0x18),
    "str": a64.str_(RT, DEVICE, 0x18),
    "ldrb": 0x3940_0000 | 0x18 << 10 | DEVICE << 5 | RT,
    "ldrsw": 0xB980_0000 | 0x18 // 4 << 10 | DEVICE << 5 | RT,
}


def at_access(name: str) -> Native:
    """A guest that has exited with an access to the device at 0x18, X3 its register."""
    m = Native(a64.mov(RT, X3), ACCESSES[name], out(RT, 8))
    m.vcpu.limit = 1000  # a guest that went astray fails, it does not hang
    m.vcpu.run()
    assert m.struct.exit_reason == k.KVM_EXIT_MMIO
    assert m.struct.mmio.phys_addr == IO + 0x18
    m.struct.mmio.value = 0x5555_5555_5555_5555
    return m


def abort(m: Native | Rig) -> None:
    """KVM_SET_VCPU_EVENTS with ext_dabt_pending."""
    m.vcpu.set_vcpu_events(KvmVcpuEvents(ext_dabt_pending=1))


def finds_the_abort(m: Native, elr: int) -> None:
    """The handler runs from its first instruction on, and finds what an external abort leaves."""
    assert m.stored() == (0xF00, EL1_DABT)
    assert m.stored() == (0xF08, RAM + elr)
    assert m.get(regs.sys_reg(3, 0, 6, 0, 0)) == IO + 0x18  # FAR_EL1
    assert m.get(regs.core_x(RT)) == X3


@pytest.mark.parametrize("name", ACCESSES)
def test_an_aborted_access_is_not_completed(name: str) -> None:
    with at_access(name) as m:
        access = m.pc
        abort(m)
        assert m.pc == EL1_VECTOR
        assert m.get(regs.core_x(RT)) == X3
        finds_the_abort(m, access)


@pytest.mark.parametrize("name", ["ldr", "str"])
def test_a_run_that_is_to_complete_alone_leaves_an_aborted_access(name: str) -> None:
    """What QEMU and our own snapshot do before they read registers."""
    with at_access(name) as m:
        access = m.pc
        abort(m)
        m.struct.immediate_exit = 1
        for _ in range(3):
            assert m.vcpu.run_raw() == -errno.EINTR
            assert m.pc == EL1_VECTOR
        m.struct.immediate_exit = 0
        finds_the_abort(m, access)


def test_the_handler_can_try_again() -> None:
    with at_access("ldr") as m:
        abort(m)
        m.put(EL1_VECTOR, [a64.ERET])
        m.vcpu.run()
        assert (m.struct.exit_reason, m.struct.mmio.phys_addr) == (k.KVM_EXIT_MMIO, IO + 0x18)
        m.struct.mmio.value = 77
        assert m.stored() == (8, 77)


def test_registers_that_user_space_sets_after_an_abort_hold() -> None:
    with at_access("ldr") as m:
        abort(m)
        m.put(0x400, [out(RT, 0x10), out(RT, 0x20)])
        m.set(regs.CORE_PC, RAM + 0x400)
        assert m.stored() == (0x10, X3)


def test_an_abort_of_an_access_at_el0() -> None:
    program = [
        *a64.mov(RT, X3),
        *a64.mov(0, RAM + 0x400),
        a64.msr("ELR_EL1", 0),
        a64.msr("SPSR_EL1", 31),
        a64.ERET,
    ]
    with Native(program) as m:
        m.put(0x400, [a64.ldr(RT, DEVICE, 0x18), a64.B_SELF])
        m.vcpu.run()
        assert m.struct.mmio.phys_addr == IO + 0x18
        abort(m)
        assert m.pc == EL0_VECTOR
        assert m.stored() == (0xF00, e.EC_DABT_LOW << 26 | e.IL | e.FSC_EXTABT)
        assert m.get(regs.core_x(RT)) == X3


def test_an_abort_is_a_step_for_a_debugger() -> None:
    with Native(a64.mov(RT, X3), a64.ldr(RT, DEVICE, 0x18)) as m:
        control = k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_SINGLESTEP
        m.vcpu.set_guest_debug(KvmGuestDebug(control=control))
        m.vcpu.run()
        while m.struct.exit_reason == k.KVM_EXIT_DEBUG:
            m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_MMIO
        abort(m)
        for stop in (EL1_VECTOR, EL1_VECTOR + 4):
            m.vcpu.run()
            assert (m.struct.exit_reason, m.pc) == (k.KVM_EXIT_DEBUG, stop)
        assert m.get(regs.core_x(27)) == EL1_DABT


def test_an_access_without_syndrome_can_be_aborted_too() -> None:
    ldp = 0xA940_0000 | 4 << 10 | DEVICE << 5 | RT  # LDP X3, X4, [X28]
    with Native(a64.mov(RT, X3), ldp) as m:
        m.vm.enable_cap(177)
        m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_ARM_NISV
        assert m.struct.arm_nisv.fault_ipa == IO
        access = m.pc
        abort(m)
        assert m.pc == EL1_VECTOR
        assert m.stored() == (0xF00, EL1_DABT)
        assert m.stored() == (0xF08, RAM + access)
        assert m.get(regs.core_x(RT)) == X3


def test_initialising_again_drops_an_access() -> None:
    """The first instruction of the guest that starts over is executed."""
    with at_access("ldr") as m:
        m.vcpu.arm_vcpu_init(features=m.vcpu.features)
        m.put(0x400, [*a64.mov(RT, 1), *a64.mov(DEVICE, IO), out(RT, 0x10)])
        m.set(regs.CORE_PC, RAM + 0x400)
        assert m.stored() == (0x10, 1)


def test_a_pc_that_user_space_sets_is_stepped_over_with_the_access() -> None:
    """As in KVM: the access is completed by KVM_RUN, whatever was set in between."""
    with at_access("ldr") as m:
        m.put(0x400, [a64.movz(RT, 1), out(RT, 0x10), a64.B_SELF])
        m.set(regs.CORE_PC, RAM + 0x400)
        assert m.stored() == (0x10, 0x5555_5555_5555_5555)


def test_the_scripted_cpu_goes_on_at_the_vector() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Load(IO)
        yield Store(IO + 4)

    rig = Rig(guest)
    rig.run()
    abort(rig)
    assert rig.cpu.injected == [("sync", EL1_DABT, IO)]
    assert rig.get(regs.CORE_PC) == 0x200
    assert rig.stored() == 4
    assert rig.get(regs.CORE_PC) == 0x200  # the vector's first instruction, not the second


SERROR_VECTOR = 0x180
PSTATE_A, EL1H, ALL_MASKED = 0x100, 5, 0x3C0
IDS = 1 << 24


def pend_serror(m: Native | Rig, esr: int | None = None) -> None:
    """KVM_SET_VCPU_EVENTS with serror_pending."""
    events = KvmVcpuEvents(serror_pending=1)
    if esr is not None:
        events.serror_has_esr, events.serror_esr = 1, esr
    m.vcpu.set_vcpu_events(events)


def pending(m: Native | Rig) -> bool:
    return bool(m.vcpu.get_vcpu_events().serror_pending)


UNMASKING = {
    "daifclr": [a64.daifclr(4)],
    "msr daif": [a64.movz(3, ALL_MASKED & ~PSTATE_A), a64.msr("DAIF", 3)],
    "eret": [
        a64.movz(3, ALL_MASKED & ~PSTATE_A | EL1H),
        a64.msr("SPSR_EL1", 3),
        0x1000_0063,  # ADR X3, .+12
        a64.msr("ELR_EL1", 3),
        a64.ERET,
    ],
}


@pytest.mark.parametrize("how", UNMASKING)
@pytest.mark.parametrize("kind", ["nvhe-gicv2", "vhe-gicv3"])
def test_an_serror_is_taken_where_the_guest_unmasks_it(how: str, kind: str) -> None:
    """No exit comes between: the next one is the handler's."""
    with Native(out(31), UNMASKING[how], a64.NOP, out(31, 8), kind=kind) as m:
        m.vcpu.limit = 1000
        assert m.stored() == (0, 0)
        pend_serror(m)
        assert pending(m)
        assert m.stored() == (0xF00, e.EC_SERROR << 26 | e.IL | IDS * (kind == "vhe-gicv3"))
        assert not pending(m)
        expected = START + 4 * (1 + len(UNMASKING[how]))
        assert m.stored() == (0xF08, RAM + expected)


def test_an_serror_at_el0_is_taken_at_once() -> None:
    """Masked at EL1, PSTATE.A clear at EL0."""
    program = [*a64.mov(0, RAM + 0x400), a64.msr("ELR_EL1", 0), a64.msr("SPSR_EL1", 31)]
    with Native(out(31), program, a64.ERET) as m:
        m.put(0x400, [out(31, 8), a64.B_SELF])
        m.vcpu.limit = 1000
        m.stored()
        pend_serror(m)
        assert m.stored() == (0xF00, e.EC_SERROR << 26 | e.IL)
        assert m.get(regs.CORE_ELR_EL1) == RAM + 0x400


def test_an_serror_that_stays_masked_stays_pending() -> None:
    with Native(out(31), a64.mrs(3, "ISR_EL1"), out(3, 8), out(31, 16), kind="vhe-gicv3") as m:
        m.vcpu.limit = 1000
        m.stored()
        pend_serror(m, 0x1234)
        assert m.stored() == (8, 1 << 8)  # ISR_EL1.A
        assert m.stored() == (16, 0)
        events = m.vcpu.get_vcpu_events()
        assert (events.serror_pending, events.serror_has_esr, events.serror_esr) == (1, 1, 0x1234)
        # Another syndrome in the place of the first: one SError, with the last.
        pend_serror(m, 0x5678)
        m.set(regs.CORE_PSTATE, EL1H)
        assert m.stored() == (0xF00, e.EC_SERROR << 26 | e.IL | 0x5678)
        assert not pending(m)


def test_an_serror_ends_a_wfi_though_it_is_masked() -> None:
    with Native(out(31), a64.WFI, out(31, 8)) as m:
        m.vcpu.limit = 1000
        m.stored()
        pend_serror(m)
        assert m.stored() == (8, 0)
        assert pending(m)


def test_the_scripted_cpu_takes_an_serror_when_it_unmasks_it() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Store(IO)
        yield Mask(False, PSTATE_A)
        yield Store(IO + 4)

    rig = Rig(guest)
    rig.stored()
    pend_serror(rig)
    assert rig.stored() == 4
    assert rig.cpu.injected == [("serror", e.EC_SERROR << 26 | e.IL, 0)]
    assert not pending(rig)
    assert rig.get(regs.CORE_PC) == 0x200 + SERROR_VECTOR


def test_what_vcpu_events_refuse() -> None:
    with Native() as m:
        fails(errno.EINVAL, lambda: pend_serror(m, 1))  # no RAS
        fails(errno.EINVAL, lambda: m.vcpu.set_vcpu_events(KvmVcpuEvents(pad=(1,))))
        fails(errno.EINVAL, lambda: m.vcpu.set_vcpu_events(KvmVcpuEvents(reserved=(0, 1))))
        assert not pending(m)
    with Native(kind="vhe-gicv3") as m:
        fails(errno.EINVAL, lambda: pend_serror(m, 1 << 25))
        assert not pending(m)
