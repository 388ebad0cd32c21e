"""Save at any exit, restore into a new VM: the guest goes on as if nothing had been.

In virtual time the rest of a run is the same to the last byte of console and memory and to the
nanosecond, wherever it was cut.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from tests.kvm import saves, smp
from tests.kvm.saves import Kind, after_exits, after_instructions

from armkvm.abi import kvm as k
from armkvm.abi import regs as r
from armkvm.abi.vgic import KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO
from armkvm.kvm import System
from armkvm.vmm import snapshot
from armkvm.vmm.snapshot import Mismatch, Snapshot

KINDS = {
    f"{irqchip} on {host}": Kind(host, irqchip, saves.program(3 if "gicv3" in irqchip else 2))
    for host, irqchip in (
        ("nvhe-gicv2", "gicv2"),
        ("vhe-gicv3", "gicv2"),
        ("nvhe-gicv2", "kernel-gicv2"),
        ("vhe-gicv3", "kernel-gicv3"),
        ("vhe-gicv3", "kernel-gicv3-its"),
    )
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@kinds
def test_at_every_exit(kind: Kind) -> None:
    """MMIO reads and writes in flight, levels just told, interrupts in every state."""
    whole = kind.whole()
    assert whole.reason == "shutdown"
    assert whole.output.startswith(b"ab-")
    assert b"O(L.)." in whole.output
    for exits in range(1, whole.exits):
        head, saved = kind.until(after_exits(exits))
        rest = kind.rest(saved)
        assert (head.reason, rest.reason) == ("saved", "shutdown"), exits
        assert head.output + rest.output == whole.output, exits
        assert rest.memory == whole.memory, exits
        assert rest.seconds == whole.seconds, exits


@kinds
def test_at_any_instruction(kind: Kind) -> None:
    """Levels that are high and not told yet, interrupts told and not taken."""
    whole = kind.whole()
    for count in random.Random(0).sample(range(1, whole.instructions), 60):
        head, saved = kind.until(after_instructions(count))
        rest = kind.rest(saved)
        assert head.output + rest.output == whole.output, count
        assert (rest.memory, rest.seconds) == (whole.memory, whole.seconds), count


@kinds
def test_again_and_again(kind: Kind) -> None:
    """A chain of machines, each of which goes on for three exits."""
    whole = kind.whole()
    head, saved = kind.until(after_exits(1))
    output, lives = head.output, 1
    while True:
        with kind.machine(empty=True) as machine:
            snapshot.restore(machine, saved)
            after_exits(3)(machine)
            got = saves.end(machine, machine.run())
            output, lives = output + got.output, lives + 1
            if got.reason != "saved":
                break
            saved = snapshot.save(machine)
    assert output == whole.output
    assert (got.memory, got.seconds) == (whole.memory, whole.seconds)
    assert lives > whole.exits // 4


@kinds
def test_what_is_restored_is_what_was_saved(kind: Kind) -> None:
    """Save, restore, save: the same, register by register.

    But for the timers' lines into a vgic (LEVEL_INFO of private interrupts): they are looked at
    when the vCPU is loaded.
    """

    def comparable(saved: Snapshot) -> dict[str, Any]:
        lines = KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO
        vgic = [at for at in saved.vgic if at[0] != lines or at[1] & 0x3FF]
        return dataclasses.asdict(dataclasses.replace(saved, vgic=vgic))

    whole = kind.whole()
    for exits in range(3, whole.exits, 7):
        _, saved = kind.until(after_exits(exits))
        with kind.machine(empty=True) as machine:
            snapshot.restore(machine, saved)
            again = snapshot.save(machine)
        assert comparable(again) == comparable(saved), exits


@kinds
def test_beside_the_machine_that_was_saved(kind: Kind) -> None:
    """In a system whose time is further already: the counters go on where they stood."""
    whole = kind.whole()
    with System(kind.host, "virtual") as system:
        with kind.machine(system) as first:
            after_exits(whole.exits // 2)(first)
            head = saves.end(first, first.run())
            saved = snapshot.save(first)
            with kind.machine(system) as other:  # somebody else's guest makes time pass
                other.run()
            with kind.machine(system, empty=True) as machine:
                snapshot.restore(machine, saved)
                vcpu = machine.vcpus[0]
                registers = saved.vcpus[0].registers
                for counter in (r.KVM_REG_ARM_TIMER_CNT, r.KVM_REG_ARM_PTIMER_CNT):
                    assert vcpu.get_one_reg(counter) == registers[counter]
                rest = saves.end(machine, machine.run())
    # All but the two counters at its end, which is where the time of its traps shows.
    steps = whole.output.index(b" ")
    assert (head.output + rest.output)[:steps] == whole.output[:steps]


# Guests of smp.S by how often they are cut: each life of the first takes long.
SEVERAL = {smp.POWER: 6, smp.COUNT: 30, smp.SGI: 30, smp.NAP: 30}


def careful(guest: int, output: bytes) -> bytes:
    """What of its output the order of turns does not decide: COUNT ends with a race."""
    return output[:-17] if guest == smp.COUNT else output


@pytest.mark.parametrize("irqchip", ["gicv2", "kernel-gicv2"])
@pytest.mark.parametrize("guest", SEVERAL)
def test_several_vcpus(guest: int, irqchip: str) -> None:
    """Switched off and on, asleep, waiting for their turn, spinning; SGIs on their way.

    Cut after an exit, and in front of any instruction of whichever vCPU has the turn.
    """
    kind = Kind("nvhe-gicv2", irqchip, smp.program(guest), cpus=4)
    whole = kind.whole()
    assert whole.reason == "shutdown"
    some = random.Random(guest)
    cuts = [after_exits(some.randrange(1, whole.exits)) for _ in range(SEVERAL[guest] // 3)]
    while len(cuts) < SEVERAL[guest]:
        cuts.append(after_instructions(some.randrange(1, whole.instructions)))
    for number, cut in enumerate(cuts):
        head, saved = kind.until(cut)
        if head.reason == "shutdown":
            continue  # it was the last exit of some vCPU
        rest = kind.rest(saved)
        assert rest.reason == "shutdown", number
        got = careful(guest, head.output + rest.output)
        assert got == careful(guest, whole.output), number


def test_a_wfi_goes_on() -> None:
    """A vCPU that slept sleeps again, until what it waited for: time is the same at the end."""
    kind = Kind("nvhe-gicv2", "gicv2", smp.program(smp.NAP), cpus=4)
    whole = kind.whole()
    asleep = 0
    for exits in range(20, whole.exits, 23):
        _, saved = kind.until(after_exits(exits))
        asleep += sum(vcpu.mp_state == k.KVM_MP_STATE_SUSPENDED for vcpu in saved.vcpus)
        assert kind.rest(saved).seconds == whole.seconds
    assert asleep > 3


@pytest.mark.parametrize("host", ["nvhe-gicv2", "vhe-gicv3"])
def test_every_register_of_the_list_can_be_set_to_what_it_was(host: str) -> None:
    """On a vCPU that has run, and, but for the counters, on a new one."""
    with System(host) as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        features = 1 << k.KVM_ARM_VCPU_PSCI_0_2 | 1 << k.KVM_ARM_VCPU_PMU_V3
        vcpu.arm_vcpu_init(features=features)
        vcpu.set_device_attr(k.KVM_ARM_VCPU_PMU_V3_CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
        new = {reg: vcpu.get_one_reg(reg) for reg in vcpu.get_reg_list()}
        vcpu.run_struct.immediate_exit = 1
        assert vcpu.run_raw() < 0
        values = {reg: vcpu.get_one_reg(reg) for reg in vcpu.get_reg_list()}
        for reg, value in values.items():
            vcpu.set_one_reg(reg, value)
        changed = {hex(reg) for reg, value in values.items() if vcpu.get_one_reg(reg) != value}
        assert not changed
        with system.create_vm() as second, second.create_vcpu(0) as fresh:
            fresh.arm_vcpu_init(features=features)
            assert fresh.get_reg_list() == list(values)
            assert {hex(reg) for reg in new if fresh.get_one_reg(reg) != new[reg]} <= {
                hex(r.KVM_REG_ARM_TIMER_CNT), hex(r.KVM_REG_ARM_PTIMER_CNT)
            }  # fmt: skip
            for reg, value in values.items():
                fresh.set_one_reg(reg, value)
            changed = {hex(reg) for reg, value in values.items() if fresh.get_one_reg(reg) != value}
            assert not changed


def test_what_a_vcpu_is_cannot_be_changed() -> None:
    pfr0, pfr1 = r.sys_reg(3, 0, 0, 4, 0), r.sys_reg(3, 0, 0, 4, 1)
    with System("vhe-gicv3") as system, system.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        vcpu.arm_vcpu_init(features=1 << k.KVM_ARM_VCPU_PSCI_0_2)
        offered = vcpu.get_one_reg(pfr0)
        assert offered >> 24 & 0xF == 1
        # More than the CPU has: AArch32 at EL0, branch targets.
        for reg, value in ((pfr0, offered + 1), (pfr1, vcpu.get_one_reg(pfr1) + 1)):
            with pytest.raises(OSError, match="Invalid argument"):
                vcpu.set_one_reg(reg, value)
        # But for the GICv3's system registers, which a vCPU that has run without one has lost.
        vcpu.set_one_reg(pfr0, offered & ~(0xF << 24))
        assert vcpu.get_one_reg(pfr0) == offered & ~(0xF << 24)


def test_a_cpu_on_that_was_not_acted_upon_is_saved() -> None:
    """B41: user space sees the registers of the reset that the vCPU owes."""
    with System() as system, system.create_vm() as vm:
        caller, callee = vm.create_vcpu(0), vm.create_vcpu(1)
        init = 1 << k.KVM_ARM_VCPU_PSCI_0_2
        caller.arm_vcpu_init(features=init)
        callee.arm_vcpu_init(features=init | 1 << k.KVM_ARM_VCPU_POWER_OFF)
        from armkvm.kvm.psci import kvm_psci_call

        for n, value in enumerate((0xC400_0003, 1, 0x4008_0000, 0x77)):
            caller.set_one_reg(r.core_x(n), value)
        assert kvm_psci_call(caller) == 1
        assert caller.get_one_reg(r.core_x(0)) == 0
        assert callee.get_mp_state() == k.KVM_MP_STATE_RUNNABLE
        assert callee.get_one_reg(r.CORE_PC) == 0x4008_0000
        assert callee.get_one_reg(r.core_x(0)) == 0x77
        callee.set_one_reg(r.core_x(0), 0x78)
        callee.run_struct.immediate_exit = 1
        callee.run_raw()
        assert callee.get_one_reg(r.core_x(0)) == 0x78
        caller.close()
        callee.close()


def _damage(saved: Snapshot, **changes: object) -> Snapshot:
    return dataclasses.replace(saved, **changes)  # type: ignore[arg-type]


def test_a_snapshot_of_another_machine_is_refused() -> None:
    kind = KINDS["gicv2 on nvhe-gicv2"]
    _, saved = kind.until(after_exits(5))
    registers = {**saved.vcpus[0].registers}
    pfr1 = r.sys_reg(3, 0, 0, 4, 1)
    wrong = [
        _damage(saved, vcpus=saved.vcpus * 2),
        _damage(saved, devices={}),
        _damage(saved, devices={**saved.devices, "pl031": {"cr": 1}}),
        _damage(saved, devices={**saved.devices, "pl011": 7}),
        _damage(saved, devices={**saved.devices, "pl011": {**saved.devices["pl011"], "tx": [256]}}),
        _damage(saved, devices={**saved.devices, "pl011": {**saved.devices["pl011"], "cr": -1}}),
        _damage(saved, memory=[(saves.MEMORY - 1, b"12")]),
    ]
    for bad in ({**registers, pfr1: registers[pfr1] ^ 1}, {**registers, 0x77: 0}, {}):
        wrong.append(_damage(saved, vcpus=[dataclasses.replace(saved.vcpus[0], registers=bad)]))
    for one in wrong:
        with kind.machine(empty=True) as machine, pytest.raises(Mismatch):
            snapshot.restore(machine, one)
