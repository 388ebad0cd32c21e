"""What a VMM uses of KVM is KVM's, or listed as what is not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import armkvm
from armkvm.abi import ioctl as nr
from armkvm.client import extras, kvm

VMM = Path(armkvm.__file__).parent / "vmm"
IOCTLS = {name.removeprefix("KVM_").lower() for name in vars(nr) if name.startswith("KVM_")}
# What a process does with a file of KVM that is no ioctl: close(), mmap(), a signal, its number.
OTHER_CALLS = {"close", "run_struct", "irq_level", "kick", "vcpu_id"}


def trees() -> Iterator[ast.AST]:
    for path in VMM.rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def names(*protocols: type) -> set[str]:
    """What they ask for themselves, methods and attributes."""
    return {
        name
        for protocol in protocols
        for name in {*vars(protocol), *protocol.__annotations__}
        if not name.startswith("_")
    }


def test_vmm_knows_kvm_by_the_clients_face_alone() -> None:
    """Also where only a type is meant: nothing of kvm, of its host or of the engine."""
    modules = {
        module
        for node in trees()
        for module in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if module.startswith("armkvm.")
    }
    floors = {module.split(".")[1] for module in modules}
    assert floors & {"kvm", "host", "engine"} == set()


@pytest.mark.parametrize("protocol", [kvm.Kvm, kvm.KvmVm, kvm.KvmVcpu, kvm.KvmDevice])
def test_kvm_proper_is_one_method_an_ioctl(protocol: type) -> None:
    assert names(protocol) <= IOCTLS | OTHER_CALLS


def test_an_extra_is_no_ioctl_and_somebody_uses_it() -> None:
    listed = names(
        extras.VcpuExtras, extras.VmExtras, extras.SystemExtras, extras.Clock, extras.Timer,
        extras.Stat,
    )  # fmt: skip
    assert listed & IOCTLS == set()
    used = {node.attr for node in trees() if isinstance(node, ast.Attribute)}
    assert listed - used == set()
