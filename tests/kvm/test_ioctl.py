"""An ioctl is one method, in one place, and refuses by errno whatever it is called with."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.kvm.client import result
from tests.kvm.rig import Ops, Rig, fails

import armkvm
from armkvm.abi import ioctl as nr
from armkvm.abi import kvm as k
from armkvm.abi import structs as st
from armkvm.host.scripted import ScriptedCpu, Wfi
from armkvm.kvm import System, Vcpu, Vm
from armkvm.kvm.file import File, NoContext
from armkvm.kvm.vgic.its_device import VgicIts
from armkvm.kvm.vgic.kvm_device import VgicDevice

FILES = (System, Vm, Vcpu, VgicDevice, VgicIts)


def names(number: int) -> list[str]:
    """Of methods for an ioctl; two files may use a number for different things."""
    return [
        name.removeprefix("KVM_").lower()
        for name, value in vars(nr).items()
        if name.startswith("KVM_") and value == number
    ]


TABLES = [(cls, number) for cls in FILES for number in cls.IOCTLS]

# What no structure can hold, and what is of no type that a client could mean.
WRONG: tuple[Any, ...] = (
    -1,
    1 << 70,
    "1",
    b"12",
    None,
    1.5,
    object(),
    [],
    [1, 2],
    (("a", "b"),),
    {},
)


@pytest.mark.parametrize(
    ("cls", "number"), TABLES, ids=lambda x: x.__name__ if isinstance(x, type) else names(x)[0]
)
def test_every_ioctl_is_a_method_of_its_name(cls: type[File], number: int) -> None:
    assert any(callable(getattr(cls, name, None)) for name in names(number))


def guest(_cpu: ScriptedCpu) -> Ops:
    yield Wfi()


def files() -> Iterator[File]:
    """One open file of each kind."""
    rig = Rig(guest)
    yield from (rig.system, rig.vm, rig.vcpu)
    for kind in (k.KVM_DEV_TYPE_ARM_VGIC_V3, k.KVM_DEV_TYPE_ARM_VGIC_ITS):
        device = Rig(guest, kind="vhe-gicv3").vm.create_device(kind)
        assert device is not None
        yield device


def right(parameter: inspect.Parameter) -> Any:
    """A value that means something."""
    return 0 if parameter.default is inspect.Parameter.empty else parameter.default


def methods() -> Iterator[tuple[type[File], str]]:
    for cls, number in TABLES:
        if number != nr.KVM_RUN:
            yield from ((cls, name) for name in names(number) if hasattr(cls, name))


def calls(method: Callable[..., object]) -> Iterator[Callable[[], object]]:
    """With something of no use in one place, whatever the others are."""
    parameters = [*inspect.signature(method).parameters.values()]
    for parameter in parameters:
        others = {p.name: right(p) for p in parameters if p is not parameter}
        if parameter.name != "ctx":  # the embedding's own
            for wrong in WRONG:
                yield partial(method, **others, **{parameter.name: wrong})


@pytest.mark.parametrize(("cls", "name"), [*methods()], ids=lambda x: getattr(x, "__name__", x))
def test_what_is_of_no_use_is_an_errno(cls: type[File], name: str) -> None:
    for file in files():
        if type(file) is cls:
            for call in calls(getattr(file, name)):
                code = result(call)
                assert code == 0 or code in errno.errorcode


SIZES: dict[str, Callable[[Rig], object]] = {
    "a slot": lambda rig: rig.vm.set_user_memory_region(1, 0x8000_0000, -0x1000, rig.memory),
    "an address": lambda rig: rig.vm.set_user_memory_region(1, -0x1000, 0x1000, rig.memory),
    "a zone": lambda rig: rig.vm.register_coalesced_mmio(0x1000_0000, -1),
    "a part of a log": lambda rig: rig.vm.clear_dirty_log(0, 0, -64, 0),
    "a state": lambda rig: rig.vcpu.set_mp_state(-1),
    "a vCPU": lambda rig: rig.vm.create_vcpu(-1),
}


@pytest.mark.parametrize("what", SIZES)
def test_a_negative_size_or_number_is_einval(what: str) -> None:
    rig = Rig(guest)
    fails(errno.EINVAL, lambda: SIZES[what](rig))


def test_structures_that_are_none() -> None:
    """EFAULT: a buffer that cannot be written, in pieces, of the wrong type, or no buffer."""
    rig = Rig(guest)
    pieces = memoryview(bytearray(64))[::2]
    for data in (bytes(8), pieces, "12345678", 5, object()):
        fails(errno.EFAULT, lambda data=data: rig.vm.ioctl(nr.KVM_IRQ_LINE, 0, data))  # type: ignore[misc]
    fails(errno.EFAULT, lambda: rig.vm.ioctl(nr.KVM_IRQ_LINE, "address"))  # type: ignore[arg-type]
    fails(errno.EINVAL, lambda: rig.vm.ioctl("KVM_IRQ_LINE"))  # type: ignore[arg-type]
    fails(errno.EFAULT, lambda: rig.vcpu.set_vcpu_events(bytes(64)))  # type: ignore[arg-type]


def test_eventfds_are_reached_by_a_method_too() -> None:
    """Descriptors of this process, unless the caller brings others."""
    rig = Rig(guest, kind="vhe-gicv3")
    event = os.eventfd(0)
    try:
        rig.vm.ioeventfd(event, 0x1000_0000, 4)
        fails(errno.EEXIST, lambda: rig.vm.ioeventfd(event, 0x1000_0000, 4))
        fails(errno.EBADF, lambda: rig.vm.ioeventfd(event, 0x1000_0004, 4, ctx=NoContext()))
        fails(errno.EBADF, lambda: rig.vm.ioeventfd(0x8000_0001, 0x1000_0004, 4))
        rig.vm.ioeventfd(event, 0x1000_0000, 4, flags=k.KVM_IOEVENTFD_FLAG_DEASSIGN)
        fails(errno.EAGAIN, lambda: rig.vm.irqfd(event, 1))  # no vgic yet
    finally:
        os.close(event)
    rig.vm.close()


def test_a_file_that_finds_no_descriptor_is_closed() -> None:
    """EMFILE, and the vCPU's number is not taken by what nobody can reach."""
    rig = Rig(guest)
    fails(errno.EMFILE, lambda: rig.vm.ioctl(nr.KVM_CREATE_VCPU, 1))
    assert [vcpu.closed for vcpu in rig.vm.vcpus] == [False, True]


