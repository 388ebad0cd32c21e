"""Guests that cannot go on, and do not say so: what a machine watches for.

- A vCPU that takes an exception inside its own vector takes it again, and for ever: the vector is
  not mapped, or the stack that it uses is not. On hardware such a machine is silent. `Storm` looks
  at the registers every so many instructions and, if they could be that, at some instructions one
  by one; the looks are placed by instruction count, so a run stays a function of its inputs.
- A kernel that panics says so on its console and nowhere else. `Panics` keeps the sentence.

Left out: handlers that leave the vector's 128 bytes before they fault; loops without exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from armkvm.abi.regs import CORE_ELR_EL1, CORE_PC, CORE_SPSR_EL1, sys_reg

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

VBAR_EL1 = sys_reg(3, 0, 12, 0, 0)
ESR_EL1 = sys_reg(3, 0, 5, 2, 0)
# SPSR_EL1.M and which of its vectors a synchronous exception from there takes (D1.3.1.4).
SYNCHRONOUS = {0b0100: 0x000, 0b0101: 0x200}
VECTOR_SIZE = 0x80

SOONEST = 1 << 17  # instructions to the first look
RAREST = 1 << 26  # and between two, at most: some hundredths of a second
AGAIN = 16  # so often at the vector in the same way
STEPS = 1024  # instructions that are looked at one by one before it is let go

CLASSES = {
    0x00: "undefined instruction", 0x07: "FP access", 0x0E: "illegal state",
    0x18: "system register", 0x21: "instruction abort", 0x22: "PC alignment",
    0x25: "data abort", 0x26: "SP alignment",
}  # fmt: skip


class Taken(NamedTuple):
    """An exception as the registers show it, and where it went."""

    vector: int
    esr: int
    elr: int

    def __str__(self) -> str:
        kind = CLASSES.get(self.esr >> 26, f"class {self.esr >> 26:#x}")
        return f"vector {self.vector:#x}, ESR_EL1 {self.esr:#x} ({kind}), ELR_EL1 {self.elr:#x}"


class Storm:
    """Whether a vCPU does nothing but take the same exception."""

    def __init__(self, vcpus: Sequence[Vcpu]) -> None:
        self._vcpus = vcpus
        self.next = SOONEST  # the VM's instruction count of the next look
        self._seen = [0] * len(vcpus)  # each one's instructions at the last look from afar
        self._lost: dict[int, Taken] = {}  # by vCPU: what it is known to take for ever
        self._suspect: tuple[int, Taken] | None = None
        self._times = self._steps = 0

    def look(self, vcpu: Vcpu, now: int) -> str | None:
        """`vcpu` has come to `next`, the VM to `now`: a sentence if all is lost."""
        taken = in_its_vector(vcpu)
        cpu = vcpu.vcpu_id
        if taken is None:
            self._lost.pop(cpu, None)
            self._later(now)
            return None
        if self._suspect != (cpu, taken):
            if self._suspect is not None and self._suspect[0] == cpu:
                self._later(now)  # it takes several: that may come to an end
                return None
            self._suspect, self._times, self._steps = (cpu, taken), 0, 0
        self._steps += 1
        self._times += vcpu.get_one_reg(CORE_PC) == taken.vector
        if self._times >= AGAIN:
            self._lost[cpu] = taken
            if self._others_rest():
                return f"vCPU {cpu} takes the same exception at its vector for ever: {taken}"
        elif self._steps < STEPS:
            self.next = now + 1
            return None
        self._later(now)
        return None

    def _others_rest(self) -> bool:
        """Nobody else has done anything since the last look, or can."""
        return all(
            vcpu.instructions == seen or vcpu.vcpu_id in self._lost
            for vcpu, seen in zip(self._vcpus, self._seen, strict=True)
        )

    def _later(self, now: int) -> None:
        """Look again after a while."""
        # In proportion, because an exception that KVM injects takes a thousand times as long.
        self.next = now + min(max(now >> 2, SOONEST), RAREST)
        self._suspect = None
        self._seen = [vcpu.instructions for vcpu in self._vcpus]


def in_its_vector(vcpu: Vcpu) -> Taken | None:
    """The last exception was taken from EL1, within the vector that it went to."""
    offset = SYNCHRONOUS.get(vcpu.get_one_reg(CORE_SPSR_EL1) & 0x1F)
    if offset is None:
        return None
    vector = vcpu.get_one_reg(VBAR_EL1) + offset
    elr = vcpu.get_one_reg(CORE_ELR_EL1)
    if not vector <= elr < vector + VECTOR_SIZE:
        return None
    return Taken(vector, vcpu.get_one_reg(ESR_EL1), elr)


class Panics:
    """What goes to the console, looked through for a Linux panic."""

    MARK = b"Kernel panic - not syncing: "
    LONGEST = 400  # bytes of a line

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._line = bytearray()
        self.reason = ""  # the first one's

    def write(self, data: bytes) -> None:
        """Bytes from the guest, passed on."""
        self._write(data)
        self._line += data
        if b"\n" not in data and len(self._line) < self.LONGEST:
            return
        found = self._line.find(self.MARK)
        if found >= 0 and not self.reason:
            text = self._line[found + len(self.MARK) :].decode("ascii", "replace").split("\n")[0]
            self.reason = "".join(c for c in text if c.isprintable()).strip()
        self._line.clear()
