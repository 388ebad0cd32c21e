"""The registers of an ITS: what the guest sees of them, and user space (IHI 0069, 12.19)."""

from __future__ import annotations

import errno

import pytest
from tests.kvm.rig import fails
from tests.kvm.vgic.its_rig import (
    COLLECTIONS,
    DEVICES,
    LPI,
    QUEUE,
    ItsRig,
    invall,
    mapc,
    mapd,
    mapti,
)

from armkvm.arch import its as g
from armkvm.kvm.vgic import its_mmio

VALID = g.BASER_VALID
ATTRIBUTES = 5 << 59 | 1 << 10  # RaWb, inner shareable


def test_identification(bare: ItsRig) -> None:
    assert bare.read(g.GITS_IIDR, 4) == 0x4B00_043B
    # 17 bits of DeviceID, 16 of EventID, entries of 8 bytes, physical LPIs
    assert bare.read(g.GITS_TYPER) == 16 << 13 | 15 << 8 | 7 << 4 | 1
    assert bare.read(g.GITS_TYPER + 4, 4) == 0
    ids = [bare.read(0xFFD0 + 4 * n, 4) for n in range(12)]
    assert ids == [0x40, 0, 0, 0, 0x92, 0xB4, 0x3B, 0, 0x0D, 0xF0, 0x05, 0xB1]


def test_reset_values(bare: ItsRig) -> None:
    page = 2 << 8 | 7 << 48 | ATTRIBUTES
    assert bare.read(g.GITS_CTLR, 4) == g.GITS_CTLR_QUIESCENT
    assert bare.read(g.GITS_BASER) == page | 1 << 56
    assert bare.read(g.GITS_BASER + 8) == page | 4 << 56
    assert [bare.read(g.GITS_BASER + 8 * n) for n in range(2, 8)] == [0] * 6
    assert [bare.read(r) for r in (g.GITS_CBASER, g.GITS_CWRITER, g.GITS_CREADR)] == [0] * 3


@pytest.mark.parametrize(
    ("offset", "kept"),
    [
        (g.GITS_BASER, VALID | g.GITS_BASER_INDIRECT | 1 << 56),
        (g.GITS_BASER + 8, VALID | 4 << 56),
    ],
)
def test_a_baser_keeps_type_entry_and_page_size(bare: ItsRig, offset: int, kept: int) -> None:
    bare.write(offset, 2**64 - 1)
    # Outer attributes that are no "same" and no "not cacheable" become "same"; 3 shareable stays.
    attributes = 7 << 59 | 3 << 10
    assert bare.read(offset) == kept | attributes | 7 << 48 | 0xFFFF_FFFF_F000 | 2 << 8 | 0xFF


@pytest.mark.parametrize(
    ("written", "read"),
    [(0, ATTRIBUTES & ~(1 << 10)), (1 << 59 | 2 << 10 | 1 << 53, ATTRIBUTES | 1 << 53)],
)
def test_attributes_of_tables_are_sanitised(bare: ItsRig, written: int, read: int) -> None:
    mask = 7 << 59 | 7 << 53 | 3 << 10
    for offset in (g.GITS_BASER, g.GITS_CBASER):
        bare.write(offset, written)
        assert bare.read(offset) & mask == read


def test_other_basers_ignore_writes(bare: ItsRig) -> None:
    bare.write(g.GITS_BASER + 16, 2**64 - 1)
    assert bare.read(g.GITS_BASER + 16) == 0


def test_halves_of_registers(bare: ItsRig) -> None:
    bare.write(g.GITS_CBASER + 4, 0x8000_0000, 4)
    bare.write(g.GITS_CBASER, QUEUE | 0xF003, 4)
    assert bare.read(g.GITS_CBASER + 4, 4) >> 31 == 1
    assert bare.read(g.GITS_CBASER, 4) & 0xFFFF_F0FF == QUEUE | 3  # the address is 64 KiB aligned


