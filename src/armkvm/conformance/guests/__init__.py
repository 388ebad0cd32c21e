"""The guests: small programs in assembler that make KVM answer.

The ``.S`` files are the source; ``guests.hex`` holds the same as machine code, so that nobody needs
an assembler to run them. A guest is a heading ``name:`` and its instructions as words in
hexadecimal. tests/conformance/test_guests.py holds the two together and, run as a program, renews
the second from the first.
"""

from functools import cache
from importlib import resources

NAME = "guests.hex"
SOURCES = ("vectors.S", "timers.S", "waiting.S", "exits.S", "vgic.S")
WORDS_A_LINE = 8


@cache
def programs() -> dict[str, bytes]:
    """Machine code by the guest's name; ``vectors`` is what all of them share."""
    return parse(resources.files(__name__).joinpath(NAME).read_text("ascii"))


def parse(text: str) -> dict[str, bytes]:
    """What guests.hex holds."""
    found: dict[str, bytearray] = {}
    code = bytearray()
    for line in text.splitlines():
        if line.endswith(":"):
            code = found[line[:-1]] = bytearray()
        else:
            for word in line.split():
                code += int(word, 16).to_bytes(4, "little")
    return {name: bytes(code) for name, code in found.items()}


def render(guests: dict[str, bytes]) -> str:
    """The text of guests.hex."""
    lines = []
    for name, code in guests.items():
        lines.append(f"{name}:")
        words = [f"{int.from_bytes(code[i : i + 4], 'little'):08x}" for i in range(0, len(code), 4)]
        lines += [" ".join(words[i : i + WORDS_A_LINE]) for i in range(0, len(words), WORDS_A_LINE)]
    return "\n".join(lines) + "\n"
