"""Guest programs: every .hex file is the .S file beside it, assembled.

Run as a program (``python -m tests.client.test_machine_code``), this file renews them all; a new
one begins as an empty .hex file.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

import armkvm
from armkvm.client.machine_code import WHOLE, read

ASSEMBLER = "aarch64-linux-gnu-as"
TESTS = Path(__file__).parents[1]
FOLDERS = (Path(armkvm.__file__).parent, TESTS)
SOURCES = sorted(path.with_suffix(".S") for folder in FOLDERS for path in folder.rglob("*.hex"))
ITEMS_A_LINE, REPEATED = 8, 4


def assemble(source: Path) -> dict[str, bytes]:
    """The code between the global labels of a source, by label."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "guest.o")
        subprocess.run([ASSEMBLER, "-I", source.parent, "-o", out, source], check=True)
        with out.open("rb") as stream:
            elf = ELFFile(stream)
            # There is no linker: all is in one section, and it is finished.
            assert elf.get_section_by_name(".rela.text") is None
            sections = {section.name: section for section in elf.iter_sections()}
            assert sections[".data"].data_size == sections[".bss"].data_size == 0
            text, table = sections[".text"], sections[".symtab"]
            assert isinstance(table, SymbolTableSection)
            code: bytes = text.data()
            symbols = sorted(
                (int(symbol["st_value"]), str(symbol.name))
                for symbol in table.iter_symbols()
                if symbol["st_info"]["bind"] == "STB_GLOBAL"
            )
    symbols = symbols or [(0, WHOLE)]
    assert symbols[0][0] == 0
    ends = [value for value, _ in symbols[1:]] + [len(code)]
    return {name: code[start:end] for (start, name), end in zip(symbols, ends, strict=True)}


def render(programs: dict[str, bytes]) -> str:
    """The text of a .hex file."""
    lines = []
    for name, code in programs.items():
        if name != WHOLE:
            lines.append(f"{name}:")
        items = list(_items(code))
        lines += [" ".join(items[i : i + ITEMS_A_LINE]) for i in range(0, len(items), ITEMS_A_LINE)]
    return "\n".join(lines) + "\n"


def _items(code: bytes) -> Iterator[str]:
    assert len(code) % 4 == 0
    words = (f"{int.from_bytes(code[i : i + 4], 'little'):08x}" for i in range(0, len(code), 4))
    for word, same in groupby(words):
        count = len(list(same))
        yield from [f"{word}*{count}"] if count > REPEATED else [word] * count


def test_every_code_has_its_source() -> None:
    assert len(SOURCES) >= 10
    assert [path for path in SOURCES if not path.exists()] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_words_are_the_source_assembled(
    source: Path, oracle: Callable[[str], str | None]
) -> None:
    programs = read(source.with_suffix(".hex"))
    assert source.with_suffix(".hex").read_text() == render(programs)
    if oracle(ASSEMBLER):
        assert programs == assemble(source)


def test_what_the_text_says(tmp_path: Path) -> None:
    file = tmp_path / "x.hex"
    file.write_text("first:\nd503201f*3 1\nsecond:\n00000002\n")
    nop = bytes.fromhex("1f2003d5")
    assert read(file) == {"first": nop * 3 + b"\1\0\0\0", "second": b"\2\0\0\0"}
    file.write_text("d503201f\n")
    assert read(file) == {WHOLE: nop}


if __name__ == "__main__":
    if shutil.which(ASSEMBLER) is None:
        raise SystemExit("needs binutils-aarch64-linux-gnu")
    for path in SOURCES:
        path.with_suffix(".hex").write_text(render(assemble(path)))
