"""The loadable parts of an ELF file for AArch64.

Mirrors the ELF specification's program header: segments are loaded by their physical addresses
(p_paddr), and e_entry, a virtual address, is translated by the segment that it lies in. Only the
headers are parsed, with pyelftools' layouts, and no byte is copied: a file may have tens of
thousands of headers over the same bytes. Left out: relocation, sections, symbols.
"""

import io
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

from armkvm.vmm.errors import GuestError
from armkvm.vmm.guest.unpack import Data

EHDR_SIZE, PHDR_SIZE = 64, 56
PN_XNUM = 0xFFFF  # the number of program headers is elsewhere: more than anybody has

Part = tuple[int, memoryview, int]  # address, bytes, size in memory


class Load(NamedTuple):
    """A program header of type PT_LOAD, by the specification's names without p_."""

    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


def parts(data: Data) -> tuple[list[Part], int]:
    """The parts and the physical address of the entry point. Raises GuestError."""
    loads, entry = _headers(data)
    if not loads:
        raise GuestError("the kernel is an ELF file that has nothing to load (an object file?)")
    for load in loads:
        if load.offset + load.filesz > len(data):
            raise GuestError("the kernel is a truncated ELF file")
        if load.filesz > load.memsz:
            raise GuestError("the kernel is a damaged ELF file: a segment is larger than its place")
        if load.paddr >= 1 << 48:
            raise GuestError(
                "the kernel is an ELF file with virtual addresses (a vmlinux): take the Image "
                "that was built from it"
            )
    whole = memoryview(data)
    found = [(x.paddr, whole[x.offset : x.offset + x.filesz], x.memsz) for x in loads]
    # The machine starts with the MMU off.
    for load in loads:
        if load.vaddr <= entry < load.vaddr + load.memsz:
            return found, entry - load.vaddr + load.paddr
    raise GuestError(f"the kernel's ELF entry point {entry:#x} lies in none of its segments")


def _headers(data: Data) -> tuple[list[Load], int]:
    """The program headers of what is loaded, and the entry point."""
    if len(data) < EHDR_SIZE:
        raise GuestError("the kernel is a truncated ELF file")
    if (data[4], data[5]) != (2, 1):  # EI_CLASS, EI_DATA
        raise GuestError("the kernel is an ELF file, but not for little-endian AArch64")
    try:
        structs = ELFStructs(little_endian=True, elfclass=64)
        structs.create_basic_structs()
        structs.create_advanced_structs()
        head = struct_parse(structs.Elf_Ehdr, io.BytesIO(bytes(data[:EHDR_SIZE])))
        if head["e_machine"] != "EM_AARCH64":
            raise GuestError("the kernel is an ELF file, but not for little-endian AArch64")
        count, first = head["e_phnum"], head["e_phoff"]
        if count and (head["e_phentsize"] != PHDR_SIZE or count == PN_XNUM):
            raise GuestError("the kernel is a damaged ELF file: bad program headers")
        table = io.BytesIO(bytes(data[first : first + count * PHDR_SIZE]))
        headers = (struct_parse(structs.Elf_Phdr, table) for _ in range(count))
        loads = [
            Load(*(header["p_" + name] for name in Load._fields))
            for header in headers
            if header["p_type"] == "PT_LOAD" and header["p_memsz"]
        ]
    except ELFError as error:
        raise GuestError(f"the kernel is a damaged ELF file: {error}") from None
    return loads, int(head["e_entry"])
