"""Disassemble A64 instructions: files of machine code, or words in hexadecimal.

A word is written as a number, d503201f or 0xd503201f. Of an ELF file the executable segments are
shown at their own addresses; any other file is taken as machine code from --base on.
"""

import argparse
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from armkvm.cli.main import UsageError
from armkvm.cli.sizes import code_address
from armkvm.vmm.guest.loader import read

WORD = re.compile(r"(0[xX])?[0-9a-fA-F]{1,8}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm dis``."""
    parser.add_argument("what", nargs="+", metavar="FILE|HEX")
    parser.add_argument(
        "--base",
        type=code_address,
        default=0,
        metavar="ADDR",
        help="address of the first instruction",
    )


def run(args: argparse.Namespace) -> int:
    """Print a line per instruction."""
    from armkvm.isa.disasm import disassemble

    out = sys.stdout
    for address, word in _words(args.what, args.base):
        text = disassemble(word, address) or f".inst 0x{word:08x}"
        out.write(f"{address:16x}:  {word:08x}  {text}\n")
    return 0


def _words(what: list[str], base: int) -> Iterator[tuple[int, int]]:
    address = base
    for item in what:
        if Path(item).exists():
            for start, code in _code(read(item, "file"), address):
                address = start
                for at in range(0, len(code) - 3, 4):
                    yield address, int.from_bytes(code[at : at + 4], "little")
                    address += 4
                if tail := code[len(code) & ~3 :]:
                    yield address, int.from_bytes(tail, "little")
                    address += 4
        elif WORD.fullmatch(item):
            yield address, int(item, 16)
            address += 4
        else:
            raise UsageError(f"{item!r} is neither a file nor a 32-bit word in hexadecimal")


def _code(data: bytearray, base: int) -> Iterator[tuple[int, bytes | bytearray]]:
    if data[:4] != b"\x7fELF":
        yield base, data
        return
    from elftools.common.exceptions import ELFError
    from elftools.elf.constants import P_FLAGS
    from elftools.elf.elffile import ELFFile

    try:
        for segment in ELFFile(io.BytesIO(data)).iter_segments("PT_LOAD"):
            if segment["p_flags"] & P_FLAGS.PF_X:
                yield int(segment["p_vaddr"]), segment.data()
    except ELFError as error:
        raise UsageError(f"damaged ELF file: {error}") from None
