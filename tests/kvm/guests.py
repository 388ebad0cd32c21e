"""The guests of guests.S as code: assembled once, kept as words in guests.hex.

``python -m tests.kvm.guests`` assembles again; test_ground_truth.py checks that the words are
those of the source where binutils is installed.
"""

from __future__ import annotations

import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).parent
SOURCE = HERE / "guests.S"
WORDS = HERE / "guests.hex"
ASSEMBLER = "aarch64-linux-gnu-as"


def assemble(assembler: str = ASSEMBLER) -> dict[str, bytes]:
    """The code of each guest by name, from the source."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "guests.o"
        subprocess.run([assembler, "-o", str(output), str(SOURCE)], check=True)
        with output.open("rb") as stream:
            elf: Any = ELFFile(stream)
            code = elf.get_section_by_name(".text").data()
            symbols = sorted(
                (symbol["st_value"], symbol.name)
                for symbol in elf.get_section_by_name(".symtab").iter_symbols()
                if symbol["st_info"]["bind"] == "STB_GLOBAL"
            )
    return {name: code[start:end] for (start, name), (end, _) in pairwise(symbols)}


def load() -> dict[str, bytes]:
    """The code of each guest by name, from guests.hex."""
    guests = {}
    for line in WORDS.read_text().splitlines():
        name, words = line.split(": ")
        guests[name] = b"".join(int(w, 16).to_bytes(4, "little") for w in words.split())
    return guests


def text(guests: dict[str, bytes]) -> str:
    """The contents of guests.hex: a guest a line, words in hexadecimal."""
    lines = []
    for name, code in guests.items():
        words = (code[i : i + 4] for i in range(0, len(code), 4))
        hex_words = " ".join(f"{int.from_bytes(w, 'little'):08x}" for w in words)
        lines.append(f"{name}: {hex_words}\n")
    return "".join(lines)


if __name__ == "__main__":
    WORDS.write_text(text(assemble()))
