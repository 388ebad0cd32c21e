"""The conformance guests: their machine code is their source assembled.

Run as a program, this file renews guests.hex from the sources.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from armkvm.conformance import guests

FOLDER = Path(guests.__file__).parent
ASSEMBLER = "aarch64-linux-gnu-as"


def assemble(source: str) -> dict[str, bytes]:
    """The code between the global labels of one source, by label."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "guests.o")
        subprocess.run([ASSEMBLER, "-I", FOLDER, "-o", out, FOLDER / source], check=True)
        with out.open("rb") as stream:
            elf = ELFFile(stream)
            text, table = (elf.get_section_by_name(name) for name in (".text", ".symtab"))
            assert text is not None
            assert isinstance(table, SymbolTableSection)
            code = text.data()
            symbols = sorted(
                (symbol["st_value"], symbol.name)
                for symbol in table.iter_symbols()
                if symbol["st_info"]["bind"] == "STB_GLOBAL"
            )
    ends = [value for value, _ in symbols[1:]] + [len(code)]
    return {name: code[start:end] for (start, name), end in zip(symbols, ends, strict=True)}


def assemble_all() -> dict[str, bytes]:
    return {name: code for source in guests.SOURCES for name, code in assemble(source).items()}


def test_the_words_are_the_source_assembled(oracle: Callable[[str], str | None]) -> None:
    if oracle(ASSEMBLER):
        assert guests.programs() == assemble_all()


def test_the_text_is_what_it_renders_to() -> None:
    found = guests.programs()
    assert guests.parse(guests.render(found)) == found
    assert (FOLDER / guests.NAME).read_text() == guests.render(found)


def test_every_guest_begins_alike_and_fits_below_its_vectors() -> None:
    found = dict(guests.programs())
    vectors = found.pop("vectors")
    # 16 entries of 128 bytes and the IRQ handler behind them.
    assert 0x800 < len(vectors) < 0x1000
    prologue = found["bare"][:24]
    for name, code in found.items():
        assert code.startswith(prologue), name
        assert len(code) <= 0x2000, name


if __name__ == "__main__":
    if shutil.which(ASSEMBLER) is None:
        raise SystemExit("needs binutils-aarch64-linux-gnu")
    (FOLDER / guests.NAME).write_text(guests.render(assemble_all()))
