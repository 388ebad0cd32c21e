"""The CPUs in the device tree: cores, their caches, their PMU, and how they are started.

A vCPU says by MIDR_EL1 which core it is; its caches are the ones that the core's Technical
Reference Manual has, in a usual size. Nobody models them: they are there for who asks how large
they are (bindings/cpu/, Devicetree Specification 3.8 and 3.9). Left out: the topology of clusters,
capacities, idle states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from armkvm.vmm.fdt import Fdt

LINE = 64  # bytes, in every cache here
LABEL_L2 = "l2-cache"


@dataclass(frozen=True)
class Cache:
    """Size in bytes, and ways."""

    size: int
    ways: int

    @property
    def sets(self) -> int:
        return self.size // self.ways // LINE


@dataclass(frozen=True)
class Core:
    """What the device tree says of a core. `sharers`: how many of them have one second level."""

    compatible: str
    l1i: Cache
    l1d: Cache
    l2: Cache
    sharers: int


KIB = 1 << 10
# By implementer and part number of MIDR_EL1.
CORES = {
    (0x41, 0xD03): Core(
        "arm,cortex-a53", Cache(32 * KIB, 2), Cache(32 * KIB, 4), Cache(1024 * KIB, 16), 4
    ),
    (0x41, 0xD07): Core(
        "arm,cortex-a57", Cache(48 * KIB, 3), Cache(32 * KIB, 2), Cache(2048 * KIB, 16), 4
    ),
    (0x41, 0xD0B): Core(
        "arm,cortex-a76", Cache(64 * KIB, 4), Cache(64 * KIB, 4), Cache(512 * KIB, 8), 1
    ),
}


def cpus_fdt(fdt: Fdt, midr: int, cpus: int) -> None:
    """The CPUs, started by PSCI through HVC: KVM has no other conduit."""
    core = CORES.get((midr >> 24 & 0xFF, midr >> 4 & 0xFFF))
    with fdt.node("cpus"):
        fdt.prop("#address-cells", 1)
        fdt.prop("#size-cells", 0)
        for n in range(cpus):
            # KVM's MPIDR_EL1: 16 CPUs a cluster, so that an SGI's target list reaches them.
            affinity = n >> 4 << 8 | n & 15
            with fdt.node(f"cpu@{affinity:x}"):
                fdt.prop("device_type", "cpu")
                fdt.prop("compatible", core.compatible if core else "arm,armv8")
                fdt.prop("enable-method", "psci")
                fdt.prop("reg", affinity)
                if core:
                    _cache(fdt, "i-cache", core.l1i)
                    _cache(fdt, "d-cache", core.l1d)
                    fdt.prop("next-level-cache", fdt.phandle(f"{LABEL_L2}{n // core.sharers}"))
        for n in range(0, cpus, core.sharers) if core else ():
            assert core is not None
            label = f"{LABEL_L2}{n // core.sharers}"
            with fdt.node(label):
                fdt.prop("compatible", "cache")
                fdt.prop("cache-level", 2)
                fdt.prop("cache-unified")
                _cache(fdt, "cache", core.l2)
                fdt.prop("phandle", fdt.phandle(label))
    with fdt.node("psci"):
        fdt.prop("compatible", "arm,psci-1.0", "arm,psci-0.2")
        fdt.prop("method", "hvc")


def pmu_fdt(fdt: Fdt, cells: Sequence[int]) -> None:
    """The PMU (bindings/arm/pmu.yaml), with its interrupt as the interrupt controller has it."""
    with fdt.node("pmu"):
        fdt.prop("compatible", "arm,armv8-pmuv3")
        fdt.prop("interrupts", *cells)


def _cache(fdt: Fdt, name: str, cache: Cache) -> None:
    fdt.prop(f"{name}-size", cache.size)
    fdt.prop(f"{name}-line-size", LINE)
    fdt.prop(f"{name}-sets", cache.sets)
