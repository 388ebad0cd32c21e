"""An arm64 program with the shim in it.

Every SVC #0 in a program's code becomes a branch to a stub of its own, behind the program's last
page. A stub looks at the number of the system call, in x8, without touching anything else: those
that may concern KVM go to the shim, the others are made on the spot. So it does not matter which
libc a program has, or whether it has one; a dynamic program's libc is changed in the same way. Code
that is generated at run time is not seen.

The file keeps its layout. The new segments lie in the file where they lie in memory, relative to
the first one, and the program headers move there with them: then AT_PHDR is right on every kernel.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from importlib import resources
from io import BytesIO
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

_SVC = 0xD400_0001
# Numbers (asm-generic/unistd.h) that come to the shim; CLONE without CLONE_VM only.
_CLONE = 220
HOOKED = (
    24,  # dup3
    29,  # ioctl
    48,  # faccessat
    56,  # openat
    57,  # close
    79,  # newfstatat
    167,  # prctl
    215,  # munmap
    216,  # mremap
    220,  # clone
    222,  # mmap
    233,  # madvise
    277,  # seccomp
    291,  # statx
    437,  # openat2
    439,  # faccessat2
)
_CLONE_VM_BIT = 8
_PAGE = 0x1_0000  # the largest page of an arm64 kernel
_BSS = 0x3_0000  # bytes of the shim's variables, in whole pages
_REACH = 1 << 27  # bytes that a branch goes at most
_PT_LOAD, _PT_INTERP, _PT_PHDR, _R, _W, _X = 1, 3, 6, 4, 2, 1
_PHDR = struct.Struct("<IIQQQQQQ")


class _Phdr(NamedTuple):
    """Elf64_Phdr."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


def shim() -> bytes:
    """Its code."""
    folder = resources.files(__name__.rpartition(".")[0]) / "shim"
    return (folder / "shim.bin").read_bytes()


def fingerprint() -> bytes:
    """Of all that comes into a program: a changed one is kept by what it is made from."""
    return hashlib.sha256(shim() + _Stubs(0).stub(0, 0, 0)).digest()


class ProgramError(Exception):
    """It is no arm64 program, or none that can take the shim; one line."""


def is_dynamic(program: bytes) -> bool:
    """It has an interpreter. ProgramError."""
    return any(h.type == _PT_INTERP for h in _headers(program))


