"""The bus: mapping, lookup, and accesses that nobody answers."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armkvm.vmm.devices.bus import Bus
from armkvm.vmm.devices.device import OddAccess, OddAccesses


@dataclass
class Spy:
    """A region that remembers its accesses and reads as 2^64 - 1 of the right width."""

    name: str
    size: int
    seen: list[tuple[object, ...]] = field(default_factory=list)

    def read(self, offset: int, size: int, cpu: int = 0) -> int:
        self.seen.append(("r", offset, size, cpu))
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int, cpu: int = 0) -> None:
        self.seen.append(("w", offset, size, value, cpu))


def test_an_access_reaches_the_region_with_its_offset_and_cpu() -> None:
    odd = OddAccesses()
    bus = Bus(odd)
    low, high = Spy("low", 0x1000), Spy("high", 0x200)
    bus.map(0x9000_0000, high)
    bus.map(0x0900_0000, low)
    assert bus.read(0x0900_0FFC, 4) == 0xFFFF_FFFF
    bus.write(0x9000_0008, 2, 0x12345, cpu=3)
    assert low.seen == [("r", 0xFFC, 4, 0)]
    assert high.seen == [("w", 8, 2, 0x2345, 3)]
    assert odd.count == 0


@pytest.mark.parametrize(
    ("addr", "size"),
    [(0x0FFF, 1), (0x2000, 4), (0x1FFE, 4), (0, 8), (1 << 60, 4), (0x1000, 3), (0x1000, 16)],
)
def test_an_access_outside_reads_as_zero_and_is_reported(addr: int, size: int) -> None:
    seen: list[OddAccess] = []
    odd = OddAccesses(seen.append)
    bus = Bus(odd)
    region = Spy("r", 0x1000)
    bus.map(0x1000, region)
    assert bus.read(addr, size, cpu=1) == 0
    bus.write(addr, size, 5, cpu=1)
    assert region.seen == []
    assert [(o.device, o.offset, o.size, o.cpu, o.value) for o in seen] == [
        ("bus", addr, size, 1, None),
        ("bus", addr, size, 1, 5),
    ]
    assert odd.count == sum(odd.by_reason.values()) == 2


def test_overlapping_regions_are_refused() -> None:
    bus = Bus()
    bus.map(0x1000, Spy("a", 0x1000))
    for base, size in ((0x1000, 0x1000), (0x1FFF, 1), (0xFFF, 2), (0, 0x10000)):
        with pytest.raises(ValueError, match="overlaps a"):
            bus.map(base, Spy("b", size))
    with pytest.raises(ValueError, match="bad window"):
        bus.map(0, Spy("empty", 0))
    bus.map(0x2000, Spy("after", 4))
    bus.map(0xFFC, Spy("before", 4))


def test_reports_do_not_grow_with_the_number_of_accesses() -> None:
    odd = OddAccesses()
    bus = Bus(odd)
    for addr in range(1000):
        bus.read(addr, 1)
    assert odd.count == 1000
    assert len(odd.last) == 16
    assert len(odd.by_reason) == 1


@given(st.sets(st.integers(0, 40), max_size=12), st.integers(-1, 0x300), st.integers(0, 9))
def test_lookup_agrees_with_a_linear_search(pages: set[int], addr: int, size: int) -> None:
    bus = Bus()
    regions = {page: Spy(str(page), 16) for page in pages}
    for page, region in regions.items():
        bus.map(page * 16, region)
    value = bus.read(addr, size)
    hit = addr // 16 in pages and addr % 16 + size <= 16 and size in (1, 2, 4, 8)
    assert value == ((1 << 8 * size) - 1 if hit else 0)
    assert sum(len(r.seen) for r in regions.values()) == hit
