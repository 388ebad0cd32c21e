"""What binutils makes of instruction words."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path


def disassembled(objdump: str, folder: Path, words: list[int]) -> Iterator[tuple[int, str]]:
    """Each word with objdump's text for it; the first is at address 0."""
    image = folder / "words"
    image.write_bytes(struct.pack(f"<{len(words)}I", *words))
    command = [objdump, "-b", "binary", "-m", "aarch64", "-D", "-z", str(image)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^ *[0-9a-f]+:\t([0-9a-f]{8}) \t(.*)$", out, re.MULTILINE)
    assert len(lines) == len(words)
    for word, text in lines:
        yield int(word, 16), text
