"""Programs that use the PMU, and a VM to run them."""

from __future__ import annotations

from tests.engine import a64
from tests.kvm.native import PMU, PSCI, Native, Words, out

from armkvm.abi import kvm as k
from armkvm.kvm.pmu.regs import DESCS

BY_NAME = {name: enc for enc, (name, _) in DESCS.items()}
CTRL = k.KVM_ARM_VCPU_PMU_V3_CTRL
INST_RETIRED, CPU_CYCLES, SW_INCR, CHAIN = 8, 0x11, 0, 0x1E
CYCLES = 1 << 31
E, P, C, LC = 1, 2, 4, 1 << 6
EL1, EL0 = 1 << 31, 1 << 30  # excluded


def write(name: str, value: int) -> Words:
    """MSR by way of X1."""
    return [*a64.mov(1, value), a64.sys_word(0, *BY_NAME[name], 1)]


def read(name: str, rt: int = 2) -> int:
    return a64.sys_word(1, *BY_NAME[name], rt)


def show(name: str) -> Words:
    return [read(name), out(2)]


def machine(*program: Words | int, kind: str = "nvhe-gicv2", clock: str = "virtual") -> Native:
    native = Native(*program, features=PSCI | PMU, kind=kind, clock=clock)
    native.vcpu.set_device_attr(CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
    return native


def loop(n: int) -> Words:
    """2 n + 1 instructions."""
    return [a64.movz(3, n), a64.subs(3, 3, 1), a64.cbnz(3, -1)]


CLEAN: Words = [write("PMCNTENCLR_EL0", CYCLES | 0x3F), write("PMOVSCLR_EL0", CYCLES | 0x3F),
                write("PMINTENCLR_EL1", CYCLES | 0x3F), write("PMCCFILTR_EL0", 0)]  # fmt: skip
