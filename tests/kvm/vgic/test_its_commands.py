"""The commands of an ITS, one by one, through the queue in guest memory (IHI 0069, 5.3)."""

from __future__ import annotations

import pytest
from tests.kvm.vgic.its_rig import (
    DEVICES,
    ITT,
    LPI,
    PENDING,
    PRIORITY,
    ItsRig,
    command,
    invall,
    mapc,
    mapd,
    mapi,
    mapti,
    movall,
    movi,
    of_event,
)

from armkvm.arch import its as g
from armkvm.kvm.vgic import its_commands
from armkvm.kvm.vgic.its import CommandError


def error(its: ItsRig, raw: bytes) -> int:
    """The command error of a command, which the queue would pass over."""
    with pytest.raises(CommandError) as caught:
        its_commands.execute(its.its, its_commands.decode(raw))
    its.commands(raw)
    return caught.value.code


def test_an_event_becomes_an_lpi(its: ItsRig) -> None:
    irq = its.mapped()
    assert (irq.priority, irq.enabled, irq.pending_latch) == (PRIORITY, True, False)
    assert irq.target_vcpu is its.vcpus[0]
    assert not irq.level_config
    assert irq.group == 1


def test_mapi_takes_the_lpi_of_the_events_number(its: ItsRig) -> None:
    its.commands(mapd(7, bits=14), mapc(0), mapi(7, LPI + 5))
    assert set(its.lpis()) == {LPI + 5}
    assert error(its, mapi(7, LPI - 1)) == g.E_MAPTI_PHYSICALID_OOR


def test_mapd_anew_drops_what_was_mapped(its: ItsRig) -> None:
    its.mapped()
    its.commands(mapd(0))
    assert not its.lpis()
    assert its.its.ites == 0
    assert its.msi() == 0


def test_mapd_without_valid_clears_the_entry(its: ItsRig) -> None:
    its.fill(DEVICES + 8, bytes([0xFF] * 8))
    its.commands(mapd(1), mapd(1, valid=False))
    assert not its.its.devices
    assert its.at(DEVICES + 8) == 0


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (mapd(1 << 13), g.E_MAPD_DEVICE_OOR),  # 64 KiB of entries
        (mapd(1 << 17), g.E_MAPD_DEVICE_OOR),
        (mapd(0xFFFF_FFFF), g.E_MAPD_DEVICE_OOR),
        (mapd(2, bits=17), g.E_MAPD_ITTSIZE_OOR),
        (mapc(1, 2), g.E_MAPC_PROCNUM_OOR),
        (mapc(0x2000, 1), g.E_MAPC_COLLECTION_OOR),
        (mapti(2, 0, LPI), g.E_MAPTI_UNMAPPED_DEVICE),
        (mapti(0, 32, LPI), g.E_MAPTI_ID_OOR),
        (mapti(0, 1, LPI - 1), g.E_MAPTI_PHYSICALID_OOR),
        (mapti(0, 1, 1 << 16), g.E_MAPTI_PHYSICALID_OOR),
        (mapti(0, 1, LPI + 1, 0xFFFF), g.E_MAPC_COLLECTION_OOR),
        (movi(0, 1, 0), g.E_MOVI_UNMAPPED_INTERRUPT),
        (movi(0, 0, 1), g.E_MOVI_UNMAPPED_COLLECTION),
        (of_event(g.CMD_DISCARD, 0, 1), g.E_DISCARD_UNMAPPED_INTERRUPT),
        (of_event(g.CMD_INT, 0, 1), g.E_INT_UNMAPPED_INTERRUPT),
        (of_event(g.CMD_INT, 1, 0), g.E_INT_UNMAPPED_INTERRUPT),
        (of_event(g.CMD_CLEAR, 0, 1), g.E_CLEAR_UNMAPPED_INTERRUPT),
        (of_event(g.CMD_INV, 0, 1), g.E_INV_UNMAPPED_INTERRUPT),
        (invall(1), g.E_INVALL_UNMAPPED_COLLECTION),
        (movall(0, 2), g.E_MOVALL_PROCNUM_OOR),
        (movall(2, 0), g.E_MOVALL_PROCNUM_OOR),
    ],
)
def test_a_wrong_command_is_passed_over(its: ItsRig, raw: bytes, code: int) -> None:
    its.mapped()
    assert error(its, raw) == code
    assert set(its.lpis()) == {LPI}
    assert its.msi() == 1


def test_a_command_that_is_none_is_passed_over(its: ItsRig) -> None:
    its.commands(command(0x22), command(0xFF), command(g.CMD_SYNC), mapd(0))
    assert set(its.its.devices) == {0}


def test_mapc_moves_the_lpis_of_a_collection(its: ItsRig) -> None:
    irq = its.mapped()
    its.commands(mapc(1, 0), mapti(0, 1, LPI + 1, 1), mapc(0, 1))
    assert irq.target_vcpu is its.vcpus[1]
    assert its.irq(LPI + 1).target_vcpu is its.vcpus[0]


def test_a_collection_that_is_unmapped_never_gets_its_events_back(its: ItsRig) -> None:
    """As in 6.12: they have no collection then, and a new one of that number is another."""
    its.mapped()
    its.commands(mapc(0, valid=False))
    assert its.msi() == 0
    its.commands(mapc(0))
    assert its.msi() == 0
    assert error(its, movi(0, 0, 0)) == g.E_MOVI_UNMAPPED_COLLECTION
    assert error(its, of_event(g.CMD_DISCARD, 0, 0)) == g.E_DISCARD_UNMAPPED_INTERRUPT


def test_mapti_makes_a_collection_that_has_no_target_yet(its: ItsRig) -> None:
    its.commands(mapd(0), mapti(0, 0, LPI, 3))
    assert its.irq(LPI).target_vcpu is None
    assert its.msi() == 0
    its.commands(mapc(3, 1))
    assert its.irq(LPI).target_vcpu is its.vcpus[1]
    assert its.msi() == 1


