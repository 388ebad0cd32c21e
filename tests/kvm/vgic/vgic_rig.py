"""A VM with an interrupt controller in the kernel, and what a guest would do to list registers."""

from __future__ import annotations

from tests.kvm.rig import Ops

from armkvm.abi import kvm as k
from armkvm.abi import vgic as a
from armkvm.arch import gic as g
from armkvm.host.scripted import Script, ScriptedBackend, ScriptedCpu
from armkvm.kvm import System, Vcpu
from armkvm.kvm.vgic.cpu import VgicCpu
from armkvm.kvm.vgic.irq import VgicIrq
from armkvm.kvm.vgic.kvm_device import VgicDevice

DIST, CPUIF, REDIST = 0x0800_0000, 0x0801_0000, 0x080A_0000
HOSTS = {2: "nvhe-gicv2", 3: "vhe-gicv3"}
KINDS = {2: k.KVM_DEV_TYPE_ARM_VGIC_V2, 3: k.KVM_DEV_TYPE_ARM_VGIC_V3}
PSCI = 1 << k.KVM_ARM_VCPU_PSCI_0_2


def nothing(_cpu: ScriptedCpu) -> Ops:
    """A guest that does nothing."""
    yield from ()


class VgicRig:
    """`cpus` vCPUs, a vgic of version 2 or 3; placed and initialised unless `bare`."""

    def __init__(
        self,
        version: int,
        cpus: int = 1,
        *,
        bare: bool = False,
        script: Script = nothing,
    ) -> None:
        self.version = version
        self.system = System(HOSTS[version], backend=ScriptedBackend(script))
        self.vm = self.system.create_vm()
        self.vcpus: list[Vcpu] = [self.vm.create_vcpu(n) for n in range(cpus)]
        for vcpu in self.vcpus:
            vcpu.arm_vcpu_init(features=PSCI)
        device = self.vm.create_device(KINDS[version])
        assert isinstance(device, VgicDevice)
        self.device = device
        if not bare:
            self.place()
            self.init()
            self.dist_write(0, 2 if version == 3 else 1)

    def place(self) -> None:
        second = (a.KVM_VGIC_V2_ADDR_TYPE_CPU, CPUIF)
        first = a.KVM_VGIC_V2_ADDR_TYPE_DIST
        if self.version == 3:
            second = (a.KVM_VGIC_V3_ADDR_TYPE_REDIST, REDIST)
            first = a.KVM_VGIC_V3_ADDR_TYPE_DIST
        self.device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, first, DIST)
        self.device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, *second)

    def init(self) -> None:
        self.device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, a.KVM_DEV_ARM_VGIC_CTRL_INIT)

    # registers, as user space has them

    def dist(self, offset: int, cpu: int = 0) -> int:
        return self.device.get_device_attr(a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, cpu << 32 | offset)

    def dist_write(self, offset: int, value: int, cpu: int = 0) -> None:
        self.device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, cpu << 32 | offset, value)

    # interrupts

    def vgic(self, cpu: int = 0) -> VgicCpu:
        vgic = self.vcpus[cpu].vgic_cpu
        assert vgic is not None
        return vgic

    def irq(self, intid: int, cpu: int = 0) -> VgicIrq:
        return self.vm.vgic.irq(self.vcpus[cpu], intid)

    def enabled(self, intid: int, priority: int = 0xA0, cpu: int = 0) -> VgicIrq:
        irq = self.irq(intid, cpu)
        irq.enabled, irq.priority = True, priority
        return irq

    def line(self, intid: int, level: bool, cpu: int = 0) -> None:
        kind = k.KVM_ARM_IRQ_TYPE_PPI if intid < 32 else k.KVM_ARM_IRQ_TYPE_SPI
        self.vm.irq_line(k.irq_word(kind, cpu, intid), level)

    # the guest

    def enter(self, cpu: int = 0) -> list[int]:
        """Entry: the list registers in use."""
        vgic = self.vgic(cpu)
        vgic.flush_hwstate()
        return [vgic.lrs[n].value for n in range(len(vgic.in_lrs))]

    def leave(self, *lrs: int, cpu: int = 0) -> None:
        """Exit, with what the guest has made of the list registers."""
        vgic = self.vgic(cpu)
        for reg, value in zip(vgic.lrs, lrs, strict=False):
            reg.value = value
        vgic.sync_hwstate()
        assert [reg.value for reg in vgic.lrs] == [0] * g.NR_LR

    def close(self) -> None:
        self.device.close()
        for vcpu in self.vcpus:
            vcpu.close()
        self.vm.close()
        self.system.close()


def acked(lr: int) -> int:
    """Pending to active, as reading IAR does."""
    return lr & ~g.ICH_LR_PENDING | g.ICH_LR_ACTIVE


def ended(lr: int) -> int:
    """Neither, as writing EOIR does."""
    return lr & ~g.ICH_LR_STATE


def state(lr: int) -> str:
    """ "", "P", "A" or "PA"."""
    return "P" * bool(lr & g.ICH_LR_PENDING) + "A" * bool(lr & g.ICH_LR_ACTIVE)