def test_features_are_all_words_or_the_first() -> None:
    rig = Rig(guest)
    rig.vcpu.arm_vcpu_init(features=(rig.vcpu.features, 0, 0, 0, 0, 0, 0))
    fails(errno.ENOENT, lambda: rig.vcpu.arm_vcpu_init(features=(0, 1)))
    init = st.KvmVcpuInit(target=5)
    init.features[6] = 1
    fails(errno.ENOENT, lambda: rig.vcpu.ioctl(nr.KVM_ARM_VCPU_INIT, 0, init))


NEW = '''
    @ioctl(nr.KVM_INTERRUPT, st.KvmInterrupt)
    def interrupt(self, irq: int) -> int:
        """KVM_INTERRUPT."""
        return irq + 1

'''

USE = """
from armkvm.abi import ioctl as nr, structs as st
from armkvm.host.scripted import ScriptedBackend
from armkvm.kvm import System

vcpu = System(backend=ScriptedBackend()).create_vm().create_vcpu(0)
assert vcpu.interrupt(41) == 42
assert vcpu.ioctl(nr.KVM_INTERRUPT, 0, st.KvmInterrupt(irq=41)) == 42
try:
    vcpu.interrupt(-1)
except OSError:
    print("all is well")
"""


def test_a_new_ioctl_is_one_place(tmp_path: Path) -> None:
    """Its number and structure are the ABI's; all else is said where the method is."""
    shutil.copytree(Path(armkvm.__file__).parent, tmp_path / "armkvm")
    file = tmp_path / "armkvm" / "kvm" / "vcpu.py"
    before, after = file.read_text().split("    # life\n")
    file.write_text(f"{before}{NEW}    # life\n{after}")
    done = subprocess.run(
        [sys.executable, "-c", USE], env={"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("all is well\n", "")
