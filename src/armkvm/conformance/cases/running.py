"""KVM_RUN itself: immediate_exit (api.rst 5), a vCPU that is powered off, no PSCI."""

from __future__ import annotations

from armkvm.abi import ioctl as nr
from armkvm.abi import regs
from armkvm.abi import structs as st
from armkvm.abi.kvm import KVM_MP_STATE_RUNNABLE
from armkvm.conformance.cases.simple import simple
from armkvm.conformance.rig import POWER_OFF, PSCI, Rig
from armkvm.conformance.session import Session


def e8(session: Session) -> None:
    """immediate_exit leaves kvm_run alone."""
    session.emit("== E8 immediate_exit=1")
    with Rig.ready(session, "bare") as rig:
        rig.run.immediate_exit = 1
        rig.step(500)
        rig.step(500)
        rig.run.immediate_exit = 0
        rig.run_all(3, 500)


def e9(session: Session) -> None:
    """It completes a pending MMIO first."""
    session.emit("== E9 immediate_exit=1 completing an MMIO")
    with Rig.ready(session, "mmio_rd") as rig:
        rig.step(500)
        rig.run.mmio.value = 0x1234
        rig.run.immediate_exit = 1
        rig.step(500)
        rig.emit(f"   x9={rig.get(regs.core_x(9)):x}")
        rig.run.immediate_exit = 0
        rig.step(500)


def e10(session: Session) -> None:
    """A vCPU without the PSCI 0.2 feature answers calls of PSCI 0.1 alone."""
    session.emit("== E10 no PSCI feature: hvc")
    simple(session, "psci_ver features=0", "psci_ver", 10, 500, features=0)


def e11(session: Session) -> None:
    """A vCPU that starts powered off sleeps in KVM_RUN."""
    session.emit("== E11 POWER_OFF feature: KVM_RUN")
    with Rig.ready(session, "bare", PSCI | POWER_OFF) as rig:
        rig.step(200)
        rig.step(200)
        state = st.KvmMpState()
        session.ask(rig.vcpu, nr.KVM_GET_MP_STATE, state)
        rig.emit(f"   mp_state={state.mp_state}")
        state.mp_state = KVM_MP_STATE_RUNNABLE
        rig.query(rig.vcpu, nr.KVM_SET_MP_STATE, state, "SET_MP_STATE RUNNABLE")
        rig.run_all(3, 500)