def test_mapti_that_fails_leaves_no_collection(its: ItsRig) -> None:
    """The configuration table ends with memory: EFAULT."""
    its.redist_write(0, 0)
    its.redist_write(0x70, 0x10_0000_0000 | 15, length=8)
    its.commands(mapd(0), mapti(0, 0, LPI, 3))
    assert (its.lpis(), its.its.collections, its.its.devices[0].ites) == ({}, {}, {})
    assert its.its.ites == 0


def test_an_event_that_is_mapped_stays_as_it_is(its: ItsRig) -> None:
    its.mapped()
    its.commands(mapti(0, 0, LPI + 1))
    assert set(its.lpis()) == {LPI}


def test_movi_moves_one_event(its: ItsRig) -> None:
    irq = its.mapped()
    its.commands(mapc(1, 1), movi(0, 0, 1))
    assert irq.target_vcpu is its.vcpus[1]
    its.msi()
    assert its.vgic(1).ap_list == [irq]


def test_discard_drops_the_event_and_clears_its_entry(its: ItsRig) -> None:
    its.fill(ITT, bytes([0xFF] * 8))
    its.mapped()
    its.commands(of_event(g.CMD_DISCARD, 0, 0))
    assert not its.lpis()
    assert its.at(ITT) == 0
    assert its.msi() == 0


def test_int_and_clear(its: ItsRig) -> None:
    irq = its.mapped()
    its.commands(of_event(g.CMD_INT, 0, 0))
    assert irq.pending_latch
    assert its.vgic().ap_list == [irq]
    its.commands(of_event(g.CMD_CLEAR, 0, 0))
    assert not irq.pending_latch


def test_inv_reads_the_configuration_anew(its: ItsRig) -> None:
    irq = its.mapped()
    its.prop(LPI, 0x43)
    assert irq.priority == PRIORITY
    its.commands(of_event(g.CMD_INV, 0, 0))
    assert (irq.priority, irq.enabled) == (0x40, True)
    its.prop(LPI, 0x40)
    its.commands(of_event(g.CMD_INV, 0, 0))
    assert not irq.enabled


def test_inv_that_enables_delivers_what_is_pending(its: ItsRig) -> None:
    its.prop(LPI, PRIORITY)
    irq = its.mapped()
    its.msi()
    assert its.vgic().ap_list == []
    its.prop(LPI, PRIORITY | g.LPI_PROP_ENABLED)
    its.commands(of_event(g.CMD_INV, 0, 0))
    assert its.vgic().ap_list == [irq]


def test_invall_reads_those_of_the_collections_target(its: ItsRig) -> None:
    its.mapped()
    its.commands(mapc(1, 1), mapti(0, 1, LPI + 1, 1))
    for intid in (LPI, LPI + 1):
        its.prop(intid, 0x20)
    its.commands(invall(1))
    assert [its.irq(LPI + n).priority for n in (0, 1)] == [PRIORITY, 0x20]


def test_movall_moves_every_lpi(its: ItsRig) -> None:
    irq = its.mapped()
    its.commands(movall(0, 0))
    assert irq.target_vcpu is its.vcpus[0]
    its.commands(movall(0, 1))
    assert irq.target_vcpu is its.vcpus[1]


def test_one_lpi_of_two_events_goes_with_the_last(its: ItsRig) -> None:
    its.mapped()
    its.commands(mapti(0, 1, LPI), of_event(g.CMD_DISCARD, 0, 0))
    assert set(its.lpis()) == {LPI}
    its.commands(of_event(g.CMD_DISCARD, 0, 1))
    assert not its.lpis()


def test_what_is_on_its_way_to_the_guest_survives_its_event(its: ItsRig) -> None:
    """And is gone when the guest has taken it."""
    its.mapped()
    its.msi()
    its.commands(of_event(g.CMD_DISCARD, 0, 0))
    assert set(its.lpis()) == {LPI}
    (lr,) = its.enter()
    assert lr & 0xFFFF_FFFF == LPI
    its.leave(0)
    assert not its.lpis()


def test_mapping_consumes_a_bit_of_the_pending_table(its: ItsRig) -> None:
    at = PENDING + LPI // 8
    its.fill(at, b"\x03")
    irq = its.mapped()
    assert irq.pending_latch
    assert its.vgic().ap_list == [irq]
    assert its.at(at, 1) == 2


def test_a_table_of_two_levels() -> None:
    its = ItsRig(indirect=True)
    its.commands(mapd(0x1FFF), mapd(0x2000))
    assert set(its.its.devices) == {0x1FFF}  # the second page is not there
    assert error(its, mapd(0x1_FFFF)) == g.E_MAPD_DEVICE_OOR
    its.close()


def test_the_queue_goes_round(its: ItsRig) -> None:
    its.mapped()
    half = 0x1_0000 // g.CMD_SIZE // 2
    for _ in range(3):
        its.commands(*[of_event(g.CMD_CLEAR, 0, 0)] * half)
    its.commands(of_event(g.CMD_INT, 0, 0))
    assert its.irq(LPI).pending_latch


def test_there_is_an_end_to_translations(its: ItsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("armkvm.kvm.vgic.its.MAX_ITES", 2)
    its.mapped()
    its.commands(*[mapti(0, n, LPI + n, n) for n in (1, 2)])
    assert set(its.lpis()) == {LPI, LPI + 1}
    assert set(its.its.collections) == {0, 1}
    its.commands(of_event(g.CMD_DISCARD, 0, 0), mapti(0, 2, LPI + 2))
    assert set(its.lpis()) == {LPI + 1, LPI + 2}
