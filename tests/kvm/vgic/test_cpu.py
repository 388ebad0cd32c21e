"""Interrupts on their way through ap_lists and list registers."""

from __future__ import annotations

from tests.kvm.vgic.vgic_rig import VgicRig, acked, ended, state

from armkvm.arch import gic as g
from armkvm.kvm.vgic.dist import map_is_active, map_phys_irq, queue_irq
from armkvm.kvm.vgic.irq import VgicIrq
from armkvm.kvm.vgic.mmio_v2 import write_sgir

SPI = 40


def latched(irq: VgicIrq) -> bool:
    return irq.pending_latch


def high(irq: VgicIrq) -> bool:
    return irq.line_level


def test_a_level_interrupt_lives_as_long_as_its_line(rig: VgicRig) -> None:
    rig.enabled(SPI)
    rig.line(SPI, True)
    (lr,) = rig.enter()
    assert lr & 0x3FF == SPI
    assert lr >> g.ICH_LR_PRIORITY_SHIFT & 0xFF == 0xA0
    assert bool(lr & g.ICH_LR_GROUP) == (rig.version == 3)
    assert state(lr) == "P"
    assert lr & g.ICH_LR_EOI  # tell us when the guest ends it
    rig.leave(acked(lr))
    (lr,) = rig.enter()
    assert state(lr) == "A"  # not pending as well, though the line is high
    rig.leave(ended(lr))
    (lr,) = rig.enter()
    assert state(lr) == "P"  # sampled again
    rig.line(SPI, False)
    rig.leave(ended(lr))
    assert rig.enter() == []
    assert rig.vgic().ap_list == []


def test_an_edge_is_latched_and_may_come_again_while_active(rig: VgicRig) -> None:
    irq = rig.enabled(SPI)
    irq.level_config = False
    rig.line(SPI, True)
    rig.line(SPI, False)
    (lr,) = rig.enter()
    assert state(lr) == "P"
    assert not lr & g.ICH_LR_EOI
    assert not latched(irq)  # it is in the list register now
    rig.leave(acked(lr))
    rig.line(SPI, True)
    (lr,) = rig.enter()
    assert state(lr) == "PA"
    rig.leave(lr & ~g.ICH_LR_ACTIVE)
    assert latched(irq)
    (lr,) = rig.enter()
    rig.leave(ended(acked(lr)))
    assert rig.enter() == []


def test_disabled_or_masked_by_the_distributor_it_waits(rig: VgicRig) -> None:
    irq = rig.irq(SPI)
    rig.line(SPI, True)
    assert rig.enter() == []
    rig.vm.vgic.enabled = False
    rig.dist_write(0x104, 1 << SPI - 32)
    assert irq.enabled
    assert rig.enter() == []
    rig.vm.vgic.enabled = True
    rig.dist_write(0x104, 1 << SPI - 32)
    assert len(rig.enter()) == 1


def test_pending_irq_looks_at_mask_enable_and_active(rig: VgicRig) -> None:
    vgic = rig.vgic()
    irq = rig.enabled(SPI)
    rig.line(SPI, True)
    assert not vgic.pending_irq()  # the priority mask is zero
    vgic.vmcr.value = 0xF0 << g.ICH_VMCR_PMR_SHIFT
    assert vgic.pending_irq()
    irq.priority = 0xF0
    assert not vgic.pending_irq()
    irq.priority, irq.active = 0, True
    assert not vgic.pending_irq()


def test_more_than_fit_come_by_priority_and_ask_to_come_back(rig: VgicRig) -> None:
    for n in range(6):
        rig.enabled(SPI + n, 0xF0 - 8 * n)
        rig.line(SPI + n, True)
    lrs = rig.enter()
    assert [lr & 0x3FF for lr in lrs] == [SPI + 5, SPI + 4, SPI + 3, SPI + 2]
    assert rig.vgic().hcr.value == g.ICH_HCR_EN | g.ICH_HCR_UIE
    for n in range(2, 6):
        rig.line(SPI + n, False)
    rig.leave(*(ended(lr) for lr in lrs))
    assert rig.vgic().hcr.value == g.ICH_HCR_EN
    assert [lr & 0x3FF for lr in rig.enter()] == [SPI + 1, SPI]
    assert rig.vgic().hcr.value == g.ICH_HCR_EN


