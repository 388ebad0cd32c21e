"""Guest programs: machine code that is kept beside its assembler source.

NAME.S is the source, NAME.hex what binutils makes of it, so that nobody needs an assembler to run
it. The text: a heading ``label:`` before the code of each global label, none if there is no label;
then words of 32 bits in hexadecimal, as `armkvm dis` takes them; ``WORD*N`` stands for N of them.
tests/client/test_machine_code.py holds every pair together and, run as a program, renews them.
"""

from importlib.resources.abc import Traversable

WHOLE = ""  # the name of the program of a source without global labels


def read(file: Traversable) -> dict[str, bytes]:
    """Machine code by label."""
    found: dict[str, bytearray] = {}
    label = WHOLE
    for line in file.read_text("ascii").splitlines():
        if line.endswith(":"):
            label = line[:-1]
            continue
        code = found.setdefault(label, bytearray())
        for item in line.split():
            word, _, count = item.partition("*")
            code += int(word, 16).to_bytes(4, "little") * int(count or 1)
    return {name: bytes(code) for name, code in found.items()}


def program(file: Traversable) -> bytearray:
    """The one program of a source without labels, to be changed as its reader wants."""
    return bytearray(read(file)[WHOLE])
