"""A VM on the engine with a program of a few words: for what only real instructions show."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable
from typing import Self

from tests.engine import a64

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.kvm import System, Vcpu, Vm

RAM, RAM_SIZE, IO = 0x4000_0000, 0x1_0000, 0x1000_0000
VECTORS = 0x800  # offset in RAM
PSCI = 1 << k.KVM_ARM_VCPU_PSCI_0_2
PMU = 1 << k.KVM_ARM_VCPU_PMU_V3

Words = Iterable["int | Words"]

# X28 is the address of the device. An exception to EL1 stores ESR_EL1 at IO + 0xf00.
DEVICE = 28
PROLOGUE = [*a64.mov(DEVICE, IO), *a64.mov(0, RAM + VECTORS), a64.msr("VBAR_EL1", 0), a64.ISB]


def flat(words: Words) -> list[int]:
    """The words of nested lists."""
    result: list[int] = []
    for word in words:
        result += [word] if isinstance(word, int) else flat(word)
    return result


def out(rt: int, offset: int = 0) -> int:
    """STR Xt to the device."""
    return a64.str_(rt, DEVICE, offset)


class Native:
    """One VM, one vCPU, a program."""

    def __init__(
        self,
        *program: Words | int,
        features: int = PSCI,
        kind: str = "nvhe-gicv2",
        clock: str = "virtual",
    ) -> None:
        self.system = System(kind, clock)
        self.vm: Vm = self.system.create_vm()
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self.vm.set_user_memory_region(0, RAM, RAM_SIZE, self.memory)
        self.vcpu: Vcpu = self.vm.create_vcpu(0)
        self.vcpu.arm_vcpu_init(features=features)
        self.put(0, [*PROLOGUE, *flat(program), a64.B_SELF])
        for vector in range(16):
            handler = [a64.mrs(27, "ESR_EL1"), out(27, 0xF00), a64.mrs(27, "ELR_EL1")]
            self.put(VECTORS + 0x80 * vector, [*handler, out(27, 0xF08), a64.B_SELF])
        self.set(regs.CORE_PC, RAM)
        self.struct = self.vcpu.run_struct

    def put(self, offset: int, words: Iterable[int]) -> None:
        """Words into guest memory."""
        code = b"".join(word.to_bytes(4, "little") for word in words)
        self.memory[offset : offset + len(code)] = code
        self.vm.memory_written(RAM + offset, len(code))

    def get(self, reg: int) -> int:
        """KVM_GET_ONE_REG."""
        return self.vcpu.get_one_reg(reg)

    def set(self, reg: int, value: int) -> None:
        """KVM_SET_ONE_REG."""
        self.vcpu.set_one_reg(reg, value)

    @property
    def pc(self) -> int:
        """Offset of the PC in memory."""
        return self.get(regs.CORE_PC) - RAM

    @property
    def level(self) -> int:
        """device_irq_level."""
        return int(self.struct.s_regs.device_irq_level)

    def stored(self) -> tuple[int, int]:
        """KVM_RUN until the device is written: offset and value."""
        self.vcpu.run()
        assert self.struct.exit_reason == k.KVM_EXIT_MMIO
        assert self.struct.mmio.is_write
        return self.struct.mmio.phys_addr - IO, self.struct.mmio.value

    def notified(self) -> int:
        """KVM_RUN that ends with a notification: device_irq_level."""
        assert self.vcpu.run_raw() == -errno.EINTR
        assert self.struct.exit_reason == k.KVM_EXIT_INTR
        return self.level

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.vcpu.close()
        self.vm.close()
