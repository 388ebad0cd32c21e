"""The wording of the events: each expectation is a line as Linux 6.12's tracefs prints it."""

from __future__ import annotations

import pytest

from armkvm.kvm.trace import Trace
from armkvm.trace.events import EVENTS, wording

PC = 0xFFFF_8000_0802_80AC


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("kvm_entry", (0x4020_0000,), "PC: 0x0000000040200000"),
        ("kvm_exit", (2, 0x24, PC), "TRAP: HSR_EC: 0x0024 (DABT_LOW), PC: 0xffff8000080280ac"),
        ("kvm_exit", (2, 1, 4), "TRAP: HSR_EC: 0x0001 (WFx), PC: 0x0000000000000004"),
        # After an interrupt the syndrome is an old one: the kernel shows none.
        ("kvm_exit", (0, 0x24, 0), "IRQ: HSR_EC: 0x0000 (UNKNOWN), PC: 0x0000000000000000"),
        ("kvm_exit", (4, 0x24, 0), "0x4: HSR_EC: 0x0000 (UNKNOWN), PC: 0x0000000000000000"),
        (
            "kvm_guest_fault",
            (PC, 0x9380_0007, 0x100, 0x901_0000),
            "ipa 0x9010000, hsr 0x93800007, hxfar 0x000100, pc 0xffff8000080280ac",
        ),
        (
            "kvm_hvc_arm64",
            (8, 0x8400_0000, 0),
            "HVC at 0x0000000000000008 (r0: 0x0000000084000000, imm: 0x0)",
        ),
        (
            "kvm_irq_line",
            (0, 1, 0, 1),
            "Inject CPU interrupt (0), vcpu->idx: 1, num: 0, level: 1",
        ),
        (
            "kvm_irq_line",
            (1, 0, 33, True),
            "Inject VGIC SPI interrupt (1), vcpu->idx: 0, num: 33, level: 1",
        ),
        (
            "kvm_irq_line",
            (2, 0, 20, 0),
            "Inject VGIC PPI interrupt (2), vcpu->idx: 0, num: 20, level: 0",
        ),
        (
            "kvm_irq_line",
            (7, 0, 20, 0),
            "Inject UNKNOWN interrupt (7), vcpu->idx: 0, num: 20, level: 0",
        ),
        ("kvm_mmio", ("read", 4, 0x900_0018, 0x90), "mmio read len 4 gpa 0x9000018 val 0x90"),
        (
            "kvm_mmio",
            ("unsatisfied-read", 4, 0x900_0018, 0),
            "mmio unsatisfied-read len 4 gpa 0x9000018 val 0x0",
        ),
        (
            "kvm_mmio_nisv",
            (0x4000_0000, 0x9200_0046, 0x1000, 0x1000),
            "ipa 0x00000000001000, esr 0x00000092000046, far 0x00000000001000, pc 0x00000040000000",
        ),
        ("kvm_get_timer_map", (0, 1, -1, -1), "VCPU: 2, dv: 0, dp: 1, ev: -1, ep: -1"),
        ("kvm_timer_emulate", ("ptimer", True), "arch_timer_ctx_index: 1 (should_fire: 1)"),
        ("kvm_timer_hrtimer_expire", ("ptimer",), "arch_timer_ctx_index: 1"),
        (
            "kvm_timer_restore_state",
            ("vtimer", 1, 0x12AB),
            "CTL: 0x000001 CVAL:           0x12ab arch_timer_ctx_index: 0",
        ),
        (
            "kvm_timer_save_state",
            ("ptimer", 0, 0),
            "   CTL: 0x000000 CVAL:              0x0 arch_timer_ctx_index: 1",
        ),
        ("kvm_timer_update_irq", (27, True), "VCPU: 2, IRQ 27, level 1"),
        ("kvm_userspace_exit", (6, 0), "reason KVM_EXIT_MMIO (6)"),
        ("kvm_userspace_exit", (24, 0), "reason KVM_EXIT_SYSTEM_EVENT (24)"),
        ("kvm_userspace_exit", (10, 4), "reason restart (4)"),
        ("kvm_userspace_exit", (6, 38), "reason error (38)"),
        ("kvm_userspace_exit", (39, 0), "reason 0x27 (39)"),
        ("kvm_vcpu_wakeup", (1_000_000, True), "wait time 1000000 ns, polling valid"),
        ("kvm_vcpu_wakeup", (0, False), "poll time 0 ns, polling valid"),
        ("kvm_wfx_arm64", (16, False), "guest executed wfi at: 0x0000000000000010"),
        ("kvm_wfx_arm64", (16, True), "guest executed wfe at: 0x0000000000000010"),
        (
            "kvm_sys_access",
            (PC, "OSLAR_EL1", (2, 0, 1, 0, 4), True),
            "PC: ffff8000080280ac OSLAR_EL1 (2,0,1,0,4) write",
        ),
        ("vgic_update_irq_pending", (27, True), "VCPU: 2, IRQ 27, level: 1"),
    ],
)
def test_wording(name: str, fields: tuple[object, ...], text: str) -> None:
    assert wording(name, 2, fields) == text


def test_every_hook_of_kvm_has_its_wording() -> None:
    assert set(EVENTS) == set(Trace.__slots__)
