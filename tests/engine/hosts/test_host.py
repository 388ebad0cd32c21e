"""The kinds of host: which one this is, and what each makes of the same functions.

Assembly is made for both kinds on either; what the functions do is tested where they run
(tests/engine/native/test_fpenv.py).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence

import llvmlite.binding as llvm
import pytest

from armkvm.engine import build, generate
from armkvm.engine.errors import EngineError
from armkvm.engine.hosts import HOSTS, Host, check, host_of
from armkvm.isa.all import forms
from armkvm.isa.table import Form

# Arithmetic of every kind that isa/fp settles, and an exclusive.
_NAMES = ("FADD_", "FMUL_vector", "FDIV_vector", "FMLA_FMLS_vector", "FCVTN", "FCVTL", "STXR")


def chosen() -> Sequence[Form]:
    return [f for f in forms() if f.name.startswith(_NAMES)]


@pytest.fixture(scope="module", params=HOSTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def assembly(kind: str) -> str:
    return build.assembly(HOSTS[kind], chosen())


def function(assembly: str, name: str) -> str:
    """The instructions of a function, each with single spaces."""
    body = assembly.split(f"\n{name}:\n")[1].split("\n.Lfunc_end")[0]
    return re.sub(r"[ \t]+", " ", body)


def test_this_machine_is_one() -> None:
    assert host_of(llvm.get_default_triple()) is HOSTS[platform.machine()]
    assert {host_of(host.TRIPLE).LEAST for host in HOSTS.values()} == {
        "an x86-64-v3 CPU", "an ARMv8-A CPU",
    }  # fmt: skip


@pytest.mark.parametrize(
    "triple",
    ["riscv64-unknown-linux-gnu", "aarch64_be-unknown-linux-gnu", "arm64-apple-darwin24.0.0", ""],
)
def test_other_machines_are_refused_in_one_line(triple: str) -> None:
    with pytest.raises(EngineError, match="needs an x86-64 or arm64 Linux host") as e:
        host_of(triple)
    assert "\n" not in str(e.value)


def test_what_a_cpu_lacks_is_named() -> None:
    x86 = HOSTS["x86_64"]
    has = dict.fromkeys(x86.REQUIRED, True)
    check(x86, has)
    with pytest.raises(EngineError, match=r"needs an x86-64-v3 CPU; this CPU lacks avx2, fma$"):
        check(x86, has | {"avx2": False, "fma": False})
    check(HOSTS["aarch64"], {})  # under some emulators LLVM cannot tell any


_INSTRUCTIONS = {
    "x86_64": {
        "host_fp": ("vstmxcsr",),
        "set_host_fp": ("vldmxcsr",),
        "fp_raised": ("$30", "$1"),
    },
    "aarch64": {
        "host_fp": ("mrs x8, FPCR", "mrs x9, FPSR"),
        "set_host_fp": ("msr FPCR", "msr FPSR"),
        "fp_enter": ("#0x1c00000",),
        "fp_raised": ("FPSR", "#0x1f"),
    },
}


def test_the_environment_is_the_hosts(kind: str, assembly: str) -> None:
    for name, parts in _INSTRUCTIONS[kind].items():
        body = function(assembly, name)
        for part in parts:
            assert part in body, f"{name}: {part}\n{body}"


def test_a_run_gives_back_what_the_host_calls_its_own(kind: str, assembly: str) -> None:
    """Handlers use every register (but %rbp); `enter` saves those that callers count on."""
    saved = {
        "x86_64": {"%rbx", "%r12", "%r13", "%r14", "%r15"},
        "aarch64": {*(f"x{n}" for n in range(19, 29)), *(f"d{n}" for n in range(8, 16))},
    }
    stores = re.findall(r"^ (?:pushq|st[rp]) (.*)$", function(assembly, "enter"), re.MULTILINE)
    assert saved[kind] <= set(re.findall(r"%?\w+", " ".join(stores)))


def test_vectors_are_looked_at_without_raising(kind: str) -> None:
    """A plain fcmp of vectors is FCMGT on Arm, which raises Invalid for a quiet NaN."""
    host: Host = HOSTS[kind]
    text = generate.module(host, all_forms=chosen()).text()
    assert "constrained.fcmp.v4f32" in text
    assert re.findall(r"= fcmp \w+ <.*", text) == []
