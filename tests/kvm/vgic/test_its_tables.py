"""The tables of an ITS in guest memory: revision 0 of the ABI (arm-vgic-its.rst)."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from tests.kvm.rig import fails
from tests.kvm.vgic.its_rig import (
    COLLECTIONS,
    DEVICES,
    ITT,
    LPI,
    PENDING,
    SECOND_LEVEL,
    ItsRig,
    mapc,
    mapd,
    mapti,
)

from armkvm.abi import vgic as a
from armkvm.arch import its as g
from armkvm.kvm.vgic import its_tables

VALID = 1 << 63
NOWHERE = 0xF_0000_0000_0000


def dte(itt: int = ITT, bits: int = 5, following: int = 0) -> int:
    return VALID | following << 49 | itt >> 8 << 5 | bits - 1


def ite(intid: int = LPI, collection: int = 0, following: int = 0) -> int:
    return following << 48 | intid << 16 | collection


def cte(collection: int = 0, target: int = 0) -> int:
    return VALID | target << 16 | collection


def put(its: ItsRig, address: int, *entries: int) -> None:
    its.fill(address, b"".join(entry.to_bytes(8, "little") for entry in entries))


# saving


def test_the_layout(its: ItsRig) -> None:
    its.commands(
        mapd(9, ITT + 0x100, 4), mapd(2, ITT, 5), mapc(7, 1), mapc(3, 0),
        mapti(2, 30, LPI + 1, 7), mapti(2, 1, LPI, 3), mapti(9, 0, LPI + 2, 5),
    )  # fmt: skip
    its.save()
    assert its.at(DEVICES + 2 * 8) == dte(ITT, 5, following=7)
    assert its.at(DEVICES + 9 * 8) == dte(ITT + 0x100, 4)
    assert its.at(ITT + 1 * 8) == ite(LPI, 3, following=29)
    assert its.at(ITT + 30 * 8) == ite(LPI + 1, 7)
    assert its.at(ITT + 0x100) == ite(LPI + 2, 5)
    # In the order in which they were made; one without a target has all ones; then the end.
    collections = [its.at(COLLECTIONS + 8 * n) for n in range(4)]
    assert collections == [cte(7, 1), cte(3, 0), cte(5, 0xFFFF_FFFF), 0]


def test_steps_have_a_largest_value() -> None:
    its = ItsRig(indirect=True)
    its.set(g.GITS_CTLR, 0)
    its.set(g.GITS_BASER, g.BASER_VALID | DEVICES | 1)  # 128 KiB
    its.set(g.GITS_CTLR, 1)
    its.commands(mapd(0), mapd((1 << 14) - 1), mapc(0))
    its.save()
    assert its.at(DEVICES) == dte(following=(1 << 14) - 1)
    its.close()


def test_tables_that_are_not_valid_are_not_written(bare: ItsRig) -> None:
    bare.save()
    assert bare.memory[:] == bytes(len(bare.memory))


def test_an_event_whose_collection_is_gone_is_left_out(its: ItsRig) -> None:
    its.commands(mapd(0), mapc(0), mapc(1), mapti(0, 1, LPI, 1), mapti(0, 2, LPI + 1, 0))
    its.save()
    its.commands(mapc(1, valid=False))
    its.save()
    assert its.at(ITT + 8) == 0
    its.ctrl(a.KVM_DEV_ARM_ITS_CTRL_RESET)
    its.set_up()
    its.restore()
    assert set(its.lpis()) == {LPI + 1}


@pytest.mark.parametrize("moved", [(g.GITS_BASER, errno.EINVAL), (g.GITS_BASER + 8, errno.EFAULT)])
def test_a_table_that_is_nowhere(its: ItsRig, moved: tuple[int, int]) -> None:
    register, error = moved
    its.mapped()
    its.set(g.GITS_CTLR, 0)
    its.set(register, g.BASER_VALID | 0xF000_0000_0000)
    fails(error, lambda: its.ctrl(a.KVM_DEV_ARM_ITS_SAVE_TABLES))


def test_an_itt_that_went_away(its: ItsRig) -> None:
    its.commands(mapd(0, bits=16), mapc(0), mapti(0, 0, LPI))
    its.vm.set_user_memory_region(0, 0, 0)
    its.vm.set_user_memory_region(0, DEVICES - 0x1_0000, 0x9_0000, its.memory)
    fails(errno.EFAULT, lambda: its.ctrl(a.KVM_DEV_ARM_ITS_SAVE_TABLES))


# from one machine to another


@pytest.fixture
def other() -> Iterator[ItsRig]:
    rig = ItsRig(bare=True)
    yield rig
    rig.close()


REGISTERS = (
    g.GITS_CBASER, g.GITS_CREADR, g.GITS_CWRITER, g.GITS_BASER, g.GITS_BASER + 8, g.GITS_IIDR,
)  # fmt: skip


def migrate(source: ItsRig, target: ItsRig) -> None:
    """In the order of "ITS Restore Sequence"."""
    source.save()
    target.memory[:] = source.memory[:]
    for cpu in range(len(source.vcpus)):
        for register in (0x70, 0x78):
            target.redist_write(register, source.redist(register, cpu, 8), cpu, 8)
        target.redist_write(0, source.redist(0, cpu), cpu)
    for register in REGISTERS:
        target.set(register, source.get(register))
    target.restore()
    target.set(g.GITS_CTLR, source.get(g.GITS_CTLR))


def shape(its: ItsRig) -> object:
    return (
        {
            (d.id, d.itt_addr, d.event_id_bits): {
                e: (i.irq.intid, i.collection and i.collection.id) for e, i in d.ites.items()
            }
            for d in its.its.devices.values()
        },
        {c.id: c.target for c in its.its.collections.values()},
        {
            intid: (
                irq.priority, irq.enabled, irq.pending_latch, irq.references,
                irq.target_vcpu and irq.target_vcpu.vcpu_id,
            )
            for intid, irq in its.lpis().items()
        },
        [its.get(register) for register in (*REGISTERS, g.GITS_CTLR)],
    )  # fmt: skip


@pytest.mark.parametrize("indirect", [False, True])
def test_another_machine_goes_on(other: ItsRig, indirect: bool) -> None:
    its = ItsRig(indirect=indirect)
    its.commands(
        mapd(5, ITT + 0x100, 4), mapd(0x1FFF, ITT, 5), mapc(2, 1), mapc(0, 0),
        mapti(5, 3, LPI + 1, 2), mapti(5, 0, LPI, 0), mapti(0x1FFF, 31, LPI + 7, 2),
        mapti(0x1FFF, 2, LPI + 9, 8),
    )  # fmt: skip
    its.msi(5, 3)
    its.msi(5, 0)
    before = shape(its)
    migrate(its, other)
    assert shape(other) == before
    assert [i.intid for i in other.vgic(0).ap_list] == [LPI]
    assert [i.intid for i in other.vgic(1).ap_list] == [LPI + 1]
    assert other.msi(0x1FFF, 31) == 1
    # What it saves is the same, but for what became pending since.
    other.irq(LPI + 7).pending_latch = False
    other.save()
    assert other.memory[:] == its.memory[:]
    its.close()


def test_restoring_consumes_the_pending_table(its: ItsRig, other: ItsRig) -> None:
    its.mapped()
    its.msi()
    migrate(its, other)
    assert its.at(PENDING + LPI // 8, 1) == 1
    assert other.at(PENDING + LPI // 8, 1) == 0


# what may be in the tables of a guest


@pytest.fixture
def ready(its: ItsRig) -> ItsRig:
    """A collection, device 0 with one event: as a guest might have left it."""
    put(its, COLLECTIONS, cte())
    put(its, DEVICES, dte())
    put(its, ITT, ite())
    return its


def empty(its: ItsRig) -> bool:
    return not (its.its.devices or its.its.collections or its.lpis() or its.its.ites)


def test_it_is_restored(ready: ItsRig) -> None:
    ready.restore()
    assert ready.msi() == 1


@pytest.mark.parametrize(
    ("address", "entries", "error"),
    [
        (COLLECTIONS, (cte(0, 2),), errno.EINVAL),  # no such vCPU
        (COLLECTIONS, (cte(), cte()), errno.EEXIST),
        (COLLECTIONS, (cte(0x2000),), errno.EINVAL),  # 64 KiB of entries
        (COLLECTIONS, (0,), errno.EINVAL),  # the event's is not there
        (DEVICES, (dte(bits=17),), errno.EINVAL),
        (DEVICES, (dte(NOWHERE),), errno.EFAULT),
        (DEVICES, (dte(), dte(0x4010_0000 - 0x100, 6)), errno.EFAULT),  # runs out of memory
        (ITT, (ite(LPI - 1),), errno.EINVAL),
        (ITT, (ite(collection=1),), errno.EINVAL),
        (ITT, (ite(following=32),), errno.EINVAL),
        (ITT, (ite(0xFFFF_FFFF),), errno.EFAULT),  # beyond the configuration table
    ],
)
def test_inconsistent_tables_leave_nothing(
    ready: ItsRig, address: int, entries: tuple[int, ...], error: int
) -> None:
    put(ready, address, *entries)
    if len(entries) == 2 and address == DEVICES:
        put(ready, DEVICES, dte(following=1))
    fails(error, ready.restore)
    assert empty(ready)


def test_entries_that_are_not_valid_are_stepped_over(ready: ItsRig) -> None:
    put(ready, DEVICES, 0, VALID - 1, dte())
    put(ready, ITT, ite(0), 0, ite(LPI + 3))
    ready.restore()
    assert ready.msi(2, 2) == 1


def test_the_last_entry_ends_the_scan(ready: ItsRig) -> None:
    put(ready, DEVICES, dte(), dte(NOWHERE))
    put(ready, ITT, ite(), ite(1))
    ready.restore()
    assert set(ready.its.devices) == {0}


def test_a_second_time_there_are_collections(ready: ItsRig) -> None:
    ready.restore()
    fails(errno.EEXIST, ready.restore)
    assert not ready.its.collections


def test_devices_that_are_there_are_replaced(ready: ItsRig) -> None:
    ready.commands(mapd(0), mapti(0, 4, LPI + 4, 9))
    ready.restore()
    assert set(ready.lpis()) == {LPI}
    assert ready.its.ites == 1


def test_a_first_level_that_points_nowhere() -> None:
    its = ItsRig(indirect=True)
    put(its, DEVICES, VALID | NOWHERE)
    fails(errno.EFAULT, its.restore)
    put(its, DEVICES, SECOND_LEVEL, VALID | SECOND_LEVEL)
    put(its, SECOND_LEVEL, dte())
    its.restore()
    assert set(its.its.devices) == {0x2000}
    its.close()


def test_one_restore_looks_at_so_many_entries(
    ready: ItsRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices may share an ITT: together they would have more entries than memory."""
    monkeypatch.setattr(its_tables, "MAX_SCANNED", 1000)
    put(ready, DEVICES, *[dte(ITT + 0x100, 9, following=1)] * 8)
    put(ready, DEVICES + 64, 0)
    fails(errno.ENOMEM, ready.restore)
    assert empty(ready)
