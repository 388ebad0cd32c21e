"""What host and kvm use of a CPU is there in every kind of it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kvm.rig import IO, PSCI, Ops, Rig

from armkvm.abi import kvm as k
from armkvm.engine.layout import State as EngineState
from armkvm.host import scripted
from armkvm.host.cpu import STATE_FIELDS, word
from armkvm.host.scripted import Load, Mrs, Msr, Run, ScriptedCpu

PMCR, PMCNTENSET = (3, 3, 9, 12, 0), (3, 3, 9, 12, 1)
PMCNTENCLR, PMOVSCLR, PMINTENCLR = (3, 3, 9, 12, 2), (3, 3, 9, 12, 3), (3, 0, 9, 14, 2)
PMEVCNTR0, PMEVTYPER0 = (3, 3, 14, 8, 0), (3, 3, 14, 12, 0)
INST_RETIRED = 0x08
P, U = 1 << 31, 1 << 30


@pytest.mark.parametrize("state", [EngineState, scripted.State], ids=["engine", "scripted"])
def test_every_field_is_a_word_of_the_state(state: type[ctypes.Structure]) -> None:
    kinds = {name: kind for name, kind, *_ in state._fields_}
    assert {name: kinds.get(name) for name in STATE_FIELDS} == dict.fromkeys(
        STATE_FIELDS, ctypes.c_uint64
    )
    assert ctypes.sizeof(kinds["x"]) >= 31 * 8


def test_a_word_is_the_field() -> None:
    state = scripted.State()
    word(state, "cntv_cval").value = 5
    assert state.cntv_cval == 5


@pytest.mark.parametrize(("excluded", "counts"), [(0, True), (U, True), (P, False), (P | U, False)])
def test_a_scripted_guest_counts_at_the_levels_that_it_names(excluded: int, counts: bool) -> None:
    """PMEVTYPER<n>.P and .U: EL1, where a script is, or EL0 are not counted."""
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        # What a reset leaves is unknown.
        for register in (PMCNTENCLR, PMINTENCLR, PMOVSCLR):
            yield Msr(register, 0xFFFF_FFFF)
        yield Msr(PMEVTYPER0, INST_RETIRED | excluded)
        yield Msr(PMEVCNTR0, 0)
        yield Msr(PMCNTENSET, 1)
        yield Msr(PMCR, 1)
        yield Run(1000)
        seen.append((yield Mrs(PMEVCNTR0)))
        yield Load(IO)

    rig = Rig(guest, features=PSCI | 1 << k.KVM_ARM_VCPU_PMU_V3)
    rig.vcpu.set_device_attr(k.KVM_ARM_VCPU_PMU_V3_CTRL, k.KVM_ARM_VCPU_PMU_V3_INIT)
    rig.vcpu.run()
    assert (seen[0] >= 1000) == counts


def test_mypy_sees_a_register_that_no_cpu_has(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from armkvm.host.cpu import GuestCpu\n"
        "def f(cpu: GuestCpu) -> tuple[object, object]:\n"
        "    return cpu.state.pc, cpu.state.no_such_register\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", tmp_path, program],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'program.py:3: error: "GuestState" has no attribute "no_such_register"' in done.stdout
    assert "Found 1 error" in done.stdout
