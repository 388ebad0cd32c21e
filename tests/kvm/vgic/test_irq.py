"""What follows from an interrupt's state."""

from __future__ import annotations

import pytest
from tests.kvm.vgic.vgic_rig import VgicRig

from armkvm.kvm.vgic.irq import VgicIrq

SGI, SPI = 5, 40


@pytest.mark.parametrize("intid", [SGI, 20, SPI])
def test_as_it_comes_up(intid: int) -> None:
    """SGIs are edges and always enabled to begin with; all else waits to be configured."""
    irq = VgicIrq(intid, None, 0)
    assert irq.level_config == (intid != SGI)
    assert irq.enabled == (intid == SGI)
    assert not irq.is_pending()


def test_pending_is_what_was_latched_or_a_level_that_is_high() -> None:
    irq = VgicIrq(SPI, None, 0)
    irq.line_level = True
    assert irq.is_pending()
    irq.level_config = False  # an edge that nobody latched
    assert not irq.is_pending()
    irq.pending_latch = True
    assert irq.is_pending()


def test_it_belongs_to_its_target_while_enabled_and_pending(v2: VgicRig) -> None:
    irq = v2.irq(SPI)
    irq.target_vcpu = v2.vcpus[1]
    assert irq.target_oracle() is None
    irq.pending_latch = True
    assert irq.target_oracle() is None
    irq.enabled = True
    assert irq.target_oracle() is v2.vcpus[1]
    v2.vm.vgic.enabled = False
    assert irq.target_oracle() is None


def test_an_active_one_stays_with_the_vcpu_that_has_it(v2: VgicRig) -> None:
    irq = v2.irq(SPI)
    irq.target_vcpu = v2.vcpus[1]
    irq.active = True
    assert irq.target_oracle() is v2.vcpus[1]
    irq.vcpu = v2.vcpus[2]
    v2.vm.vgic.enabled = False
    assert irq.target_oracle() is v2.vcpus[2]


def test_an_sgi_takes_a_list_register_for_each_sender() -> None:
    irq = VgicIrq(SGI, None, 0)
    assert irq.lr_count() == 0
    irq.pending_latch, irq.source = True, 0b1011
    assert irq.lr_count() == 3
    irq.active = True
    assert irq.lr_count() == 4
    irq.source = 0
    assert irq.lr_count() == 1


def test_without_a_device_behind_it_a_line_is_low() -> None:
    irq = VgicIrq(27, None, 0)
    assert not irq.phys_line_level()
    irq.get_input_level = lambda: True
    assert irq.phys_line_level()
    assert not irq.is_mapped_level()
    irq.hw = True
    assert irq.is_mapped_level()
