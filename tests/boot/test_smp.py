"""Debian's kernels on several CPUs: the same run every time, and right results under load."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest
from tests.boot.conftest import PARAMS, Boot, Runner

from armkvm.vmm.guest.debian import Flavour, Guest

CPUS = 4
PROCESSES, LINES, SIGNALS, ROUNDS = 240, 300, 200, 400

# Processes, pipes and signals on all CPUs at once. Every line is a sum that a lost wake-up, a lost
# byte or a torn update would change; a shell that hangs is the test's time limit.
STRESS = f"""\
i=0; while [ $i -lt {PROCESSES} ]; do (echo $((i * i)) > /tmp/p$i) & i=$((i + 1)); done; wait
echo SQUARES $(cat /tmp/p* | awk '{{ s += $1 }} END {{ print s }}')
for k in 1 2 3 4 5 6 7 8; do
  (seq 1 {LINES} | while read a; do echo $a; done | tr 0-9 1-90 | tr 1-90 0-9 |
    sha256sum > /tmp/s$k) &
done; wait
echo PIPES $(sort -u /tmp/s* | wc -l) $(cut -c 1-64 /tmp/s1)
n=0; trap 'n=$((n + 1))' USR1
i=0; while [ $i -lt {SIGNALS} ]; do (kill -USR1 $$); i=$((i + 1)); done
echo SIGNALS $n
mkfifo /tmp/there /tmp/back
(while read a; do echo $((a + 1)); done < /tmp/there > /tmp/back) &
exec 3> /tmp/there 4< /tmp/back
i=0; while [ $i -lt {ROUNDS} ]; do echo $i >&3; read i <&4; done
exec 3>&-; wait; echo PINGPONG $i
for k in 1 2 3 4 5 6 7 8; do sleep 100 & victims="$victims $!"; done
kill -9 $victims; killed=0
for v in $victims; do wait $v; [ $? = 137 ] && killed=$((killed + 1)); done
echo KILLED $killed
echo BUSY $(awk '/^cpu[0-9]/ && $2 + $4 > 0' /proc/stat | wc -l)
"""


def columns(got: Boot) -> list[str]:
    """The head of /proc/interrupts, print by print."""
    return re.findall(r"^ +(CPU0(?: +CPU\d+)*)[ \r]*$", got.console, re.MULTILINE)


def assert_all_came_up(got: Boot, cpus: int) -> None:
    assert got.code == 0, got.errors + got.console[-3000:]
    assert "BOOT-OK" in got.console
    assert "Power down" in got.console
    assert f"SMP: Total of {cpus} processors activated" in got.console
    heads = columns(got)
    assert len(heads) == 2
    assert all(len(head.split()) == cpus for head in heads)
    # Each CPU's timer ticks, and each executed something.
    ticks = re.findall(r"^ *\d+:((?: +\d+)+) +\S+ .*arch_timer\r?$", got.console, re.MULTILINE)
    assert len(ticks) == 2
    assert all(int(n) > 0 for row in ticks for n in row.split())
    assert len(got.stats["vcpus"]) == cpus
    assert all(vcpu["instructions"] > 1_000_000 for vcpu in got.stats["vcpus"])


def test_four_cpus_are_deterministic(boot: Runner, debian: Callable[..., Guest]) -> None:
    debian()
    runs = [boot("--cpus", str(CPUS)) for _ in range(3)]
    for got in runs:
        assert_all_came_up(got, CPUS)
        del got.stats["wall_seconds"]
    assert runs[0].console == runs[1].console == runs[2].console
    assert runs[0].stats == runs[1].stats == runs[2].stats


@pytest.mark.parametrize(
    ("suite", "flavour", "cpus"),
    [
        (None, "cloud", 8),
        (None, "generic", 4),
        ("trixie", "cloud", 4),
        (None, "rt", 2),
    ],
)
def test_boots(
    boot: Runner,
    debian: Callable[..., Guest],
    initrd: Callable[[str], str],
    suite: str | None,
    flavour: Flavour,
    cpus: int,
) -> None:
    found = debian(suite, flavour)
    show = "cat /proc/interrupts; sleep 1; cat /proc/interrupts\n"
    kernel = str(found.kernel)
    got = boot("-c", str(cpus), "-k", kernel, "-i", initrd(show), "-p", PARAMS)
    assert_all_came_up(got, cpus)
    if flavour == "rt":
        assert "PREEMPT_RT" in got.console


def test_stress(boot: Runner, debian: Callable[..., Guest], initrd: Callable[[str], str]) -> None:
    args = ("-c", str(CPUS), "-k", str(debian().kernel), "-i", initrd(STRESS), "-p", PARAMS)
    got, again = boot(*args), boot(*args)
    assert got.code == 0, got.errors + got.console[-3000:]
    said = dict(re.findall(r"^([A-Z]+) (.+?)\r?$", got.console, re.MULTILINE))
    assert said["SQUARES"] == str(sum(i * i for i in range(PROCESSES)))
    assert said["PIPES"] == f"1 {sha256_of_numbers(LINES)}"
    # Signals of one number merge while one is pending; each is sent by a child that is waited for.
    assert said["SIGNALS"] == str(SIGNALS)
    assert said["PINGPONG"] == str(ROUNDS)
    assert said["KILLED"] == "8"
    assert said["BUSY"] == str(CPUS)
    assert again.console == got.console
    assert again.stats["memory_digest"] == got.stats["memory_digest"]


def sha256_of_numbers(last: int) -> str:
    return hashlib.sha256("".join(f"{n}\n" for n in range(1, last + 1)).encode()).hexdigest()