def test_other_sizes_read_zero_and_write_nothing(bare: ItsRig) -> None:
    for length in (1, 2):
        assert bare.read(g.GITS_TYPER, length) == 0
        bare.write(g.GITS_CBASER, 0xFF, length)
    assert bare.read(g.GITS_CTLR, 8) == 0
    assert bare.read(g.GITS_TYPER + 2, 4) == 0
    assert bare.read(g.GITS_CBASER) == 0


def test_a_cpus_write_to_translater_does_nothing(its: ItsRig) -> None:
    """It has no DeviceID. The rest of both frames reads as zero."""
    its.mapped()
    its.write(g.GITS_TRANSLATER, 0, 4)
    assert not its.irq(LPI).pending_latch
    assert its.read(g.GITS_TRANSLATER, 4) == its.read(0x1_FFF8) == its.read(0x200) == 0


@pytest.mark.parametrize("missing", [g.GITS_BASER, g.GITS_BASER + 8, g.GITS_CBASER])
def test_it_stays_off_while_a_table_is_missing(its: ItsRig, missing: int) -> None:
    its.write(g.GITS_CTLR, 0, 4)
    its.write(missing, its.read(missing) & ~VALID)
    its.write(g.GITS_CTLR, 1, 4)
    assert its.read(g.GITS_CTLR, 4) == g.GITS_CTLR_QUIESCENT
    its.write(missing, its.read(missing) | VALID)
    its.write(g.GITS_CTLR, 1, 4)
    assert its.read(g.GITS_CTLR, 4) == g.GITS_CTLR_QUIESCENT | g.GITS_CTLR_ENABLE


def test_while_it_is_on_its_tables_stay(its: ItsRig) -> None:
    registers = (g.GITS_CBASER, g.GITS_BASER, g.GITS_BASER + 8)
    before = [its.read(r) for r in registers]
    for r in registers:
        its.write(r, 0)
    assert [its.read(r) for r in registers] == before


def test_commands_wait_until_it_is_on(its: ItsRig) -> None:
    its.write(g.GITS_CTLR, 0, 4)
    its.fill(QUEUE, mapd(0))
    its.write(g.GITS_CWRITER, g.CMD_SIZE)
    assert its.read(g.GITS_CREADR) == 0
    assert its.read(g.GITS_CTLR, 4) == 0
    assert not its.its.devices
    its.write(g.GITS_CTLR, 1, 4)
    assert its.read(g.GITS_CREADR) == g.CMD_SIZE
    assert set(its.its.devices) == {0}


def test_a_new_queue_is_empty(its: ItsRig) -> None:
    its.commands(mapd(0))
    its.write(g.GITS_CTLR, 0, 4)
    its.write(g.GITS_CBASER, VALID | QUEUE)
    assert its.read(g.GITS_CREADR) == its.read(g.GITS_CWRITER) == 0


def test_cwriter_stays_inside_the_queue(its: ItsRig) -> None:
    its.write(g.GITS_CWRITER, 0x1_0000)
    assert its.read(g.GITS_CWRITER) == 0
    its.write(g.GITS_CWRITER, 0xF_FFFF_FFF0_003F)
    assert its.read(g.GITS_CWRITER) == 0x20


def test_creadr_is_read_only_for_the_guest(its: ItsRig) -> None:
    its.write(g.GITS_CTLR, 0, 4)
    its.write(g.GITS_CREADR, 0x40)
    assert its.read(g.GITS_CREADR) == 0


def test_a_queue_that_is_nowhere_is_passed_over(its: ItsRig) -> None:
    its.write(g.GITS_CTLR, 0, 4)
    its.write(g.GITS_CBASER, VALID | 0xF_0000_0000_0000 | 0xFF)
    its.write(g.GITS_CTLR, 1, 4)
    its.write(g.GITS_CWRITER, 0xF_FFE0)
    assert its.read(g.GITS_CREADR) == 0xF_FFE0


