"""Guests that cannot go on, and do not say so: what a machine watches for.

- A vCPU that takes an exception inside its own vector takes it again, and for ever: the vector is
  not mapped, or the stack that it uses is not. So does one whose handler faults before it has
  changed anything. On hardware such a machine is silent. `Storm` looks at the registers every so
  many instructions and, if they could be that, at some instructions one by one; the looks are
  placed by instruction count, so a run stays a function of its inputs.
- A kernel that panics says so on its console and nowhere else. `Panics` keeps the sentence.

Left out: handlers that change a register before they fault; loops without exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from armkvm.abi.regs import (
    CORE_ELR_EL1,
    CORE_PC,
    CORE_PSTATE,
    CORE_SP,
    CORE_SP_EL1,
    CORE_SPSR_EL1,
    core_x,
    sys_reg,
)

if TYPE_CHECKING:
    from armkvm.client.extras import Vcpu

VBAR_EL1 = sys_reg(3, 0, 12, 0, 0)
ESR_EL1 = sys_reg(3, 0, 5, 2, 0)
FAR_EL1 = sys_reg(3, 0, 6, 0, 0)
REGISTERS = (
    *(core_x(n) for n in range(31)), CORE_SP, CORE_SP_EL1, CORE_PSTATE, CORE_SPSR_EL1, FAR_EL1,
)  # fmt: skip
# SPSR_EL1.M and which of its vectors a synchronous exception from there takes (D1.3.1.4).
SYNCHRONOUS = {0b0100: 0x000, 0b0101: 0x200}
VECTOR_SIZE = 0x80

SOONEST = 1 << 17  # instructions to the first look
RAREST = 1 << 26  # and between two, at most: some hundredths of a second
# How often it must come to the vector in the same way, and within how many instructions: one that
# faults in the vector; one that faults elsewhere, with every register as the last time.
IN_VECTOR = 16, 1024
UNCHANGED = 3, 128
PSTATE_I = 1 << 7

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
        self._last: dict[int, Taken] = {}  # by vCPU: its exception, then
        self._lost: dict[int, Taken] = {}  # by vCPU: what it is known to take for ever
        self._suspect: tuple[int, Taken] | None = None
        self._state: tuple[int, ...] = ()  # of the suspect, at its vector
        self._times = self._steps = 0

    def look(self, vcpu: Vcpu, now: int) -> str | None:
        """`vcpu` has come to `next`, the VM to `now`: a sentence if all is lost."""
        cpu = vcpu.vcpu_id
        taken = last_taken(vcpu)
        often, most = self._needed(vcpu, taken)
        if taken is None or not often:
            self._lost.pop(cpu, None)
        elif self._suspect is None or self._suspect[0] != cpu:
            self._suspect, self._times, self._steps = (cpu, taken), 0, 0
        elif self._suspect[1] != taken:
            often = 0  # it takes several: that may come to an end
        if taken is not None and often:
            self._steps += 1
            if vcpu.get_one_reg(CORE_PC) == taken.vector:
                self._arrived(vcpu, exact=often == UNCHANGED[0])
            if self._times >= often:
                self._lost[cpu] = taken
                if self._others_rest():
                    return f"vCPU {cpu} takes the same exception at its vector for ever: {taken}"
            elif self._steps < most:
                self.next = now + 1
                return None
        self._later(cpu, taken, now)
        return None

    def _needed(self, vcpu: Vcpu, taken: Taken | None) -> tuple[int, int]:
        """How often and within how many instructions; zero: these registers are harmless."""
        if taken is None:
            return 0, 0
        if taken.vector <= taken.elr < taken.vector + VECTOR_SIZE:
            return IN_VECTOR
        # Elsewhere: only where no interrupt can come, and if it was the last one a while ago, too.
        masked = vcpu.get_one_reg(CORE_SPSR_EL1) & vcpu.get_one_reg(CORE_PSTATE) & PSTATE_I
        if masked and taken.esr >> 26 in CLASSES and self._last.get(vcpu.vcpu_id) == taken:
            return UNCHANGED
        return 0, 0

    def _arrived(self, vcpu: Vcpu, *, exact: bool) -> None:
        """It is at its vector, once more; `exact`: counts only with the same registers."""
        state = tuple(vcpu.get_one_reg(reg) for reg in REGISTERS) if exact else ()
        if state != self._state:
            self._state, self._times = state, 0
        self._times += 1

    def _others_rest(self) -> bool:
        """Nobody else has done anything since the last look, or can."""
        return all(
            vcpu.instructions == seen or vcpu.vcpu_id in self._lost
            for vcpu, seen in zip(self._vcpus, self._seen, strict=True)
        )

    def _later(self, cpu: int, taken: Taken | None, now: int) -> None:
        """Look again after a while."""
        # In proportion, because an exception that KVM injects takes a thousand times as long.
        self.next = now + min(max(now >> 2, SOONEST), RAREST)
        self._suspect = None
        self._seen = [vcpu.instructions for vcpu in self._vcpus]
        self._last.pop(cpu, None)
        if taken is not None:
            self._last[cpu] = taken


def last_taken(vcpu: Vcpu) -> Taken | None:
    """The last exception, if it was taken from EL1."""
    offset = SYNCHRONOUS.get(vcpu.get_one_reg(CORE_SPSR_EL1) & 0x1F)
    if offset is None:
        return None
    vector = vcpu.get_one_reg(VBAR_EL1) + offset
    return Taken(vector, vcpu.get_one_reg(ESR_EL1), vcpu.get_one_reg(CORE_ELR_EL1))


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
