"""Slices, sleeping, and what the host's scheduler does to a vCPU (kvm/block.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.engine import a64
from tests.kvm.native import PSCI, RAM, Native, Words, flat, out
from tests.kvm.slow_host import SlowHost

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi import vgic as a
from armkvm.kvm import Vcpu
from armkvm.kvm.vgic.kvm_device import VgicDevice

DIST, CPUIF, REDIST = 0x0800_0000, 0x0801_0000, 0x080A_0000
HOSTS = {2: "nvhe-gicv2", 3: "vhe-gicv3"}
KINDS = {2: k.KVM_DEV_TYPE_ARM_VGIC_V2, 3: k.KVM_DEV_TYPE_ARM_VGIC_V3}


def second(m: Native) -> Vcpu:
    """Another vCPU that runs the same program."""
    vcpu = m.vm.create_vcpu(1)
    vcpu.arm_vcpu_init(features=PSCI)
    vcpu.set_one_reg(regs.CORE_PC, RAM)
    return vcpu


def test_a_clock_that_overtakes_slices_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two vCPUs that want to run, on a host where a slice has passed before it is entered."""
    slow = SlowHost(monkeypatch)
    loop = [a64.movz(3, 20000), a64.subs(3, 3, 1), a64.cbnz(3, -1)]
    with Native(*loop, out(31), clock="realtime") as m:
        vcpus = [m.vcpu, second(m)]

        def kick_all() -> None:
            for vcpu in vcpus:
                vcpu.kick()

        slow.kick = kick_all
        threads = [threading.Thread(target=vcpu.run_raw) for vcpu in vcpus]
        with m.vm.host.turn.time_stands():
            for vcpu in vcpus:
                vcpu.announce()
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        reasons = [vcpu.run_struct.exit_reason for vcpu in vcpus]
        vcpus[1].close()
    assert reasons == [k.KVM_EXIT_MMIO] * 2


def with_vgic(m: Native, version: int, cpus: int = 1) -> list[Vcpu]:
    """An interrupt controller in the kernel, where py has it; the vCPUs."""
    vcpus = [m.vcpu, *(second(m) for _ in range(cpus - 1))]
    device = m.vm.create_device(KINDS[version])
    assert isinstance(device, VgicDevice)
    first, other = a.KVM_VGIC_V2_ADDR_TYPE_DIST, (a.KVM_VGIC_V2_ADDR_TYPE_CPU, CPUIF)
    if version == 3:
        first = a.KVM_VGIC_V3_ADDR_TYPE_DIST
        other = a.KVM_VGIC_V3_ADDR_TYPE_REDIST, REDIST
    device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, first, DIST)
    device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_ADDR, *other)
    device.set_device_attr(a.KVM_DEV_ARM_VGIC_GRP_CTRL, a.KVM_DEV_ARM_VGIC_CTRL_INIT)
    return vcpus


def loop(rounds: int) -> Words:
    """2 instructions a round."""
    return [a64.mov(3, rounds), a64.subs(3, 3, 1), a64.cbnz(3, -1)]


def test_a_lone_vcpu_is_scheduled_out_and_in_now_and_then() -> None:
    """Only there a deadline is seen that has wrapped in the hardware, without a CNTPOFF."""
    ispendr = REDIST + 0x1_0000 + 0x200
    look: Words = [a64.mov(5, ispendr), a64.ldr(6, 5) & ~(1 << 30), out(6)]
    program: Words = [
        look,
        a64.mov(4, 0), a64.sys_word(0, 3, 3, 14, 2, 2, 4),  # CNTP_CVAL_EL0
        a64.mov(4, 1), a64.sys_word(0, 3, 3, 14, 2, 1, 4),  # CNTP_CTL_EL0
        loop(30_000_000), look,
    ]  # fmt: skip
    with Native(*program, kind="vhe-gicv3") as m:
        with_vgic(m, 3)
        m.vm.arm_set_counter_offset(1 << 62)
        assert m.stored() == (0, 0)
        assert m.stored() == (0, 1 << 30)


FLAG = RAM + 0x8000
SPIN: Words = [a64.ldr(6, 5), a64.subs(7, 6, 0), a64.cbnz(7, 2), a64.b(-3)]  # until it is set


def shared(m: Native, vcpus: list[Vcpu], ask: Callable[[], object]) -> int:
    """Vcpu 0 stores twice while vCPU 1 runs its program; guest time in between."""
    sender, target = vcpus
    thread = threading.Thread(target=target.run_raw)
    with m.vm.host.turn.time_stands():
        sender.announce()
        target.announce()
        thread.start()
    with sender.held():
        assert m.stored()[0] == 0
        began = m.vm.clock.now()
        ask()
        assert m.stored()[0] == 8
        took = m.vm.clock.now() - began
    target.kick()
    thread.join()
    target.close()
    return took


def test_an_interrupt_from_another_vcpu_is_taken_at_once() -> None:
    """User space's interrupt controller raises the line, and the sender spins on the answer."""
    sender: Words = [a64.mov(5, FLAG), loop(200_000), out(31), SPIN, out(31, 8)]
    with Native(sender) as m:
        target = second(m)
        target.set_one_reg(regs.CORE_PC, RAM + 0x4000)
        m.put(0x4000, flat([
            a64.mov(0, RAM + 0x5000), a64.msr("VBAR_EL1", 0), a64.ISB, a64.mov(5, FLAG),
            a64.daifclr(2), a64.B_SELF,
        ]))  # fmt: skip
        m.put(0x5000 + 0x280, flat([a64.mov(6, 1), a64.str_(6, 5), a64.B_SELF]))
        word = k.irq_word(k.KVM_ARM_IRQ_TYPE_CPU, 1, 0)
        assert shared(m, [m.vcpu, target], lambda: m.vm.irq_line(word, 1)) < 50_000


@pytest.mark.parametrize("version", [2, 3])
def test_the_target_of_an_sgi_runs_at_once(version: int) -> None:
    """The sender spins until it does."""
    sgi: Words = [a64.mov(6, 1 << 1), a64.sys_word(0, 3, 0, 12, 11, 5, 6)]  # ICC_SGI1R_EL1
    if version == 2:
        sgi = [a64.mov(7, DIST + 0xF00), a64.mov(6, 1 << 17), a64.strw(6, 7)]  # GICD_SGIR
    sender: Words = [
        a64.mov(5, FLAG), loop(200_000), out(31), a64.str_(31, 5), sgi, SPIN, out(31, 8),
    ]  # fmt: skip
    with Native(sender, kind=HOSTS[version]) as m:
        vcpus = with_vgic(m, version, 2)
        vcpus[1].set_one_reg(regs.CORE_PC, RAM + 0x4000)
        m.put(0x4000, flat([a64.mov(5, FLAG), a64.mov(6, 1), a64.str_(6, 5), a64.b(-1)]))
        assert shared(m, vcpus, lambda: None) < 50_000
