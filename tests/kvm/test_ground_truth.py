"""The real KVM's answers, call by call, on an nVHE host with GICv2 and a VHE host with GICv3.

tests/data/ground-truth holds the logs of a client of Linux 6.12's /dev/kvm under QEMU's EL2.
Compared here are the sections of the user-space irqchip. What is excused is named in ASYNCHRONOUS.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import Oracle
from tests.kvm import guests
from tests.kvm.cases import CASES
from tests.kvm.client import Client

from armkvm.abi.caps import Cap
from armkvm.kvm import System

DATA = Path(__file__).parents[1] / "data" / "ground-truth"
LOGS = {"nvhe-gicv2": "612-gic2-a57.txt", "vhe-gicv3": "612-gic3-a76.txt"}

# An interrupt of the host hits a guest that spins: at which instruction of the loop is an accident
# of timing. The notification that follows (KVM_EXIT_INTR) is compared without its PC.
ASYNCHRONOUS = {"T2", "T3", "T9", "T12", "T13"}

# Capabilities that the real hosts offer and that are not here yet: interrupt routes, eventfds,
# coalesced MMIO, 32-bit guests, the PMU, debugging, SError syndromes, stolen time, PTP.
NOT_YET = {
    Cap.IRQFD, Cap.IRQ_ROUTING, Cap.IOEVENTFD, Cap.COALESCED_MMIO, Cap.ARM_EL1_32BIT,
    Cap.ARM_PMU_V3, Cap.SET_GUEST_DEBUG, Cap.ARM_INJECT_SERROR_ESR, Cap.STEAL_TIME, Cap.PTP_KVM,
    Cap.GUEST_DEBUG_HW_BPS, Cap.GUEST_DEBUG_HW_WPS,
}  # fmt: skip


def sections(kind: str) -> dict[str, list[str]]:
    """The log of a host by the first word of each heading."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (DATA / LOGS[kind]).read_text().splitlines():
        if line.startswith("== "):
            found[line[3:].split()[0]] = lines = []
        elif line != "ORACLE-DONE":
            lines.append(line)
    return found


def comparable(case: str, lines: list[str]) -> list[str]:
    if case not in ASYNCHRONOUS:
        return lines
    return [re.sub(r" pc=.*", "", x) if "exit=INTR" in x else x for x in lines]


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("case", CASES)
def test_same_as_the_real_kvm(kind: str, case: str) -> None:
    log: list[str] = []
    with System(kind) as system:
        CASES[case](system, log)
    assert comparable(case, log) == comparable(case, sections(kind)[case])


@pytest.mark.parametrize("kind", LOGS)
def test_capabilities(kind: str) -> None:
    log = sections(kind)["caps"]
    with System(kind) as system, system.create_vm() as vm:
        assert log[0] == f"  API={system.get_api_version()} VCPU_MMAP_SIZE=8192"
        for line in log[1:]:
            match = re.fullmatch(r"  (sys|vm ) KVM_CHECK_EXTENSION (\w+)\((\d+)\) = (-?\d+)", line)
            assert match
            where, name, number, value = match.groups()
            answer = (vm if where == "vm " else system).check_extension(int(number))
            cap = Cap(int(number))
            assert f"KVM_CAP_{cap.name}" == name
            if cap in NOT_YET:
                assert answer == 0
            elif (where, cap) != ("sys", Cap.MSI_DEVID):  # -1: asks for a VM's file
                assert answer == int(value), line


@pytest.mark.parametrize("kind", LOGS)
def test_vgic_after_a_run_is_refused(kind: str) -> None:
    """Graf's question of 2017: EBUSY. A type that the host does not have is ENODEV still."""
    with System(kind) as system:
        log: list[str] = []
        c = Client(system, log)
        c.create_vcpu()
        c.init()
        c.load("bare")
        c.run_all(3)
        c.call("KVM_CREATE_IRQCHIP after run", c.vm.create_irqchip)
        for name, device, flags in (
            ("VGIC_V2 TEST", 5, 1), ("VGIC_V2", 5, 0),
            ("VGIC_V3 TEST", 7, 1), ("VGIC_V3", 7, 0), ("VGIC_ITS", 8, 0),
        ):  # fmt: skip
            create = partial(c.vm.create_device, device, flags)
            c.call(f"KVM_CREATE_DEVICE {name} after run", create, 60)
        c.close()
    assert [" ".join(x.split()) for x in log] == [" ".join(x.split()) for x in sections(kind)["E4"]]


def test_other_interrupt_ioctls() -> None:
    """Section E7, but for ioeventfd."""
    expected = [x for x in sections("nvhe-gicv2")["E7"] if "IOEVENTFD" not in x]
    log: list[str] = []
    with System() as system:
        c = Client(system, log)
        c.create_vcpu()
        c.init()
        c.call("KVM_SIGNAL_MSI", c.vm.signal_msi)
        c.call("KVM_IRQFD", c.vm.irqfd)
        c.call("KVM_SET_GSI_ROUTING", lambda: c.vm.set_gsi_routing([(1, 1, 0)]))
        v = c.vcpu
        c.call("DEVICE_ATTR vcpu HAS TIMER_IRQ_VTIMER", lambda: v.has_device_attr(1, 0), 64)
        c.call("DEVICE_ATTR vcpu SET TIMER_IRQ_VTIMER=27", lambda: v.set_device_attr(1, 0, 27), 64)
        c.call("DEVICE_ATTR vcpu GET TIMER_IRQ_VTIMER", lambda: v.get_device_attr(1, 0), 64)
        c.print(f"   irq={v.get_device_attr(1, 0)}")
        c.call("VM KVM_ENABLE_CAP(ARM_USER_IRQ)", lambda: c.vm.enable_cap(Cap.ARM_USER_IRQ))
        enable_cap = 0x4068AEA3
        c.call("VCPU KVM_ENABLE_CAP(ARM_USER_IRQ)", lambda: v.ioctl(enable_cap, 0, bytearray(104)))
        c.call("ARM_SET_DEVICE_ADDR without vgic", lambda: c.vm.arm_set_device_addr(0, 0))
        c.close()
    assert log == expected


def test_words_are_those_of_the_source(oracle: Oracle) -> None:
    assembler = oracle(guests.ASSEMBLER)
    assert guests.text(guests.load()) == guests.WORDS.read_text()
    if assembler is not None:
        assert guests.assemble(assembler) == guests.load()
