"""The bus: which device answers at a guest physical address.

Mirrors nothing but the interconnect's rule that an address without a device must not bring the
machine down. On hardware such an access is a decode error and usually an SError; here it reads as
zero, is ignored on writes, and is reported, as kvmtool and crosvm do. Left out: bus masters other
than CPUs, endianness other than little.

Threat model: address, size and value come from the guest and are hostile. Lookup is a bisection
over a list that only the VMM changes; nothing is allocated per access; no access raises.
"""

from bisect import bisect_right

from armkvm.vmm.devices.device import OddAccess, Region, Report, unreported

WIDTHS = frozenset((1, 2, 4, 8))


class Bus:
    """Maps [base, base + size) of guest physical memory to regions, without overlap."""

    def __init__(self, report: Report = unreported) -> None:
        self._report = report
        self._bases: list[int] = []
        self._regions: list[tuple[int, int, Region]] = []  # (base, end, region), by base

    def map(self, base: int, region: Region) -> None:
        """Put a region at an address. ValueError when it would overlap another one."""
        end = base + region.size
        if base < 0 or region.size <= 0:
            raise ValueError(f"{region.name}: bad window {base:#x}, {region.size:#x} bytes")
        index = bisect_right(self._bases, base)
        for other_base, other_end, other in self._regions[max(index - 1, 0) : index + 1]:
            if base < other_end and other_base < end:
                raise ValueError(f"{region.name} at {base:#x} overlaps {other.name}")
        self._bases.insert(index, base)
        self._regions.insert(index, (base, end, region))

    def read(self, addr: int, size: int, cpu: int = 0) -> int:
        """What CPU ``cpu`` reads, as a little-endian number of ``size`` bytes."""
        index = bisect_right(self._bases, addr) - 1
        if index >= 0 and size in WIDTHS:
            base, end, region = self._regions[index]
            if addr + size <= end:
                return region.read(addr - base, size, cpu)
        self._odd(addr, size, cpu, None)
        return 0

    def write(self, addr: int, size: int, value: int, cpu: int = 0) -> None:
        """A write of the low ``size`` bytes of ``value`` by CPU ``cpu``."""
        index = bisect_right(self._bases, addr) - 1
        if index >= 0 and size in WIDTHS:
            base, end, region = self._regions[index]
            if addr + size <= end:
                region.write(addr - base, size, value & ((1 << 8 * size) - 1), cpu)
                return
        self._odd(addr, size, cpu, value)

    def _odd(self, addr: int, size: int, cpu: int, value: int | None) -> None:
        why = "nothing mapped here" if size in WIDTHS else "bad access size"
        self._report(OddAccess("bus", addr, size, cpu, value, why))
