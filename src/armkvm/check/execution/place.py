"""Where a stack of Python frames stands, as a value that is the same whenever it is the same place.

That is half of an execution's state: the other half is what objects hold (snapshot.py). A frame
stands at an instruction, with values in its local variables; those of plain types count, and the
numbers of what is numbered. Frames of the checker's own machinery say how we got here, not where
here is, and are left out.
"""

from __future__ import annotations

import dis
import sys
from types import CodeType
from typing import Any

MACHINERY = {__file__}  # files whose frames are left out
BOTTOM: set[CodeType] = set()  # below is whoever explores

_SIMPLE = (int, str, bytes, type(None))
# Local variables that hold a moment for statistics: nothing depends on them.
_MOMENTS = frozenset(("began",))
_instructions: dict[int, tuple[CodeType, list[int]]] = {}


Frame = tuple[int, int, tuple[object, ...]]  # code, instruction, values


def position() -> tuple[Frame, ...]:
    """Where the caller's stack is, with the simple values that its frames hold."""
    frame: Any = sys._getframe(1)
    found: list[Frame] = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename not in MACHINERY:
            at = instruction(code, frame.f_lasti)
            found.append((id(code), at, tuple(simple(frame.f_locals))))
        elif code in BOTTOM:
            break
        frame = frame.f_back
    return tuple(found)


def stands(position: tuple[Frame, ...]) -> int:
    """The place alone, whatever the values."""
    return hash(tuple([(code, at) for code, at, _values in position]))


def simple(names: dict[str, Any]) -> list[object]:
    """Values of plain types, and numbers of what is numbered."""
    found: list[object] = []
    for name, value in names.items():
        if isinstance(value, _SIMPLE):
            if name not in _MOMENTS:
                found.append(value)
        elif isinstance(value, (tuple, list)):
            found.extend(v for v in value if isinstance(v, _SIMPLE))
        else:
            number = getattr(value, "number", None)
            if number is None:
                number = getattr(value, "vcpu_id", None)
            if number.__class__ is int:
                found.append(number)
    return found


def instruction(code: CodeType, lasti: int) -> int:
    """The instruction that `f_lasti` means.

    During a call it stands at the call, at PRECALL before it (Python 3.11) or in the call's inline
    cache, by how often the interpreter has made that call before.
    """
    known = _instructions.get(id(code))
    if known is None or known[0] is not code:
        known = _instructions[id(code)] = code, _table(code)
    return known[1][lasti >> 1]


def _table(code: CodeType) -> list[int]:
    """For each unit of code, where the instruction begins that it belongs to."""
    table = [0] * (len(code.co_code) // 2)
    for found in dis.get_instructions(code):
        table[found.offset // 2 :] = [found.offset] * (len(table) - found.offset // 2)
        if found.opname == "CALL":
            for unit in range(found.offset // 2 - 1, -1, -1):
                if code.co_code[table[unit]] != dis.opmap.get("PRECALL"):
                    break
                table[unit] = found.offset
    return table
