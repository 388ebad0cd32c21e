"""The README's example runs and prints what its comment says; so do those of the classes."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from armkvm.kvm import System, Vcpu, Vm
from armkvm.vmm.machine import Machine

README = Path(__file__).parents[1] / "README.md"


def test_the_librarys_example() -> None:
    section = README.read_text().split("## The library")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if not line or line[:4] == "    ")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = re.findall(r"# (\d+): KVM_ARM_DEV_EL1_VTIMER", code)
    assert done.stdout.split() == ["device_irq_level", *said]


@pytest.mark.parametrize("cls", [System, Vm, Vcpu, Machine])
def test_a_class_begins_with_an_example_that_runs(cls: type) -> None:
    lines = (inspect.getdoc(cls) or "").splitlines()
    code = "\n".join(line[4:] for line in lines if not line or line[:4] == "    ")
    assert f"{cls.__name__.lower()}" in code.lower()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
