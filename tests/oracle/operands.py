"""Floating point by the million: one instruction, many operands, on three CPUs.

A loop of guest code takes tuples (V0, V1, V2, X1, FPCR, NZCV) through the instruction under test
and stores what it leaves (V0, X0, FPSR, NZCV). The same loop runs on armkvm, on unicorn (QEMU 5.0)
and as a program under qemu-aarch64. All of FPCR's RMode, FZ, DN and AHP are drawn; lanes are NaNs
of both kinds, infinities, denormals and the limits of every format more often than not.

`python -m tests.oracle.operands --tuples 10000000` is the long run (`make compare-fp`).
"""

from __future__ import annotations

import argparse
import ctypes
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.oracle.peer import Peer
from tests.oracle.samples import CODE, DATA, STATE_BYTES, Sample, Samples
from tests.oracle.subject import EL1H_MASKED, Subject

from armkvm.engine.cpu import Exit
from armkvm.isa.all import forms
from armkvm.isa.disasm import decode, text
from armkvm.isa.table import Form

TUPLE, RESULT, BATCH = 64, 32, 2048  # bytes, bytes, tuples that the scratch area holds
_TUPLE = struct.Struct("<16s16s16sQQ")
_ROOM = 4 * 32  # operands.S: CODE
_BINUTILS = "aarch64-linux-gnu-"
M32 = (1 << 32) - 1
SOURCE = Path(__file__).with_suffix(".S")
# X20: tuples, X21: results, X22: how many.
BEFORE = [
    (0xA9430689, "ldp x9, x1, [x20, #48]"),
    (0xAD400680, "ldp q0, q1, [x20]"),
    (0x3DC00A82, "ldr q2, [x20, #32]"),
    (0xD51B4409, "msr fpcr, x9"),
    (0xD51B443F, "msr fpsr, xzr"),
    (0xD360FD2A, "lsr x10, x9, #32"),
    (0xD51B420A, "msr nzcv, x10"),
    (0xD2800000, "mov x0, #0x0"),
]
AFTER = [
    (0xD53B4429, "mrs x9, fpsr"),
    (0xD53B420A, "mrs x10, nzcv"),
    (0xAA0A8129, "orr x9, x9, x10, lsl #32"),
    (0x3D8002A0, "str q0, [x21]"),
    (0xA90126A0, "stp x0, x9, [x21, #16]"),
    (0x91010294, "add x20, x20, #0x40"),
    (0x910082B5, "add x21, x21, #0x20"),
    (0xD10006D6, "sub x22, x22, #0x1"),
    (0xB5FFFDF6, "cbnz x22, 0x0"),
]
RET, HVC, EC_HVC = 0xD65F03C0, 0xD4000002, 0x16
# Where V0, V1, V2 (X0, X1) stand in an instruction. Ra is V0 too, as the destination is.
_REGISTERS = {"Rd": 0, "Ra": 0, "Rn": 1, "Rm": 2}
_CLASSES = ("fp.", "simd.fp", "simd.estimate")


def floating_point() -> list[Form]:
    """The forms that compute with floating point."""
    return [f for f in forms() if f.insn.encoding_class.startswith(_CLASSES)]


def loop(word: int, end: int) -> bytes:
    """The code: `end` is what it ends with."""
    whole = [w for w, _ in BEFORE] + [word] + [w for w, _ in AFTER] + [end]
    return struct.pack(f"<{len(whole)}I", *whole)


def some_word(form: Form, rng: random.Random) -> int:
    """A word of the form with the registers of the loop, other operands random."""
    for _ in range(10_000):
        word = form.value | rng.getrandbits(32) & ~form.mask & 0xFFFF_FFFF
        for name, lo, width, operand in form.insn.layout:
            if operand and name in _REGISTERS:
                word = word & ~((1 << width) - 1 << lo) | _REGISTERS[name] << lo
        if form.matches(word):
            return word
    raise AssertionError(form.name)


