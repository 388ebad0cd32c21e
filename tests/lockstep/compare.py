"""Run one guest on two CPUs and find the first instruction at which they differ.

    python -m tests.lockstep.compare KERNEL [--every N] [--until N]
    make lockstep                               # Debian's kernel, from boot to power-off

Both machines stop at the same instruction counts; there registers, system registers, timers,
exits and console are compared, and memory now and then. A waiting fork of the process, made at
the last count where all was equal, then repeats the stretch in smaller steps, and forks in its
turn, down to one instruction.

What unicorn 2.1.4 (QEMU 5.0) does not do, so that a guest which depends on it differs; the engine
follows the manual. Stack and PC alignment faults; alignment faults of Device memory and of
Load-Acquire and Store-Release; traps by CPACR_EL1.FPEN; faults of cache maintenance by address;
the permission of a compare-and-swap whose comparison fails. Two things are the implementation's
choice: whether a store, or a load of several vectors, that faults half-way has done its first
half, and whether a Store-Exclusive that fails anyway faults. tests/oracle/known.py has single
instructions.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.lockstep.machine import SteppedMachine
from tests.lockstep.unicorn_cpu import UnicornBackend, UnicornCpu

from armkvm.arch.sysreg import STORED
from armkvm.host.cpu import Backend, EngineBackend
from armkvm.isa.disasm import disassemble
from armkvm.vmm.board import RAM_BASE
from armkvm.vmm.guest import bare, loader
from armkvm.vmm.guest.debian import fetch
from armkvm.vmm.guest.initramfs import BATCH, default_initramfs

SMALLER = 16  # how much the step shrinks from one fork to the next
# Memory is compared, and the process forked, every so many steps and instructions.
WINDOW_STEPS, WINDOW = 64, 1 << 24
PAGE = 4096
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_REGISTERS = [r.field for r in STORED]
_TIMERS = ["cntv_ctl", "cntv_cval", "cntp_ctl", "cntp_cval", "cntvoff", "hcr_vi", "hcr_vf"]
_OTHERS = ["pc", "fpcr", "fpsr", *_TIMERS, *_REGISTERS]


class Pair:
    """The engine's machine and the second CPU's, with the same guest."""

    def __init__(
        self, image: loader.Image, params: str = "", mem_bytes: int = 256 << 20,
        backends: tuple[Backend, Backend] | None = None,
    ) -> None:  # fmt: skip
        ours, theirs = backends or (EngineBackend(), UnicornBackend())
        self.ours = SteppedMachine(ours, image, params, mem_bytes)
        self.theirs = SteppedMachine(theirs, image, params, mem_bytes)
        self.size = mem_bytes
        # Kept alive: a buffer that is exported cannot move.
        self._views = [ctypes.c_char.from_buffer(m.memory) for m in (self.ours, self.theirs)]

    @property
    def ended(self) -> bool:
        """Either guest has ended."""
        return self.ours.outcome is not None or self.theirs.outcome is not None

    def advance(self, count: int) -> None:
        """Both to an instruction count, or to the end of the guest."""
        self.ours.advance(count)
        self.theirs.advance(count)

    def differences(self, *, memory: bool) -> list[str]:
        """What differs now, one line each."""
        a, b = self.ours, self.theirs
        out = list(_compare(a, b))
        if memory:
            out += self._memory_differences()
        return out

    def _memory_differences(self) -> Iterator[str]:
        at = [ctypes.addressof(v) for v in self._views]
        if _memcmp(at[0], at[1], self.size) == 0:
            return
        pages = [
            page for page in range(0, self.size, PAGE)
            if _memcmp(at[0] + page, at[1] + page, PAGE)
        ]  # fmt: skip
        first = pages[0]
        mine, other = (ctypes.string_at(base + first, PAGE) for base in at)
        offset = next(i for i in range(0, PAGE, 8) if mine[i : i + 8] != other[i : i + 8])
        word, wrong = (m[offset : offset + 8][::-1].hex() for m in (mine, other))
        yield (f"memory differs in {len(pages)} pages, first at {RAM_BASE + first + offset:#x}: "
               f"{word}, unicorn {wrong}")  # fmt: skip

    def close(self) -> None:
        """Give the machines back."""
        for machine in (self.ours, self.theirs):
            machine.close()
            machine.system.close()


def _compare(a: SteppedMachine, b: SteppedMachine) -> Iterator[str]:
    mine: Any = a.vcpu.state
    other: Any = b.vcpu.state

    def line(name: str, x: int, y: int) -> str:
        return f"{name}: {x:#x}, unicorn {y:#x}"

    if a.vcpu.instructions != b.vcpu.instructions:
        yield line("instructions", a.vcpu.instructions, b.vcpu.instructions)
    if a.outcome != b.outcome:
        yield f"end: {a.outcome}, unicorn {b.outcome}"
    if a.output.output != b.output.output:
        yield f"console: {bytes(a.output.output[-80:])!r}, unicorn {bytes(b.output.output[-80:])!r}"
    for name in _OTHERS:
        x, y = getattr(mine, name), getattr(other, name)
        if x != y:
            yield line(name, x, y)
    if bytes(mine.x) != bytes(other.x):
        for i in range(31):
            if mine.x[i] != other.x[i]:
                yield line(f"x{i}", mine.x[i], other.x[i])
    for name in ("sp_el0", "sp_el1", "pstate"):
        x, y = getattr(a.vcpu.cpu, name), getattr(b.vcpu.cpu, name)
        if x != y:
            yield line(name, x, y)
    if bytes(mine.v) != bytes(other.v):
        for i in range(32):
            x, y = a.vcpu.cpu.get_v(i), b.vcpu.cpu.get_v(i)
            if x != y:
                yield line(f"v{i}", x, y)
    exits = a.vcpu.stat.as_dict(), b.vcpu.stat.as_dict()
    if exits[0] != exits[1]:
        yield f"exits: {exits[0]}, unicorn {exits[1]}"
    if a.system.clock.now() != b.system.clock.now():
        yield line("time", a.system.clock.now(), b.system.clock.now())


class Snapshot:
    """A fork of this process that waits; `finish` makes it run a function and gives the result."""

    def __init__(self, work: Callable[[], str]) -> None:
        go_read, self._go = os.pipe()
        self._result, result_write = os.pipe()
        sys.stdout.flush()
        with warnings.catch_warnings():
            # Other threads (of a test runner) may exist; the child needs none of what they hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid:
            os.close(go_read)
            os.close(result_write)
            return
        code = 1
        try:
            os.close(self._go)
            os.close(self._result)
            if os.read(go_read, 1):
                with os.fdopen(result_write, "w") as out:
                    out.write(work())
            code = 0
        finally:
            os._exit(code)

    def finish(self) -> str:
        """Run the function in the past, and return what it returns."""
        os.write(self._go, b"x")
        with os.fdopen(self._result) as result:
            text = result.read()
        os.close(self._go)
        os.waitpid(self._pid, 0)
        return text

    def drop(self) -> None:
        """The past is not needed any more."""
        os.close(self._go)
        os.close(self._result)
        os.waitpid(self._pid, 0)


def lockstep(
    pair: Pair, *, every: int, until: int, progress: Callable[[], None] | None = None
) -> str:
    """Run both to `until`, or to the guest's end; "" if they never differ, else a report."""
    while not pair.ended and pair.ours.vcpu.instructions < until:
        start = pair.ours.vcpu.instructions
        stop = min(start + every * max(WINDOW_STEPS, WINDOW // every), until)
        snapshot = Snapshot(lambda a=start, b=stop: _bisect(pair, a, b, every))  # type: ignore[misc]
        found = False
        while start < stop and not found and not pair.ended:
            start = min(start + every, stop)
            pair.advance(start)
            found = bool(pair.differences(memory=start == stop or pair.ended))
            if progress is not None:
                progress()
        if found:
            return snapshot.finish()
        snapshot.drop()
    return ""


def _bisect(pair: Pair, start: int, stop: int, every: int) -> str:
    """All is equal at `start` and not at `stop`: go there in smaller and smaller steps."""
    while True:
        step = max(1, min(every, (stop - start) // SMALLER))
        at = start
        while at < stop:
            snapshot = None
            after = min(at + step, stop)
            if step > 1:
                work: Any = lambda a=at, b=after, s=step: _bisect(pair, a, b, s)  # noqa: E731
                snapshot = Snapshot(work)
            else:
                before = _where(pair)
            pair.advance(after)
            found = pair.differences(memory=True)
            if found:
                if snapshot is not None:
                    return snapshot.finish()
                return "\n".join([f"equal at {at} instructions, before {before}", *found])
            if snapshot is not None:
                snapshot.drop()
            at = after
        if pair.ended or step == 1:
            return f"a difference between {start} and {stop} went away when it was repeated"
        return f"a difference between {start} and {stop} was not there in smaller steps"


def _where(pair: Pair) -> str:
    """PC and instruction that the machines are about to execute."""
    pc = pair.ours.vcpu.state.pc
    cpu = pair.theirs.vcpu.cpu
    assert isinstance(cpu, UnicornCpu)
    word = cpu.word(pc)
    text = "no memory" if word is None else f"{word:08x} {disassemble(word, pc) or 'undefined'}"
    return f"PC {pc:#x}: {text}"


def guest(
    kernel: str | None, mem_bytes: int, ramdisk: bytes | bytearray | None = None
) -> loader.Image:
    """The image to load: a kernel, or the built-in bare-metal guest."""
    if kernel is None:
        return loader.load(bare.program(), mem_bytes=mem_bytes, flat=True)
    data = loader.read(kernel, "kernel")
    return loader.load(data, ramdisk, mem_bytes=mem_bytes)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lockstep.compare",
        description="Run one guest on two CPUs and find the first instruction where they differ.",
    )

    def number(text: str) -> int:
        return int(float(text))

    add = parser.add_argument
    add("kernel", nargs="?", help="default: the built-in bare-metal guest")
    add("--debian", action="store_true", help="Debian's kernel and busybox, fetched once")
    add("--initrd")
    add("--batch", metavar="FILE", help="with --debian: shell lines to run in the guest")
    add("--params", default="earlycon=pl011,0x9000000 console=ttyAMA0 panic=-1")
    add("--mem", type=int, default=256, metavar="MIB")
    add("--every", type=number, default=1_000_000, metavar="N", help="instructions (1e6)")
    add("--until", type=number, default=10**12, metavar="N", help="default: the guest's end")
    return parser


def _image(args: argparse.Namespace) -> loader.Image:
    kernel = args.kernel
    ramdisk: bytes | bytearray | None = None
    if args.initrd is not None:
        ramdisk = loader.read(args.initrd, "initrd")
    if args.debian:
        debian = fetch()
        kernel = str(debian.kernel)
        batch = BATCH if args.batch is None else Path(args.batch).read_text()
        ramdisk = default_initramfs(debian.busybox.read_bytes(), batch)
    return guest(kernel, args.mem << 20, ramdisk)


def main(argv: list[str] | None = None) -> int:
    """The command; 0 when the two never differed."""
    args = _arguments().parse_args(argv)
    pair = Pair(_image(args), args.params, args.mem << 20)
    shown = 0

    def progress() -> None:
        nonlocal shown
        output = pair.ours.output.output
        print(output[shown:].decode("utf-8", "replace"), end="", flush=True)
        shown = len(output)

    report = lockstep(pair, every=args.every, until=args.until, progress=progress)
    digest = hashlib.sha256(pair.ours.memory).hexdigest()[:16]
    end = pair.ours.outcome.reason if pair.ours.outcome else "stopped"
    print(f"\n{pair.ours.vcpu.instructions} instructions, {end}, memory {digest}")
    print(report or "no difference")
    return 1 if report else 0


if __name__ == "__main__":
    raise SystemExit(main())
