"""Inputs of the distributor: who may drive them, and who is told."""

from __future__ import annotations

import errno

from tests.kvm.vgic.vgic_rig import VgicRig

from armkvm.kvm.kvm_host import REQ_IRQ_PENDING
from armkvm.kvm.vgic.dist import inject_irq, map_phys_irq, reset_mapped_irq, set_owner
from armkvm.kvm.vgic.irq import VgicIrq

SPI = 40


def test_injection_asks_the_vcpu_to_look(rig: VgicRig) -> None:
    rig.enabled(SPI)
    vcpu = rig.vcpus[0]
    assert not vcpu.requests & REQ_IRQ_PENDING
    rig.line(SPI, True)
    assert vcpu.requests & REQ_IRQ_PENDING
    vcpu.check_request(REQ_IRQ_PENDING)
    rig.line(SPI, True)  # no change of a level
    assert not vcpu.requests & REQ_IRQ_PENDING


def test_a_line_of_a_kernel_device_is_its_owners(rig: VgicRig) -> None:
    owner = object()
    assert set_owner(rig.vcpus[0], 27, owner) == 0
    assert set_owner(rig.vcpus[0], 27, owner) == 0
    assert set_owner(rig.vcpus[0], 27, object()) == -errno.EEXIST
    assert set_owner(rig.vcpus[0], 3, owner) == -errno.EINVAL
    rig.line(27, True)  # accepted, and without effect
    assert not rig.irq(27).line_level
    assert inject_irq(rig.vm, rig.vcpus[0], 27, True, owner) == 0
    assert rig.irq(27).line_level


def state(irq: VgicIrq) -> tuple[bool, bool, bool]:
    return irq.active, irq.pending_latch, irq.line_level


def test_reset_of_a_mapped_interrupt(rig: VgicRig) -> None:
    irq = rig.enabled(27)
    irq.active = irq.line_level = irq.pending_latch = True
    reset_mapped_irq(rig.vcpus[0], 27)
    assert state(irq) == (True, True, True)  # not mapped
    map_phys_irq(rig.vcpus[0], 27, 27, lambda: False)
    reset_mapped_irq(rig.vcpus[0], 27)
    assert state(irq) == (False, False, False)
