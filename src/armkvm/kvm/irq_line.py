"""KVM_IRQ_LINE: levels that user space drives, after kvm_vm_ioctl_irq_line() in arm.c.

Without a vgic the lines are the vCPU's own IRQ and FIQ inputs: bits VI and VF of its HCR_EL2. They
are levels, and stay as driven until driven otherwise. With a vgic they are its shared and private
peripheral inputs.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi import kvm as k
from armkvm.arch.hcr import HCR_VF, HCR_VI
from armkvm.host import sched
from armkvm.kvm.file import fail
from armkvm.kvm.kvm_host import REQ_IRQ_PENDING
from armkvm.kvm.vgic.dist import inject_irq
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, VGIC_NR_SGIS

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu
    from armkvm.kvm.vm import Vm


def irq_line(vm: Vm, irq: int, level: bool) -> None:
    """Drive one line; the order of the checks is the kernel's. EINVAL, ENXIO."""
    kind = irq >> k.KVM_ARM_IRQ_TYPE_SHIFT & k.KVM_ARM_IRQ_TYPE_MASK
    vcpu_id = irq >> k.KVM_ARM_IRQ_VCPU_SHIFT & k.KVM_ARM_IRQ_VCPU_MASK
    vcpu_id += (irq >> k.KVM_ARM_IRQ_VCPU2_SHIFT & k.KVM_ARM_IRQ_VCPU2_MASK) << 8
    num = irq & k.KVM_ARM_IRQ_NUM_MASK
    if vm.trace.kvm_irq_line is not None:
        vm.trace.kvm_irq_line(kind, vcpu_id, num, int(level))
    match kind:
        case k.KVM_ARM_IRQ_TYPE_CPU:
            if vm.irqchip_in_kernel:
                fail(errno.ENXIO)
            vcpu = vm.find_vcpu(vcpu_id)
            if vcpu is None or num > k.KVM_ARM_IRQ_CPU_FIQ:
                fail(errno.EINVAL)
            vcpu_interrupt_line(vcpu, num, level)
        case k.KVM_ARM_IRQ_TYPE_PPI:
            if not vm.irqchip_in_kernel:
                fail(errno.ENXIO)
            vcpu = vm.find_vcpu(vcpu_id)
            if vcpu is None or not VGIC_NR_SGIS <= num < VGIC_NR_PRIVATE_IRQS:
                fail(errno.EINVAL)
            _inject(vm, vcpu, num, level)
        case k.KVM_ARM_IRQ_TYPE_SPI:
            if not vm.irqchip_in_kernel:
                fail(errno.ENXIO)
            if num < VGIC_NR_PRIVATE_IRQS:
                fail(errno.EINVAL)
            _inject(vm, None, num, level)
        case _:
            fail(errno.EINVAL)


def _inject(vm: Vm, vcpu: Vcpu | None, num: int, level: bool) -> None:
    """One of the vgic's inputs. EBUSY: a GICv3 that is not initialised."""
    ret = inject_irq(vm, vcpu, num, level)
    if ret:
        fail(-ret)


def vcpu_interrupt_line(vcpu: Vcpu, num: int, level: bool) -> None:
    """Set or clear VI or VF; a change is announced by a request, then by a kick.

    Both are needed. A vCPU that has checked its lines but is not in the guest yet would not see a
    bare change until some later exit (325f9c649c8a); the request makes its last check fail.
    """
    bit = HCR_VI if num == k.KVM_ARM_IRQ_CPU_IRQ else HCR_VF
    with vcpu.wait:
        if bool(vcpu.hcr & bit) == level:
            return
        vcpu.hcr ^= bit
    point = vcpu.point
    if point is not None:
        point(sched.LINE_SET, vcpu)
    vcpu.make_request(REQ_IRQ_PENDING)
    if point is not None:
        point(sched.LINE_REQUESTED, vcpu)
    vcpu.vcpu_kick()
    if level:
        # Raised by another vCPU's thread, that is: by an access to the GIC of user space.
        vcpu.turn.hand_over(vcpu.task)