def with_shim(program: bytes) -> bytes:
    """The program, or shared library, with every system call hooked. ProgramError."""
    headers = _headers(program)
    loads = [h for h in headers if h.type == _PT_LOAD]
    bias = loads[0].vaddr - loads[0].offset
    sites = [*_sites(program, loads)]
    top = max(h.vaddr + h.memsz for h in loads)
    base = -(-max(top, bias + len(program)) // _PAGE) * _PAGE  # of the headers, then the stubs
    if base - loads[0].vaddr >= _REACH or base - bias >= _REACH:
        raise ProgramError("it is too large for branches to the shim")
    table = _PHDR.size * (len(headers) + 2)
    stubs = _Stubs(base + -(-table // 16) * 16)
    place = -(-(stubs.start + len(sites) * stubs.size) // _PAGE) * _PAGE
    text = shim()
    if place + len(text) - loads[0].vaddr >= _REACH:
        raise ProgramError("it is too large for branches to the shim")
    out = bytearray(program)
    code = b"".join(stubs.stub(n, va, place) for n, (_, va) in enumerate(sites))
    for n, (offset, va) in enumerate(sites):
        struct.pack_into("<I", out, offset, _branch(va, stubs.address(n)))
    size = place - base + len(text)
    added = [
        _Phdr(_PT_LOAD, _R | _X, base - bias, base, base, size, size, _PAGE),
        _Phdr(_PT_LOAD, _R | _W, 0, place + _PAGE, place + _PAGE, 0, _BSS, _PAGE),
    ]
    moved = [
        _Phdr(h.type, h.flags, base - bias, base, base, table, table, h.align)
        if h.type == _PT_PHDR
        else h
        for h in headers
    ]
    segment = b"".join(_PHDR.pack(*h) for h in [*moved, *added])
    segment = segment.ljust(stubs.start - base, b"\0") + code
    out = out.ljust(base - bias, b"\0") + segment.ljust(place - base, b"\0") + text
    struct.pack_into("<Q", out, 32, base - bias)  # e_phoff
    struct.pack_into("<H", out, 56, len(headers) + 2)  # e_phnum
    return bytes(out)


def _headers(program: bytes) -> list[_Phdr]:
    """The program headers of a file that can be loaded."""
    try:
        elf = ELFFile(BytesIO(program))
        at, size, count = elf["e_phoff"], elf["e_phentsize"], elf["e_phnum"]
    except (ELFError, struct.error, ValueError, OverflowError, UnicodeDecodeError):
        raise ProgramError("it is no ELF file") from None
    if elf.elfclass != 64 or not elf.little_endian or elf["e_machine"] != "EM_AARCH64":
        raise ProgramError("it is no arm64 program")
    if elf["e_type"] not in ("ET_EXEC", "ET_DYN") or size != _PHDR.size:
        raise ProgramError("it is no executable file")
    if at + count * size > len(program):
        raise ProgramError("its program headers are cut off")
    headers = [_Phdr._make(_PHDR.unpack_from(program, at + n * size)) for n in range(count)]
    loads = [h for h in headers if h.type == _PT_LOAD]
    if not loads:
        raise ProgramError("nothing of it is loaded")
    end = 0
    for h in loads:
        if h.offset + h.filesz > len(program):
            raise ProgramError("it is cut off")
        if h.vaddr < max(end, h.offset) or h.memsz < h.filesz or h.vaddr + h.memsz >> 48:
            raise ProgramError("its segments make no sense")
        end = h.vaddr + h.memsz
    return headers


def _sites(program: bytes, loads: Iterable[_Phdr]) -> Iterator[tuple[int, int]]:
    """(offset in the file, address) of every SVC #0."""
    wanted = _SVC.to_bytes(4, "little")
    for h in loads:
        if not h.flags & _X:
            continue
        at = program.find(wanted, h.offset, h.offset + h.filesz)
        while at >= 0:
            if not (at - h.offset + h.vaddr) & 3:
                yield at, at - h.offset + h.vaddr
            at = program.find(wanted, at + 1, h.offset + h.filesz)


def _branch(source: int, target: int, *, link: bool = False) -> int:
    return (0x9400_0000 if link else 0x1400_0000) | ((target - source) >> 2) & 0x3FF_FFFF


class _Stubs:
    """The stubs, one behind the other from `start`, all of one size."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.size = 4 * len(self._words(start, start, start))

    def address(self, n: int) -> int:
        """Where the nth one is."""
        return self.start + n * self.size

    def stub(self, n: int, site: int, shim: int) -> bytes:
        """The nth one, for the SVC at an address."""
        words = self._words(self.address(n), site, shim)
        return struct.pack(f"<{len(words)}I", *words)

    @staticmethod
    def _words(at: int, site: int, shim: int) -> list[int]:
        """x8 counts down to zero at the number that it is, and gets its value again."""
        words: list[int] = []
        exits: list[tuple[int, int]] = []  # where a CBZ is, for which number
        before = 0
        for number in HOOKED:
            words.append(0xD100_0108 | (number - before) << 10)  # sub x8, x8, #imm
            exits.append((len(words), number))
            words.append(0)
            before = number
        words.append(0x9100_0108 | before << 10)  # add x8, x8, #imm
        plain = len(words)
        words += [_SVC, _branch(at + 4 * (plain + 1), site + 4)]
        hooked = len(words) + 2 * len(HOOKED) + 1
        for where, number in exits:
            words[where] = 0xB400_0008 | (len(words) - where) << 5  # cbz x8
            words.append(0x9100_0108 | number << 10)  # add x8, x8, #imm
            if number == _CLONE:  # a thread begins on another stack: not from within the shim
                back = (plain - len(words)) & 0x3FFF
                words.append(0x3700_0000 | _CLONE_VM_BIT << 19 | back << 5)  # tbnz x0
            words.append(_branch(4 * len(words), 4 * hooked))
        words += [
            0xA9BF_7BFD,  # stp x29, x30, [sp, #-16]!
            _branch(at + 4 * (hooked + 1), shim, link=True),
            0xA8C1_7BFD,  # ldp x29, x30, [sp], #16
            _branch(at + 4 * (hooked + 3), site + 4),
        ]
        return words
