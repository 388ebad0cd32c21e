"""A client of the KVM API that runs the ground truth's guests and writes its log.

One method a step of the original's: `step` is one KVM_RUN, logged; `line` one KVM_IRQ_LINE. The
alarm that ended the original's hanging calls is a timer of the host, so it comes in guest time.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.conformance.guests import programs
from armkvm.host.hrtimer import Hrtimer
from armkvm.kvm import System, Vcpu, Vm

RAM, RAM_SIZE, VECTORS, IO = 0x4000_0000, 0x1_0000, 0x2000, 0x1000_0000
M64 = (1 << 64) - 1

GUESTS = programs()
ALARM_NS = 300_000_000

PSCI = 1 << k.KVM_ARM_VCPU_PSCI_0_2


def error_name(code: int) -> str:
    """0, or the errno's name."""
    return "0" if code == 0 else errno.errorcode[code]


def result(action: Callable[[], object]) -> int:
    """0, or the errno of the OSError that it raises."""
    try:
        action()
    except OSError as e:
        return e.errno or 0
    return 0


class Client:
    """A VM with one vCPU and 64 KiB of memory, and the log of what was done with it."""

    def __init__(self, system: System, log: list[str]) -> None:
        self.system = system
        self.log = log
        self.vm: Vm = system.create_vm()
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self.vm.set_user_memory_region(0, RAM, RAM_SIZE, self.memory)
        self.vcpu: Vcpu
        self.runs = 0
        self.alarm = False
        self.line_high = False
        self._alarm = Hrtimer(self._ring)

    def _ring(self, _now: int) -> None:
        self.alarm = True
        self.vcpu.kick()

    def after(self, ns: int, action: Callable[[], None]) -> Hrtimer:
        """Do something at a later time of the host, as a thread that sleeps would."""
        timer = Hrtimer(lambda _now: action())
        timer.start(self.system.host.pcpus[0].hrtimers, self.system.clock.now() + ns)
        return timer

    def create_vcpu(self) -> None:
        self.vcpu = self.vm.create_vcpu(0)

    def init(self, features: int = PSCI) -> int:
        return result(lambda: self.vcpu.arm_vcpu_init(k.KVM_ARM_TARGET_GENERIC_V8, features))

    def load(self, guest: str) -> None:
        for at, name in ((0, guest), (VECTORS, "vectors")):
            self.memory[at : at + len(GUESTS[name])] = GUESTS[name]
        self.vcpu.set_one_reg(regs.CORE_PC, RAM)

    def get(self, reg: int) -> int:
        """The register, or all ones if it cannot be read."""
        try:
            return self.vcpu.get_one_reg(reg)
        except OSError:
            return M64

    def print(self, text: str) -> None:
        self.log.append(text)

    def call(self, what: str, action: Callable[[], object], width: int = 70) -> None:
        """An ioctl, logged with its result."""
        code = result(action)
        self.print(f"  {what:<{width}} ret={-1 if code else 0} errno={error_name(code)}")

    def line(self, kind: int, vcpu: int, num: int, level: int, what: str) -> None:
        """KVM_IRQ_LINE, logged."""
        code = result(lambda: self.vm.irq_line(kind << 24 | vcpu << 16 | num, level))
        self.print(
            f"     KVM_IRQ_LINE {what:<40} type={kind} vcpu={vcpu} num={num} level={level}"
            f" -> ret={-1 if code else 0} errno={error_name(code)}"
        )

    def step(self) -> bool:
        """One KVM_RUN, logged. True if the guest is done or cannot go on."""
        run = self.vcpu.run_struct
        untouched = 0xDEAD
        if run.exit_reason != k.KVM_EXIT_MMIO:
            run.exit_reason = untouched
        self.alarm = False
        self._alarm.start(self.system.host.pcpus[0].hrtimers, self.system.clock.now() + ALARM_NS)
        code = result(self.vcpu.run)
        self._alarm.cancel()
        name = (
            "(untouched)"
            if run.exit_reason == untouched
            else k.EXIT_NAMES.get(run.exit_reason, f"#{run.exit_reason}")
        )
        text = (
            f"   #{self.runs:<2} ret={-1 if code else 0:<2} errno={error_name(code):<7}"
            f" exit={name:<12} irq_level={run.s_regs.device_irq_level:x} t="
            f"{' SIGALRM' if self.alarm else ''}"
        )
        self.runs += 1
        mmio = run.mmio
        match run.exit_reason:
            case k.KVM_EXIT_MMIO:
                offset = mmio.phys_addr - IO & M64
                data = mmio.value if mmio.is_write else 0
                way = "W" if mmio.is_write else "R"
                text += f" MMIO {way} +{offset:#x} len={mmio.len} data={data:#x}"
            case k.KVM_EXIT_SYSTEM_EVENT:
                event = run.system_event
                text += f" type={event.type} ndata={event.ndata} data0={event.data[0]:x}"
            case k.KVM_EXIT_ARM_NISV:
                nisv = run.arm_nisv
                text += f" esr_iss={nisv.esr_iss:x} ipa={nisv.fault_ipa:x}"
        self.print(f"{text} pc=+{self.get(regs.CORE_PC) - RAM & M64:#x}")
        ended = (
            run.exit_reason == k.KVM_EXIT_MMIO and mmio.is_write and mmio.phys_addr == IO + 0xFF0
        )
        final = run.exit_reason in (k.KVM_EXIT_SYSTEM_EVENT, k.KVM_EXIT_ARM_NISV)
        return ended or final or code not in (0, errno.EINTR)

    def run_all(self, most: int, *, mirror: bool = False) -> None:
        """KVM_RUN until the end; `mirror` drives the CPU's IRQ line with the timers' levels."""
        run = self.vcpu.run_struct
        for _ in range(most):
            if self.step():
                return
            if run.exit_reason == k.KVM_EXIT_MMIO and not run.mmio.is_write:
                run.mmio.value = 0x8877_6655_4433_2211
            high = bool(run.s_regs.device_irq_level & 3)
            if mirror and high != self.line_high:
                self.line(0, 0, 0, int(high), "CPU_IRQ (policy)")
                self.line_high = high
        self.print(f"   (stopped after {most} runs)")

    def close(self) -> None:
        self.vcpu.close()
        self.vm.close()
