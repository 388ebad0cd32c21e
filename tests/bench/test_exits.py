"""armkvm bench exits: its guests do what they are said to do."""

import json

import pytest

from armkvm.abi.kvm import KVM_EXIT_MMIO
from armkvm.bench import exits
from armkvm.cli import bench
from armkvm.cli.main import main
from armkvm.kvm.system import System
from armkvm.kvm.vcpu import Vcpu


@pytest.fixture
def vcpus(monkeypatch: pytest.MonkeyPatch) -> list[Vcpu]:
    """Every vCPU that is closed during the test."""
    seen: list[Vcpu] = []
    destroy = Vcpu.destroy

    def noted(self: Vcpu) -> None:
        seen.append(self)
        destroy(self)

    monkeypatch.setattr(Vcpu, "destroy", noted)
    return seen


@pytest.mark.parametrize(
    ("select", "exits_each"),
    [
        (exits.WRITE, {"mmio_exit_user": 1}),
        (exits.READ, {"mmio_exit_user": 1}),
        (exits.VERSION, {"hvc_exit_stat": 1}),
        (exits.NOTIFY, {"hvc_exit_stat": 1, "notifications": 2}),
        (exits.ASLEEP, {"hvc_exit_stat": 1, "notifications": 2, "wfi_exit_stat": 1}),
    ],
)
def test_what_a_bare_guest_does(select: int, exits_each: dict[str, int], vcpus: list[Vcpu]) -> None:
    assert exits.bare(select, 7) > 0
    stat = vcpus[0].stat
    for name, each in exits_each.items():
        ends = 1 if name == "hvc_exit_stat" else 0  # the power-off
        assert getattr(stat, name) == 7 * each + ends, name
    if "mmio_exit_user" not in exits_each:
        assert stat.mmio_exit_user == 0


@pytest.mark.parametrize(
    ("irqchip", "select", "mmio"),
    [
        ("gicv2", exits.GICV2, 4 + 2 * 7),
        # The kernel's distributor and redistributors answer in KVM: nothing gets to the VMM.
        ("kernel-gicv2", exits.GICV2, 0),
        ("kernel-gicv3", exits.GICV3, 0),
    ],
)
def test_what_a_tick_costs_in_exits(
    irqchip: str, select: int, mmio: int, vcpus: list[Vcpu]
) -> None:
    assert exits.machine(select, 7, irqchip) > 0
    stat = vcpus[0].stat
    assert stat.mmio_exit_user == mmio
    assert stat.reason[KVM_EXIT_MMIO] == mmio
    assert (stat.notifications > 0) == (irqchip == "gicv2")


def test_the_line_really_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    create = System.create_vm

    def watched(self: System, machine_type: int = 0):  # type: ignore[no-untyped-def]
        vm = create(self, machine_type)
        vm.trace.kvm_irq_line = lambda *fields: levels.append(fields[-1])
        return vm

    monkeypatch.setattr(System, "create_vm", watched)
    exits.irq_lines(4)
    assert levels == [1, 0, 1, 0]


def test_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "EXITS", 20)
    monkeypatch.setattr(exits, "SHORT", 2)
    assert main(["bench", "exits", "--repeat", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == [
        "mmio-write", "mmio-read", "mmio-device", "hvc", "notification", "wfi", "irq-line",
        "tick-gicv2", "tick-kernel-gicv2", "tick-kernel-gicv3",
        "tick-gicv2 / tick-kernel-gicv2", "tick-gicv2 / tick-kernel-gicv3",
    ]  # fmt: skip
    assert all(row["qemu"] is row["ratio"] is None for row in rows)
    assert [row["unit"] for row in rows] == ["ns"] * 10 + ["x"] * 2