def test_active_ones_give_way_to_those_that_can_be_taken(rig: VgicRig) -> None:
    """An active one without a list register is asked for by EOIcount, and told by its number."""
    rig.enabled(SPI, 0xF0).active = True
    queue_irq(rig.irq(SPI))
    for n in range(1, 6):
        rig.enabled(SPI + n, 8 * n)
        rig.line(SPI + n, True)
    lrs = rig.enter()
    assert [lr & 0x3FF for lr in lrs] == [SPI + 1, SPI + 2, SPI + 3, SPI + 4]
    assert rig.vgic().hcr.value == g.ICH_HCR_EN | g.ICH_HCR_UIE | g.ICH_HCR_LRENPIE
    rig.vgic().hcr.value += 1 << g.ICH_HCR_EOICOUNT_SHIFT
    rig.vcpus[0].state.ich_counted_id = SPI
    rig.leave(*lrs)
    assert not rig.irq(SPI).active
    assert rig.enter()
    assert rig.vgic().hcr.value == g.ICH_HCR_EN | g.ICH_HCR_UIE


def test_a_mapped_interrupt_is_linked_and_sampled(rig: VgicRig) -> None:
    """We see its rising edges only: the line is lowered on entry and looked at on exit."""
    level = [True]
    irq = rig.enabled(27)
    map_phys_irq(rig.vcpus[0], 27, 27, lambda: level[0])
    rig.line(27, True)
    (lr,) = rig.enter()
    assert lr & g.ICH_LR_HW
    assert lr >> g.ICH_LR_PHYS_ID_SHIFT & 0x1FFF == 27
    assert not lr & g.ICH_LR_EOI
    assert not high(irq)
    rig.leave(lr)  # the guest has not looked
    assert high(irq)
    (lr,) = rig.enter()
    rig.leave(acked(lr))
    assert map_is_active(rig.vcpus[0], 27)
    (lr,) = rig.enter()
    assert state(lr) == "A"
    rig.leave(ended(lr))
    assert not high(irq)
    assert rig.enter() == []
    # Withdrawn before the guest took it.
    rig.line(27, True)
    (lr,) = rig.enter()
    level[0] = False
    rig.leave(lr)
    assert rig.enter() == []


def test_ending_a_level_spi_is_told(rig: VgicRig) -> None:
    told: list[int] = []
    rig.vm.vgic.ack_notifiers.append(told.append)
    rig.enabled(SPI)
    rig.line(SPI, True)
    (lr,) = rig.enter()
    rig.leave(acked(lr))
    assert told == []
    (lr,) = rig.enter()
    rig.leave(ended(lr))
    assert told == [SPI - 32]


def test_an_sgi_is_taken_once_for_each_sender(v2: VgicRig) -> None:
    """GICv2: CPUs 0, 1 and 2 send SGI 5 to CPU 0; an interrupt of lower priority has to wait."""
    v2.enabled(5, 0x40)
    v2.enabled(SPI, 0x80)
    v2.line(SPI, True)
    for sender in v2.vcpus:
        write_sgir(sender, 0xF00, 4, 1 << 16 | 5)
    seen = []
    for last in (False, False, True):
        lrs = v2.enter()
        seen.append(lrs[0] >> g.ICH_LR_CPUID_SHIFT & 7)
        assert bool(lrs[0] & g.ICH_LR_EOI) == (not last)
        assert (len(lrs) > 1) == last
        v2.leave(ended(lrs[0]), *lrs[1:])
    assert seen == [0, 1, 2]
    assert [lr & 0x3FF for lr in v2.enter()] == [SPI]


def test_an_active_sgi_keeps_its_sender(v2: VgicRig) -> None:
    irq = v2.enabled(0, 0)
    irq.pending_latch, irq.source = True, 1 << 2
    queue_irq(irq)
    (lr,) = v2.enter()
    v2.leave(acked(lr))
    assert irq.active_source == 2
    (lr,) = v2.enter()
    assert lr >> g.ICH_LR_CPUID_SHIFT & 7 == 2
    # SGI 0, priority 0, ended: the list register reads zero, and is folded all the same.
    v2.leave(0)
    assert not irq.active


def test_an_spi_moves_to_its_new_target_when_it_is_not_active(v2: VgicRig) -> None:
    irq = v2.enabled(SPI)
    v2.line(SPI, True)
    assert irq.vcpu is v2.vcpus[0]
    v2.dist_write(0x800 + SPI, 0x04)
    (lr,) = v2.enter() or [0]
    assert lr == 0
    v2.leave()
    assert irq.vcpu is v2.vcpus[2]
    (lr,) = v2.enter(2)
    assert state(lr) == "P"
    v2.leave(acked(lr), cpu=2)
    v2.dist_write(0x800 + SPI, 0x01)
    (lr,) = v2.enter(2)
    assert state(lr) == "A"
    v2.line(SPI, False)
    v2.leave(ended(lr), cpu=2)
    assert irq.vcpu is None
