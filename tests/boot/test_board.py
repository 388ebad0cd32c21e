"""What Linux finds on the board: CPUs and caches, PMU, console, clock, random numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.boot.conftest import PARAMS, Boot, Runner

from armkvm.vmm.guest.debian import Guest

LOOK = """
cat /proc/cpuinfo
cd /sys/devices/system/cpu/cpu0/cache
for index in index*; do
  echo cache $(cat $index/level $index/type $index/size $index/ways_of_associativity)
done
ls /sys/bus/event_source/devices
stty -F /dev/ttyAMA0
echo +2 > /sys/class/rtc/rtc0/wakealarm
sleep 3
cat /proc/interrupts
dmesg
"""
HOSTS = {
    "nvhe-gicv2": (
        ("--irqchip", "gicv2"), 0xD07, ["1 Data 32K 2", "1 Instruction 48K 3", "2 Unified 2048K 16"]
    ),
    "vhe-gicv3": (
        ("--irqchip", "kernel-gicv3", "-c", "2", "--pmu"), 0xD0B,
        ["1 Data 64K 4", "1 Instruction 64K 4", "2 Unified 512K 8"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=HOSTS)
def seen(
    request: pytest.FixtureRequest, boot: Runner, debian: Callable[..., Guest],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Boot]:  # fmt: skip
    """One boot on each host; everything is asked in it."""
    from armkvm.vmm.guest.initramfs import default_initramfs

    initrd = tmp_path_factory.mktemp("board") / "initrd"
    initrd.write_bytes(default_initramfs(debian().busybox.read_bytes(), LOOK))
    machine = HOSTS[request.param][0]
    command = ("-k", str(debian().kernel), "-i", str(initrd), "-p", f"{PARAMS} quiet")
    got = boot(*command, *machine)
    assert got.code == 0, got.errors + got.console[-2000:]
    return request.param, got


def test_the_cpu_is_the_hosts(seen: tuple[str, Boot]) -> None:
    """What lscpu makes Vendor and Model name of."""
    host, got = seen
    assert re.search(r"CPU implementer\s*: 0x41", got.console)
    assert int(re.findall(r"CPU part\s*: (\S+)", got.console)[0], 16) == HOSTS[host][1]


def test_its_caches_have_sizes(seen: tuple[str, Boot]) -> None:
    host, got = seen
    caches = re.findall(r"^cache (.*)", got.console.replace("\r", ""), re.MULTILINE)
    assert caches == HOSTS[host][2]


def test_it_has_a_pmu_if_asked_for(seen: tuple[str, Boot]) -> None:
    host, got = seen
    found = "enabled with armv8_pmuv3 PMU driver, 7 counters available" in got.console
    assert found == ("--pmu" in HOSTS[host][0])
    assert got.interrupts("arm-pmu") == [0] * found


def test_the_console_has_a_speed(seen: tuple[str, Boot]) -> None:
    assert "speed 115200 baud" in seen[1].console


def test_the_clocks_alarm_comes(seen: tuple[str, Boot]) -> None:
    assert seen[1].interrupts("rtc-pl031") == [1]


def test_there_is_entropy_and_kaslr(seen: tuple[str, Boot]) -> None:
    console = seen[1].console
    assert "KASLR enabled" in console
    assert re.search(r"\[    0\.000000\] random: crng init done", console)