@pytest.mark.parametrize("register", [g.GITS_BASER, g.GITS_BASER + 8])
def test_a_table_that_becomes_invalid_takes_what_it_held_with_it(
    its: ItsRig, register: int
) -> None:
    its.mapped()
    its.write(g.GITS_CTLR, 0, 4)
    its.write(register, 0)
    gone = its.its.devices if register == g.GITS_BASER else its.its.collections
    assert not gone
    its.write(g.GITS_BASER, VALID | DEVICES)
    its.write(g.GITS_BASER + 8, VALID | COLLECTIONS)
    its.write(g.GITS_CTLR, 1, 4)
    assert its.msi() == 0
    its.commands(mapd(0), mapc(0), mapti(0, 0, LPI))
    assert its.msi() == 1


@pytest.mark.parametrize("access", ["creadr", "cwriter", "ctlr"])
def test_a_long_queue_is_done_in_parts(
    its: ItsRig, monkeypatch: pytest.MonkeyPatch, access: str
) -> None:
    """Each access to the queue's registers goes on with it; what is left is seen."""
    its.mapped()
    its.commands(*[mapti(0, n, LPI + n) for n in range(1, 10)])
    monkeypatch.setattr(its_mmio, "WORK_AT_ONCE", 20)
    at = its.read(g.GITS_CWRITER)
    its.fill(QUEUE + at, invall() * 6 + mapd(3))
    end = at + 7 * g.CMD_SIZE
    its.write(g.GITS_CWRITER, end)
    assert its.its.creadr == at + 2 * g.CMD_SIZE  # ten LPIs each, and the command itself
    for _ in range(2):
        if access == "creadr":
            its.read(g.GITS_CREADR)
        elif access == "cwriter":
            its.write(g.GITS_CWRITER, end)
        else:
            assert not its.read(g.GITS_CTLR, 4) & g.GITS_CTLR_QUIESCENT
    assert its.its.creadr == at + 6 * g.CMD_SIZE
    assert its.read(g.GITS_CREADR) == end
    assert its.read(g.GITS_CTLR, 4) & g.GITS_CTLR_QUIESCENT
    assert set(its.its.devices) == {0, 3}


# user space


def test_registers_are_read_at_full_width(its: ItsRig) -> None:
    for register in (g.GITS_TYPER, g.GITS_CBASER, g.GITS_BASER, g.GITS_BASER + 8):
        assert its.get(register) == its.read(register)
    for register in (g.GITS_CTLR, g.GITS_IIDR, g.GITS_PIDR2, g.GITS_CIDR3):
        assert its.get(register) == its.read(register, 4)


def test_creadr_is_restored_before_it_is_on_and_inside_the_queue(its: ItsRig) -> None:
    fails(errno.EBUSY, lambda: its.set(g.GITS_CREADR, 0x20))
    its.set(g.GITS_CTLR, 0)
    its.set(g.GITS_CREADR, 0xFFE0)
    assert its.get(g.GITS_CREADR) == 0xFFE0
    fails(errno.EINVAL, lambda: its.set(g.GITS_CREADR, 0x1_0000))
    its.set(g.GITS_CBASER, VALID | QUEUE)  # after it: that resets both
    assert its.get(g.GITS_CREADR) == 0


def test_iidr_names_a_layout_that_is_known(bare: ItsRig) -> None:
    bare.set(g.GITS_IIDR, bare.get(g.GITS_IIDR))
    bare.set(g.GITS_IIDR, 0)
    fails(errno.EINVAL, lambda: bare.set(g.GITS_IIDR, 1 << 12))
    assert bare.get(g.GITS_IIDR) == 0x4B00_043B


def test_read_only_registers_ignore_writes(bare: ItsRig) -> None:
    for register in (g.GITS_TYPER, g.GITS_PIDR2, g.GITS_CIDR0):
        before = bare.get(register)
        bare.set(register, 2**64 - 1)
        assert bare.get(register) == before


def test_user_space_may_run_commands(its: ItsRig) -> None:
    its.fill(QUEUE, mapd(3))
    its.set(g.GITS_CWRITER, g.CMD_SIZE)
    assert its.get(g.GITS_CREADR) == g.CMD_SIZE
    assert set(its.its.devices) == {3}
