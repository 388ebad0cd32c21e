"""A machine that runs to an instruction count and stops there, on either CPU.

It is vmm.machine.Machine with the run in pieces. Its pages are private to the process, so that a
fork of the process is a snapshot of the machine.
"""

from __future__ import annotations

import ctypes
import mmap

from armkvm.abi import kvm as k
from armkvm.client import extras
from armkvm.host.cpu import Backend
from armkvm.kvm import System, Vcpu
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import Image
from armkvm.vmm.machine import Config, Machine, Outcome

_MAP_FIXED = 0x10
_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)


class SteppedMachine(Machine):
    """One guest on one CPU, in virtual time."""

    def __init__(self, backend: Backend, image: Image, params: str, mem_bytes: int) -> None:
        self.output = BufferConsole()
        system = System(clock="virtual", backend=backend)
        super().__init__(
            Config(system=system, image=image, console=self.output, params=params,
                   mem_bytes=mem_bytes)
        )  # fmt: skip
        (vcpu,) = self.vcpus
        assert isinstance(vcpu, Vcpu)
        self.vcpu: Vcpu = vcpu
        _make_private(self.vcpu.run_struct)
        system.clock.idle = self._idle
        self.outcome: Outcome | None = None

    def advance(self, count: int) -> None:
        """Run until `count` instructions have retired; `outcome` is set when the guest ends."""
        if self.outcome is not None or self.vcpu.instructions >= count:
            return
        self.config.max_insns = self.vm.limit = count
        outcome = self._until_stopped()
        if outcome is not None and outcome.reason != "limit":
            self.outcome = outcome

    def _until_stopped(self) -> Outcome | None:
        self._stopping = False
        with self.vcpu.held():
            self._loop(0)
        outcome, self._outcome = self._outcome, None
        return outcome

    def _stop(self) -> None:
        """There is one vCPU, and this is its thread: a kick would only end the next run."""
        self._stopping = True

    def _idle(self, due: int | None) -> None:
        super()._idle(due)
        if due is None and self.outcome is None:
            # Nothing will ever wake it: an end, too.
            self.outcome = Outcome("idle")
            self.vcpu.kick()

    def _interrupted(self, vcpu: extras.Vcpu) -> Outcome | None:
        return self.outcome or super()._interrupted(vcpu)


def _make_private(pages: ctypes.Structure) -> None:
    """kvm_run is shared memory, as KVM's; a snapshot by fork needs a copy of its own."""
    address = ctypes.addressof(pages)
    held = ctypes.string_at(address, k.KVM_VCPU_MMAP_SIZE)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    got = _mmap(address, len(held), mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    assert got == address
    ctypes.memmove(address, held, len(held))
