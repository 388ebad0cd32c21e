"""Making an interrupt controller in the kernel: when, how, and what KVM_RUN says to half of one.

api.rst 4.79 (KVM_CREATE_DEVICE), devices/arm-vgic.rst and arm-vgic-v3.rst. Which model exists is
the host's matter: the log shows the answers of both.
"""

from __future__ import annotations

import ctypes

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.conformance.rig import CPU_LINE, IRQ, PPI, SPI, Rig
from armkvm.conformance.session import Session

# asm-arm64/kvm.h: attributes of both vgic models
GRP_ADDR, GRP_NR_IRQS, GRP_CTRL = 0, 3, 4
CTRL_INIT = 0
V2_ADDR_DIST, V2_ADDR_CPU, V3_ADDR_DIST, V3_ADDR_REDIST = range(4)

DIST, V2_CPU, V3_REDIST = 0x0800_0000, 0x0801_0000, 0x080A_0000

V2, V3, ITS = (
    k.KVM_DEV_TYPE_ARM_VGIC_V2, k.KVM_DEV_TYPE_ARM_VGIC_V3, k.KVM_DEV_TYPE_ARM_VGIC_ITS,
)  # fmt: skip


def e4(session: Session) -> None:
    """Too late: a vCPU has run."""
    session.emit("== E4 vgic creation AFTER a vcpu has run (userspace irqchip)")
    with Rig.ready(session, "bare") as rig:
        rig.run_all(3, 500)
        rig.query(rig.vm, nr.KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP after run")
        test = k.KVM_CREATE_DEVICE_TEST
        rig.create_device(V2, test, "VGIC_V2 TEST after run")
        rig.create_device(V2, 0, "VGIC_V2 after run")
        rig.create_device(V3, test, "VGIC_V3 TEST after run")
        rig.create_device(V3, 0, "VGIC_V3 after run")
        rig.create_device(ITS, 0, "VGIC_ITS after run")


def e5(session: Session) -> None:
    """The old way, in time; then runs with none, one or both of its addresses."""
    session.emit("== E5 vgic creation after vcpu create+init, before run")
    with Rig(session) as rig:
        rig.create_vcpu()
        rig.init()
        rig.query(rig.vm, nr.KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP")
        rig.query(rig.vm, nr.KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP again")
        rig.create_device(V3, 0, "VGIC_V3 after CREATE_IRQCHIP")
        rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ with vgic")
        rig.line(SPI, 0, 32, 1, "SPI 32 vgic uninit")
    for addresses, what in enumerate(("no address", "dist address only", "dist+cpu addresses")):
        session.emit(f"  -- KVM_CREATE_IRQCHIP, KVM_RUN with {what}")
        with Rig(session) as rig:
            rig.create_vcpu()
            rig.init()
            session.ask(rig.vm, nr.KVM_CREATE_IRQCHIP)
            rig.load("bare")
            frames = ((V2_ADDR_DIST, DIST, "dist"), (V2_ADDR_CPU, V2_CPU, "cpu"))
            for frame, address, name in frames[:addresses]:
                device = k.KVM_ARM_DEVICE_VGIC_V2 << k.KVM_ARM_DEVICE_ID_SHIFT | frame
                arg = st.KvmArmDeviceAddr(device, address)
                rig.query(rig.vm, nr.KVM_ARM_SET_DEVICE_ADDR, arg, f"SET_DEVICE_ADDR {name}")
            _run_twice(rig)


def e6(session: Session) -> None:
    """Both models made as devices, in four stages of completion; then their own rules."""
    for version, kind in ((2, V2), (3, V3)):
        # A host that cannot have the model says so at the first stage, and that is all.
        if all(_stage(session, version, kind, stage) for stage in range(4)):
            _before_any_vcpu(session, version, kind)


STAGES = (
    "no address, no INIT", "DIST address only", "both addresses, no CTRL_INIT",
    "addresses + CTRL_INIT; vtimer guest",
)  # fmt: skip


def _stage(session: Session, version: int, kind: int, stage: int) -> bool:
    session.emit(f"== E6 CREATE_DEVICE vgic v{version}, KVM_RUN with {STAGES[stage]}")
    with Rig(session) as rig:
        if stage == 0:
            rig.create_device(kind, k.KVM_CREATE_DEVICE_TEST, "TEST flag")
        device = rig.create_device(kind, 0, "real")
        if device < 0:
            return False
        rig.create_vcpu()
        rig.init()
        rig.load("vt_mmio" if stage == 3 else "bare")
        dist, cpu = (V2_ADDR_DIST, V2_ADDR_CPU) if version == 2 else (V3_ADDR_DIST, V3_ADDR_REDIST)
        if stage >= 1:
            _set(rig, device, GRP_ADDR, dist, ctypes.c_uint64(DIST), "ADDR DIST")
        if stage >= 2:
            frame = ctypes.c_uint64(V2_CPU if version == 2 else V3_REDIST)
            _set(rig, device, GRP_ADDR, cpu, frame, "ADDR REDIST/CPU")
        if stage < 3:
            _run_twice(rig)
        else:
            _set(rig, device, GRP_CTRL, CTRL_INIT, None, "CTRL_INIT")
            _complete(rig)
    return True


def _run_twice(rig: Rig) -> None:
    """A first run that fails on the irqchip leaves a dead VM."""
    rig.step(500)
    rig.step(500)
    rig.query_pc("GET_ONE_REG pc afterwards")


def _complete(rig: Rig) -> None:
    """The vgic is whole: lines, and a timer that no longer shows in device_irq_level."""
    rig.line(SPI, 0, 40, 1, "SPI 40 (vgic init)")
    rig.line(PPI, 0, 27, 1, "PPI 27 (vtimer, vgic init)")
    rig.line(PPI, 0, 20, 1, "PPI 20")
    rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ (vgic init)")
    rig.run_all(40, 500)
    rig.attribute(
        rig.vcpu, nr.KVM_SET_DEVICE_ATTR,
        k.KVM_ARM_VCPU_TIMER_CTRL, k.KVM_ARM_VCPU_TIMER_IRQ_VTIMER,
        ctypes.c_int(28), "SET TIMER_IRQ_VTIMER=28 after run",
    )  # fmt: skip


def _before_any_vcpu(session: Session, version: int, kind: int) -> None:
    session.emit(f"== E6b vgic v{version}: CTRL_INIT before any vcpu / NR_IRQS")
    with Rig(session) as rig:
        device = rig.create_device(kind, 0, "real")
        for number, again in ((64, ""), (64, " again"), (63, "")):
            irqs = ctypes.c_uint32(number)
            _set(rig, device, GRP_NR_IRQS, 0, irqs, f"NR_IRQS={number}{again}")
        _set(rig, device, GRP_CTRL, CTRL_INIT, None, "CTRL_INIT no vcpu")


def _set(
    rig: Rig, device: int, group: int, attr: int, value: ctypes._SimpleCData[int] | None, what: str
) -> None:
    rig.attribute(device, nr.KVM_SET_DEVICE_ATTR, group, attr, value, what)
