"""The other interrupt ioctls with an interrupt controller in user space, and the PMU's attributes.

api.rst 4.52 (KVM_SET_GSI_ROUTING), 4.59 (KVM_IOEVENTFD), 4.75 (KVM_IRQFD); devices/vcpu.rst.
"""

from __future__ import annotations

import ctypes

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.abi.caps import Cap
from armkvm.conformance.rig import PMU, PSCI, Rig
from armkvm.conformance.session import Session

KVM_IRQ_ROUTING_IRQCHIP = 1
KVM_ARM_VCPU_PMU_V3_IRQ, KVM_ARM_VCPU_PMU_V3_INIT = 0, 1


class OneRoute(ctypes.Structure):
    """struct kvm_irq_routing with one entry."""

    _fields_ = [("head", st.KvmIrqRouting), ("entry", st.KvmIrqRoutingEntry)]


def e7(session: Session) -> None:
    """What routes interrupts into a vgic, asked of a VM without one."""
    session.emit("== E7 other irq ioctls with userspace irqchip")
    with Rig(session) as rig:
        rig.create_vcpu()
        rig.init()
        vm = rig.vm
        rig.query(vm, nr.KVM_SIGNAL_MSI, st.KvmMsi(data=40), "KVM_SIGNAL_MSI")
        event = rig.client.eventfd()
        rig.query(vm, nr.KVM_IRQFD, st.KvmIrqfd(fd=event, gsi=1), "KVM_IRQFD")
        route = OneRoute()
        route.head.nr = 1
        route.entry.gsi = 1
        route.entry.type = KVM_IRQ_ROUTING_IRQCHIP
        rig.query(vm, nr.KVM_SET_GSI_ROUTING, route, "KVM_SET_GSI_ROUTING")
        arg = st.KvmIoeventfd(addr=0x1000_0F00, len=4, fd=event)
        rig.query(vm, nr.KVM_IOEVENTFD, arg, "KVM_IOEVENTFD")
        _timer_attributes(rig)
        cap = st.KvmEnableCap(cap=Cap.ARM_USER_IRQ)  # it is always on
        rig.query(vm, nr.KVM_ENABLE_CAP, cap, "VM KVM_ENABLE_CAP(ARM_USER_IRQ)")
        rig.query(rig.vcpu, nr.KVM_ENABLE_CAP, cap, "VCPU KVM_ENABLE_CAP(ARM_USER_IRQ)")
        where = st.KvmArmDeviceAddr(
            k.KVM_ARM_DEVICE_VGIC_V2 << k.KVM_ARM_DEVICE_ID_SHIFT, 0x0800_0000
        )
        rig.query(vm, nr.KVM_ARM_SET_DEVICE_ADDR, where, "ARM_SET_DEVICE_ADDR without vgic")
        rig.client.close(event)


def _timer_attributes(rig: Rig) -> None:
    vcpu, group = rig.vcpu, k.KVM_ARM_VCPU_TIMER_CTRL
    vtimer, name = k.KVM_ARM_VCPU_TIMER_IRQ_VTIMER, "TIMER_IRQ_VTIMER"
    irq = ctypes.c_int(27)
    rig.attribute(vcpu, nr.KVM_HAS_DEVICE_ATTR, group, vtimer, None, f"vcpu HAS {name}")
    rig.attribute(vcpu, nr.KVM_SET_DEVICE_ATTR, group, vtimer, irq, f"vcpu SET {name}=27")
    rig.attribute(vcpu, nr.KVM_GET_DEVICE_ATTR, group, vtimer, irq, f"vcpu GET {name}")
    rig.emit(f"   irq={irq.value}")


def p1(session: Session) -> None:
    """A PMU must be initialised before the first run; without a vgic it has no interrupt."""
    session.emit("== P1 PMU without irqchip")
    with Rig(session) as rig:
        rig.create_vcpu()
        if not rig.init(PSCI | PMU):
            return
        rig.load("bare")
        rig.step(500)
        group = k.KVM_ARM_VCPU_PMU_V3_CTRL
        rig.attribute(
            rig.vcpu, nr.KVM_SET_DEVICE_ATTR, group, KVM_ARM_VCPU_PMU_V3_IRQ, ctypes.c_int(23),
            "PMU_V3_IRQ=23 (no irqchip)",
        )  # fmt: skip
        rig.attribute(
            rig.vcpu, nr.KVM_SET_DEVICE_ATTR, group, KVM_ARM_VCPU_PMU_V3_INIT, None, "PMU_V3_INIT"
        )
        rig.runs = 0
        rig.run_all(3, 500)
