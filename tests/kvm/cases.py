"""The ground truth's situations without an interrupt controller in the kernel, by heading.

Each writes the lines that belong under its heading. The vgic's cases, the PMU's and ioeventfd are
not here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from tests.kvm.client import PSCI, Client

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.kvm import System

Case = Callable[[System, list[str]], None]


def vm_with_vcpu(system: System, log: list[str], features: int = PSCI) -> Client:
    client = Client(system, log)
    client.create_vcpu()
    client.init(features)
    return client


def simple(guest: str, most: int, features: int = PSCI, *, mirror: bool = False) -> Case:
    """Run one guest to its end."""

    def case(system: System, log: list[str]) -> None:
        client = vm_with_vcpu(system, log, features)
        client.load(guest)
        client.run_all(most, mirror=mirror)
        client.close()

    return case


def e1(system: System, log: list[str]) -> None:
    c = Client(system, log)
    c.create_vcpu()
    c.step()
    v = c.vcpu
    c.call("GET_ONE_REG pc before init", lambda: v.get_one_reg(regs.CORE_PC))
    c.call("GET_MP_STATE before init", v.get_mp_state)
    c.call("GET_VCPU_EVENTS before init", v.get_vcpu_events)
    c.line(0, 0, 0, 1, "CPU_IRQ on uninitialised vcpu")
    c.call("VCPU_INIT target=99", lambda: v.arm_vcpu_init(99, 0))
    c.call("VCPU_INIT generic feature bit31", lambda: v.arm_vcpu_init(5, 1 << 31))
    c.call("PREFERRED_TARGET", c.vm.arm_preferred_target)
    target, features = c.vm.arm_preferred_target()
    c.print(f"   preferred target={target} features={features:x}")
    c.call("VCPU_INIT preferred", lambda: v.arm_vcpu_init(target, features))
    c.call("VCPU_INIT again, same", lambda: v.arm_vcpu_init(target, features))
    c.call("VCPU_INIT again, features changed", lambda: v.arm_vcpu_init(target, PSCI))
    c.call("GET_MP_STATE after init", v.get_mp_state)
    c.print(f"   mp_state={v.get_mp_state()}")
    for vcpu_id, what in ((0, "CREATE_VCPU(0) again"), (100000, "CREATE_VCPU(100000)")):
        c.call(what, partial(c.vm.create_vcpu, vcpu_id), 0)
    c.call("KVM_INTERRUPT vcpu ioctl", lambda: v.ioctl(0x4004AE86, 0, bytearray(4)))
    c.close()


def e2(system: System, log: list[str]) -> None:
    c = vm_with_vcpu(system, log)
    level = c.vcpu.run_struct.s_regs
    ctl, cval = c.get(regs.KVM_REG_ARM_TIMER_CTL), c.get(regs.KVM_REG_ARM_TIMER_CVAL)
    c.print(
        f"   irq_level={level.device_irq_level:x} CTL={ctl:x} CVAL={cval:x} CNT=X"
        f" pstate={c.get(regs.CORE_PSTATE):x}"
    )
    c.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CNT, 1000)
    assert c.get(regs.KVM_REG_ARM_TIMER_CNT) == 1000
    c.print("   set CNT=X ret=0; CNT now=X")
    c.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CVAL, 0)
    c.vcpu.set_one_reg(regs.KVM_REG_ARM_TIMER_CTL, 1)
    c.print(
        f"   set CVAL=0 ret=0 set CTL=1 ret=0 CTL reads {c.get(regs.KVM_REG_ARM_TIMER_CTL):x}"
        f" irq_level={level.device_irq_level:x} (timer made pending by userspace before first run)"
    )
    c.load("bare")
    c.run_all(5)
    c.close()


def e3(system: System, log: list[str]) -> None:
    c = Client(system, log)
    c.line(0, 0, 0, 1, "CPU_IRQ with no vcpu")
    c.create_vcpu()
    c.init(0)
    for kind, vcpu, num, level, what in (
        (0, 0, 0, 1, "CPU_IRQ"),
        (0, 0, 0, 1, "CPU_IRQ again"),
        (0, 0, 0, 0, "CPU_IRQ low"),
        (0, 0, 1, 1, "CPU_FIQ"),
        (0, 0, 1, 0, "CPU_FIQ low"),
        (0, 0, 2, 1, "CPU num 2"),
        (0, 1, 0, 1, "CPU vcpu 1 absent"),
        (1, 0, 32, 1, "SPI 32"),
        (2, 0, 27, 1, "PPI 27"),
        (3, 0, 0, 1, "type 3"),
    ):
        c.line(kind, vcpu, num, level, what)
    c.close()


def e8(system: System, log: list[str]) -> None:
    c = vm_with_vcpu(system, log)
    c.load("bare")
    c.vcpu.run_struct.immediate_exit = 1
    c.step()
    c.step()
    c.vcpu.run_struct.immediate_exit = 0
    c.run_all(3)
    c.close()


def e9(system: System, log: list[str]) -> None:
    c = vm_with_vcpu(system, log)
    c.load("mmio_rd")
    c.step()
    c.vcpu.run_struct.mmio.value = 0x1234
    c.vcpu.run_struct.immediate_exit = 1
    c.step()
    c.print(f"   x9={c.get(regs.core_x(9)):x}")
    c.vcpu.run_struct.immediate_exit = 0
    c.step()
    c.close()


def e11(system: System, log: list[str]) -> None:
    c = vm_with_vcpu(system, log, PSCI | 1 << k.KVM_ARM_VCPU_POWER_OFF)
    c.load("bare")
    c.step()
    c.step()
    c.print(f"   mp_state={c.vcpu.get_mp_state()}")
    c.call("SET_MP_STATE RUNNABLE", lambda: c.vcpu.set_mp_state(k.KVM_MP_STATE_RUNNABLE))
    c.run_all(3)
    c.close()


class Later:
    """Another thread that sleeps 100 ms and raises a line."""

    def __init__(self, client: Client, num: int) -> None:
        self._client, self._num = client, num
        self._timer = client.after(100_000_000, self._go)

    def _go(self) -> None:
        thread = threading.Thread(
            target=self._client.line, args=(0, 0, self._num, 1, "from other thread")
        )
        thread.start()
        thread.join()

    def join(self) -> None:
        """Wait for it; it has not done its work yet if the vCPU returned early."""
        if self._timer.queued:
            self._timer.cancel()
            self._go()


def l1(system: System, log: list[str]) -> None:
    c = vm_with_vcpu(system, log)
    c.load("lines")
    c.step()
    c.line(0, 0, 0, 1, "CPU_IRQ high (guest I masked)")
    c.step()
    c.print("   (guest then unmasks I)")
    for _ in range(3):
        c.step()
    c.line(0, 0, 0, 0, "CPU_IRQ low")
    c.step()
    c.step()
    c.line(0, 0, 1, 1, "CPU_FIQ high (F masked)")
    for _ in range(4):
        c.step()
    c.line(0, 0, 1, 0, "CPU_FIQ low")
    for _ in range(3):
        c.step()
    c.print("   (guest now in WFI or about to)")
    thread = Later(c, 1)
    c.step()
    thread.join()
    c.step()
    c.line(0, 0, 1, 0, "CPU_FIQ low")
    c.run_all(4)
    c.close()


def l2(system: System, log: list[str]) -> None:
    c = vm_with_vcpu(system, log)
    c.load("wfi_none")
    c.step()
    thread = Later(c, 0)
    c.step()
    thread.join()
    c.print("   (line still high: next WFI)")
    c.run_all(4)
    c.close()


def m10(system: System, log: list[str]) -> None:
    c = Client(system, log)
    c.call("ENABLE_CAP NISV_TO_USER", lambda: c.vm.enable_cap(177))
    c.create_vcpu()
    c.init()
    c.load("ldp_mmio")
    c.run_all(4)
    c.close()


CASES: dict[str, Case] = {
    "E1": e1,
    "E2": e2,
    "E3": e3,
    "E8": e8,
    "E9": e9,
    "psci_ver": simple("psci_ver", 10, 0),
    "E11": e11,
    "T1": simple("vt_mmio", 40),
    "T2": simple("vt_spin", 40),
    "T3": simple("vt_future", 40),
    "T4": simple("wfi_vt_masked", 12),
    "T5": simple("wfi_vt_past", 12),
    "T6": simple("wfi_none", 8),
    "T7": simple("wfi_vt_imask", 8),
    "T8": simple("irq_vt", 40, mirror=True),
    "T9": simple("irq_vt_spin", 40, mirror=True),
    "T10": simple("irq_pt", 40, mirror=True),
    "T11": simple("pt_mmio", 40),
    "T12": simple("pt_spin", 40),
    "T13": simple("pt_future", 40),
    "T14": simple("wfi_pt_masked", 12),
    "T15": simple("both", 20),
    "T16": simple("tval", 20),
    "T17": simple("wfe", 12),
    "T18": simple("cpu_suspend", 12),
    "L1": l1,
    "L2": l2,
    "M1": simple("mmio_rd", 30),
    "M2": simple("ldp_mmio", 6),
    "M3": simple("postidx", 6),
    "M4": simple("badfetch", 8),
    "M5": simple("psci_ver", 8),
    "M6": simple("psci_off", 6),
    "M7": simple("psci_reset", 6),
    "M8": simple("cpu_off", 4),
    "M9": simple("gicread", 8),
    "M10": m10,
}
