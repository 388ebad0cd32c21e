"""Run forms on both CPUs and describe every difference.

An instruction that takes an exception must leave the registers as they were; all others must agree
in X, SP, V, NZCV, FPCR, FPSR, PC and memory. Samples are placed side by side and run one by one,
each from a state of its own.
"""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Sequence

from tests.oracle.known import excuse
from tests.oracle.peer import Peer
from tests.oracle.samples import CODE, DATA_SIZE, STATE_BYTES, Sample, Samples, accesses_memory
from tests.oracle.subject import Subject

from armkvm.isa.disasm import text
from armkvm.isa.table import Form

BATCH = 1024

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Differ:
    """The two CPUs and the comparison of them."""

    def __init__(self) -> None:
        self.subject, self.peer = Subject(), Peer()

    def differ(self, forms: Sequence[Form], samples: int, seed: int) -> list[str]:
        """Differences in `samples` samples of each form: one report a form, with its first."""
        reports: list[str] = []
        source = Samples(seed)
        for form in forms:
            # A form's samples do not depend on which other forms are compared.
            source.rng.seed(zlib.crc32(f"{seed} {form.name}".encode()))
            found = self._form(form, list(source.of(form, samples)), source)
            if found:
                reports.append(f"{len(found)} of {samples} differ: {found[0]}")
        return reports

    def _form(self, form: Form, samples: list[Sample], source: Samples) -> list[str]:
        found: list[str] = []
        memory = accesses_memory(form)
        if memory:
            noise = b"".join(source.rng.choices(source.vectors, k=DATA_SIZE // 16))
            ctypes.memmove(self.subject.data, noise, DATA_SIZE)
            ctypes.memmove(self.peer.data, noise, DATA_SIZE)
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            code = struct.pack(f"<{len(batch)}I", *(s.word for s in batch))
            self.subject.place(code)
            self.peer.place(code)
            for i, sample in enumerate(batch):
                difference = self.compare(form, CODE + 4 * i, sample, memory=memory)
                if difference is not None:
                    found.append(difference)
        return found

    def compare(self, form: Form, address: int, sample: Sample, *, memory: bool) -> str | None:
        """Run one sample, placed at address, on both; what differs, or None."""
        mine, theirs = self.subject, self.peer
        raised, pc = mine.step(address, sample)
        their_raised, their_pc = theirs.step(address, sample)
        got = (mine.registers(), mine.nzcv, mine.fpcr, mine.fpsr)
        if raised:
            want = (bytes(sample.registers), sample.nzcv, sample.fpcr, sample.fpsr)
            their_pc = pc
        else:
            want = (theirs.registers(), theirs.nzcv, theirs.fpcr, theirs.fpsr)
        same_memory = True
        if memory:
            if not (raised and their_raised):
                same_memory = _memcmp(mine.data, theirs.data, DATA_SIZE) == 0
            # A store that faults half-way may have written its first half on the peer.
            if raised or not same_memory:
                ctypes.memmove(theirs.data, mine.data, DATA_SIZE)
        if raised == their_raised and got == want and pc == their_pc and same_memory:
            return None
        if excuse(form, sample):
            return None
        lines = [f"{form.name}: {sample.word:08x} {text(form, sample.word, address)}"]
        lines.append(f"  NZCV={sample.nzcv:04b} FPCR={sample.fpcr:#x} FPSR={sample.fpsr:#x}")
        lines += _inputs(form, sample)
        if raised != their_raised:
            lines.append(f"  exception: {raised}, expected {their_raised}")
        if pc != their_pc:
            lines.append(f"  PC: {pc:#x}, expected {their_pc:#x}")
        for name, a, b in zip(("NZCV", "FPCR", "FPSR"), got[1:], want[1:], strict=True):
            if a != b:
                lines.append(f"  {name}: {a:#x}, expected {b:#x}")
        lines += _registers(got[0], want[0])
        if not same_memory:
            lines.append("  memory differs")
        return "\n".join(lines)


def _inputs(form: Form, sample: Sample) -> list[str]:
    """The registers that the word names, before."""
    out = []
    for name, lo, _, _ in form.insn.layout:
        if name[0] == "R":
            r = sample.word >> lo & 31
            x = int.from_bytes(sample.registers[8 * r : 8 * r + 8], "little")
            v = int.from_bytes(sample.registers[256 + 16 * r : 272 + 16 * r], "little")
            out.append(f"  {name}: X{r}={x:#018x} V{r}={v:032x}")
    return out


def _registers(got: bytes, want: bytes) -> list[str]:
    out = []
    for at in [*range(0, 256, 8), *range(256, STATE_BYTES, 16)]:
        size = 8 if at < 256 else 16
        a, b = got[at : at + size], want[at : at + size]
        if a != b:
            name = f"X{at // 8}" if at < 256 else f"V{(at - 256) // 16}"
            out.append(f"  {name}: {a[::-1].hex()}, expected {b[::-1].hex()}")
    return out
