"""KVM_IRQ_LINE: what it refuses, and in which order."""

from __future__ import annotations

import errno

from tests.kvm.rig import fails
from tests.kvm.vgic.vgic_rig import VgicRig

from armkvm.abi import kvm as k


def test_the_order_of_irq_lines_checks() -> None:
    rig = VgicRig(3, bare=True)

    def line(kind: int, num: int, cpu: int = 0) -> None:
        rig.vm.irq_line(k.irq_word(kind, cpu, num), 1)

    fails(errno.ENXIO, lambda: line(k.KVM_ARM_IRQ_TYPE_CPU, 0))
    fails(errno.EINVAL, lambda: line(k.KVM_ARM_IRQ_TYPE_SPI, 31))
    fails(errno.EBUSY, lambda: line(k.KVM_ARM_IRQ_TYPE_SPI, 32))
    fails(errno.EINVAL, lambda: line(k.KVM_ARM_IRQ_TYPE_PPI, 15))
    fails(errno.EINVAL, lambda: line(k.KVM_ARM_IRQ_TYPE_PPI, 32))
    fails(errno.EINVAL, lambda: line(k.KVM_ARM_IRQ_TYPE_PPI, 20, cpu=1))
    fails(errno.EBUSY, lambda: line(k.KVM_ARM_IRQ_TYPE_PPI, 20))
    fails(errno.EINVAL, lambda: line(3, 0))
    rig.place()
    rig.init()
    line(k.KVM_ARM_IRQ_TYPE_PPI, 20)
    line(k.KVM_ARM_IRQ_TYPE_SPI, 255)
    fails(errno.EINVAL, lambda: line(k.KVM_ARM_IRQ_TYPE_SPI, 256))
    rig.close()
