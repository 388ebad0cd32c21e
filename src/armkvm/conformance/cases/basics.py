"""Before a guest runs: initialisation, timer registers, KVM_IRQ_LINE (api.rst 4.25, 4.82)."""

from __future__ import annotations

from armkvm.abi import ioctl as nr
from armkvm.abi import regs
from armkvm.abi import structs as st
from armkvm.abi.kvm import KVM_ARM_TARGET_GENERIC_V8
from armkvm.conformance.log import error_name
from armkvm.conformance.rig import CPU_LINE, FIQ, IRQ, PPI, PSCI, SPI, Rig
from armkvm.conformance.session import Session


def e1(session: Session) -> None:
    """A vCPU before and after KVM_ARM_VCPU_INIT."""
    session.emit("== E1 KVM_RUN without KVM_ARM_VCPU_INIT")
    with Rig(session) as rig:
        rig.create_vcpu()
        rig.step(500)
        rig.query_pc("GET_ONE_REG pc before init")
        state = st.KvmMpState()
        rig.query(rig.vcpu, nr.KVM_GET_MP_STATE, state, "GET_MP_STATE before init")
        events = st.KvmVcpuEvents()
        rig.query(rig.vcpu, nr.KVM_GET_VCPU_EVENTS, events, "GET_VCPU_EVENTS before init")
        rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ on uninitialised vcpu")
        _initialise(rig)
        state.mp_state = 99
        rig.query(rig.vcpu, nr.KVM_GET_MP_STATE, state, "GET_MP_STATE after init")
        rig.emit(f"   mp_state={state.mp_state}")
        for number in (0, 100000):
            again = " again" if number == 0 else ""
            answer = session.ask(rig.vm, nr.KVM_CREATE_VCPU, number)
            rig.emit(
                f"  CREATE_VCPU({number}){again} ret={answer.ret} errno={error_name(answer.errno)}"
            )
        interrupt = st.KvmInterrupt(1)  # other architectures have it
        rig.query(rig.vcpu, nr.KVM_INTERRUPT, interrupt, "KVM_INTERRUPT vcpu ioctl")


def _initialise(rig: Rig) -> None:
    init = st.KvmVcpuInit(99)
    rig.query(rig.vcpu, nr.KVM_ARM_VCPU_INIT, init, "VCPU_INIT target=99")
    init.target = KVM_ARM_TARGET_GENERIC_V8
    init.features[0] = 1 << 31
    rig.query(rig.vcpu, nr.KVM_ARM_VCPU_INIT, init, "VCPU_INIT generic feature bit31")
    init = st.KvmVcpuInit()
    rig.query(rig.vm, nr.KVM_ARM_PREFERRED_TARGET, init, "PREFERRED_TARGET")
    rig.emit(f"   preferred target={init.target} features={init.features[0]:x}")
    rig.query(rig.vcpu, nr.KVM_ARM_VCPU_INIT, init, "VCPU_INIT preferred")
    rig.query(rig.vcpu, nr.KVM_ARM_VCPU_INIT, init, "VCPU_INIT again, same")
    init.features[0] ^= PSCI
    rig.query(rig.vcpu, nr.KVM_ARM_VCPU_INIT, init, "VCPU_INIT again, features changed")


def e2(session: Session) -> None:
    """Timer registers before the first run; user space makes a timer pending."""
    session.emit("== E2 irq_level & timers regs right after init, before run (userspace irqchip)")
    with Rig(session) as rig:
        rig.create_vcpu()
        rig.init()
        level = rig.run.s_regs
        ctl, cval, pstate = (
            rig.get(register)
            for register in (
                regs.KVM_REG_ARM_TIMER_CTL, regs.KVM_REG_ARM_TIMER_CVAL, regs.CORE_PSTATE,
            )
        )  # fmt: skip
        # The counter is read as well, and not shown: it is the one value that no call determines.
        rig.get(regs.KVM_REG_ARM_TIMER_CNT)
        rig.emit(
            f"   irq_level={level.device_irq_level:x} CTL={ctl:x} CVAL={cval:x} CNT=X"
            f" pstate={pstate:x}"
        )
        moved = rig.set(regs.KVM_REG_ARM_TIMER_CNT, 1000).ret
        rig.get(regs.KVM_REG_ARM_TIMER_CNT)
        rig.emit(f"   set CNT=X ret={moved}; CNT now=X")
        past = rig.set(regs.KVM_REG_ARM_TIMER_CVAL, 0).ret
        on = rig.set(regs.KVM_REG_ARM_TIMER_CTL, 1).ret
        rig.emit(
            f"   set CVAL=0 ret={past} set CTL=1 ret={on}"
            f" CTL reads {rig.get(regs.KVM_REG_ARM_TIMER_CTL):x}"
            f" irq_level={level.device_irq_level:x}"
            " (timer made pending by userspace before first run)"
        )
        rig.load("bare")
        rig.run_all(5, 500)


def e3(session: Session) -> None:
    """KVM_IRQ_LINE without a vgic."""
    session.emit("== E3 KVM_IRQ_LINE argument matrix, userspace irqchip")
    with Rig(session) as rig:
        rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ with no vcpu")
        rig.create_vcpu()
        rig.init(0)
        rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ")
        rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ again")
        rig.line(CPU_LINE, 0, IRQ, 0, "CPU_IRQ low")
        rig.line(CPU_LINE, 0, FIQ, 1, "CPU_FIQ")
        rig.line(CPU_LINE, 0, FIQ, 0, "CPU_FIQ low")
        rig.line(CPU_LINE, 0, 2, 1, "CPU num 2")
        rig.line(CPU_LINE, 1, IRQ, 1, "CPU vcpu 1 absent")
        rig.line(SPI, 0, 32, 1, "SPI 32")
        rig.line(PPI, 0, 27, 1, "PPI 27")
        rig.line(3, 0, 0, 1, "type 3")
