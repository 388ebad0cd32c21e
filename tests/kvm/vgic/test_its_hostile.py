"""Whatever a guest writes to an ITS, its queue and its tables: only OSError, nothing left."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kvm.vgic.its_rig import (
    COLLECTIONS,
    DEVICES,
    ITT,
    LPI,
    PENDING,
    QUEUE,
    SECOND_LEVEL,
    ItsRig,
)

from armkvm.abi import vgic as a
from armkvm.arch import its as g

U64 = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 3)
ADDRESS = st.sampled_from([
    DEVICES, COLLECTIONS, ITT, ITT + 0x100, PENDING, QUEUE, SECOND_LEVEL, 0, 0x400F_FF00,
    0xF_FFFF_FFFF_FF00,
])  # fmt: skip
OFFSETS = (0, 4, 8, 0x80, 0x84, 0x88, 0x90, 0x100, 0x104, 0x108, 0x138, 0x1_0040)
FLAG = st.sampled_from([0, 1 << 63])


@st.composite
def commands(draw: st.DrawFn) -> bytes:
    """Mostly plausible ones."""
    if not draw(st.integers(0, 9)):
        return draw(st.binary(min_size=32, max_size=32))
    number = draw(st.integers(0, 16))
    device = draw(st.sampled_from([0, 1, 2, 0x1FFF, 0x2000, 0x1_FFFF, 0xFFFF_FFFF]))
    intid = draw(st.sampled_from([0, 40, LPI - 1, LPI, LPI + 1, LPI + 2, 0xFFFF, 2**32 - 1]))
    event = draw(st.sampled_from([0, 1, 4, 15, 31, LPI, LPI + 1, 0xFFFF, 2**32 - 1]))
    if number == g.CMD_MAPD:
        third = draw(FLAG) | draw(ADDRESS)
    else:
        third = draw(FLAG) | draw(SMALL) << 16 | draw(SMALL)
    words = (device << 32 | number, intid << 32 | event, third, draw(SMALL) << 16)
    return b"".join(word.to_bytes(8, "little") for word in words)


@st.composite
def entries(draw: st.DrawFn) -> int:
    """An entry of any table."""
    match draw(st.integers(0, 4)):
        case 0:
            return draw(U64)
        case 1:
            step, bits = draw(SMALL), draw(st.integers(0, 16))
            return 1 << 63 | step << 49 | draw(ADDRESS) >> 8 << 5 & (1 << 49) - 32 | bits
        case 2:
            intid = draw(st.sampled_from([0, 1, LPI, LPI + 1, LPI + 2, 0xFFFF]))
            return draw(SMALL) << 48 | intid << 16 | draw(SMALL)
        case 3:
            return draw(FLAG) | draw(ADDRESS)
        case _:
            return draw(FLAG) | draw(st.sampled_from([0, 1, 2, 2**32 - 1])) << 16 | draw(SMALL)


def consistent(its: ItsRig) -> None:
    """What is counted is there."""
    ites = [ite for device in its.its.devices.values() for ite in device.ites.values()]
    assert its.its.ites == len(ites)
    listed = {irq.intid for n in (0, 1) for irq in its.vgic(n).ap_list}
    assert set(its.lpis()) == {ite.irq.intid for ite in ites} | {i for i in listed if i >= LPI}
    for irq in its.lpis().values():
        assert irq.references == sum(ite.irq is irq for ite in ites)
    for ite in ites:
        assert ite.collection is None or ite.collection in its.its.collections.values()


def gone(its: ItsRig) -> None:
    """After a reset, and with the LPIs of both vCPUs off, there is nothing."""
    its.ctrl(a.KVM_DEV_ARM_ITS_CTRL_RESET)
    for cpu in (0, 1):
        its.redist_write(0, 0, cpu)
    assert (its.lpis(), its.its.devices, its.its.collections, its.its.ites) == ({}, {}, {}, 0)


@settings(max_examples=150, deadline=None)
@given(raws=st.lists(commands(), max_size=30), indirect=st.booleans())
def test_any_command(raws: list[bytes], indirect: bool) -> None:
    its = ItsRig(indirect=indirect)
    its.commands(*raws)
    consistent(its)
    with contextlib.suppress(OSError):
        its.save()
    gone(its)
    its.close()


@settings(max_examples=100, deadline=None)
@given(
    accesses=st.lists(
        st.tuples(
            st.sampled_from(OFFSETS),
            st.sampled_from([1, 2, 4, 8]),
            st.one_of(U64, ADDRESS, ADDRESS.map(lambda at: at | 3 << 62), SMALL),
        ),
        max_size=30,
    ),
    raw=st.binary(min_size=256, max_size=256),
)
def test_any_access(accesses: list[tuple[int, int, int]], raw: bytes) -> None:
    its = ItsRig()
    its.fill(QUEUE, raw)
    for offset, length, value in accesses:
        its.write(offset, value, length)
        its.read(offset, length)
        with contextlib.suppress(OSError):
            its.set(offset, value)
    consistent(its)
    gone(its)
    its.close()


@settings(max_examples=150, deadline=None)
@given(
    devices=st.lists(entries(), max_size=6),
    itt=st.lists(entries(), max_size=6),
    collections=st.lists(entries(), max_size=6),
    second=st.lists(entries(), max_size=3),
    indirect=st.booleans(),
)
def test_any_table(
    devices: list[int], itt: list[int], collections: list[int], second: list[int], indirect: bool
) -> None:
    its = ItsRig(indirect=indirect)
    tables = {DEVICES: devices, ITT: itt, COLLECTIONS: collections, SECOND_LEVEL: second}
    for address, words in tables.items():
        its.fill(address, b"".join(word.to_bytes(8, "little") for word in words))
    try:
        its.restore()
    except OSError:
        assert not its.its.collections
    consistent(its)
    with contextlib.suppress(OSError):
        its.save()
    gone(its)
    its.close()