class Operands:
    """A reproducible source of tuples."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        samples = Samples(seed)
        # Half of the operands have such lanes alone, so that two or three NaNs often meet.
        self.vectors = samples.vectors + [self._special() for _ in samples.vectors]
        self.tiny = [samples.tiny_product() for _ in range(512)]
        self.integers = [struct.pack("<Q", x) for x in samples.integers]
        self.integers += [self.rng.randbytes(8) for _ in self.integers]
        self.control = [
            struct.pack("<II", rmode << 22 | bits << 24, nzcv << 28)
            for rmode in range(4)
            for bits in range(8)  # FZ, DN, AHP
            for nzcv in range(16)
        ]

    def _special(self) -> bytes:
        """A vector of floats or doubles: zeros, infinities, limits, NaNs with any payload."""
        exponent, fraction, code = self.rng.choice(((8, 23, "I"), (11, 52, "Q")))
        inf, quiet = (1 << exponent) - 1 << fraction, 1 << fraction - 1
        values = {
            "zero": 0, "infinity": inf, "denormal": 1 + self.rng.getrandbits(fraction - 1),
            "smallest": 1 << fraction, "largest": inf - 1, "one": inf >> 1 & ~(quiet * 2 - 1),
            "quiet": inf | quiet | self.rng.getrandbits(fraction - 1),
            "signalling": inf | 1 + self.rng.getrandbits(fraction - 2),
        }  # fmt: skip
        kinds = self.rng.choices([*values, "quiet", "signalling"], k=4 if code == "I" else 2)
        signs = [self.rng.getrandbits(1) << exponent + fraction for _ in kinds]
        lanes = [values[kind] | sign for kind, sign in zip(kinds, signs, strict=True)]
        return struct.pack(f"<{len(lanes)}{code}", *lanes)

    def batch(self, count: int) -> bytes:
        """So many tuples."""
        pick, tiny = self.rng.choices, self.tiny
        parts: list[bytes] = []
        for a, b, c, control, integer in zip(
            *(pick(self.vectors, k=count) for _ in range(3)),
            pick(self.control, k=count),
            pick(self.integers, k=count),
            strict=True,
        ):
            parts += (a, b, c, control, integer)
        for i in range(0, count, 16):  # products near the edge of underflow
            parts[5 * i + 1 : 5 * i + 3] = tiny[i // 16 % len(tiny)]
        return b"".join(parts)


class Armkvm:
    """The subject: guest code at EL1 that ends in an HVC."""

    name = "armkvm"

    def __init__(self) -> None:
        self.cpu = Subject()

    def run(self, word: int, batch: bytes) -> bytes:
        """The results of a batch."""
        cpu, s = self.cpu, self.cpu.state
        cpu.place(loop(word, HVC))
        ctypes.memmove(cpu.data, batch, len(batch))
        s.x[20], s.x[21], s.x[22] = DATA, DATA + len(batch), len(batch) // TUPLE
        cpu.cpu.pstate = EL1H_MASKED
        s.pc = CODE
        s.limit = s.count + (1 << 40)
        if cpu.cpu.run() != Exit.TRAP or s.esr_el2 >> 26 != EC_HVC:
            raise AssertionError(f"{word:#010x}: ended at {s.pc:#x}, ESR_EL1 {s.esr_el1:#x}")
        return ctypes.string_at(cpu.data + len(batch), len(batch) // TUPLE * RESULT)


class Unicorn:
    """QEMU 5.0's translator in this process."""

    name = "unicorn"

    def __init__(self) -> None:
        self.cpu = Peer()

    def run(self, word: int, batch: bytes) -> bytes:
        """The results of a batch."""
        code = loop(word, RET)
        self.cpu.place(code)
        ctypes.memmove(self.cpu.data, batch, len(batch))
        registers = bytearray(STATE_BYTES)
        struct.pack_into("<3Q", registers, 8 * 20, DATA, DATA + len(batch), len(batch) // TUPLE)
        err = self.cpu.run(CODE, Sample(word, registers), len(code) // 4 - 1)
        if err:
            raise AssertionError(f"{word:#010x}: unicorn's error {err}")
        return ctypes.string_at(self.cpu.data + len(batch), len(batch) // TUPLE * RESULT)

    def close(self) -> None:
        """Nothing to end."""


class QemuUser:
    """operands.S under qemu-aarch64."""

    name = "qemu-aarch64"
    PROGRAMS = ("qemu-aarch64", f"{_BINUTILS}as", f"{_BINUTILS}ld")

    def __init__(self, folder: Path) -> None:
        built, program = folder / "operands.o", folder / "operands"
        subprocess.run([f"{_BINUTILS}as", str(SOURCE), "-o", str(built)], check=True)
        subprocess.run([f"{_BINUTILS}ld", str(built), "-o", str(program)], check=True)
        self.process = subprocess.Popen(
            ["qemu-aarch64", "-cpu", "max", str(program)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, word: int, batch: bytes) -> bytes:
        """The results of a batch."""
        count, code = len(batch) // TUPLE, loop(word, RET)
        to, out = self.process.stdin, self.process.stdout
        assert to is not None
        assert out is not None
        to.write(struct.pack("<Q", count) + code.ljust(_ROOM, b"\0") + batch)
        to.flush()
        return out.read(count * RESULT)

    def close(self) -> None:
        """End the program."""
        self.process.communicate()
        assert self.process.returncode == 0


def differences(word: int, batch: bytes, mine: bytes, theirs: bytes) -> Iterator[str]:
    """Each tuple on which two CPUs differ, in a line."""
    if mine == theirs:
        return
    for i in range(len(batch) // TUPLE):
        a, b = (r[RESULT * i : RESULT * (i + 1)] for r in (mine, theirs))
        if a != b:
            v0, v1, v2, control, x1 = _TUPLE.unpack_from(batch, TUPLE * i)
            given = f"v0={_hex(v0)} v1={_hex(v1)} v2={_hex(v2)} x1={x1:x}"
            got, want = map(_result, (a, b))
            form = decode(word)
            assert form is not None
            yield (
                f"{word:08x} {text(form, word, CODE)} fpcr={control & M32:x}"
                f" nzcv={control >> 60:x} {given}: {got}, expected {want}"
            )


def _hex(v: bytes) -> str:
    return f"{int.from_bytes(v, 'little'):032x}"


def _result(r: bytes) -> str:
    v, x, flags = struct.unpack("<16sQQ", r)
    return f"v={_hex(v)} x={x:x} fpsr={flags & M32:x} nzcv={flags >> 60:x}"


def compare(
    cpus: Sequence[Unicorn | QemuUser], chosen: Sequence[Form], tuples: int, seed: int
) -> Iterator[tuple[str, Form, str]]:
    """Run `tuples` tuples of each form; a peer's name, the form and a line where one differs."""
    mine, source = Armkvm(), Operands(seed)
    for form in chosen:
        # A form's tuples do not depend on which other forms are compared.
        source.rng.seed(zlib.crc32(f"{seed} {form.name}".encode()))
        for start in range(0, tuples, BATCH):
            word = some_word(form, source.rng)
            batch = source.batch(min(BATCH, tuples - start))
            got = mine.run(word, batch)
            for cpu in cpus:
                for line in differences(word, batch, got, cpu.run(word, batch)):
                    yield cpu.name, form, line


def main() -> int:
    """The long run; 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tuples", type=int, default=10_000_000, help="of all forms together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="forms whose names begin so")
    parser.add_argument("--show", type=int, default=2, help="differences of a form and a peer")
    args = parser.parse_args()
    todo = [f for f in floating_point() if f.name.startswith(args.only)]
    each = -(-args.tuples // len(todo))
    found: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        cpus: list[Unicorn | QemuUser] = [Unicorn()]
        if all(map(shutil.which, QemuUser.PROGRAMS)):
            cpus.append(QemuUser(Path(folder)))
        for peer, form, line in compare(cpus, todo, each, args.seed):
            found[peer, form.name] += 1
            if found[peer, form.name] <= args.show:
                print(f"{peer}: {form.name}: {line}", flush=True)
        for cpu in cpus:
            cpu.close()
    print(f"{len(todo)} forms, {each} tuples each, against {', '.join(c.name for c in cpus)}:"
          f" {found.total()} differ")  # fmt: skip
    for (peer, name), n in found.items():
        print(f"  {peer}: {name}: {n}")
    return found.total() > 0


if __name__ == "__main__":
    sys.exit(main())
