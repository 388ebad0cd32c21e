"""The guest of saves.S, and machines that are saved at an exit and go on elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armkvm.abi import kvm as k
from armkvm.abi.structs import KvmRun
from armkvm.client import machine_code
from armkvm.kvm import System
from armkvm.vmm import snapshot
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.guest.loader import load
from armkvm.vmm.machine import Config, Machine, Outcome
from armkvm.vmm.snapshot import Snapshot

CODE = Path(__file__).with_name("saves.hex")
KIND = 8  # offset in the program
MEMORY = 4 << 20


def program(kind: int) -> bytes:
    """The program, for a GIC of this version."""
    code = machine_code.program(CODE)
    code[KIND] = kind
    return bytes(code)


@dataclass
class End:
    """What a run left behind."""

    reason: str
    output: bytes
    memory: str
    seconds: float
    exits: int
    instructions: int


@dataclass(frozen=True)
class Kind:
    """A host, an interrupt controller, and a guest that knows it."""

    host: str
    irqchip: str
    code: bytes
    cpus: int = 1

    @contextmanager
    def machine(self, system: System | None = None, *, empty: bool = False) -> Iterator[Machine]:
        """A machine with the guest in memory, or with nothing."""
        own = system or System(self.host, "virtual")
        image = None if empty else load(self.code, mem_bytes=MEMORY, flat=True)
        machine = Machine(
            Config(
                own, image, BufferConsole(), mem_bytes=MEMORY, cpus=self.cpus, irqchip=self.irqchip
            )
        )
        try:
            yield machine
        finally:
            machine.close()
            if system is None:
                own.close()

    def whole(self) -> End:
        """The run that nothing interrupts."""
        with self.machine() as machine:
            return end(machine, machine.run())

    def until(self, stop: Callable[[Machine], None]) -> tuple[End, Snapshot]:
        """Run until what `stop` has arranged; the machine is saved, and gone afterwards."""
        with self.machine() as machine:
            stop(machine)
            outcome = machine.run()
            return end(machine, outcome), snapshot.save(machine)

    def rest(self, saved: Snapshot, system: System | None = None) -> End:
        """Go on with it to the end, in a new machine."""
        with self.machine(system, empty=True) as machine:
            snapshot.restore(machine, saved)
            return end(machine, machine.run())


def end(machine: Machine, outcome: Outcome) -> End:
    stats: dict[str, Any] = machine.stats()
    assert isinstance(machine.console, BufferConsole)
    return End(
        outcome.reason, bytes(machine.console.output), stats["memory_digest"],
        stats["guest_seconds"], stats["exits"]["returns"], stats["instructions"],
    )  # fmt: skip


def after_exits(count: int) -> Callable[[Machine], None]:
    """Stop when KVM_RUN has returned so often, on whichever vCPU; not where the guest ends."""

    def arrange(machine: Machine) -> None:
        left = count

        def counted(vcpu_run: KvmRun, run_raw: Callable[[], int]) -> Callable[[], int]:
            def run() -> int:
                nonlocal left
                ret = run_raw()
                left -= 1
                off = vcpu_run.exit_reason == k.KVM_EXIT_SYSTEM_EVENT
                if left <= 0 and not off:
                    machine.stop(Outcome("saved"))
                return ret

            return run

        for vcpu in machine.vcpus:
            vcpu.run_raw = counted(vcpu.run_struct, vcpu.run_raw)  # type: ignore[method-assign]

    return arrange


def after_instructions(count: int) -> Callable[[Machine], None]:
    """Stop after so many instructions."""

    def arrange(machine: Machine) -> None:
        machine.config.max_insns = count

    return arrange
