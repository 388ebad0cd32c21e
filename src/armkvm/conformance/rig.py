"""A VM with 64 KiB of memory and at most one vCPU, and what a case does with it.

Each method is one step of a case and writes its line. `step` is one KVM_RUN under an alarm; the
line says what the call returned and what it left in kvm_run.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Self

from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi import structs as st
from armkvm.arch.word import M64
from armkvm.client.protocol import Argument, address
from armkvm.conformance.guests import programs
from armkvm.conformance.log import IO, RAM, UNTOUCHED, Answer, run_line
from armkvm.conformance.session import Session

RAM_SIZE = 0x1_0000
VECTORS = 0x2000  # offset in RAM
END = IO + 0xFF0  # a store here ends a guest
READ_DATA = 0x8877_6655_4433_2211  # what every read finds

PSCI = 1 << k.KVM_ARM_VCPU_PSCI_0_2
POWER_OFF = 1 << k.KVM_ARM_VCPU_POWER_OFF
PMU = 1 << k.KVM_ARM_VCPU_PMU_V3

IRQ, FIQ = k.KVM_ARM_IRQ_CPU_IRQ, k.KVM_ARM_IRQ_CPU_FIQ
CPU_LINE, SPI, PPI = k.KVM_ARM_IRQ_TYPE_CPU, k.KVM_ARM_IRQ_TYPE_SPI, k.KVM_ARM_IRQ_TYPE_PPI

TIMERS = k.KVM_ARM_DEV_EL1_VTIMER | k.KVM_ARM_DEV_EL1_PTIMER


class Rig:
    """One VM; closed at the end of a ``with`` block."""

    run: st.KvmRun  # once there is a vCPU

    def __init__(self, session: Session) -> None:
        self.session = session
        self.client = session.client
        self.emit = session.emit
        self.vm = self.client.ioctl(session.kvm, nr.KVM_CREATE_VM, 0)
        self.vcpu = -1
        self.runs = 0  # the number of the next step
        self._devices: list[int] = []
        self.memory = self.client.memory(RAM_SIZE)
        region = st.KvmUserspaceMemoryRegion(0, 0, RAM, RAM_SIZE, address(self.memory))
        self.client.ioctl(self.vm, nr.KVM_SET_USER_MEMORY_REGION, region)

    @classmethod
    def ready(cls, session: Session, guest: str, features: int = PSCI) -> Self:
        """A VM whose vCPU is initialised, with a guest loaded."""
        rig = cls(session)
        rig.create_vcpu()
        rig.init(features)
        rig.load(guest)
        return rig

    # making it

    def create_vcpu(self) -> None:
        """KVM_CREATE_VCPU(0); not logged."""
        self.vcpu = self.client.ioctl(self.vm, nr.KVM_CREATE_VCPU, 0)
        self.run = st.KvmRun.from_buffer(
            self.client.shared_pages(self.vcpu, self.session.mmap_size)
        )

    def init(self, features: int = PSCI) -> bool:
        """KVM_ARM_VCPU_INIT with the preferred target; logged if it fails."""
        init = st.KvmVcpuInit()
        self.session.ask(self.vm, nr.KVM_ARM_PREFERRED_TARGET, init)
        init.features[0] |= features
        answer = self.session.ask(self.vcpu, nr.KVM_ARM_VCPU_INIT, init)
        if answer.ret:
            self.emit(f"  VCPU_INIT {answer}")
        return answer.ret == 0

    def load(self, guest: str) -> None:
        """A guest and its vectors go into memory, the PC to its start."""
        for offset, name in ((0, guest), (VECTORS, "vectors")):
            code = programs()[name]
            self.memory[offset : offset + len(code)] = code
        answer = self.set(regs.CORE_PC, RAM)
        if answer.ret:
            self.emit(f"  set PC failed {answer}")

    # asking it

    def query(self, fd: int, cmd: int, arg: Argument, what: str) -> Answer:
        """An ioctl on `fd`, logged."""
        return self.session.query(fd, cmd, arg, what)

    def get(self, register: int) -> int:
        """KVM_GET_ONE_REG; all ones if it fails."""
        value = ctypes.c_uint64()
        reg = st.KvmOneReg(register, address(value))
        return value.value if self.session.ask(self.vcpu, nr.KVM_GET_ONE_REG, reg).ret == 0 else M64

    def set(self, register: int, value: int) -> Answer:
        """KVM_SET_ONE_REG."""
        source = ctypes.c_uint64(value)
        return self.session.ask(
            self.vcpu, nr.KVM_SET_ONE_REG, st.KvmOneReg(register, address(source))
        )

    def query_pc(self, what: str) -> None:
        """Whether the PC can be read, logged."""
        value = ctypes.c_uint64()
        reg = st.KvmOneReg(regs.CORE_PC, address(value))
        self.query(self.vcpu, nr.KVM_GET_ONE_REG, reg, what)

    def line(self, kind: int, vcpu: int, num: int, level: int, what: str) -> None:
        """KVM_IRQ_LINE, logged."""
        arg = st.KvmIrqLevel(kind << 24 | vcpu << 16 | num, level)
        answer = self.session.ask(self.vm, nr.KVM_IRQ_LINE, arg)
        self.emit(
            f"     KVM_IRQ_LINE {what:<40} type={kind} vcpu={vcpu} num={num} level={level}"
            f" -> {answer}"
        )

    def create_device(self, kind: int, flags: int, what: str) -> int:
        """KVM_CREATE_DEVICE, logged: a file descriptor, 0 of a test, -1."""
        arg = st.KvmCreateDevice(kind, 0, flags)
        answer = self.session.ask(self.vm, nr.KVM_CREATE_DEVICE, arg)
        self.emit(f"  KVM_CREATE_DEVICE {what:<40} {answer}")
        if answer.ret < 0:
            return -1
        if arg.fd:
            self._devices.append(arg.fd)
        return int(arg.fd)

    def attribute(
        self,
        fd: int,
        cmd: int,
        group: int,
        attr: int,
        value: ctypes._SimpleCData[int] | None,
        what: str,
    ) -> None:
        """KVM_{SET,GET,HAS}_DEVICE_ATTR on a device or vCPU, logged."""
        arg = st.KvmDeviceAttr(0, group, attr, 0 if value is None else address(value))
        self.emit(f"  DEVICE_ATTR {what:<52} {self.session.ask(fd, cmd, arg)}")

    # running it

    def step(self, alarm_ms: int) -> bool:
        """One KVM_RUN, logged. True if the guest has ended or cannot go on."""
        run = self.run
        if run.exit_reason != k.KVM_EXIT_MMIO:  # that one is still to be completed
            run.exit_reason = UNTOUCHED
        with self.client.alarm(self.vcpu, alarm_ms) as bell:
            answer = self.session.ask(self.vcpu, nr.KVM_RUN)
        self.emit(run_line(self.runs, answer, run, bell, self.get(regs.CORE_PC)))
        self.runs += 1
        match run.exit_reason:
            case k.KVM_EXIT_MMIO if run.mmio.is_write and run.mmio.phys_addr == END:
                return True
            case k.KVM_EXIT_SYSTEM_EVENT | k.KVM_EXIT_ARM_NISV:
                return True
            case _:
                return answer.errno not in (0, errno.EINTR)

    def run_all(self, most: int, alarm_ms: int, *, mirror: bool = False) -> None:
        """Steps until the guest has ended.

        With `mirror`, the timers' levels drive the CPU's IRQ line, as an interrupt controller in
        user space would.
        """
        high = False
        for _ in range(most):
            if self.step(alarm_ms):
                return
            if self.run.exit_reason == k.KVM_EXIT_MMIO and not self.run.mmio.is_write:
                self.run.mmio.value = READ_DATA
            level = bool(self.run.s_regs.device_irq_level & TIMERS)
            if mirror and level != high:
                self.line(CPU_LINE, 0, IRQ, int(level), "CPU_IRQ (policy)")
                high = level
        self.emit(f"   (stopped after {most} runs)")

    # ending it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for device in self._devices:
            self.client.close(device)
        if self.vcpu >= 0:
            del self.run
            self.client.close(self.vcpu)
        self.client.close(self.vm)
