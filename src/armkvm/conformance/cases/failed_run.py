"""A first run that fails at the PMU, then a vgic: is the timer mapped to it?

KVM_RUN enables the timer before it looks whether user space has initialised the PMU
(devices/vcpu.rst), and a first run that fails does not count as one, so a vgic may still be made.
P2 is the control, without such a run; in P3 there is one. The guest waits for its virtual timer's
interrupt and reports what it acknowledged. P4 is the same failure followed by a reset. What 6.12
made of it, and armkvm does not, is in docs/late-vgic.md.
"""

from __future__ import annotations

import ctypes

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.conformance.cases.irqs import KVM_ARM_VCPU_PMU_V3_INIT, KVM_ARM_VCPU_PMU_V3_IRQ
from armkvm.conformance.cases.vgic import (
    CTRL_INIT,
    DIST,
    GRP_ADDR,
    GRP_CTRL,
    V2,
    V2_ADDR_CPU,
    V2_ADDR_DIST,
    V2_CPU,
    V3,
    V3_ADDR_DIST,
    V3_ADDR_REDIST,
    V3_REDIST,
)
from armkvm.conformance.rig import PMU, PSCI, SPI, Rig
from armkvm.conformance.session import Session

ALARM_MS = 300  # the interrupt is due after 20
MOST = 8


def p2(session: Session) -> None:
    """Nothing runs before there is a vgic."""
    session.emit("== P2 vgic and PMU, then the first run; vtimer interrupt")
    _all_ways(session, fails=False)


def p3(session: Session) -> None:
    """The first run fails before there is a vgic."""
    session.emit("== P3 a first run fails at the PMU, then vgic and PMU; vtimer interrupt")
    _all_ways(session, fails=True)


def p4(session: Session) -> None:
    """The timer that the failed run enabled is reset with no vgic, or half of one.

    Not for a kernel that is needed: in 6.12 with a GICv3 the last call ends in an oops.
    """
    session.emit("== P4 a first run fails at the PMU, then KVM_ARM_VCPU_INIT")
    for what, kind in (("no vgic", None), ("vgic v2, no INIT", V2), ("vgic v3, no INIT", V3)):
        session.emit(f"  -- {what}")
        with Rig.ready(session, "bare", PSCI | PMU) as rig:
            rig.step(ALARM_MS)
            if kind is not None and rig.create_device(kind, 0, "real") < 0:
                continue
            init = st.KvmVcpuInit()
            session.ask(rig.vm, nr.KVM_ARM_PREFERRED_TARGET, init)
            for features, name in ((PSCI, "without the PMU"), (PSCI | PMU, "again, same")):
                init.features[0] = features
                rig.query(rig.vcpu, nr.KVM_ARM_VCPU_INIT, init, f"VCPU_INIT {name}")


def _all_ways(session: Session, *, fails: bool) -> None:
    """The old way of making a GICv2, then both models as devices; the host has what it has."""
    for what, version, kind in (
        ("KVM_CREATE_IRQCHIP", 2, None),
        ("KVM_CREATE_DEVICE vgic v2", 2, V2),
        ("KVM_CREATE_DEVICE vgic v3", 3, V3),
    ):
        session.emit(f"  -- {what}")
        with Rig.ready(session, f"vgic_v{version}", PSCI | PMU) as rig:
            if fails:
                rig.step(ALARM_MS)
            if _irqchip(rig) if kind is None else _device(rig, version, kind):
                _pmu(rig)
                rig.runs = 0
                rig.run_all(MOST, ALARM_MS)


def _irqchip(rig: Rig) -> bool:
    """This one has no file, so no CTRL_INIT: a line that is driven initialises it."""
    if rig.query(rig.vm, nr.KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP").ret:
        return False
    for frame, address, name in ((V2_ADDR_DIST, DIST, "dist"), (V2_ADDR_CPU, V2_CPU, "cpu")):
        device = k.KVM_ARM_DEVICE_VGIC_V2 << k.KVM_ARM_DEVICE_ID_SHIFT | frame
        arg = st.KvmArmDeviceAddr(device, address)
        rig.query(rig.vm, nr.KVM_ARM_SET_DEVICE_ADDR, arg, f"SET_DEVICE_ADDR {name}")
    rig.line(SPI, 0, 40, 0, "SPI 40")
    return True


def _device(rig: Rig, version: int, kind: int) -> bool:
    device = rig.create_device(kind, 0, "real")
    if device < 0:
        return False
    frames = (
        ((V2_ADDR_DIST, DIST, "DIST"), (V2_ADDR_CPU, V2_CPU, "CPU"))
        if version == 2
        else ((V3_ADDR_DIST, DIST, "DIST"), (V3_ADDR_REDIST, V3_REDIST, "REDIST"))
    )
    for frame, where, name in frames:
        place = ctypes.c_uint64(where)
        rig.attribute(device, nr.KVM_SET_DEVICE_ATTR, GRP_ADDR, frame, place, f"ADDR {name}")
    rig.attribute(device, nr.KVM_SET_DEVICE_ATTR, GRP_CTRL, CTRL_INIT, None, "CTRL_INIT")
    return True


def _pmu(rig: Rig) -> None:
    for attr, value, what in (
        (KVM_ARM_VCPU_PMU_V3_IRQ, ctypes.c_int(23), "PMU_V3_IRQ=23"),
        (KVM_ARM_VCPU_PMU_V3_INIT, None, "PMU_V3_INIT"),
    ):
        group = k.KVM_ARM_VCPU_PMU_V3_CTRL
        rig.attribute(rig.vcpu, nr.KVM_SET_DEVICE_ATTR, group, attr, value, what)
