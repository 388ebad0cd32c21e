"""A VM on a scripted CPU: what the tests of the hypervisor's parts start from."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Generator

import pytest

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.host.clock import Clock
from armkvm.host.pcpu import PhysicalCpu
from armkvm.host.sched import Scheduler
from armkvm.host.scripted import Op, Script, ScriptedBackend, ScriptedCpu
from armkvm.kvm import System, Vcpu

Ops = Generator[Op, int, None]

RAM, RAM_SIZE = 0x4000_0000, 0x1_0000
IO = 0x1000_0000
PSCI = 1 << k.KVM_ARM_VCPU_PSCI_0_2


class Rig:
    """A system, a VM with 64 KiB of memory, one initialised vCPU."""

    def __init__(
        self,
        script: Script,
        irq: Script | None = None,
        *,
        kind: str = "nvhe-gicv2",
        clock: Clock | str = "virtual",
        features: int = PSCI,
        sched: Scheduler | None = None,
    ) -> None:
        self.backend = ScriptedBackend(script, irq=irq)
        self.system = System(kind, clock, backend=self.backend, sched=sched)
        self.vm = self.system.create_vm()
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self.vm.set_user_memory_region(0, RAM, RAM_SIZE, self.memory)
        self.vcpu: Vcpu = self.vm.create_vcpu(0)
        self.vcpu.arm_vcpu_init(features=features)
        self.cpu: ScriptedCpu = self.backend.cpus[0]
        self.struct = self.vcpu.run_struct
        # A WFI that nothing will end is ended by a kick: who expected more fails, not hangs.
        self.system.clock.idle = lambda due: self.vcpu.kick() if due is None else None

    @property
    def level(self) -> int:
        """device_irq_level."""
        return int(self.struct.s_regs.device_irq_level)

    @property
    def pcpu(self) -> PhysicalCpu:
        """The host's first CPU, where a single vCPU runs."""
        return self.system.host.pcpus[0]

    def run(self) -> int:
        """KVM_RUN: its exit reason if it succeeded."""
        self.vcpu.run()
        return int(self.struct.exit_reason)

    def notified(self) -> int:
        """KVM_RUN that must end with a notification: the level it reports."""
        fails(errno.EINTR, self.vcpu.run)
        assert self.struct.exit_reason == k.KVM_EXIT_INTR
        return self.level

    def stored(self) -> int:
        """KVM_RUN that must end with a device write: its address, relative to IO."""
        assert self.run() == k.KVM_EXIT_MMIO
        assert self.struct.mmio.is_write
        return int(self.struct.mmio.phys_addr) - IO

    def line(self, level: int, num: int = k.KVM_ARM_IRQ_CPU_IRQ) -> None:
        """Drive the vCPU's IRQ (or FIQ) line."""
        self.vm.irq_line(k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, 0, num), level)

    def get(self, reg: int) -> int:
        """KVM_GET_ONE_REG."""
        return self.vcpu.get_one_reg(reg)

    def counter(self) -> int:
        """The guest's virtual counter."""
        return self.get(regs.KVM_REG_ARM_TIMER_CNT)


def fails(code: int, action: Callable[[], object]) -> None:
    """The action raises OSError with this errno."""
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == code
